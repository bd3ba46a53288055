"""Count the instructions of every kernel, and compare them with tests/c/counts/limits.txt.

    python tests/c/count_instructions.py            # 0: no kernel takes 5 % more than it may
    python tests/c/count_instructions.py --write    # after a change that is worth it: new limits

Unlike times, counts are the same in every run, so that a small step back is seen. callgrind counts.
A line of the table is an instruction set, a compiler's major version, a kernel, instructions per
element (of a product: per multiply-add), how many elements or multiply-adds there are, and how many
bytes the call allocates beside its arguments. The last two hold exactly, whatever the compiler;
instructions are compared where the table knows the compiler. valgrind does not run AVX-512: its
kernels are compiled from the same bodies as the others.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMITS = HERE / "counts" / "limits.txt"
LEVELS = ("baseline", "avx2")
TOLERANCE = 1.05
# As setup.py compiles them.
FLAGS = ["-std=c11", "-O3", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
OF_GCC = ["-fno-ipa-ra"]
INCLUDES = [f"-I{ROOT / 'src'}", f"-I{HERE}"]
WRAPPED = [f"-Wl,--wrap={name}" for name in ("malloc", "calloc", "aligned_alloc")]


def compiler_version(compiler):
    """Return for example gcc-12, or clang-19."""
    text = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True
    ).stdout
    name = "clang" if "clang" in text else "gcc"
    major = re.search(r"(\d+)\.\d+", text).group(1)
    return f"{name}-{major}"


def build(compiler, flags, folder):
    """Compile the kernels and counts.c, two files at a time, and return the program."""
    sources = [path for path in ROOT.glob("src/*/*.c") if path.name != "isa_avx512.c"]
    sources += [HERE / "arrays.c", HERE / "counts" / "counts.c"]
    waiting, running = list(sources), []
    while waiting or running:
        while waiting and len(running) < 2:
            source = waiting.pop()
            running.append(
                subprocess.Popen([compiler, *flags, *INCLUDES, "-c", str(source)], cwd=folder)
            )
        if running.pop(0).wait() != 0:
            sys.exit("the kernels do not compile")
    program = folder / "counts-of-kernels"
    objects = [str(path) for path in folder.glob("*.o")]
    subprocess.run([compiler, "-pthread", *objects, "-o", program, "-lm", *WRAPPED], check=True)
    return program


def measure(program, level, folder):
    """Return {kernel: (instructions per element, elements, bytes)}; None without the level."""
    out = folder / f"callgrind.{level}"
    command = [
        "valgrind",
        "--quiet",
        "--tool=callgrind",
        f"--callgrind-out-file={out}",
        str(program),
    ]
    done = subprocess.run([*command, level], capture_output=True, text=True)
    if done.returncode != 0:
        if "not on this machine" in done.stderr:
            return None
        sys.exit(f"{' '.join(command)} {level}: {done.stderr}")
    instructions = {}
    for dump in folder.glob(f"{out.name}.*"):
        text = dump.read_text()
        name = re.search(r"^desc: Trigger: Client Request: (\w+)$", text, re.MULTILINE)
        if name:
            total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
            instructions[name.group(1)] = int(total.group(1))
    found = {}
    for line in done.stdout.splitlines():
        name, work, bytes_ = line.split()
        found[name] = (instructions[name] / int(work), int(work), int(bytes_))
    return found


def read_limits():
    """Return {(level, compiler, kernel): (instructions per element, elements, bytes)}."""
    limits = {}
    if LIMITS.exists():
        for line in LIMITS.read_text().splitlines():
            if line and not line.startswith("#"):
                level, compiler, kernel, count, work, bytes_ = line.split()
                limits[level, compiler, kernel] = (float(count), int(work), int(bytes_))
    return limits


def write_limits(limits):
    lines = [
        "# level, compiler, kernel, instructions per element, elements or multiply-adds,",
        "# bytes allocated; written by tests/c/count_instructions.py --write",
    ]
    for (level, compiler, kernel), (count, work, bytes_) in sorted(limits.items()):
        lines.append(f"{level:9}{compiler:9}{kernel:30}{count:10.4f}{work:10}{bytes_:9}")
    LIMITS.write_text("\n".join(lines) + "\n")


def compare(level, compiler, found, limits):
    """Return the lines that say what is more than it may be; print what has become less."""
    wrong = []
    known = {key[2] for key in limits if key[0] == level}
    wrong += [f"{level} {kernel}: in the table, but not measured" for kernel in known - set(found)]
    for kernel, (count, work, bytes_) in found.items():
        others = [value for key, value in limits.items() if key[0] == level and key[2] == kernel]
        if not others:
            wrong.append(f"{level} {kernel}: not in the table")
            continue
        _, limit_work, limit_bytes = others[0]
        if work != limit_work:
            wrong.append(f"{level} {kernel}: {work} multiply-adds or elements, not {limit_work}")
        if bytes_ > limit_bytes:
            wrong.append(f"{level} {kernel}: allocates {bytes_} bytes, not {limit_bytes}")
        if (level, compiler, kernel) not in limits:
            continue
        limit = limits[level, compiler, kernel][0]
        if count > limit * TOLERANCE:
            wrong.append(
                f"{level} {kernel}: {count:.4f} instructions per element, "
                f"{100 * (count / limit - 1):.1f} % more than {limit:.4f}"
            )
        elif count * TOLERANCE < limit:
            print(f"{level} {kernel}: {count:.4f} instructions per element, fewer than {limit:.4f}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make what is measured the limits")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("left out: valgrind is not installed")
        return 0
    cc = os.environ.get("CC", "cc")
    compiler = compiler_version(cc)
    limits, wrong = read_limits(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        flags = FLAGS + OF_GCC if compiler.startswith("gcc") else FLAGS
        program = build(cc, flags, folder)
        for level in LEVELS:
            found = measure(program, level, folder)
            if found is None:
                print(f"left out: {level} is not on this machine")
                continue
            if arguments.write:
                limits = {
                    key: value for key, value in limits.items() if key[:2] != (level, compiler)
                }
                limits |= {(level, compiler, kernel): value for kernel, value in found.items()}
                continue
            if not any(key[:2] == (level, compiler) for key in limits):
                print(f"left out: instructions of {level}, the table does not know {compiler}")
            wrong += compare(level, compiler, found, limits)
            print(f"{level}, {compiler}: {len(found)} kernels")
    if arguments.write:
        write_limits(limits)
        return 0
    print("left out: avx512, which valgrind does not run")
    for line in wrong:
        print(line)
    if wrong:
        print("if that is worth it, say so in the commit, and run this with --write")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
