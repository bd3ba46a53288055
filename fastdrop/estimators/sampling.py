"""Monte Carlo dropout: what a network says with units dropped, as samples of a posterior [1]_.

A sample is one set of units for all rows of the data, so its products have the size of what it
keeps, and what stands before the first dropout is computed once for all samples.

References
----------
.. [1] Y. Gal, Z. Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty
   in deep learning", ICML 2016, sections 3 and 4.
"""

import warnings

import numpy
from scipy.special import gammaln, log_expit

from fastdrop import nn
from fastdrop.estimators.objective import log_probabilities
from fastdrop.estimators.rows import chunks

__all__ = ["Posterior", "log_densities", "log_mean", "moments"]


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

    def __init__(self, network, seed):
        self._network = network
        places = [i for i, one in enumerate(network.layers) if isinstance(one, nn.Dropout)]
        first = places[0] if places else len(network.layers)
        self._fixed = network.layers[:first]
        self._random = None
        if places:
            self._random = _with_unit_masks(network.layers[first:], seed, network.dtype)
        else:
            warnings.warn("dropout and input_dropout are 0: every sample is the same", stacklevel=4)

    def samples(self, x, n_samples):
        """Yield raw scores.

        Parameters
        ----------
        x : numpy.ndarray or CSR matrix, shape (n_rows, n_features)
        n_samples : int

        Yields
        ------
        int
            Number of the sample.
        slice
            The rows, for each of which all samples come in turn.
        numpy.ndarray, shape (rows, n_outputs)
        """
        for places, part in chunks(self._network, x):
            part = numpy.ascontiguousarray(part, self._network.dtype)
            for layer in self._fixed:
                part = layer.forward(part)
            if self._random is not None:
                for layer in _dropouts(self._random):
                    layer.stream.position = 0
            for sample in range(n_samples):
                fixed = self._random is None
                raw = part if fixed else self._random.forward(part, training=True)
                yield sample, places, raw


def _dropouts(network):
    return [layer for layer in network.layers if isinstance(layer, nn.Dropout)]


def _with_unit_masks(layers, seed, dtype):
    """A network with the weights of these layers, not copied, and one mask for a whole batch."""
    copies = []
    for layer in layers:
        if isinstance(layer, nn.Dense):
            copies.append(nn.Dense(layer.units_in, layer.units_out, "zeros"))
        elif isinstance(layer, nn.Dropout):
            chances = {"keep_prob": layer.keep_prob, "exact_count": layer.exact_count}
            copies.append(nn.Dropout(rows_per_mask="batch", **chances))
        else:
            copies.append(type(layer)())
    network = nn.Sequential(copies, rng=seed, dtype=dtype, skip_zeros=True)
    given = [parameter for layer in layers for parameter in layer.parameters()]
    for mine, other in zip(network.parameters(), given, strict=True):
        mine.value = other.value
    return network


def moments(samples, shape, of):
    """Return mean and variance over samples, in one pass (Welford 1962).

    Parameters
    ----------
    samples : iterable
        As `Posterior.samples` yields.
    shape : tuple of int
        (rows, outputs).
    of : callable
        Makes values of raw scores.

    Returns
    -------
    mean, variance : numpy.ndarray of float64, shape (rows, outputs)
    """
    mean, squares, number = numpy.zeros(shape), numpy.zeros(shape), 0
    for sample, rows, raw in samples:
        number = sample + 1
        values = of(raw)
        difference = values - mean[rows]
        mean[rows] += difference / number
        squares[rows] += difference * (values - mean[rows])
    return mean, squares / number


def log_densities(raw, target, out_activation, tau):
    """Return the log-likelihood of each row given one sample.

    Parameters
    ----------
    raw : numpy.ndarray, shape (rows, outputs)
    target : numpy.ndarray, shape (rows,) of class numbers, or (rows, outputs)
    out_activation : {"softmax", "logistic", "identity", "exp"}
        Of classes; of independent labels; of values with Gaussian noise of precision `tau`; of
        Poisson counts.
    tau : float or None

    Returns
    -------
    numpy.ndarray of float64, shape (rows,)
    """
    raw = raw.astype(numpy.float64)
    if out_activation == "softmax":
        return log_probabilities(raw, "softmax")[numpy.arange(len(target)), target]
    if out_activation == "logistic":
        each = log_expit(numpy.where(target > 0, raw, -raw))
    elif out_activation == "exp":
        each = target * raw - numpy.exp(raw) - gammaln(target + 1)
    else:
        each = 0.5 * (numpy.log(tau / (2 * numpy.pi)) - tau * numpy.square(target - raw))
    return each.sum(axis=1)


def log_mean(samples, rows, of):
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
    total, number = numpy.full(rows, -numpy.inf), 0
    for sample, places, raw in samples:
        total[places] = numpy.logaddexp(total[places], of(raw, places))
        number = sample + 1
    return total - numpy.log(number)
