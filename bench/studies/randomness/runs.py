"""Runs of one battery on one sequence of one generator, and what they say together."""

import dataclasses
import json
import os
import pathlib
import resource
import subprocess
import sys
from dataclasses import dataclass

__all__ = ["ERROR", "Run", "Verdict", "load", "perform", "save", "weakened"]

ROOT = pathlib.Path(__file__).resolve().parents[3]
# Probability that a perfect source fails a single one of all tests of all sequences.
ERROR = 1e-3
# Dieharder's Kolmogorov-Smirnov test takes the distance of the i-th smallest of n p-values from
# i / (n + 1) for the largest distance of the two distribution functions, which is larger: what it
# reports is too near to 1, often 1 itself for small n. Only its small p-values mean something.
SMALL_ONLY = {"dieharder"}


@dataclass(frozen=True)
class Run:
    """P-values of one battery on one sequence.

    Attributes
    ----------
    rounds : int
        Of Philox: 10 is the mask stream.
    sequence, battery : str
    volume : int
        Bytes that the battery read.
    seconds : float
        Processor time of both sides.
    p_values : list of (str, float)
    """

    rounds: int
    sequence: str
    battery: str
    volume: int
    seconds: float
    p_values: list

    @property
    def key(self):
        """What the run is known by."""
        return self.rounds, self.sequence, self.battery

    def tail(self, p):
        """Return how near a p-value is to an end at which it means something."""
        return p if self.battery in SMALL_ONLY else min(p, 1 - p)

    @property
    def extreme(self):
        """The smallest tail of all p-values."""
        return min(self.tail(p) for _, p in self.p_values)


@dataclass(frozen=True)
class Verdict:
    """What the p-values of several runs say, at one limit for all of them.

    A test fails where its p-value or one minus it (see `SMALL_ONLY`) is below
    ``ERROR / (2 * tests)``: by the union bound, a perfect source fails any of them with probability
    at most ``ERROR``, however the tests depend on each other.
    """

    tests: int

    @property
    def limit(self):
        """The smallest tail that passes."""
        return ERROR / (2 * self.tests)

    def failures(self, run):
        """Return the pairs of test and p-value that fail."""
        return [(name, p) for name, p in run.p_values if not run.tail(p) >= self.limit]


def weakened(folder):
    """Build fastdrop with three rounds of Philox below `folder`, and return where it is."""
    target = pathlib.Path(folder, "weak")
    environment = {**os.environ, "FASTDROP_BUILD": "weak"}
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(target)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return target


def perform(rounds, sequence, battery, package=None):
    """Run a battery on a sequence, from its beginning.

    Parameters
    ----------
    rounds : int
    sequence : str
    battery : bench.studies.randomness.batteries.Battery
    package : path, optional
        Where a build of fastdrop with that number of rounds is; this one unless given.

    Returns
    -------
    Run
    """
    path = [str(package)] * (package is not None) + [str(ROOT), *sys.path[1:]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-P", "-m", "bench.studies.randomness.sequences", sequence]
    command += ["--rounds", str(rounds)]
    before = _processor_seconds()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as source:
        try:
            p_values = battery.run(source.stdout)
        except BaseException as error:
            source.kill()
            error.add_note(f"sequence {sequence!r}: {source.stderr.read().strip()[-500:]}")
            raise
        source.stdout.close()
        volume = int(source.stderr.read())
    seconds = _processor_seconds() - before
    return Run(rounds, sequence, battery.name, volume, seconds, p_values)


def _processor_seconds():
    """Of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def load(path):
    """Return the runs of a file by key; none where there is no file."""
    path = pathlib.Path(path)
    lines = path.read_text().splitlines() if path.exists() else []
    runs = [Run(**json.loads(line)) for line in lines]
    return {run.key: run for run in runs}


def save(path, run):
    """Append a run to a file."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(run)) + "\n")
