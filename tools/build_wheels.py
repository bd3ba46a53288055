"""Build wheels, for this machine and for others, without containers.

    python tools/build_wheels.py --out DIR --target manylinux-x86_64 --target musllinux-aarch64

The command needs Python 3.11 or newer with its C headers, and a network that has PyPI. It makes a
virtual environment with what it uses: setuptools, Cython and NumPy, the programs that check wheels,
and, for every target but `native`, the C compiler of Zig (the package ziglang), which links against
old versions of glibc and against musl. Each wheel is built from the sdist, which lands in DIR as
well, and has to pass every check below before it gets there.
"""

import argparse
import contextlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 1_000_000
PYTHON_TAG = "cp311-abi3"  # one module for every Python from 3.11 on, see setup.py
# Beside the products of builds: what neither sdist nor wheel is made of.
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "_build", "*.egg-info", "*.so", "__pycache__", ".*_cache"
)
TOOLS = ["build>=1.2", "wheel>=0.46", "twine>=6.1", "check-wheel-contents>=0.6.3"]
LINUX_TOOLS = ["auditwheel>=6.4", "abi3audit>=0.0.22"]
COMPILER = ["ziglang>=0.14"]


@dataclass(frozen=True)
class Target:
    """A kind of machine: what Zig calls it, and how its wheels are tagged."""

    zig: str
    platform_tag: str


TARGETS = {
    "manylinux-x86_64": Target(
        "x86_64-linux-gnu.2.17", "manylinux2014_x86_64.manylinux_2_17_x86_64"
    ),
    "manylinux-aarch64": Target(
        "aarch64-linux-gnu.2.17", "manylinux2014_aarch64.manylinux_2_17_aarch64"
    ),
    "musllinux-x86_64": Target("x86_64-linux-musl", "musllinux_1_2_x86_64"),
    "musllinux-aarch64": Target("aarch64-linux-musl", "musllinux_1_2_aarch64"),
    "native": None,
}


# Prints the libraries that a wheel's compiled module needs. auditwheel cannot look at wheels for
# musl on a machine with glibc: it takes the file libc.so of that one for the library.
NEEDED_LIBRARIES = """
import io, sys, zipfile
from elftools.elf.elffile import ELFFile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    (name,) = [name for name in wheel.namelist() if name.endswith(".so")]
    dynamic = ELFFile(io.BytesIO(wheel.read(name))).get_section_by_name(".dynamic")
print(*[tag.needed for tag in dynamic.iter_tags("DT_NEEDED")])
"""


class Failure(Exception):
    """A step that ended with an error; the message is for the terminal."""


def say(text):
    """Report progress, with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED:4.0f} s] {text}", flush=True)


STARTED = time.monotonic()


def run(*command, **settings):
    """Run a program and return what it prints; a Failure shows that if it ends with an error."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **settings,
    )
    if done.returncode:
        raise Failure(f"{shlex.join(str(word) for word in command)}\n{done.stdout}")
    return done.stdout


class Environment:
    """A virtual environment with everything that builds and checks."""

    def __init__(self, folder, targets):
        self.folder = Path(folder).resolve()
        self.python = self.folder / "bin" / "python"
        with open(ROOT / "pyproject.toml", "rb") as file:
            wanted = tomllib.load(file)["build-system"]["requires"] + TOOLS
        if sys.platform == "linux":
            wanted = wanted + LINUX_TOOLS
        if any(TARGETS[name] for name in targets):
            wanted = wanted + COMPILER
        if not self.python.exists():
            say(f"an environment in {self.folder}")
            run(sys.executable, "-m", "venv", self.folder)
        run(self.python, "-m", "pip", "install", "--quiet", *wanted)

    def run(self, *command, **settings):
        """Run a module of the environment's Python."""
        return run(self.python, "-m", *command, **settings)

    def variables(self, target):
        """The variables of a build for a target; the caller's own flags are for `native` only."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("FASTDROP_") and key != "PYTHONPATH"
        }
        if target is None:
            return kept
        for name in ("CFLAGS", "CPPFLAGS", "LDFLAGS", "CXX", "ARCHFLAGS"):
            kept.pop(name, None)
        compiler = f"{shlex.quote(str(self.python))} -m ziglang cc -target {target.zig}"
        return kept | {
            "CC": compiler,
            "LDSHARED": f"{compiler} -shared",
            "AR": f"{shlex.quote(str(self.python))} -m ziglang ar",
        }


def make_sdist(environment, folder):
    """Make the sdist from a copy of the tree, so that the tree stays as it is; return its path."""
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT, symlinks=True)
    environment.run("build", "--no-isolation", "--sdist", "--outdir", folder, tree)
    (path,) = folder.glob("*.tar.gz")
    environment.run("twine", "check", "--strict", path)
    return path


def make_wheel(environment, sdist, name, folder):
    """Build the wheel of one target from the sdist; return its path."""
    target = TARGETS[name]
    tree = folder / f"sdist-{name}"
    with tarfile.open(sdist) as archive:
        archive.extractall(tree, filter="data")
    (source,) = tree.iterdir()
    command = ["build", "--no-isolation", "--wheel", "--outdir", tree]
    if target is not None:
        first_tag = target.platform_tag.split(".")[0]
        command.append(f"--config-setting=--build-option=--plat-name={first_tag}")
    environment.run(*command, source, env=environment.variables(target))
    (path,) = tree.glob("*.whl")
    if target is not None and "." in target.platform_tag:
        tagged = environment.run(
            "wheel", "tags", "--remove", "--platform-tag", target.platform_tag, path.name, cwd=tree
        )
        path = tree / tagged.split()[-1]
    return path


def check_name(path, name):
    """The tags: every Python from 3.11 on, and the target's platform."""
    target = TARGETS[name]
    expected = f"fastdrop_numpy-.*-{PYTHON_TAG}-"
    if target is None:
        expected += rf"\w+_{platform.machine()}"
    else:  # the tags may stand in another order
        expected += rf"[\w.]*{re.escape(target.platform_tag.split('.')[-1])}[\w.]*"
    if not re.fullmatch(expected + r"\.whl", path.name):
        raise Failure(f"{path.name}: the tags are not those of {name}")


def check_contents(path, sdist):
    """The package's own modules and stubs, one compiled module, and nothing else."""
    with tarfile.open(sdist) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]
    own = {
        name
        for name in names
        if name.startswith("fastdrop/") and name.endswith((".py", ".pyi", "/py.typed"))
    }
    with zipfile.ZipFile(path) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    compiled = {name for name in packed if name.endswith((".so", ".pyd"))}
    if compiled != {"fastdrop/_kernels.abi3.so"}:
        raise Failure(f"{path.name}: the compiled modules are {sorted(compiled)}")
    if packed - compiled != own:
        raise Failure(
            f"{path.name}: missing are {sorted(own - packed)}, "
            f"too many {sorted(packed - compiled - own)}"
        )


def check_size(path):
    """The wheel's size in bytes, which is at most MAX_BYTES."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise Failure(f"{path.name} has {size} bytes, more than {MAX_BYTES}: is it stripped?")
    return size


def check_libraries(environment, path, name):
    """That the C library of the tag's age is all the module needs; returns what was found."""
    target = TARGETS[name]
    if target is not None and "musl" in target.zig:
        needed = run(environment.python, "-c", NEEDED_LIBRARIES, path).split()
        if needed != ["libc.so"]:
            raise Failure(f"{path.name} needs {needed}, and musl's libc.so alone was expected")
        return "needs libc.so of musl"
    text = environment.run("auditwheel", "show", path)
    tag = re.search(r'platform tag: "(\w+)"', " ".join(text.split()))
    if target is not None and (tag is None or tag[1] not in target.platform_tag.split(".")):
        raise Failure(f"{path.name}: auditwheel finds another platform tag\n{text}")
    return f"auditwheel: {tag[1] if tag else 'no tag'}"


def check_stable_abi(environment, path):
    """That the compiled module uses Python's stable ABI only."""
    text = environment.run("abi3audit", "--strict", "--verbose", path)
    if "0 ABI version mismatches and 0 ABI violations" not in " ".join(text.split()):
        raise Failure(f"{path.name}: abi3audit is not content\n{text}")


def check_wheel(environment, path, sdist, name):
    """Every check of one wheel; returns a line that describes it."""
    check_name(path, name)
    check_contents(path, sdist)
    size = check_size(path)
    environment.run("twine", "check", "--strict", path)
    environment.run("check_wheel_contents", path)
    line = f"{path.name}: {size / 1000:.0f} kB"
    if sys.platform == "linux":
        line += f", {check_libraries(environment, path, name)}"
        check_stable_abi(environment, path)
        line += ", abi3audit: clean"
    return line


def parse_arguments(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Build wheels of fastdrop, for this machine and for others, and check them.",
        epilog=f"The targets are {', '.join(TARGETS)}; `native` uses the compiler CC names.",
    )
    parser.add_argument("--out", required=True, type=Path, help="where sdist and wheels go")
    parser.add_argument(
        "--target",
        action="append",
        required=True,
        choices=TARGETS,
        metavar="TARGET",
        help="what to build for; may be repeated",
    )
    parser.add_argument(
        "--environment",
        type=Path,
        help="a virtual environment to make, or to use again; a temporary one otherwise",
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    """Build, check, and move to the output folder what passed; return the exit code."""
    options = parse_arguments(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    lines = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastdrop-wheels-")))
        try:
            environment = Environment(options.environment or folder / "environment", options.target)
            say("sdist")
            sdist = make_sdist(environment, folder)
            shutil.copy(sdist, options.out)
            lines.append(f"{sdist.name}: {sdist.stat().st_size / 1000:.0f} kB")
            for name in dict.fromkeys(options.target):
                say(f"wheel for {name}")
                path = make_wheel(environment, sdist, name, folder)
                say(f"checks of {path.name}")
                lines.append(check_wheel(environment, path, sdist, name))
                shutil.copy(path, options.out)
        except Failure as failure:
            print(f"failed: {failure}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        finally:
            print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
