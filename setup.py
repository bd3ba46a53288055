"""Build the one compiled module, fastdrop._kernels; everything else is in pyproject.toml.

The environment variable FASTDROP_BUILD changes the build. It holds one or more of these words,
separated by commas:

    debug            -O1 -g3, C assertions on
    sanitize         AddressSanitizer and UndefinedBehaviorSanitizer
    thread-sanitize  ThreadSanitizer
    coverage         gcov counters
    strict           -Wall -Wextra -Werror on our own C sources (not on Cython's output)
    no-threads       single-threaded
    weak             three rounds of Philox instead of ten: wrong masks, for studies/randomness

Objects live in build/, in directories named after a digest of everything that shapes them (the
compiler, its version and target, its flags), so builds with different switches or for different
machines neither disturb nor reuse each other. Where the source folder cannot be written to, a
temporary folder takes the place of build/. One build of a tree waits for the other.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

try:
    import Cython
    import numpy
    from Cython.Build import cythonize
    from setuptools import Extension, setup
    from setuptools.command.build_ext import build_ext
except ModuleNotFoundError as error:
    sys.exit(
        f"fastdrop needs {error.name} to be built, and it is not installed: leave out "
        f"--no-build-isolation, or run python -m pip install {error.name}"
    )

SWITCH = "FASTDROP_BUILD"
SOURCES = sorted(str(path) for path in Path("src").rglob("*.c"))
HEADERS = sorted(str(path) for path in Path("src").rglob("*") if path.suffix in {".h", ".inc"})

# Instruction sets are chosen inside the sources by target pragmas and at import by the dispatcher:
# a -march flag here would let the baseline code use instructions the machine may lack, and
# -ffast-math would change results, and those of the whole process: gcc then links code that flushes
# subnormal numbers to zero.
REFUSED = re.compile(
    r"-march=native|-mcpu=native|-Ofast|-ffast-math|-funsafe-math-optimizations|-ffinite-math-only"
    r"|-fassociative-math|-freciprocal-math|-fno-signed-zeros|-mdaz-ftz|-mrecip(=.*)?"
    r"|-f?fp-model=(fast|aggressive).*|-fdenormal-fp-math=.*"
)
OPTIMISE = ["-O3"]
# Clang joins a product and a sum in one rounding unless it is told not to; gcc does not in ISO C.
ALWAYS = ["-std=c11", "-fvisibility=hidden", "-ffp-contract=off"]
# Where the compiler knows it. GCC 12 forgets `vzeroupper` behind calls of functions whose registers
# it knows: on Intel's cores every SSE instruction after such a return then takes some 70 cycles, in
# the caller's code as well.
IF_KNOWN = ["-fno-ipa-ra"]

# word: (compiler flags, linker flags); "debug" and the sanitisers replace OPTIMISE.
MODES = {
    "debug": (["-O1", "-g3", "-UNDEBUG", "-fno-omit-frame-pointer"], []),
    "sanitize": (
        ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer"]
        + ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
        ["-fsanitize=address,undefined"],
    ),
    "thread-sanitize": (
        ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer", "-fsanitize=thread"],
        ["-fsanitize=thread"],
    ),
    "coverage": (["-O1", "-g", "-UNDEBUG", "--coverage"], ["--coverage"]),
}
DEFINES = {"no-threads": "-DFASTDROP_NO_THREADS", "weak": "-DPHILOX_ROUNDS=3"}
WORDS = {*MODES, *DEFINES, "strict"}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "embedsignature": True,
}

# One module for every Python from this one on. Free-threaded Pythons have no stable ABI yet.
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")
OLDEST_PYTHON = (3, 11)

PLAIN_PROGRAM = "int main(void) { return 0; }\n"
PYTHON_PROGRAM = "#include <Python.h>\nint main(void) { return 0; }\n"


def build_words():
    """The words of FASTDROP_BUILD; an unknown or contradictory one ends the build."""
    words = {word.strip() for word in os.environ.get(SWITCH, "").split(",")} - {""}
    unknown = sorted(words - WORDS)
    if unknown:
        sys.exit(f"{SWITCH}: unknown word {unknown[0]!r}; known are {', '.join(sorted(WORDS))}")
    if {"sanitize", "thread-sanitize"} <= words:
        sys.exit(f"{SWITCH}: {os.environ[SWITCH]!r} contradicts itself")
    return words


def check_tools():
    """End with a sentence where the packages that build are older than pyproject.toml asks for."""

    def numbers(version):
        return [int(number) for number in re.findall(r"\d+", version)[:2]]

    with open("pyproject.toml", "rb") as file:
        requirements = tomllib.load(file)["build-system"]["requires"]
    for requirement in requirements:
        name, least = requirement.split(">=")
        found = importlib.metadata.version(name)
        if numbers(found) < numbers(least):
            sys.exit(
                f"fastdrop needs {name} {least} or newer to be built, found {found}: leave out "
                f"--no-build-isolation, or run python -m pip install '{requirement}'"
            )


@contextlib.contextmanager
def one_build_at_a_time():
    """Hold a lock on the tree: two builds write the same files in build/ and fastdrop/."""
    if sys.platform == "win32":  # build_extensions explains itself there
        yield
        return
    import fcntl

    with open(__file__) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another build of this tree to end", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def build_folder():
    """Where products of the build go: build/, or a temporary folder."""
    if os.access(".", os.W_OK):
        yield "build", {}
        return
    with tempfile.TemporaryDirectory(prefix="fastdrop-build-") as folder:
        yield folder, {"build": {"build_base": folder}, "egg_info": {"egg_base": folder}}


class BuildKernels(build_ext):
    """build_ext that compiles only what changed, one process per core."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            sys.exit(
                "fastdrop needs gcc or clang: its C sources use target pragmas and vector "
                "extensions that the Microsoft compiler does not have. On Windows, build with "
                "clang or in the Windows Subsystem for Linux."
            )
        self.check_flags()
        self.check_compiler()
        words = build_words()
        compile_flags, link_flags = [*ALWAYS], ["-pthread"]
        compile_flags += [
            flag for flag in IF_KNOWN if self.compiles(PLAIN_PROGRAM, ["-Werror", flag])
        ]
        if not words & set(MODES):
            compile_flags += OPTIMISE
        for word in sorted(words & set(MODES)):
            compile_flags += MODES[word][0]
            link_flags += MODES[word][1]
        compile_flags += [DEFINES[word] for word in sorted(words & set(DEFINES))]
        if "bdist_wheel" in self.distribution.commands and not words & set(MODES):
            link_flags += [] if sys.platform == "darwin" else ["-s"]  # symbols: 2 MB of 3
        self.warning_flags = ["-Wall", "-Wextra", "-Werror"] if "strict" in words else []
        for extension in self.extensions:
            extension.extra_compile_args = compile_flags
            extension.extra_link_args = link_flags
        super().build_extensions()

    def check_flags(self):
        """Refuse flags that change results, or the machines on which the package runs."""
        for flag in [*self.compiler.compiler_so, *self.compiler.linker_so]:
            if REFUSED.fullmatch(flag):
                sys.exit(
                    f"fastdrop must not be built with {flag}: it would change results, or run on "
                    "machines like this one only. Instruction sets are chosen at import; remove "
                    "the flag from CFLAGS, LDFLAGS and CC."
                )

    def copy_extensions_to_source(self):
        """Copy the module beside the sources, and remove it under the names of other builds.

        Python would import one made for its version alone before one for all versions.
        """
        super().copy_extensions_to_source()
        for extension in self.extensions:
            current = Path(self.get_ext_filename(extension.name))
            for other in current.parent.glob("_kernels.*.so"):
                if other.name != current.name:
                    other.unlink()

    def compiles(self, program, flags=()):
        """Whether a program compiles and links."""
        includes = [f"-I{path}" for path in self.compiler.include_dirs]
        with tempfile.TemporaryDirectory() as directory:
            source, binary = Path(directory, "probe.c"), Path(directory, "probe")
            source.write_text(program)
            command = [
                *self.compiler.compiler_so,
                *ALWAYS,
                *flags,
                *includes,
                str(source),
                "-o",
                str(binary),
            ]
            # No header of the source tree may shadow a system one: run away from it.
            return subprocess.run(command, capture_output=True, cwd=directory).returncode == 0

    def check_compiler(self):
        """End with advice instead of a page of errors where the tools are missing."""
        command = " ".join(self.compiler.compiler_so)
        try:
            works = self.compiles(PLAIN_PROGRAM)
        except OSError:
            works = False
        if not works:
            sys.exit(
                f"fastdrop needs a C11 compiler, and '{command}' does not work. Install gcc or "
                "clang (Debian, Ubuntu: apt install build-essential; Fedora: dnf install gcc; "
                "macOS: xcode-select --install), or name yours in the variable CC."
            )
        if not self.compiles(PYTHON_PROGRAM):
            sys.exit(
                "fastdrop needs Python's C headers (Python.h), and they are missing. "
                "Debian, Ubuntu: apt install python3-dev; Fedora: dnf install python3-devel."
            )

    def compiler_says(self, flag):
        """What the compiler prints for a flag: who it is, and for which machine it compiles."""
        command = [*self.compiler.compiler_so, flag]
        return subprocess.run(command, capture_output=True, text=True).stdout

    def object_folder(self, name, *shape):
        """A folder in build/ that only builds with the same compiler, flags and `shape` use."""
        shape = (
            self.compiler.compiler_so,
            self.compiler_says("--version"),
            self.compiler_says("-dumpmachine"),
            shape,
        )
        digest = hashlib.sha256(repr(shape).encode()).hexdigest()[:8]
        folder = os.path.join(BUILD, f"{name}-{digest}")
        os.makedirs(folder, exist_ok=True)
        return folder

    def build_extension(self, extension):
        """Compile what is out of date, then let setuptools link."""
        flags = (extension.extra_compile_args, self.warning_flags)
        # The kernels know nothing of Python; one compilation is good for every version of it. The
        # same place for wheels, in-place and editable installs, whose own temporary directories
        # would be thrown away with every object in them.
        self.kernel_temp = self.object_folder("kernels", flags)
        tag = sys.implementation.cache_tag + getattr(sys, "abiflags", "")
        self.build_temp = self.object_folder(
            f"objects-{tag}",
            flags,
            extension.define_macros,
            Cython.__version__,
            numpy.__version__,
        )
        sources = extension.sources
        with ThreadPoolExecutor(self.parallel or os.cpu_count()) as pool:
            jobs = [
                pool.submit(self.compile_one, extension, path, self.kernel_temp) for path in SOURCES
            ]
            jobs.append(pool.submit(self.compile_pyx, extension))
            objects = [job.result() for job in jobs]
        extension.sources, extension.extra_objects = [], objects
        self.force = True  # linking is cheap, and the target may stem from another mode
        try:
            super().build_extension(extension)
        finally:
            extension.sources, extension.extra_objects = sources, []

    def compile_pyx(self, extension):
        """Translate the pyx into build_temp and compile it."""
        only_pyx = Extension(
            extension.name,
            [path for path in extension.sources if path.endswith(".pyx")],
            depends=[*extension.depends],
        )
        (translated,) = cythonize(
            [only_pyx], build_dir=self.build_temp, force=self.force, compiler_directives=DIRECTIVES
        )
        return self.compile_one(extension, translated.sources[0], self.build_temp, ours=False)

    def compile_one(self, extension, source, folder, ours=True):
        """Compile one C file into `folder` unless its object is newer than all it is made from."""
        (target,) = self.compiler.object_filenames([source], output_dir=folder)
        inputs = [source, *HEADERS, "setup.py"]
        newest = max(os.path.getmtime(path) for path in inputs)
        if not self.force and os.path.exists(target) and os.path.getmtime(target) > newest:
            return target
        self.compiler.compile(
            [source],
            output_dir=folder,
            macros=extension.define_macros,
            include_dirs=extension.include_dirs,
            extra_postargs=extension.extra_compile_args + (self.warning_flags if ours else []),
        )
        return target


macros = [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]
if STABLE_ABI:
    macros.append(("Py_LIMITED_API", "0x{:02x}{:02x}0000".format(*OLDEST_PYTHON)))
kernels = Extension(
    "fastdrop._kernels",
    ["fastdrop/_kernels.pyx", *SOURCES],
    depends=HEADERS,
    include_dirs=["src", numpy.get_include()],
    define_macros=macros,
    libraries=[] if sysconfig.get_platform().startswith("win") else ["m"],
    py_limited_api=STABLE_ABI,
)

check_tools()
with one_build_at_a_time(), build_folder() as (BUILD, options):
    if STABLE_ABI:
        options["bdist_wheel"] = {"py_limited_api": "cp{}{}".format(*OLDEST_PYTHON)}
    setup(ext_modules=[kernels], cmdclass={"build_ext": BuildKernels}, options=options)
