"""Monte Carlo dropout: what a network says with units dropped, as samples of a posterior [1]_.

A sample is one set of units for all rows of the data, and what stands before the first dropout is
computed once for all samples. Of many rows each sample is computed by itself, by products of the
size of what it keeps; of few rows many samples at a time, as rows of one matrix.

References
----------
.. [1] Y. Gal, Z. Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty
   in deep learning", ICML 2016, sections 3 and 4.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy
from scipy.optimize import minimize_scalar
from scipy.special import gammaln, log_expit, logsumexp

from fastdrop import nn
from fastdrop.dropouts import alpha_dropout, gaussian_dropout
from fastdrop.estimators.examples import chunk_rows, chunks
from fastdrop.estimators.network import dropout_layers, log_probabilities
from fastdrop.matmul import masked_matmul
from fastdrop.nn.unit_masks import unit_masks
from fastdrop.stream import MaskStream, as_stream
from fastdrop.types import Array, Seed

__all__ = ["Posterior", "best_precision", "log_densities", "log_mean", "moments"]


# Numbers of samples, rows of data, raw scores (samples, rows, n_outputs).
Samples: TypeAlias = Iterable[tuple[slice, slice, Array]]

# Samples of few rows are stacked, since the work of a sample is smaller than that of calling it: of
# up to 32 rows with every network, of up to 512 where rows times weights are at most
# `FEW_PRODUCTS`. Beyond these a sample by itself is faster, as it multiplies a part of the weights.
FEW_ROWS, MORE_ROWS = 32, 512
FEW_PRODUCTS = 1_000_000
# A stack has this share of the rows that a chunk of data has.
STACK_SHARE = 4
# Kinds of dropout that leave no unit out.
NOISES: dict[type, Callable[..., Any]] = {
    nn.GaussianDropout: gaussian_dropout,
    nn.AlphaDropout: alpha_dropout,
}


class Posterior:
    """Samples of a network.

    Sample number s uses draw number s of every dropout layer's stream: how many rows or samples
    there are changes no mask.

    Parameters
    ----------
    network : nn.Sequential
        Trained; is not changed.
    seed : sequence of int or None
        Of the masks; None as for the `rng` of a network: from the operating system, and another one
        after a fork.
    """

    def __init__(self, network: nn.Sequential, seed: Sequence[int] | None) -> None:
        self._network = network
        dropouts = dropout_layers(network)
        first = network.layers.index(dropouts[0]) if dropouts else len(network.layers)
        self._fixed, self._random = network.layers[:first], network.layers[first:]
        count = max(len(dropouts), 1)
        self._skips = all(isinstance(one, nn.Dropout) for one in dropouts)
        self._streams = _spawned(None, count) if seed is None else _kept_streams(tuple(seed), count)
        self._weights = sum(p.value.size for one in self._random for p in one.parameters())

    def samples(self, x: Any, n_samples: int) -> Iterator[tuple[slice, slice, Array]]:
        """Yield raw scores.

        Parameters
        ----------
        x : numpy.ndarray or CSR matrix, shape (n_rows, n_features)
        n_samples : int

        Yields
        ------
        slice
            Numbers of samples.
        slice
            The rows, for each of which all samples come in turn.
        numpy.ndarray, shape (samples, rows, n_outputs)
        """
        for places, part in chunks(self._network, x):
            part = numpy.ascontiguousarray(part, self._network.dtype)
            for layer in self._fixed:
                part = layer.forward(part)
            blocks: Iterable[tuple[slice, Array]]
            if not self._random:
                blocks = ((slice(s, s + 1), part[None]) for s in range(n_samples))
            elif not self._skips or self._is_small(len(part)):
                blocks = self._stacked(part, n_samples)
            else:
                blocks = self._one_by_one(part, n_samples)
            for numbers, raw in blocks:
                yield numbers, places, raw

    def _is_small(self, rows: int) -> bool:
        """Whether samples of so many rows are stacked."""
        return rows <= FEW_ROWS or (rows <= MORE_ROWS and rows * self._weights <= FEW_PRODUCTS)

    def _one_by_one(self, x: Array, n_samples: int) -> Iterator[tuple[slice, Array]]:
        """Sample after sample, each by products of the size of what it keeps."""
        network = _with_unit_masks(self._random, self._network.dtype)
        for layer, stream in zip(dropout_layers(network), self._streams, strict=True):
            layer.stream = MaskStream.from_state(stream.state)  # others draw from that one
        for sample in range(n_samples):
            yield slice(sample, sample + 1), network.forward(x, training=True)[None]

    def _stacked(self, x: Array, n_samples: int) -> Iterator[tuple[slice, Array]]:
        """Many samples at a time as rows of one matrix, for few rows of data or for noise."""
        rows, features = x.shape
        at_a_time = max(1, chunk_rows(self._network) // STACK_SHARE // rows)
        for first in range(0, n_samples, at_a_time):
            draws = min(at_a_time, n_samples - first)
            stack = numpy.broadcast_to(x, (draws, rows, features)).reshape(-1, features)
            following, mask = iter(self._streams), None
            for layer in self._random:
                if isinstance(layer, nn.Dropout):
                    mask = unit_masks(layer, next(following), first, draws, rows, stack.shape[1])
                elif type(layer) in NOISES:
                    stack = _noisy(layer, next(following), first, stack.reshape(draws, rows, -1))
                elif isinstance(layer, nn.Dense):  # stands behind each dropout
                    stack = masked_matmul(
                        stack, layer.weight, mask_in=mask, bias=layer.bias, skip_zeros=True
                    )
                    mask = None
                else:
                    stack = layer.forward(stack)
            yield slice(first, first + draws), stack.reshape(draws, rows, -1)


def _noisy(layer: Any, stream: MaskStream, first: int, stack: Array) -> Array:
    """Apply to each of a stack of samples, (samples, rows, units), the noise of its number.

    Returns
    -------
    numpy.ndarray, shape (samples * rows, units)
    """
    apply = NOISES[type(layer)]
    stream = MaskStream.from_state(stream.state)  # others draw from that one
    stream.position = first
    noisy = numpy.empty_like(stack)
    for x, out in zip(stack, noisy, strict=True):
        apply(x, keep_prob=layer.keep_prob, rng=stream, shared_axes=0, out=out)
    return noisy.reshape(-1, stack.shape[-1])


def _spawned(seed: Seed, count: int) -> tuple[MaskStream, ...]:
    """The streams of a network with this many dropout layers and this seed, at position 0."""
    return tuple(as_stream(seed).spawn(count))


# A service asks for one row after the other, always with the same seed; making streams takes longer
# than drawing from them. Nobody moves them.
_kept_streams = functools.lru_cache(maxsize=64)(_spawned)


def _with_unit_masks(layers: Sequence[nn.Layer], dtype: numpy.dtype[Any]) -> nn.Sequential:
    """A network with the weights of these layers, not copied, and one mask for a whole batch."""
    copies: list[nn.Layer] = []
    for layer in layers:
        if isinstance(layer, nn.Dense):
            copies.append(nn.Dense(layer.units_in, layer.units_out, "zeros"))
        elif isinstance(layer, nn.Dropout):
            copies.append(
                nn.Dropout(
                    keep_prob=layer.keep_prob,
                    rows_per_mask="batch",
                    exact_count=layer.exact_count,
                    scale_at=layer.scale_at,
                )
            )
        else:
            copies.append(type(layer)())
    network = nn.Sequential(copies, rng=0, dtype=dtype, skip_zeros=True)
    given = [parameter for layer in layers for parameter in layer.parameters()]
    for mine, other in zip(network.parameters(), given, strict=True):
        mine.value = other.value
    return network


def moments(
    samples: Samples, shape: tuple[int, int], of: Callable[[Array], Array]
) -> tuple[Array, Array]:
    """Return mean and variance over samples, in one pass over blocks of them [1]_.

    Parameters
    ----------
    samples : iterable
        As `Posterior.samples` yields.
    shape : tuple of int
        (rows, outputs).
    of : callable
        Makes values of raw scores (n, outputs).

    Returns
    -------
    mean, variance : numpy.ndarray of float64, shape (rows, outputs)

    References
    ----------
    .. [1] T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance:
       analysis and recommendations", The American Statistician 37 (1983).
    """
    mean, squares, number = numpy.zeros(shape), numpy.zeros(shape), 1
    for numbers, rows, raw in samples:
        before, number = numbers.start, numbers.stop
        values = of(raw.reshape(-1, raw.shape[2])).reshape(raw.shape).astype(numpy.float64)
        block = values.mean(axis=0)
        difference = block - mean[rows]
        share = (number - before) / number
        mean[rows] += share * difference
        squares[rows] += numpy.square(values - block).sum(axis=0)
        squares[rows] += before * share * numpy.square(difference)
    return mean, squares / number


def log_densities(raw: Array, target: Array, out_activation: str, tau: float | None) -> Array:
    """Return the log-likelihood of each row given one sample.

    Parameters
    ----------
    raw : numpy.ndarray, shape (rows, outputs)
    target : numpy.ndarray, shape (rows,) of class numbers, or (rows, outputs)
    out_activation : {"softmax", "logistic", "identity", "exp"}
        Of classes; of independent labels; of values with Gaussian noise of precision `tau`; of
        Poisson counts.
    tau : float or None
        None where there is no Gaussian noise.

    Returns
    -------
    numpy.ndarray of float64, shape (rows,)
    """
    raw = raw.astype(numpy.float64)
    if out_activation == "softmax":
        return log_probabilities(raw, "softmax")[numpy.arange(len(target)), target]
    each: Array
    if out_activation == "logistic":
        each = log_expit(numpy.where(target > 0, raw, -raw))
    elif out_activation == "exp":
        each = target * raw - numpy.exp(raw) - gammaln(target + 1)
    else:
        assert tau is not None
        each = 0.5 * (numpy.log(tau / (2 * numpy.pi)) - tau * numpy.square(target - raw))
    return numpy.asarray(each.sum(axis=1))


def best_precision(samples: Samples, target: Array, weights: Array | None) -> float:
    """Return the precision of Gaussian noise under which values are the most likely.

    Parameters
    ----------
    samples : iterable
        As `Posterior.samples` yields.
    target : numpy.ndarray, shape (rows, outputs)
    weights : numpy.ndarray or None, shape (rows,)

    Returns
    -------
    float
        Where the mean over the rows of the logarithm of the mean likelihood over the samples is
        greatest.
    """
    outputs = target.shape[1]
    blocks: dict[int, list[Array]] = {}
    for _, places, raw in samples:
        squares = numpy.square(target[places] - raw.astype(numpy.float64)).sum(axis=2)
        blocks.setdefault(places.start, []).append(squares)
    distances = numpy.concatenate(
        [numpy.concatenate(block) for _, block in sorted(blocks.items())], axis=1
    )
    # Noise that explains all of the distances is the largest that can be; that which explains
    # what the best samples leave, the smallest.
    smallest = numpy.finfo(numpy.float64).eps * max(float(numpy.square(target).mean()), 1e-300)
    low = outputs / max(float(distances.mean()), smallest)
    high = outputs / max(float(distances.min(axis=0).mean()), smallest)

    def negative(log_tau: float) -> float:
        each = logsumexp(-0.5 * numpy.exp(log_tau) * distances, axis=0)
        return float(-(numpy.average(each, weights=weights) + 0.5 * outputs * log_tau))

    found = minimize_scalar(
        negative, bounds=(numpy.log(low) - 1, numpy.log(high) + 1), method="bounded"
    )
    return float(numpy.exp(found.x))


def log_mean(samples: Samples, rows: int, of: Callable[[Array, slice], Array]) -> Array:
    """Return the logarithm of the mean over samples of the exponential of numbers for each row.

    Parameters
    ----------
    samples : iterable
        As `Posterior.samples` yields.
    rows : int
    of : callable
        Makes numbers (n,) of raw scores (n, outputs) and the rows' slice.

    Returns
    -------
    numpy.ndarray of float64, shape (rows,)
    """
    total: Array = numpy.full(rows, -numpy.inf)
    number = 1
    for numbers, places, raw in samples:
        number = numbers.stop
        each = numpy.stack([of(one, places) for one in raw])
        total[places] = numpy.logaddexp(total[places], logsumexp(each, axis=0))
    total -= numpy.log(number)
    return total
