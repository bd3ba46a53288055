"""One global batch: every rank's rows forward and backward, gradients summed over the ranks."""

from contextlib import contextmanager

import numpy

from fastdrop.arguments import as_array
from fastdrop.interop.mpi.leaving import Interrupts
from fastdrop.interop.mpi.sums import GradientSums

__all__ = ["GlobalBatch"]

MOST_AXES = 8
OK, FAILED, INTERRUPTED = range(3)


class GlobalBatch:
    """Computes the gradients of batches whose rows lie on the ranks, rank 0's first.

    Parameters
    ----------
    ranks : Ranks
    net : nn.Sequential
    optimisers : sequence of optim objects
        That all ranks must have moved equally often, at the same learning rate.
    """

    def __init__(self, ranks, net, optimisers):
        self.ranks = ranks
        self.net = net
        self._optimisers = optimisers
        self._interrupts = Interrupts()
        self._sums = GradientSums(ranks)

    @contextmanager
    def step(self, x, y, loss, sample_weight=None):
        """Sum the gradients; the body of the ``with`` moves the parameters.

        Parameters
        ----------
        x, y, sample_weight : array_like, shape (rows, ...)
            This rank's.
        loss : callable
            ``loss(prediction, target[, sample_weight]) -> (mean, gradient)`` for any rows.

        Yields
        ------
        value : float
            The mean loss of the global batch.
        total : int or float
            Its rows, or the sum of its weights.

        Raises
        ------
        Exception
            On all ranks, if any has an error before gradients are computed: nothing has changed
            then.
        KeyboardInterrupt
            On all ranks, if any was interrupted: before the step, or after it.
        """
        with self._interrupts:
            try:
                x, y, weights, rows, total, mine = self._header(x, y, sample_weight)
                value, grad, interrupted = self._forward(x, y, weights, loss, rows, mine / total)
                self.net.backward(grad, ready=self._sums.add)
                self._sums.finish()
                yield value, total
                if interrupted is not None:
                    self._stop(interrupted)
            except BaseException as error:
                self.ranks.fail(error)
                raise

    def _stop(self, rank):
        self.ranks.refuse(f"rank {rank} was interrupted", KeyboardInterrupt)

    def _interrupted(self):
        pending, self._interrupts.pending = self._interrupts.pending, False
        return pending

    # --- Before: who has which rows ----------------------------------------------------------------

    def _header(self, x, y, sample_weight):
        """Check what all ranks bring; return this one's with (first row, rows in all).

        Returns also the sum of all weights and of this rank's own; rows count where there are none.
        """
        error, record = None, numpy.zeros(7 + MOST_AXES, numpy.int64)
        weights = None
        try:
            x, y, weights = self._checked(x, y, sample_weight)
            record[1 : 3 + x.ndim - 1] = (len(x), x.ndim, *x.shape[1:])
            if weights is not None:
                record[-4] = 1
                record[-3] = _as_bits(weights.sum(dtype=numpy.float64))
        except Exception as caught:
            error = caught
        if error is not None:
            record[0] = FAILED
        elif self._interrupted():
            record[0] = INTERRUPTED
        record[-2] = self._position()
        record[-1] = self._learning_rate()
        records = self.ranks.gather(record)
        states = records[:, 0]
        if (states == FAILED).any():
            self.ranks.raise_first(states == FAILED, error)
        if (states == INTERRUPTED).any():
            self._stop(int(numpy.flatnonzero(states == INTERRUPTED)[0]))
        self._compare(records)
        counts = records[:, 1]
        rows = int(counts[: self.ranks.rank].sum()), int(counts.sum())
        if not len(x):  # a rank without rows takes part with none of the others' shape
            full = records[numpy.flatnonzero(counts)[0]]
            x = numpy.empty((0, *full[3 : 2 + full[2]]), self.net.dtype)
        if weights is None:
            return x, y, None, rows, rows[1], len(x)
        sums = records[:, -3].copy().view(numpy.float64)
        total = float(sums.sum())
        if not 0 < total < numpy.inf:
            self.ranks.refuse(f"sample_weight must have a positive, finite sum, got {total}")
        return x, y, weights, rows, total, float(sums[self.ranks.rank])

    def _checked(self, x, y, sample_weight):
        x, y = as_array(x, "x_rows"), as_array(y, "y_rows")
        if x.ndim < 1 or x.ndim > MOST_AXES:
            raise ValueError(
                f"x_rows must have shape (rows, ...) and at most {MOST_AXES} axes, got {x.shape}"
            )
        if y.ndim < 1 or len(y) != len(x):
            raise ValueError(
                f"y_rows must have as many rows as x_rows, expected {len(x)}, got shape {y.shape}"
            )
        if sample_weight is None:
            return x, y, None
        weights = as_array(sample_weight, "sample_weight")
        if weights.dtype.kind not in "biuf" or weights.shape != (len(x),):
            raise ValueError(
                f"sample_weight must hold real numbers, shape ({len(x)},), got dtype "
                f"{weights.dtype} and shape {weights.shape}"
            )
        if len(x) and not weights.min() >= 0:
            raise ValueError(f"sample_weight must be at least 0, got {weights.min()}")
        return x, y, weights

    def _streams(self):
        return [layer.stream for layer in self.net.layers if hasattr(layer, "stream")]

    def _position(self):
        """Steps and draws so far, as one number."""
        draws = sum(stream.position for stream in self._streams())
        steps = sum(optimiser.steps for optimiser in self._optimisers)
        return (steps & 0x7FFFFFFF) << 32 | draws & 0xFFFFFFFF

    def _learning_rate(self):
        """The bits of the learning rate; of a schedule 0, since it goes by the steps."""
        rates = [optimiser.learning_rate for optimiser in self._optimisers]
        return _as_bits(sum(0.0 if callable(rate) else rate for rate in rates))

    def _compare(self, records):
        """Refuse ranks that do not fit together."""
        with_rows = records[:, 1] > 0
        if not with_rows.any():
            self.ranks.refuse("x_rows must have a row on one rank at least, got none on all")
        self._same(
            records[:, 2 : 2 + MOST_AXES],
            with_rows,
            lambda line: f"x_rows of shape (rows, {', '.join(map(str, line[1 : line[0]]))})",
        )
        everybody = numpy.full(len(records), True)
        self._same(
            records[:, -4:-3],
            everybody,
            lambda line: "sample_weight" if line[0] else "no sample_weight",
        )
        self._same(
            records[:, -2:-1],
            everybody,
            lambda line: f"{line[0] >> 32} steps and {line[0] & 0xFFFFFFFF} draws behind it",
        )
        self._same(
            records[:, -1:], everybody, lambda line: f"the learning rate {_as_float(line[0]):g}"
        )

    def _same(self, lines, of, say):
        """Refuse ranks among some whose lines differ; `say` tells what a rank has by its line."""
        places = numpy.flatnonzero(of)
        other = places[(lines[places] != lines[places[0]]).any(axis=1)]
        if other.size:
            first, second = int(places[0]), int(other[0])
            self.ranks.refuse(
                f"rank {second} has {say(lines[second])}, rank {first} has {say(lines[first])}"
            )

    # --- Forward and loss --------------------------------------------------------------------------

    def _forward(self, x, y, weights, loss, rows, share):
        """Return the global mean, this rank's part of its gradient, and who was interrupted."""
        positions = [stream.position for stream in self._streams()]
        error, value, grad = None, 0.0, None
        try:
            prediction = self.net.forward(x, training=True, rows=rows)
            if share:
                arguments = (prediction, y) if weights is None else (prediction, y, weights)
                value, grad = loss(*arguments)
                value, grad = float(value) * share, numpy.asarray(grad) * share
            else:
                grad = numpy.zeros_like(prediction)
        except Exception as caught:
            error = caught
        record = numpy.array([error is not None, self._interrupted(), value])
        records = self.ranks.gather(record)
        if records[:, 0].any():
            for stream, position in zip(self._streams(), positions, strict=True):
                stream.position = position
            self.ranks.raise_first(records[:, 0] > 0, error)
        interrupted = numpy.flatnonzero(records[:, 1])
        return (
            float(records[:, 2].sum()),
            grad,
            int(interrupted[0]) if interrupted.size else None,
        )


def _as_bits(number):
    return numpy.float64(number).view(numpy.int64)


def _as_float(bits):
    return float(bits.view(numpy.float64))
