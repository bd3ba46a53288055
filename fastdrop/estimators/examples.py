"""Rows of dense and sparse data, some at a time, and examples: rows with what is to be learnt."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy
from scipy import sparse
from sklearn.model_selection import train_test_split

from fastdrop import nn
from fastdrop.estimators.network import Objective
from fastdrop.types import Array

if TYPE_CHECKING:
    from fastdrop.estimators.base import MultilayerPerceptron

__all__ = ["Examples", "Rows", "chunk_rows", "chunks", "evaluate", "split"]

# Elements of the widest layer in one chunk: 4 MB of float32, and as many rows at least.
CHUNK = 1 << 20
LEAST_ROWS = 64


class Rows:
    """Rows of a matrix as C-contiguous arrays of one dtype; sparse ones become dense as taken.

    Parameters
    ----------
    x : numpy.ndarray or sparse matrix, shape (n_samples, n_features)
    dtype : numpy.dtype
    """

    def __init__(self, x: Any, dtype: numpy.dtype[Any]) -> None:
        self.x: Any
        self.sparse: bool = sparse.issparse(x)
        if self.sparse:
            self.x = x.tocsr().astype(dtype, copy=False)
        else:
            self.x = numpy.ascontiguousarray(x, dtype)
        self._taken = numpy.empty(0, dtype)

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def take(self, rows: Array) -> Array:
        """Return these rows, in an array that the next call overwrites.

        Parameters
        ----------
        rows : numpy.ndarray of int, shape (n,)
        """
        shape = (len(rows), self.x.shape[1])
        size = shape[0] * shape[1]
        if self._taken.size < size:
            self._taken = numpy.empty(size, self._taken.dtype)
        taken = self._taken[:size].reshape(shape)
        if self.sparse:
            self.x[rows].toarray(out=taken)
        else:
            numpy.take(self.x, rows, axis=0, out=taken, mode="clip")
        return taken


def chunk_rows(network: nn.Sequential) -> int:
    """How many rows of data the layers of a network have room for at a time."""
    widest: int = max(max(parameter.value.shape) for parameter in network.parameters())
    return max(LEAST_ROWS, CHUNK // widest)


def chunks(
    network: nn.Sequential, x: Any, chosen: Array | None = None
) -> Iterator[tuple[slice, Array]]:
    """Yield rows of data, dense and no more at a time than the network's layers have room for.

    Parameters
    ----------
    network : nn.Sequential
        Its widest layer decides how many.
    x : numpy.ndarray or CSR matrix, or Rows where `chosen` is given, shape (n_samples, n_features)
    chosen : numpy.ndarray of int, shape (n,), optional
        Which rows of `Rows`; all by default.

    Yields
    ------
    slice
        Their places among all, or among the chosen.
    numpy.ndarray, shape (rows, n_features)
    """
    rows = chunk_rows(network)
    total = len(chosen) if chosen is not None else x.shape[0]
    for first in range(0, total, rows):
        places = slice(first, min(first + rows, total))
        if chosen is not None:
            yield places, x.take(chosen[places])
        else:
            part = x[places]
            yield places, part.toarray() if sparse.issparse(part) else part


def evaluate(network: nn.Sequential, x: Any, chosen: Array | None = None) -> Array:
    """Return what a network says about rows of data at test time.

    Parameters
    ----------
    network, x, chosen
        As for `chunks`.

    Returns
    -------
    numpy.ndarray, shape (n, outputs)
        Raw scores, of the network's dtype.
    """
    outputs = network.parameters()[-1].value.shape[-1]
    total = len(chosen) if chosen is not None else x.shape[0]
    raw = numpy.empty((total, outputs), network.dtype)
    for places, part in chunks(network, x, chosen):
        raw[places] = network.forward(part)
    return raw


@dataclass
class Examples:
    """Rows of data with what is to be learnt of them.

    Attributes
    ----------
    rows : Rows
    target : numpy.ndarray, shape (n_samples,) of class numbers, or (n_samples, n_outputs)
    weights : numpy.ndarray or None, shape (n_samples,)
    given : numpy.ndarray
        The targets as the user gave them.
    places : numpy.ndarray of int
        Which of the rows these are, in their order.
    """

    rows: Rows
    target: Array
    weights: Array | None
    given: Array
    places: Array

    def __len__(self) -> int:
        return int(self.places.size)

    def at(self, places: Array) -> Self:
        """The examples at these places among the rows."""
        return replace(self, places=places)

    def part(self, wanted: int) -> Self:
        """At most this many of the examples, evenly spaced; of weight 0 not all, if possible."""
        places = self.places
        if self.weights is not None:
            places = places[self.weights[places] > 0]
        if len(places) > wanted:
            places = places[numpy.linspace(0, len(places) - 1, wanted).astype(int)]
        return self.at(places)

    def targets(self) -> tuple[Array, Array | None]:
        """Their targets and weights, the latter None where all weigh the same."""
        weights = None if self.weights is None else self.weights[self.places]
        return self.target[self.places], weights

    def features(self) -> Any:
        """Their rows of data, an array or CSR matrix of shape (n, n_features)."""
        return self.rows.x[self.places]

    def gradients(self, network: nn.Sequential, objective: Objective, places: Array) -> float:
        """Let a network have the gradients of a batch.

        Parameters
        ----------
        network : nn.Sequential
        objective : Objective
        places : numpy.ndarray of int
            Of the batch's examples among the rows.

        Returns
        -------
        float
            The value of the objective.
        """
        weights = None if self.weights is None else self.weights[places]
        raw = network.forward(self.rows.take(places), training=True)
        value, grad = objective(raw, self.target[places], weights)
        network.backward(grad)
        return value

    def raw(self, network: nn.Sequential) -> Array:
        """Raw scores of a network without masks, shape (n, outputs)."""
        return evaluate(network, self.rows, self.places)

    def loss(self, model: "MultilayerPerceptron", raw: Array | None = None) -> float:
        """The loss, without penalty, of these raw scores, or of the network's without masks."""
        target, weights = self.targets()
        raw = self.raw(model._network) if raw is None else raw
        return Objective(model.out_activation_, model.n_outputs_)(raw, target, weights)[0]

    def score(self, model: "MultilayerPerceptron", scorer: Callable[..., float]) -> float:
        """What a scorer of scikit-learn's says of a model.

        Its `predict` sees the rows as they are here, so names of features are not compared.
        """
        view = object.__new__(type(model))
        view.__dict__.update(model.__dict__)
        view.__dict__.pop("feature_names_in_", None)
        _, weights = self.targets()
        more = {} if weights is None else {"sample_weight": weights}
        return float(scorer(view, self.features(), self.given[self.places], **more))


def split(model: "MultilayerPerceptron", examples: Examples) -> tuple[Examples, Examples]:
    """Hold out some of the examples.

    Parameters
    ----------
    model : MultilayerPerceptron
        Decides how many, and whether classes are to be there in their shares.
    examples : Examples

    Returns
    -------
    training, held_out : Examples

    Raises
    ------
    ValueError
        If too little is held out, or one of both parts has weights of 0 only.
    """
    # The numbers that scikit-learn's split takes from the random state, for the same parts.
    training, held_out = train_test_split(
        examples.places,
        random_state=model._random_state,
        test_size=model.validation_fraction,
        stratify=examples.given if model._stratified() else None,
    )
    if len(held_out) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your "
            f"dataset. validation_fraction={model.validation_fraction} holds out {len(held_out)} "
            f"of {len(examples)} samples, at least 2 are needed"
        )
    if examples.weights is not None:
        for part, places in (("training", training), ("validation", held_out)):
            if not examples.weights[places].any():
                raise ValueError(
                    f"sample_weight is 0 for all {len(places)} samples of the {part} part, which "
                    f"validation_fraction={model.validation_fraction} and random_state split off "
                    f"{len(examples)} samples: {numpy.count_nonzero(examples.weights)} have a "
                    "weight. Leave out samples of weight 0, or give X_val and y_val"
                )
    return examples.at(training), examples.at(held_out)
