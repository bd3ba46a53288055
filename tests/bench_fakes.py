"""Contenders of known speed, and a clock that they move themselves, for the benchmarks' tests."""

from bench import verify
from bench.cases import Case, Contender


class Clock:
    """Stands in for the module `time`: it moves when a contender works or somebody sleeps."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def accept(result):
    """Check a fake contender's result."""
    verify.require(result == "right", f"{result} is not right")


def worker(clock, name, seconds, *, log=None, result="right", **options):
    """Return a contender that takes this long, by the clock given."""

    def run():
        clock.now += seconds
        if log is not None:
            log.append(name)
        return result

    return Contender(name, run, accept, calls="fake.run", **options)


def case_of(*contenders, **options):
    """Return a case with these contenders."""
    return Case("task", 1000, lambda size: contenders, calls="fake.run", **options)
