"""Goodness of fit of the stream's normal numbers, and their accuracy over all words.

    python -m bench.studies.randomness.normals [--numbers 67108864] [--accuracy]

prints a p-value for each test, and ends with status 1 if one is below the limit or above one minus
it; the limit is ``ERROR`` shared among all tests. ``--accuracy`` computes the transform of all 2^31
lengths and 2^30 angles in float64 beside float32, which takes some minutes.
"""

import argparse
import math
import sys

import numpy

import fastdrop
from fastdrop import reference

from .runs import ERROR

__all__ = ["accuracy", "p_values"]

SEED = 2024
CHUNK = 1 << 22
BINS = 4096
TAILS = (3, 4, 5, 5.5)
LAGS = (1, 2, 63, 64, 128, 1024)


def p_values(numbers, kind="normal"):
    """Return the p-value of each test of one draw of so many numbers, by name.

    Parameters
    ----------
    numbers : int
        At least 2**20, for the expected counts to be large enough.

    Returns
    -------
    dict of str to float
        Two-sided: small where the numbers fit too badly, near 1 where they fit too well.
    """
    from scipy import stats

    edges = stats.norm.ppf(numpy.arange(1, BINS) / BINS)
    bins = numpy.zeros(BINS, numpy.int64)
    tails = dict.fromkeys(TAILS, 0)
    sums = numpy.zeros(5)
    products = {(lag, power): 0.0 for lag in LAGS for power in (1, 2)}
    furthest = 0.0  # between the distribution functions, at the edges
    for z in _chunks(numbers):
        bins += numpy.bincount(numpy.searchsorted(edges, z), minlength=BINS)
        size = numpy.abs(z)
        for limit in TAILS:
            tails[limit] += int((size > limit).sum())
        sums += [z.sum(), *((z**power).sum() for power in (2, 3, 4, 6))]
        for lag, power in products:
            w = z**power - (power == 2)
            products[lag, power] += (w[lag:] * w[:-lag]).sum()
    found = {"chi-square, 4096 bins": stats.chisquare(bins).pvalue}
    steps = numpy.abs(numpy.cumsum(bins)[:-1] / numbers - numpy.arange(1, BINS) / BINS)
    furthest = float(steps.max())
    found["Kolmogorov-Smirnov, 4095 edges"] = float(stats.kstwobign.sf(furthest * numbers**0.5))
    moments = ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170))
    for total, (moment, right, variance) in zip(sums, moments, strict=True):
        distance = (total / numbers - right) / (variance / numbers) ** 0.5
        found[f"moment {moment}"] = 2 * stats.norm.sf(abs(distance))
    for limit, count in tails.items():
        found[f"beyond {limit}"] = stats.binomtest(count, numbers, 2 * stats.norm.sf(limit)).pvalue
    for (lag, power), total in products.items():
        distance = total / ((1 if power == 1 else 4) * numbers) ** 0.5
        what = "values" if power == 1 else "squares"
        found[f"correlation of {what}, lag {lag}"] = 2 * stats.norm.sf(abs(distance))
    return {name: float(p) for name, p in found.items()}


def _chunks(numbers):
    """The numbers of draws 0, 1, 2, ..., some at a time, in float64."""
    stream = fastdrop.MaskStream(SEED)
    while numbers:
        size = min(numbers, CHUNK)
        zeros = numpy.zeros(size, numpy.float32)
        yield fastdrop.gaussian_noise(zeros, 1.0, rng=stream)[0].astype(numpy.float64)
        numbers -= size


def accuracy(step=1):
    """Return the largest relative errors of radius, and of sine and cosine; each `step`-th word."""
    worst = [0.0, 0.0]
    right_angle = numpy.array([0], numpy.uint32)
    for first in range(0, 1 << 32, CHUNK * 2 * step):
        words = numpy.arange(first + 1, min(first + CHUNK * 2 * step, 1 << 32), 2 * step)
        radius = reference.normals(words.astype(numpy.uint32), right_angle)[0]
        below = numpy.where(words >= 2**31, (words - 2**32) / 2**32, 0)
        exact = numpy.where(words >= 2**31, numpy.log1p(below), numpy.log(words / 2**32))
        exact = numpy.sqrt(-2 * exact)
        worst[0] = max(worst[0], float((numpy.abs(radius - exact) / exact).max()))
    one = numpy.array([round(2**32 * math.exp(-0.5))], numpy.uint32)  # of radius 1, nearly
    unit = reference.normals(one, right_angle)[0].astype(float)
    for first in range(0, 1 << 30, CHUNK * step):
        words = numpy.arange(first, min(first + CHUNK * step, 1 << 30), step)
        angle = numpy.where(words >= 2**29, words - 2**30, words) * (math.pi / 2 / 2**30)
        pair = reference.normals(one, words.astype(numpy.uint32))
        for got, exact in zip(pair, (numpy.cos(angle), numpy.sin(angle)), strict=True):
            other = numpy.where(exact == 0, 1, numpy.abs(exact))
            worst[1] = max(worst[1], float((numpy.abs(got / unit - exact) / other).max()))
    return worst


def main(arguments=None):
    """Print the tests' p-values; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--numbers", type=int, default=1 << 26, help="how many, at least 2**20")
    parser.add_argument("--accuracy", action="store_true", help="also of the transform, all words")
    options = parser.parse_args(arguments)
    found = p_values(options.numbers)
    limit = ERROR / (2 * len(found))
    failed = [name for name, p in found.items() if not p > limit]
    for name, p in found.items():
        print(f"{name:36} {p:.3g}{'  FAILED' if name in failed else ''}")
    print(
        f"{options.numbers} normal numbers, limit {limit:.1e}: {len(failed)} of {len(found)} fail"
    )
    if options.accuracy:
        radius, circle = accuracy()
        print(
            f"largest relative error: radius 2^{math.log2(radius):.2f}, sine and cosine "
            f"2^{math.log2(circle):.2f}; of a number at most "
            f"2^{math.log2(radius + circle + 2**-24):.2f}"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
