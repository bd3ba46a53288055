"""The public doors to fastdrop.interop: late, and with the install line where a package lacks."""

import os
import subprocess
import sys

import pytest

import fastdrop

# Name of a door: the package that it needs, and the module that says whether it is there.
DOORS = {"dask": ("dask", "dask.array"), "mpi": ("mpi4py", "mpi4py"), "torch": ("torch", "torch")}


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


def test_every_door_is_listed_here():
    assert {name: package for name, (package, _) in DOORS.items()} == fastdrop._DOORS


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("use", ["fastdrop.{}", "import fastdrop.{}", "from fastdrop import {}"])
def test_a_missing_package_gives_the_install_line(door, use):
    code = (
        f"import sys; sys.modules[{DOORS[door][0]!r}] = None\n"
        "import fastdrop\n"
        f"assert {door!r} not in dir(fastdrop)\n"
        f"try:\n    {use.format(door)}\nexcept ImportError as error:\n    print(error)"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert f"fastdrop.{door} needs {DOORS[door][0]}" in done.stdout
    assert f"python -m pip install 'fastdrop-numpy[{door}]'" in done.stdout


@pytest.mark.parametrize("door", DOORS)
def test_a_broken_package_is_not_called_missing(door, tmp_path):
    package = tmp_path / DOORS[door][0]
    package.mkdir()
    (package / "__init__.py").write_text("import a_module_that_is_not_there\n")
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = run_python(f"import fastdrop; fastdrop.{door}", PYTHONPATH=paths)
    assert done.returncode == 1
    assert "a_module_that_is_not_there" in done.stderr


@pytest.mark.parametrize("door", DOORS)
def test_a_door_opens_when_it_is_used(door):
    package, probe = DOORS[door]
    pytest.importorskip(probe)
    code = (
        "import sys, fastdrop\n"
        f"assert {door!r} in dir(fastdrop) and {package!r} not in sys.modules\n"
        f"import fastdrop.{door} as imported\n"
        f"assert fastdrop.{door} is imported and {package!r} in sys.modules\n"
        f"from fastdrop.interop import {door} as inside\n"
        "assert all(getattr(imported, name) is getattr(inside, name) for name in inside.__all__)"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
