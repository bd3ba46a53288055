"""One global batch: every rank's rows forward and backward, gradients summed over the ranks.

A step has no exchange that a rank waits for in vain, as long as ranks bring as many rows as in the
step before: the header travels during the forward pass, the value of the loss and the gradients
during the backward pass.
"""

from contextlib import contextmanager

import numpy

from fastdrop.interop.mpi.headers import OwnRows, check_rows_fit, header
from fastdrop.interop.mpi.leaving import Interrupts
from fastdrop.interop.mpi.sums import GradientSums

__all__ = ["GlobalBatch"]


class GlobalBatch:
    """Computes the gradients of batches whose rows lie on the ranks, rank 0's first.

    Parameters
    ----------
    ranks : Ranks
    net : nn.Sequential
    optimisers : sequence of optim objects
        That all ranks must have moved equally often, at the same learning rate.
    interrupts : Interrupts, optional
        Of a loop around the steps.
    """

    def __init__(self, ranks, net, optimisers, interrupts=None):
        self.ranks = ranks
        self.net = net
        self._optimisers = optimisers
        self._interrupts = interrupts or Interrupts()
        self._sums = GradientSums(ranks)
        self._counts = self._guess = None  # rows of each rank in the last step, and in the next
        self._trailing = self._fits = None

    @contextmanager
    def step(self, x, y, loss, sample_weight=None, counts=None):
        """Sum the gradients; the body of the ``with`` moves the parameters.

        Parameters
        ----------
        x, y, sample_weight : array_like, shape (rows, ...)
            This rank's.
        loss : callable
            ``loss(prediction, target[, sample_weight]) -> (mean, gradient)`` for any rows.
        counts : numpy.ndarray of int, shape (size,), optional
            Rows of every rank, where they are known.

        Yields
        ------
        value : float
            The mean loss of the global batch.
        total : float
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
            positions = [stream.position for stream in self._streams()]
            try:
                value, total, interrupted = self._gradients(x, y, sample_weight, loss, counts)
            except BaseException as error:
                self._restore(positions)
                self.ranks.fail(error)
                raise
            try:
                yield value, total
                if interrupted.size:
                    self._stop(interrupted[0])
            except BaseException as error:
                self.ranks.fail(error)
                raise

    def _gradients(self, x, y, sample_weight, loss, counts):
        ranks, positions = self.ranks, [stream.position for stream in self._streams()]
        own, error = self._own(x, y, sample_weight)
        records = ranks.start_round(self._header(own))
        guess = self._guess if counts is None else counts
        known = guess is not None and self._trailing is not None and own is not None
        if not known or guess[ranks.rank] != len(own.x):
            guess = None
        result = None
        if guess is not None:
            result = self._forward(own, guess, self._trailing, loss)
        ranks.wait()
        ranks.check_round(records)
        counts, sums, trailing = check_rows_fit(ranks, records[:, 1:], error)
        if guess is None or (guess != counts).any() or trailing != self._trailing:
            self._restore(positions)
            result = self._forward(own, counts, trailing, loss)
        self._guess = counts if self._counts is None or (self._counts == counts).all() else None
        self._counts, self._trailing = counts, trailing
        value, grad, error = result
        total = float(sums.sum())
        if error is not None:
            # Without its rows the rank goes through the same exchanges as all others.
            self._restore(positions)
            nothing = OwnRows(own.x[:0], own.y[:0], None)
            try:
                value, grad, _ = self._forward(nothing, counts, trailing, None)
            except Exception:
                raise error from None
        share = float(sums[ranks.rank]) / total
        grad = numpy.asarray(grad) * share
        outcomes = ranks.start_gather(
            numpy.array([error is not None, self._interrupted(), value * share])
        )
        self.net.backward(grad, ready=self._sums.add)
        self._sums.finish()
        if outcomes[:, 0].any():
            ranks.raise_first(outcomes[:, 0] > 0, error)
        return float(outcomes[:, 2].sum()), total, numpy.flatnonzero(outcomes[:, 1])

    def _own(self, x, y, sample_weight):
        """This rank's rows, or None and the error that they have."""
        try:
            own = OwnRows(x, y, sample_weight)
            kind = (own.x.dtype, own.x.shape[1:])
            if len(own.x) and kind != self._fits:
                self.net.forward(own.x[:0])  # an error of the network's if it takes no such rows
                self._fits = kind
        except Exception as error:
            return None, error
        return own, None

    def _header(self, own):
        groups = [group for optimiser in self._optimisers for group in optimiser.groups]
        rates = [group.learning_rate for group in groups]
        return header(
            own,
            own is not None and self._interrupted(),
            sum(optimiser.steps for optimiser in self._optimisers),
            sum(stream.position for stream in self._streams()),
            sum(0.0 if callable(rate) else rate for rate in rates),  # a schedule goes by the steps
        )

    def _forward(self, own, counts, trailing, loss):
        """Return mean loss and gradient of this rank's rows, and the error that there was."""
        x = own.x
        if not len(x):
            x = numpy.empty((0, *trailing), self.net.dtype)
        first = int(counts[: self.ranks.rank].sum())
        rows = (first, int(counts.sum()))
        try:
            prediction = self.net.forward(x, training=True, rows=rows)
            if not len(x) or (own.weights is not None and not own.weights.any()):
                return 0.0, numpy.zeros_like(prediction), None
            targets = (own.y,) if own.weights is None else (own.y, own.weights)
            value, grad = loss(prediction, *targets)
            return float(value), grad, None
        except Exception as error:
            if loss is None:
                raise
            return 0.0, None, error

    def _streams(self):
        return [layer.stream for layer in self.net.layers if hasattr(layer, "stream")]

    def _restore(self, positions):
        for stream, position in zip(self._streams(), positions, strict=True):
            stream.position = position

    def _interrupted(self):
        pending, self._interrupts.pending = self._interrupts.pending, False
        return pending

    def _stop(self, rank):
        self.ranks.refuse(f"rank {rank} was interrupted", KeyboardInterrupt)
