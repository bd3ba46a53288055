"""Build the one compiled module, fastdrop._kernels; everything else is in pyproject.toml.

The environment variable FASTDROP_BUILD changes the build. It holds one or more of these words,
separated by commas:

    debug            -O1 -g3, C assertions on
    sanitize         AddressSanitizer and UndefinedBehaviorSanitizer
    thread-sanitize  ThreadSanitizer
    coverage         gcov counters
    strict           -Wall -Wextra -Werror on our own C sources (not on Cython's output)
    no-threads       single-threaded
    weak             three rounds of Philox instead of ten: wrong masks, for bench/randomness

Objects live in build/, in a directory named after the interpreter and a digest of everything that
shapes them, so builds with different switches neither disturb nor reuse each other.
"""

import hashlib
import os
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import Cython
import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SWITCH = "FASTDROP_BUILD"
SOURCES = sorted(str(path) for path in Path("src").rglob("*.c"))
HEADERS = sorted(str(path) for path in Path("src").rglob("*") if path.suffix in {".h", ".inc"})

# Instruction sets are chosen inside the sources by target pragmas and at import by the dispatcher:
# a -march flag here would let the baseline code use instructions the machine may lack, and
# -ffast-math would change results.
OPTIMISE = ["-O3"]
ALWAYS = ["-std=c11", "-fvisibility=hidden"]
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


class BuildKernels(build_ext):
    """build_ext that compiles only what changed, one process per core."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            sys.exit(
                "fastdrop needs gcc or clang: its C sources use target pragmas and vector "
                "extensions that the Microsoft compiler does not have. On Windows, build with "
                "clang or in the Windows Subsystem for Linux."
            )
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
        self.warning_flags = ["-Wall", "-Wextra", "-Werror"] if "strict" in words else []
        for extension in self.extensions:
            extension.extra_compile_args = compile_flags
            extension.extra_link_args = link_flags
        super().build_extensions()

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

    def build_extension(self, extension):
        """Compile what is out of date, then let setuptools link."""
        import fcntl  # not on Windows, where build_extensions has already explained itself

        shape = (
            self.compiler.compiler_so,
            extension.extra_compile_args,
            self.warning_flags,
            extension.define_macros,
            Cython.__version__,
            numpy.__version__,
        )
        digest = hashlib.sha256(repr(shape).encode()).hexdigest()[:8]
        # The same place for wheels, in-place and editable installs, whose own temporary
        # directories would be thrown away with every object in them.
        tag = sys.implementation.cache_tag + getattr(sys, "abiflags", "")
        self.build_temp = os.path.join("build", f"objects-{tag}-{digest}")
        os.makedirs(self.build_temp, exist_ok=True)
        sources = extension.sources
        with open(os.path.join(self.build_temp, "lock"), "w") as lock:
            # Two builds of one tree at the same time share these objects.
            fcntl.flock(lock, fcntl.LOCK_EX)
            with ThreadPoolExecutor(self.parallel or os.cpu_count()) as pool:
                jobs = [pool.submit(self.compile_one, extension, path) for path in SOURCES]
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
        return self.compile_one(extension, translated.sources[0], ours=False)

    def compile_one(self, extension, source, ours=True):
        """Compile one C file unless its object is newer than all it is made from."""
        (target,) = self.compiler.object_filenames([source], output_dir=self.build_temp)
        inputs = [source, *HEADERS, "setup.py"]
        newest = max(os.path.getmtime(path) for path in inputs)
        if not self.force and os.path.exists(target) and os.path.getmtime(target) > newest:
            return target
        self.compiler.compile(
            [source],
            output_dir=self.build_temp,
            macros=extension.define_macros,
            include_dirs=extension.include_dirs,
            extra_postargs=extension.extra_compile_args + (self.warning_flags if ours else []),
        )
        return target


kernels = Extension(
    "fastdrop._kernels",
    ["fastdrop/_kernels.pyx", *SOURCES],
    depends=HEADERS,
    include_dirs=["src", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    libraries=[] if sysconfig.get_platform().startswith("win") else ["m"],
)

setup(ext_modules=[kernels], cmdclass={"build_ext": BuildKernels})
