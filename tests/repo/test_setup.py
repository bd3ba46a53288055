"""What the build refuses, and says; what an import says before there was a build."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REFUSED = ["-Ofast", "-ffinite-math-only", "-mrecip=all", "-march=native", "-fp-model=fast"]


@pytest.fixture
def tree(tmp_path):
    """What setup.py reads, without anything built."""
    tree = tmp_path / "a tree with späces"
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("src", "fastdrop"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    return tree


def in_tree(tree, *arguments, **environ):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FASTDROP_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=kept | environ,
        capture_output=True,
        text=True,
        timeout=120,
    )


def import_in_tree(tree, **environ):
    """Import the tree's fastdrop, whatever an editable installation has put on the way."""
    hooks = (
        "sys.meta_path = [hook for hook in sys.meta_path if 'editable' not in repr(hook).lower()]"
    )
    return in_tree(tree, "-c", f"import sys; {hooks}; import fastdrop", **environ)


def build(tree, **environ):
    pytest.importorskip("setuptools", minversion="77", reason="it builds")
    pytest.importorskip("Cython", reason="it builds")
    return in_tree(tree, "setup.py", "-q", "build_ext", **environ)


@pytest.mark.parametrize("flag", REFUSED)
def test_flags_that_change_results_are_refused(tree, flag):
    done = build(tree, CFLAGS=f"-g {flag}")
    assert done.returncode == 1
    assert f"fastdrop must not be built with {flag}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tree / "build").exists()


@pytest.mark.parametrize("variable", ["CC", "LDFLAGS"])
def test_flags_are_refused_wherever_they_stand(tree, variable):
    value = {"CC": "cc -Ofast", "LDFLAGS": "-Ofast"}[variable]
    assert "must not be built with -Ofast" in build(tree, **{variable: value}).stderr


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no compiler")
@pytest.mark.parametrize("flag", ["-ffast-math", "-ffinite-math-only", "-mavx"])
def test_the_compiler_refuses_them_too(flag, tmp_path):
    source = ROOT / "src" / "runtime" / "dispatch.c"
    command = ["cc", f"-I{ROOT / 'src'}", "-c", str(source), "-o", str(tmp_path / "dispatch.o")]
    plain = subprocess.run(command, capture_output=True, text=True)
    assert plain.returncode == 0, plain.stderr
    done = subprocess.run([*command, flag], capture_output=True, text=True)
    if "-mavx" in flag and "unrecognized" in done.stderr:
        pytest.skip("another architecture")
    assert done.returncode != 0
    assert "from CFLAGS" in done.stderr


def test_an_old_setuptools_is_named(tree, tmp_path):
    metadata = tmp_path / "old" / "setuptools-70.1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: setuptools\nVersion: 70.1\n")
    done = build(tree, PYTHONPATH=str(metadata.parent))
    assert done.returncode == 1
    assert "fastdrop needs setuptools 77 or newer to be built, found 70.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_package_is_named(tree, tmp_path):
    (tmp_path / "Cython.py").write_text("raise ModuleNotFoundError('gone', name='Cython')")
    done = build(tree, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "fastdrop needs Cython to be built, and it is not installed" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_build_waits_for_the_other(tree):
    pytest.importorskip("Cython", reason="it builds")
    with open(tree / "setup.py") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [sys.executable, "setup.py", "--version"],
            cwd=tree,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "waiting for another build of this tree to end" in waiting.stderr.readline()
        time.sleep(0.1)
        assert waiting.poll() is None
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert out.strip()


def test_import_before_a_build_says_what_to_do(tree):
    done = import_in_tree(tree)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"ImportError: fastdrop is not built in its source folder {tree}: run" in last
    assert "`python -m pip install -e .`" in last
    assert done.stderr.count("Traceback") == 1
    assert "circular import" not in done.stderr
    assert import_in_tree(tree, FASTDROP_BACKEND="numpy").returncode == 0


def test_import_without_kernels_for_this_python(tree):
    (tree / "fastdrop" / "_kernels.pyx").unlink()
    done = import_in_tree(tree)
    assert "has no compiled kernels for this Python" in done.stderr.splitlines()[-1]


def test_import_of_a_broken_module_names_the_cause(tree):
    (tree / "fastdrop" / "_kernels.abi3.so").write_text("no machine code")
    done = import_in_tree(tree)
    last = done.stderr.splitlines()[-1]
    assert "could not be loaded" in last
    assert "_kernels.abi3.so" in last
    assert done.stderr.count("Traceback") == 1
