"""The batteries: which tests, with how many samples, and how to run and to read them."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass

__all__ = ["BATTERIES", "Battery", "BatteryFailed", "build_crush", "read_dieharder", "read_lines"]

HERE = pathlib.Path(__file__).parent

# Number, tuple size or None, p-values that one Kolmogorov-Smirnov test sums up. Not here: what
# dieharder itself calls suspect or not to be used (5, 6, 7, 14), and what takes more time and bytes
# than all others together: byte distribution (205), bit distributions of long tuples (200), sums at
# long lags (203), and of two tests that fill trees (207, 208) the one on words.
DIEHARDER = (
    *((number, None, 100) for number in (0, 8, 9, 10, 11, 15)),
    *((number, None, 40) for number in (1, 3, 4, 12, 100, 101)),
    *((number, None, 20) for number in (2, 13, 16, 102)),
    (17, None, 3),
    *((200, size, 20) for size in (2, 4, 8)),
    *((201, size, 40) for size in (2, 3, 4, 5)),
    *((202, size, 40) for size in (3, 5)),
    *((203, lag, 10) for lag in (0, 3, 7)),
    *((number, None, 1) for number in (206, 208, 209)),
)
DIEHARDER_FIELDS = ("test_name", "ntuple", "psamples", "pvalues")
RABBIT_BITS = ALPHABIT_BITS = 1 << 26


class BatteryFailed(RuntimeError):
    """A battery's program ended without results."""


@dataclass(frozen=True)
class Battery:
    """Programs that read random bytes one after the other, from where the last one stopped.

    Attributes
    ----------
    name : str
    commands : tuple of tuple of str
    read : callable
        From what a program printed to pairs of test and p-value.
    """

    name: str
    commands: tuple
    read: callable

    def run(self, source):
        """Run every program on a file object, and return the pairs of test and p-value."""
        found = []
        for command in self.commands:
            run = subprocess.run(command, stdin=source, capture_output=True, text=True)
            pairs = self.read(run.stdout) if run.returncode == 0 else []
            if not pairs:
                raise BatteryFailed(f"{' '.join(command)}: {run.stderr.strip()[-500:]}")
            found += pairs
        return found


def read_dieharder(text):
    """Return pairs of test and p-value from dieharder's table.

    Examples
    --------
    >>> from bench.studies.randomness.batteries import read_dieharder
    >>> read_dieharder("          sts_serial,  16,      40,0.88017009\\n# done\\n")
    [('sts_serial 16', 0.88017009)]
    """
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    return [
        (f"{row[0].strip()} {row[1].strip()}".removesuffix(" 0"), float(row[3]))
        for row in rows
        if len(row) == 4
    ]


def read_lines(text):
    """Return pairs of test and p-value from lines of both, separated by a tab.

    Examples
    --------
    >>> from bench.studies.randomness.batteries import read_lines
    >>> read_lines("AutoCor\\t0.25\\nAutoCor\\t0.5\\nwords\\t2097152\\n")
    [('AutoCor', 0.25), ('AutoCor', 0.5)]
    """
    rows = [line.split("\t") for line in text.splitlines()]
    return [(name, float(p)) for name, p in rows if name != "words"]


def dieharder():
    """Return the tests of dieharder, or None where it is not installed."""
    program = shutil.which("dieharder")
    if program is None:
        return None
    fields = [word for field in DIEHARDER_FIELDS for word in ("-D", field)]
    commands = []
    for number, size, samples in DIEHARDER:
        tuples = [] if size is None else ["-n", str(size)]
        options = ["-g", "200", "-d", str(number), *tuples, "-p", str(samples)]
        commands.append((program, *options, "-c", ",", *fields))
    return Battery("dieharder", tuple(commands), read_dieharder)


def build_crush(folder):
    """Compile crush.c and return the program, or None where TestU01 or a compiler is missing."""
    program = pathlib.Path(folder, "crush")
    libraries = ["-ltestu01", "-ltestu01probdist", "-ltestu01mylib", "-lm"]
    # Debian's package has TestU01.h in /usr/include, and what that includes in a folder of it.
    command = ["cc", "-O2", "-I/usr/include/testu01", str(HERE / "crush.c"), "-o", str(program)]
    try:
        built = subprocess.run([*command, *libraries], capture_output=True)
    except OSError:
        return None
    return program if built.returncode == 0 else None


def crush(name, *arguments):
    """Return a battery of TestU01, or None where it cannot be built."""
    # Lives as long as the process: every battery of TestU01 is the same program.
    program = build_crush(tempfile.mkdtemp(prefix="fastdrop-crush-"))
    return program and Battery(name, ((str(program), *arguments),), read_lines)


def chi_square():
    """Return the small battery of our own."""
    command = (sys.executable, "-P", str(HERE / "chisquare.py"), str(1 << 22))
    return Battery("chi-square", (command,), read_lines)


# By name: a function that returns the battery, or None where it is not installed. Short ones first:
# the weakened generator has to be caught by one only.
BATTERIES = {
    "SmallCrush": lambda: crush("SmallCrush", "smallcrush"),
    "Rabbit": lambda: crush("Rabbit", "rabbit", str(RABBIT_BITS)),
    "BlockAlphabit": lambda: crush("BlockAlphabit", "blockalphabit", str(ALPHABIT_BITS)),
    "dieharder": dieharder,
    "chi-square": chi_square,
}
