"""What ranks tell each other before a step: which rows they bring, and where they are."""

import numpy

from fastdrop.arguments import as_array

__all__ = ["OwnRows", "check_rows_fit", "header"]

MOST_AXES = 8
OK, FAILED, INTERRUPTED = range(3)


class OwnRows:
    """One rank's part of a batch, as arrays.

    Attributes
    ----------
    x, y : numpy.ndarray
    weights : numpy.ndarray or None
    """

    def __init__(self, x, y, sample_weight):
        self.x, self.y = as_array(x, "x_rows"), as_array(y, "y_rows")
        self.weights = None
        x, y = self.x, self.y
        if not 1 <= x.ndim <= MOST_AXES:
            raise ValueError(
                f"x_rows must have shape (rows, ...), at most {MOST_AXES} axes, got {x.shape}"
            )
        if y.ndim < 1 or len(y) != len(x):
            raise ValueError(
                f"y_rows must have as many rows as x_rows, expected {len(x)}, got shape {y.shape}"
            )
        if sample_weight is None:
            return
        self.weights = weights = as_array(sample_weight, "sample_weight")
        if weights.dtype.kind not in "biuf" or weights.shape != (len(x),):
            raise ValueError(
                f"sample_weight must hold real numbers, shape ({len(x)},), got dtype "
                f"{weights.dtype} and shape {weights.shape}"
            )
        if len(x) and not weights.min() >= 0:
            raise ValueError(f"sample_weight must be at least 0, got {weights.min()}")


def header(own, interrupted, steps, draws, learning_rate):
    """Return what a rank tells before a step, a list of ints.

    Parameters
    ----------
    own : OwnRows or None
        None where this rank has an error.
    interrupted : bool
    steps, draws : int
        What is behind the optimisers and the mask streams.
    learning_rate : float
    """
    rows = weight = axes = weighted = 0
    trailing = ()
    if own is not None:
        rows, axes, trailing = len(own.x), own.x.ndim, own.x.shape[1:]
        if own.weights is not None:
            weighted, weight = 1, _as_bits(own.weights.sum(dtype=numpy.float64))
    state = FAILED if own is None else INTERRUPTED if interrupted else OK
    padding = (0,) * (MOST_AXES - 1 - len(trailing))
    return [
        state, rows, weight,
        axes, *trailing, *padding, weighted, steps, draws, _as_bits(learning_rate),
    ]  # fmt: skip


def check_rows_fit(ranks, records, error):
    """Raise on all ranks what is wrong with their records.

    Parameters
    ----------
    ranks : Ranks
    records : numpy.ndarray of int64, shape (size, n)
        Their headers.
    error : Exception or None
        This rank's own.

    Returns
    -------
    counts : numpy.ndarray of int, shape (size,)
        Rows of each rank.
    sums : numpy.ndarray of float64, shape (size,)
        Of their weights, each 1 where there are none.
    trailing : tuple of int
        The shape of x without the rows.

    Raises
    ------
    Exception
        The first error of a rank; KeyboardInterrupt; ValueError where ranks differ.
    """
    states = records[:, 0]
    if states.any():
        if (states == FAILED).any():
            ranks.raise_first(states == FAILED, error)
        first = int(numpy.flatnonzero(states)[0])
        ranks.refuse(f"rank {first} was interrupted", KeyboardInterrupt)
    counts = records[:, 1]
    full = numpy.flatnonzero(counts)
    if not full.size:
        ranks.refuse("x_rows must have a row on one rank at least, got none on all")
    if (records[:, 3:] != records[0, 3:]).any():
        _refuse_different(ranks, records, full)
    line = records[full[0]]
    sums = _as_floats(records[:, 2]) if line[-4] else counts.astype(float)
    if not 0 < sums.sum() < numpy.inf:
        ranks.refuse(f"sample_weight must have a sum greater than 0 and finite, got {sums.sum()}")
    return counts, sums, tuple(line[4 : 3 + line[3]].tolist())


def _refuse_different(ranks, records, full):
    """Raise what ranks do not agree on; those without rows may have any shape of x."""
    everybody = numpy.arange(len(records))
    _same(ranks, records[:, 3 : 3 + MOST_AXES], full, _shape)
    _same(
        ranks,
        records[:, -4:-3],
        everybody,
        lambda line: ("no sample_weight", "sample_weight")[line[0]],
    )
    _same(
        ranks,
        records[:, -3:-1],
        everybody,
        lambda line: f"done {line[0]} steps and {line[1]} draws",
    )
    _same(ranks, records[:, -1:], everybody, lambda line: f"learning rate {_as_floats(line)[0]:g}")


def _shape(line):
    return f"x_rows of shape (rows, {', '.join(map(str, line[1 : line[0]]))})"


def _same(ranks, lines, of, say):
    """Refuse ranks among some whose lines differ; `say` tells what a rank has by its line."""
    other = of[(lines[of] != lines[of[0]]).any(axis=1)]
    if other.size:
        first, second = int(of[0]), int(other[0])
        ranks.refuse(
            f"rank {second} has {say(lines[second])}, rank {first} has {say(lines[first])}"
        )


def _as_bits(number):
    return int(numpy.float64(number).view(numpy.int64))


def _as_floats(bits):
    return numpy.ascontiguousarray(bits).view(numpy.float64)
