"""Examples of an estimator's fit, of which each rank holds the rows of its own."""

import importlib
from dataclasses import dataclass

import numpy

from fastdrop.estimators.examples import Examples, evaluate
from fastdrop.interop.mpi.batch import GlobalBatch

__all__ = ["RankExamples", "Shares"]


class Shares:
    """What all parts of a fit's examples have in common.

    Parameters
    ----------
    ranks : Ranks
    model : MultilayerPerceptron
    bounds : numpy.ndarray of int, shape (size + 1,)
        Where the rows of each rank begin among all, and where the last ones end.
    interrupts : Interrupts
    """

    def __init__(self, ranks, model, bounds, interrupts):
        self.ranks = ranks
        self.bounds = bounds
        self._model = model
        self._interrupts = interrupts
        self._batch = None

    @property
    def batch(self):
        """GlobalBatch: of the network and the solver that the fit has made meanwhile."""
        network, solver = self._model._network, self._model._solver
        if self._batch is None or self._batch.net is not network:
            self._batch = GlobalBatch(self.ranks, network, solver.optimisers, self._interrupts)
        return self._batch

    def counts(self, places):
        """How many of some rows, in ascending order, each rank holds."""
        return numpy.diff(numpy.searchsorted(places, self.bounds))


@dataclass
class RankExamples(Examples):
    """Examples whose targets and weights are here, and whose rows are on the ranks.

    Attributes
    ----------
    rows : Rows
        This rank's; other attributes are of all ranks' rows.
    shares : Shares
    """

    shares: Shares

    def _mine(self, places):
        """Which of some places are this rank's, as a mask."""
        first, stop = self.shares.bounds[self.shares.ranks.rank :][:2]
        return (places >= first) & (places < stop)

    def features(self):
        """The rows of data of all ranks' examples, gathered on every rank: meant for a few."""
        ranks, first = self.shares.ranks, self.shares.bounds[self.shares.ranks.rank]
        parts = ranks.gather_objects(self.rows.x[self.places[self._mine(self.places)] - first])
        sparse = importlib.import_module("scipy.sparse")
        parts = [part for part in parts if part.shape[0]]  # others may be of another kind
        if any(map(sparse.issparse, parts)):
            together = sparse.vstack(parts, format="csr")
        else:
            together = numpy.concatenate(parts)
        return together[self._in_order_of_ranks()]

    def _in_order_of_ranks(self):
        """Where each example is among the ones of rank 0, then those of rank 1, and so on."""
        owners = numpy.searchsorted(self.shares.bounds, self.places, side="right")
        return numpy.argsort(numpy.argsort(owners, kind="stable"), kind="stable")

    def gradients(self, network, objective, places):
        """Let the network have the gradients of a batch, in the order of the rows.

        So the batch is the same on any number of ranks, rank 0's rows first.
        """
        places = numpy.sort(places)
        mine = places[self._mine(places)]
        weights = None if self.weights is None else self.weights[mine]
        x = self.rows.take(mine - self.shares.bounds[self.shares.ranks.rank])
        target = self.target[mine]
        counts = self.shares.counts(places)
        with self.shares.batch.step(x, target, _Called(objective), weights, counts) as (value, _):
            return value

    def raw(self, network):
        """Raw scores of a network without masks, shape (n, outputs); the same on all ranks."""
        ranks, part, error = self.shares.ranks, None, None
        first = self.shares.bounds[ranks.rank]
        try:
            part = evaluate(network, self.rows, self.places[self._mine(self.places)] - first)
        except Exception as caught:
            error = caught
        ranks.agree(error)
        parts = ranks.gather_rows(part, self.shares.counts(numpy.sort(self.places)))
        return parts[self._in_order_of_ranks()]


class _Called:
    """An estimator's objective as a `GlobalBatch` calls a loss."""

    def __init__(self, objective):
        self._objective = objective

    def __call__(self, prediction, target, weights=None):
        return self._objective(prediction, target, weights)
