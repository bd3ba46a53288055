"""The masks look random: shares, correlations, frequencies, repetitions.

Every test has fixed seeds, so it passes always or never. The limit is 5 sigma: a perfect source,
with the seed chosen at random, would exceed it with probability 5.7e-7 for one number, and with
at most m times that for the largest of m numbers; each test states its m.
"""

import itertools
import math
import subprocess
import sys

import numpy
import pytest

import fastdrop
from fastdrop import MaskStream

KEEP_PROBS = (0.5, 0.8, 0.9, 1 / 3, 0.01, 0.999)
LAGS = (1, 2, 3, 7, 8, 31, 32, 33, 64, 96, 127, 128, 129, 256, 512, 1000, 1024, 4096, 65536)
SIGMAS = 5


def chi_square_sigmas(observed, expected):
    """Pearson's statistic against equal expectations, as a normal score (Wilson, Hilferty 1931)."""
    observed = numpy.asarray(observed, dtype=float)
    degrees = observed.size - 1
    ratio = ((observed - expected) ** 2 / expected).sum() / degrees
    return (ratio ** (1 / 3) - (1 - 2 / (9 * degrees))) / math.sqrt(2 / (9 * degrees))


def standardized(mask, keep_prob):
    """Mask values with mean 0 and variance 1."""
    return (mask.astype(numpy.float32) - keep_prob) / math.sqrt(keep_prob * (1 - keep_prob))


@pytest.mark.parametrize("keep_prob", KEEP_PROBS)
def test_kept_share(keep_prob):
    """m = 6."""
    n = 2**24
    kept = MaskStream(2024).draw((n,), keep_prob=keep_prob).count()
    assert abs(kept - n * keep_prob) < SIGMAS * math.sqrt(n * keep_prob * (1 - keep_prob))


def test_kept_share_of_a_tiny_probability():
    """One in 2**20, which a threshold of 24 bits could not tell from twice that; m = 1."""
    n = 2**28
    kept = sum(MaskStream(1).draw((n // 16,), keep_prob=2.0**-20, at=d).count() for d in range(16))
    assert abs(kept - 256) < SIGMAS * 16


@pytest.mark.parametrize("keep_prob", KEEP_PROBS)
def test_no_correlation_at_any_lag(keep_prob):
    """m = 6 * 19."""
    n = 2**22
    values = standardized(MaskStream(7).draw((n,), keep_prob=keep_prob).to_array(), keep_prob)
    for lag in LAGS:
        correlation = float(values[:-lag] @ values[lag:]) / math.sqrt(n - lag)
        assert abs(correlation) < SIGMAS, lag


@pytest.mark.parametrize("keep_prob", [0.5, 0.8, 1 / 3])
@pytest.mark.parametrize("options", [{}, {"exact_count": True}], ids=["bernoulli", "exact"])
def test_rows_and_columns_do_not_correlate(keep_prob, options):
    """Sum of the squared correlations of all pairs of rows, and of columns; m = 12."""
    rows, columns = 600, 400
    mask = MaskStream(3).draw((rows, columns), keep_prob=keep_prob, **options).to_array()
    values = standardized(mask, mask.mean())
    pairs_to_test = [("rows", values)]
    # Columns of an exact-count mask do correlate, by -1/(columns - 1): their sum is fixed.
    pairs_to_test += [] if options else [("columns", values.T)]
    for name, vectors in pairs_to_test:
        count, length = vectors.shape
        # A sum that is fixed takes one of the degrees of freedom.
        deviation = length / math.sqrt(length - 1) if options else math.sqrt(length)
        correlations = (vectors @ vectors.T)[numpy.triu_indices(count, 1)] / deviation
        pairs = correlations.size
        excess = (float((correlations.astype(float) ** 2).sum()) - pairs) / math.sqrt(2 * pairs)
        assert abs(excess) < SIGMAS, name


@pytest.mark.parametrize("keep_prob", [0.5, 0.9, 1 / 3])
def test_neighbouring_draws_and_streams_do_not_correlate(keep_prob):
    """Draws 0 to 7, and draw 0 of 8 children, all pairs; m = 3 * 120."""
    n = 2**18
    stream = MaskStream(11)
    masks = [stream.draw((n,), keep_prob=keep_prob, at=draw) for draw in range(8)]
    masks += [child.draw((n,), keep_prob=keep_prob) for child in stream.spawn(8)]
    values = [standardized(mask.to_array(), keep_prob) for mask in masks]
    for a, b in itertools.combinations(values, 2):
        assert abs(float(a @ b)) < SIGMAS * math.sqrt(n)


@pytest.mark.parametrize("keep_prob", [0.5, 0.8, 0.1])
def test_every_position_is_kept_equally_often(keep_prob):
    """Over 20000 draws; each of 1000 positions, and the sum of their squares; m = 3 * 1001."""
    draws, positions = 20_000, 1000
    stream = MaskStream(5)
    counts = numpy.zeros(positions)
    for _ in range(draws):
        counts += stream.draw((positions,), keep_prob=keep_prob).to_array()
    scores = (counts - draws * keep_prob) / math.sqrt(draws * keep_prob * (1 - keep_prob))
    assert abs(scores).max() < SIGMAS
    assert abs((scores**2).sum() - positions) < SIGMAS * math.sqrt(2 * positions)


def test_every_position_is_kept_equally_often_over_seeds():
    """Draw 0 of 4000 seeds; each of 512 positions; m = 512."""
    seeds, positions = 4000, 512
    counts = sum(
        MaskStream(seed).draw((positions,), rate=0.5).to_array(numpy.int64) for seed in range(seeds)
    )
    assert abs(counts - seeds / 2).max() < SIGMAS * math.sqrt(seeds / 4)


def subset_counts(rows, k):
    """How often each subset of k columns occurs among the rows."""
    n = rows.shape[1]
    codes = rows.astype(numpy.int64) @ (1 << numpy.arange(n))
    subsets = [sum(1 << i for i in chosen) for chosen in itertools.combinations(range(n), k)]
    counts = [int((codes == subset).sum()) for subset in subsets]
    assert sum(counts) == len(rows)
    return counts


@pytest.mark.parametrize(("n", "k"), [(5, 2), (6, 3), (4, 1), (5, 4)])
def test_exact_counts_are_uniform_over_subsets(n, k):
    """Within one draw; m = 4."""
    rows = 60_000
    mask = MaskStream(6).draw((rows, n), keep_prob=k / n, exact_count=True).to_array()
    assert (mask.sum(axis=1) == k).all()
    counts = subset_counts(mask, k)
    assert abs(chi_square_sigmas(counts, rows / len(counts))) < SIGMAS


def test_exact_counts_are_uniform_over_subsets_from_draw_to_draw():
    """m = 1."""
    stream = MaskStream(6)
    draws = 20_000
    masks = [stream.draw((5,), rate=0.4, exact_count=True).to_array() for _ in range(draws)]
    counts = subset_counts(numpy.array(masks), 3)
    assert abs(chi_square_sigmas(counts, draws / 10)) < SIGMAS


def test_the_share_of_rows_that_agree_in_two_exact_count_masks():
    """The overlap of two independent subsets is hypergeometric; its mean, m = 1."""
    rows, n, k = 5000, 40, 20
    first, second = (
        MaskStream(0).draw((rows, n), rate=0.5, exact_count=True, at=draw).to_array()
        for draw in (0, 1)
    )
    overlap = (first & second).sum(axis=1).mean()
    sigma = math.sqrt(k * (k / n) * (1 - k / n) * (n - k) / (n - 1) / rows)
    assert abs(overlap - k * k / n) < SIGMAS * sigma


@pytest.mark.parametrize("options", [{}, {"exact_count": True}], ids=["bernoulli", "exact"])
def test_masks_of_one_draw_are_nested(options):
    probabilities = [0.0, 1e-6, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.500001, 0.75, 0.9, 0.999, 1.0]
    masks = [
        MaskStream(0).draw((40, 1000), keep_prob=keep_prob, **options).to_array()
        for keep_prob in probabilities
    ]
    for smaller, larger in itertools.pairwise(masks):
        assert (larger | ~smaller).all()
        assert larger.sum() >= smaller.sum()
    assert len({mask.tobytes() for mask in masks}) >= 10


# One of two processes: two threads, each with two children of one stream.
WORKER = """
import sys, threading
import fastdrop
first, draws = int(sys.argv[1]), int(sys.argv[2])
streams = fastdrop.MaskStream(99).spawn(8)[first : first + 4]
parts = [None] * 4

def work(numbers):
    for number in numbers:
        stream = streams[number]
        parts[number] = b"".join(
            stream.draw((1024,), rate=0.5).bits.tobytes() for _ in range(draws)
        )

threads = [threading.Thread(target=work, args=(numbers,)) for numbers in ((0, 1), (2, 3))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.stdout.buffer.write(b"".join(parts))
"""


def test_no_mask_twice_in_a_million_draws():
    """10**6 masks of 1024 bits: two processes, two threads each, two spawned streams each.

    No two of the masks share a single one of their 16 words of 64 bits, wherever it stands. A
    perfect source would with probability 7e-6.
    """
    draws = 125_000
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(first), str(draws)], stdout=subprocess.PIPE
        )
        for first in (0, 4)
    ]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    words = numpy.concatenate([numpy.frombuffer(output, numpy.uint64) for output in outputs])
    assert words.size == 16 * 8 * draws
    words.sort()
    assert (words[1:] != words[:-1]).all()


def test_dropout_without_a_seed_does_not_repeat_itself():
    x = numpy.ones(1024, numpy.float32)
    masks = {fastdrop.dropout(x, 0.5)[1].bits.tobytes() for _ in range(2000)}
    assert len(masks) == 2000
