"""What a package costs before it computes anything: time to import, and place on the disk.

Importing is timed in processes of their own, with the byte code on disk as an installed package has
it. What is installed is the distribution with what it cannot be imported without, NumPy aside.
"""

import importlib.metadata
import importlib.util
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

from . import verify
from .cases import Bar, Case, Contender, Skipped
from .rivals import keras

__all__ = ["CASES"]

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "fastdrop"
SHIPPED = (".py", ".pyi", ".typed", ".so")
# Module to import, and the distributions that come with it.
OTHERS = {
    "numba": ("numba", "llvmlite"),
    "sklearn": ("scikit-learn", "scipy", "joblib", "threadpoolctl"),
    "jax": ("jax", "jaxlib", "ml_dtypes", "opt_einsum", "scipy"),
    "keras": ("keras", "h5py", "ml_dtypes", "optree", "rich"),
    "thinc": ("thinc", "blis", "cymem", "murmurhash", "preshed", "srsly", "pydantic", "confection"),
    "torch": ("torch", "sympy", "networkx", "jinja2", "filelock", "fsspec"),
}
NUMPY = "numpy"
MAX_WHEEL = 1 << 20


# --- Import ------------------------------------------------------------------------------------


def _import(size):
    environment = {"KERAS_BACKEND": keras.backend()} | {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }

    def contender(name, module, **more):
        code = f"import sys, numpy, {module}; print('{module}' in sys.modules)"
        command = [sys.executable, "-c", code]

        def run():
            done = subprocess.run(
                command,
                cwd=ROOT,
                check=True,
                capture_output=True,
                text=True,
                env=environment,
            )
            return done.stdout

        def check(text):
            verify.require(text.strip() == "True", f"the process printed {text!r}")

        return Contender(name, run, check, calls="subprocess.run", **more)

    made = [contender("fastdrop", "fastdrop"), contender(NUMPY, "numpy")]
    for module in OTHERS:
        if importlib.util.find_spec(module) is None:
            made.append(Skipped(module, f"{module} is not installed"))
        else:
            made.append(contender(module, module, slow=True))
    return made


# --- Place on the disk -------------------------------------------------------------------------


def shipped_files():
    """Return name and contents of the files that a wheel of fastdrop has, machine code stripped."""
    found = {}
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in SHIPPED and "__pycache__" not in path.parts:
            found[str(path.relative_to(ROOT))] = (
                _stripped(path) if path.suffix == ".so" else path.read_bytes()
            )
    return found


def _stripped(library):
    with tempfile.TemporaryDirectory(prefix="fastdrop-bench-") as folder:
        copy = pathlib.Path(folder, library.name)
        subprocess.run(["strip", "-o", copy, library], check=True)
        return copy.read_bytes()


def wheel_bytes():
    """Return the size of a wheel: what it has, deflated."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in shipped_files().items():
            archive.writestr(name, contents)
    return packed.tell()


def unpacked_bytes():
    """Return the size of a wheel, unpacked."""
    return sum(map(len, shipped_files().values()))


def installed_bytes(distributions):
    """Return the size of the files of some distributions, as far as they are installed."""
    total = 0
    for name in distributions:
        try:
            files = importlib.metadata.files(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            path = pathlib.Path(file.locate())
            total += path.stat().st_size if path.is_file() else 0
    return total


def _bytes(name, run, calls):
    def check(value):
        verify.require(value > 1 << 16, f"{value} bytes are less than any of these takes")

    return Contender(name, run, check, calls)


def _own_bytes(run, calls):
    if shutil.which("strip") is None:
        return Skipped("fastdrop", "strip is not installed, through which a wheel's code goes")
    return _bytes("fastdrop", run, calls)


def _wheel(size):
    return [_own_bytes(lambda: wheel_bytes(), "bench.bench_package.wheel_bytes")]


def _installed(size):
    def other(distributions):
        return lambda: installed_bytes(distributions)

    made = [_own_bytes(lambda: unpacked_bytes(), "bench.bench_package.unpacked_bytes")]
    for name, distributions in {NUMPY: ("numpy",), **OTHERS}.items():
        if importlib.util.find_spec(name) is None:
            made.append(Skipped(name, f"{name} is not installed"))
        else:
            calls = "bench.bench_package.installed_bytes"
            made.append(_bytes(name, other(distributions), calls))
    return made


CASES = [
    Case(
        "import",
        0,
        _import,
        calls="subprocess.run",
        bars=[Bar(NUMPY, difference_at_most=15e-3, isa=None)],
        threads=(1,),
        reducible=False,
    ),
    *(
        Case(
            work,
            0,
            build,
            calls=f"bench.bench_package.{called}",
            bars=bars,
            threads=(1,),
            unit="bytes",
            reducible=False,
        )
        for work, build, called, bars in (
            ("wheel", _wheel, "wheel_bytes", [Bar(at_most=MAX_WHEEL, isa=None)]),
            ("installed", _installed, "unpacked_bytes", []),
        )
    ),
]
