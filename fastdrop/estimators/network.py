"""From an estimator's parameters to a network: its layers, its first weights, its masks' seed."""

import copy
import math

import numpy
from sklearn.utils import check_random_state

from fastdrop import nn
from fastdrop.stream import MaskStream

__all__ = [
    "as_random_state",
    "build",
    "dense_layers",
    "draw_weights",
    "dropout_layers",
    "mask_seed",
]

ACTIVATIONS = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
}


def build(sizes, activation, rates, rows_per_mask, exact_count, dtype, seed):
    """Return the network, all weights 0; its last layer is a Dense and gives raw scores.

    Parameters
    ----------
    sizes : sequence of int
        Units of the input, of each hidden layer and of the output.
    activation : str
        Of the hidden layers; a key of `ACTIVATIONS`.
    rates : sequence of float
        Dropout rate of the input and of each hidden layer.
    rows_per_mask, exact_count
        As for `nn.Dropout`.
    dtype : numpy.dtype
    seed : optional
        Of the masks.

    Returns
    -------
    nn.Sequential
    """
    layers = []
    for position, rate in enumerate(rates):
        if position:
            layers.append(nn.Dense(sizes[position - 1], sizes[position], "zeros"))
            layers.append(ACTIVATIONS[activation]())
        if rate:
            masks = {"rows_per_mask": rows_per_mask, "exact_count": exact_count}
            # Of what is always dropped, predictions know nothing either: its factor is 0.
            scale_at = "test" if rate == 1 else "train"
            layers.append(nn.Dropout(rate, **masks, scale_at=scale_at))
    layers.append(nn.Dense(*sizes[-2:], "zeros"))
    return nn.Sequential(layers, rng=seed, dtype=dtype, skip_zeros=True)


def dense_layers(network):
    """The Dense layers of a network, in their order."""
    return [layer for layer in network.layers if isinstance(layer, nn.Dense)]


def dropout_layers(network):
    """The Dropout layers of a network, in their order."""
    return [layer for layer in network.layers if isinstance(layer, nn.Dropout)]


def as_random_state(random_state):
    """Return the `numpy.random.RandomState` that an estimator's `random_state` stands for.

    Parameters
    ----------
    random_state : int, numpy.random.RandomState, numpy.random.Generator, MaskStream or None
        A generator or stream gives 128 bits as the seed of a new state, and is advanced by that.

    Returns
    -------
    numpy.random.RandomState
        The given one itself where it is one; for None the one of NumPy's global functions.
    """
    if isinstance(random_state, numpy.random.Generator):
        words = random_state.integers(0, 2**32, 4, dtype=numpy.uint32)
    elif isinstance(random_state, MaskStream):
        words = random_state.draw((128,), rate=0.5).bits.view("<u4")
    else:
        return check_random_state(random_state)
    seed = numpy.random.SeedSequence([int(word) for word in words])
    return numpy.random.RandomState(numpy.random.MT19937(seed))


def draw_weights(network, activation, random_state):
    """Draw weights and biases as scikit-learn does, with the same numbers for the same state.

    Uniform, of variance ``2 / (units_in + units_out)``, for logistic units a third of it (Glorot
    and Bengio, AISTATS 2010, section 4.2.1).

    Parameters
    ----------
    network : nn.Sequential
    activation : str
    random_state : numpy.random.RandomState
    """
    factor = 2.0 if activation == "logistic" else 6.0
    for layer in dense_layers(network):
        limit = math.sqrt(factor / (layer.units_in + layer.units_out))
        layer.weight = random_state.uniform(-limit, limit, layer.weight.shape)
        layer.bias = random_state.uniform(-limit, limit, layer.bias.shape)


def mask_seed(random_state):
    """Seeds for the mask streams, from a copy of the state, which itself is left where it is.

    So weights, validation split and order of the examples are the same with dropout and without.

    Parameters
    ----------
    random_state : numpy.random.RandomState

    Returns
    -------
    list of int
    """
    words = copy.deepcopy(random_state).randint(0, 2**32, 4, dtype=numpy.uint32)
    return [int(word) for word in words]
