"""What was measured for a case: the rounds, their medians, ratios with intervals, and the bars."""

import dataclasses
import math

import numpy

from .cases import Bar, Case, Contender, Skipped

__all__ = ["BarResult", "Interval", "Quartiles", "Result"]


@dataclasses.dataclass(frozen=True)
class Quartiles:
    """Median of some numbers, and their lower and upper quartile."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values) -> "Quartiles":
        """Return the quartiles of a sequence of numbers."""
        return cls(*(float(value) for value in numpy.percentile(values, (25, 50, 75))))


@dataclasses.dataclass(frozen=True)
class Interval:
    """Median of some numbers, and a confidence interval for it.

    Parameters
    ----------
    lower, median, upper : float
    level : float
        The confidence: at least 0.95, or where the numbers are too few for that, what all of them
        give.

    Notes
    -----
    The interval is that of the sign test, between two order statistics: nothing is assumed of how
    the times are distributed, but that the rounds are independent.
    """

    lower: float
    median: float
    upper: float
    level: float

    @classmethod
    def of(cls, values, level=0.95) -> "Interval":
        """Return the interval of a sequence of numbers."""
        ordered = sorted(float(value) for value in values)
        n = len(ordered)
        left_out, beyond = 0, 1 / 2**n  # on each side; the probability that the median lies there
        while 1 - 2 * (more := beyond + math.comb(n, left_out + 1) / 2**n) >= level:
            left_out, beyond = left_out + 1, more
        median = float(numpy.median(ordered))
        return cls(ordered[left_out], median, ordered[n - 1 - left_out], 1 - 2 * beyond)


@dataclasses.dataclass(frozen=True)
class BarResult:
    """A bar, what was measured for it, and why it was not judged if it was not."""

    bar: Bar
    rival: str | None
    measured: float | None
    reason: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None if it was not judged."""
        return None if self.reason else self.bar.met_by(self.measured)


@dataclasses.dataclass
class Result:
    """What was measured for a case at one number of threads.

    Parameters
    ----------
    case : Case
    threads : int
    samples : dict of str to list of float
        One number per round for each contender: seconds per call, or bytes.
    repetitions : dict of str to int
        Calls per timing.
    contenders : dict of str to Contender
    isa : dict of str to str or None
        The instruction set that fastdrop had for each contender.
    skipped : list of Skipped
    interrupted : bool
        Whether it was cut short by the user.
    preempted : int or None
        How often the system took a processor away from this process meanwhile, where it tells.
    """

    case: Case
    threads: int
    samples: dict[str, list[float]]
    repetitions: dict[str, int]
    contenders: dict[str, Contender]
    isa: dict[str, str | None]
    skipped: list[Skipped]
    interrupted: bool = False
    preempted: int | None = None

    @property
    def rounds(self) -> int:
        """The number of rounds measured."""
        return len(next(iter(self.samples.values()), ()))

    @property
    def disturbed(self) -> bool:
        """Whether others took a processor away in more than one of ten timings."""
        timings = self.rounds * len(self.samples)
        return self.preempted is not None and 10 * self.preempted > max(timings, 10)

    @property
    def own(self) -> str:
        """The name of the first contender, with which the table compares the others."""
        return next(iter(self.samples))

    def spread(self, name) -> Quartiles:
        """Return median and quartiles of a contender's times or bytes."""
        return Quartiles.of(self.samples[name])

    def interval(self, name, rival) -> Interval:
        """Return the median of the rounds' ratios of a contender to a rival, and its interval."""
        pairs = zip(self.samples[name], self.samples[rival], strict=True)
        return Interval.of([ours / theirs if theirs else numpy.inf for ours, theirs in pairs])

    def judged(self) -> list[BarResult]:
        """Return the case's bars for this number of threads, with what was measured for them."""
        return [self._judge(bar) for bar in self.case.bars if bar.threads in (None, self.threads)]

    def _judge(self, bar):
        if bar.contender not in self.samples:
            return BarResult(bar, None, None, f"{bar.contender} was skipped")
        isa = self.isa[bar.contender]
        if bar.isa is not None and bar.isa != isa:
            return BarResult(bar, None, None, f"stated for {bar.isa}, this is {isa or 'NumPy'}")
        if bar.rival is None:
            return BarResult(bar, None, self.spread(bar.contender).median)
        rivals = [name for name in bar.rivals if name in self.samples]
        if not rivals:
            return BarResult(bar, None, None, f"{' and '.join(bar.rivals)} skipped")
        rival = min(rivals, key=lambda name: self.spread(name).median)
        ours, theirs = self.samples[bar.contender], self.samples[rival]
        if bar.difference_at_most is not None:
            differences = [a - b for a, b in zip(ours, theirs, strict=True)]
            return BarResult(bar, rival, Quartiles.of(differences).median)
        ratio = self.interval(bar.contender, rival).median
        return BarResult(bar, rival, 1 / ratio if bar.times_faster is not None else ratio)
