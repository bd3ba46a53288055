"""Install a wheel where there is no compiler, and run the tests against it.

    python tools/try_wheel.py WHEEL --python python3.12 --python python3.13 [-- PYTEST ARGUMENTS]

For each interpreter: a fresh virtual environment, `pip install --only-binary :all:` of the wheel
and its extra `test`, a search path with nothing on it but that environment, and the whole suite, or
what the arguments choose. The tests run on a copy of the tree in which the folder `fastdrop` is a
link to what the wheel installed, so that every child process imports that, too. The tests of the
source tree and of its build are left out.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ["tests", "bench", "docs", "examples", "tools", "pyproject.toml", "src"]
LEFT_OUT = [f"tests/repo/test_{name}.py" for name in ("c_layers", "floors", "release", "setup")]
LEFT_OUT.append("tests/repo/test_bench_families.py")  # asks for a compiler's `strip`
COMPILERS = ["cc", "gcc", "clang", "c99", "zig"]


def variables(environment):
    """The variables of the tests: no compiler, nobody else's Python packages or settings."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("FASTDROP_", "PYTHON")) and key not in {"CC", "CXX"}
    }
    return kept | {"PATH": str(environment / "bin"), "PYTHONDONTWRITEBYTECODE": "1"}


def copy_tree(tree, installed):
    """The tests and what they read, with the installed package in the place of its sources."""
    tree.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree)
    for page in [*ROOT.glob("*.md"), ROOT / "LICENSE"]:
        shutil.copy(page, tree)
    (tree / "fastdrop").symlink_to(installed)


def try_wheel(wheel, python, arguments, folder):
    """Install the wheel for one interpreter and run the tests; return pytest's exit code."""
    environment = folder / "environment"
    subprocess.run([python, "-m", "venv", str(environment)], check=True)
    inside = str(environment / "bin" / "python")
    settings = variables(environment)
    found = [name for name in COMPILERS if shutil.which(name, path=settings["PATH"])]
    if found:
        sys.exit(f"there is a compiler in the environment: {', '.join(found)}")
    subprocess.run(
        [inside, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", f"{wheel}[test]"],
        check=True,
        env=settings,
    )
    installed = subprocess.run(
        [inside, "-I", "-c", "import fastdrop; print(fastdrop.__path__[0])"],
        check=True,
        env=settings,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.strip()
    if not Path(installed).is_relative_to(environment):
        sys.exit(f"{python} imports fastdrop from {installed}, not from the wheel")
    subprocess.run([inside, "-I", "-m", "fastdrop", "info"], check=True, env=settings)
    tree = folder / "tree"
    copy_tree(tree, installed)
    command = [inside, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"--ignore={path}" for path in LEFT_OUT]
    return subprocess.run([*command, *arguments], cwd=tree, env=settings).returncode


def main(arguments):
    """Run the command line; the exit code is that of the last interpreter that failed."""
    parser = argparse.ArgumentParser(
        description="Install a wheel where there is no compiler, and run the tests against it.",
        usage="%(prog)s WHEEL [--python PYTHON]... [-- PYTEST ARGUMENTS]",
    )
    parser.add_argument("wheel", type=Path, metavar="WHEEL")
    parser.add_argument(
        "--python",
        action="append",
        metavar="PYTHON",
        help="an interpreter; may be repeated (default: this one)",
    )
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:end])
    wheel = options.wheel.resolve()
    if not wheel.exists():
        parser.error(f"there is no file {wheel}")
    code = 0
    for python in options.python or [sys.executable]:
        print(f"=== {wheel.name} with {python}", flush=True)
        with tempfile.TemporaryDirectory(prefix="fastdrop-try-") as folder:
            code = try_wheel(wheel, python, arguments[end + 1 :], Path(folder)) or code
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
