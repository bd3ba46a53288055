"""An estimator's network: its layers, its first weights, its masks' seed, its loss and outputs.

The losses of `fastdrop.nn` are means over all elements; here are the sums over the outputs, and the
halves, that scikit-learn's perceptrons report and descend.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy
from scipy.special import expit, log_expit, log_softmax
from sklearn.utils import check_random_state

from fastdrop import nn
from fastdrop.estimators.parameters import Activation, DropoutKind, RandomState, Rate
from fastdrop.stream import MaskStream
from fastdrop.types import Array, RowsPerMask

__all__ = [
    "Objective",
    "as_random_state",
    "build",
    "dense_layers",
    "draw_weights",
    "dropout_layers",
    "log_probabilities",
    "mask_seed",
    "output",
]

ACTIVATIONS: dict[str, type[nn.Layer]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "tanh": nn.Tanh,
}
DROPOUTS = (nn.Dropout, nn.GaussianDropout, nn.AlphaDropout)


def build(
    sizes: Sequence[int],
    activation: Activation,
    rates: Sequence[Rate],
    rows_per_mask: RowsPerMask,
    exact_count: bool,
    dtype: numpy.dtype[Any],
    seed: Sequence[int],
    kind: DropoutKind = "bernoulli",
) -> nn.Sequential:
    """Return the network, all weights 0; its last layer is a Dense and gives raw scores.

    Parameters
    ----------
    sizes : sequence of int
        Units of the input, of each hidden layer and of the output.
    activation : str
        Of the hidden layers; a key of `ACTIVATIONS`.
    rates : sequence of float or callable
        Dropout rate of the input and of each hidden layer.
    rows_per_mask, exact_count
        As for `nn.Dropout`.
    dtype : numpy.dtype
    seed : sequence of int
        Of the masks.
    kind : {"bernoulli", "gaussian", "alpha"}, optional
        Of the dropout.

    Returns
    -------
    nn.Sequential
    """
    layers: list[nn.Layer] = []
    for position, rate in enumerate(rates):
        if position:
            layers.append(nn.Dense(sizes[position - 1], sizes[position], "zeros"))
            layers.append(ACTIVATIONS[activation]())
        if not rate:
            continue
        if kind == "gaussian":
            layers.append(nn.GaussianDropout(rate))
        elif kind == "alpha":
            layers.append(nn.AlphaDropout(rate))
        else:
            layers.append(
                nn.Dropout(
                    rate,
                    rows_per_mask=rows_per_mask,
                    exact_count=exact_count,
                    # Of what is always dropped, predictions know nothing either: its factor is 0.
                    scale_at="test" if rate == 1 else "train",
                )
            )
    layers.append(nn.Dense(sizes[-2], sizes[-1], "zeros"))
    return nn.Sequential(layers, rng=seed, dtype=dtype, skip_zeros=True)


def dense_layers(network: nn.Sequential) -> list[nn.Dense]:
    """The Dense layers of a network, in their order."""
    return [layer for layer in network.layers if isinstance(layer, nn.Dense)]


def dropout_layers(network: nn.Sequential) -> list[Any]:
    """The dropout layers of a network, of any kind, in their order."""
    return [layer for layer in network.layers if isinstance(layer, DROPOUTS)]


def as_random_state(random_state: RandomState) -> numpy.random.RandomState:
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
        state: numpy.random.RandomState = check_random_state(random_state)
        return state
    seed = numpy.random.SeedSequence([int(word) for word in words])
    return numpy.random.RandomState(numpy.random.MT19937(seed))


def draw_weights(
    network: nn.Sequential, activation: Activation, random_state: numpy.random.RandomState
) -> None:
    """Draw weights and biases as scikit-learn does, with the same numbers for the same state.

    Uniform, of variance ``2 / (units_in + units_out)``, for logistic units a third of it [1]_. For
    SELU units normal, of variance ``1 / units_in``, and biases of 0 [2]_.

    Parameters
    ----------
    network : nn.Sequential
    activation : str
    random_state : numpy.random.RandomState

    References
    ----------
    .. [1] X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
       networks", AISTATS 2010, section 4.2.1.
    .. [2] G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural
       networks", NeurIPS 2017, section 4 ("Initialization").
    """
    factor = 2.0 if activation == "logistic" else 6.0
    for layer in dense_layers(network):
        if activation == "selu":
            scale = 1 / math.sqrt(layer.units_in)
            layer.weight = random_state.normal(0, scale, layer.weight.shape)
            continue
        limit = math.sqrt(factor / (layer.units_in + layer.units_out))
        layer.weight = random_state.uniform(-limit, limit, layer.weight.shape)
        layer.bias = random_state.uniform(-limit, limit, layer.bias.shape)


def mask_seed(random_state: numpy.random.RandomState) -> list[int]:
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


class Objective:
    """The loss that belongs to an output activation, and its gradient by raw scores.

    Parameters
    ----------
    out_activation : {"softmax", "logistic", "identity", "exp"}
        Cross-entropy of classes; of independent labels, summed over them; half the squared error,
        averaged over the outputs, its gradient summed; half the Poisson deviance, summed.
    outputs : int
    """

    def __init__(self, out_activation: str, outputs: int) -> None:
        kinds: dict[str, tuple[type[nn.Loss], float, float]] = {
            "softmax": (nn.SoftmaxCrossEntropy, 1, 1),
            "logistic": (nn.SigmoidCrossEntropy, outputs, outputs),
            "identity": (nn.MeanSquaredError, 0.5, 0.5 * outputs),
            "exp": (nn.PoissonDeviance, outputs, outputs),
        }
        loss, value, grad = kinds[out_activation]
        self._loss = loss()
        self._value = value
        self._grad = grad

    def __call__(
        self, raw: Array, target: Array, sample_weight: Array | None
    ) -> tuple[float, Array]:
        """Return value and gradient for a batch, as an `nn.Loss` does.

        A value that overflows float32 is that of float64.
        """
        value, grad = self._loss.evaluate(raw, target, sample_weight)
        if not math.isfinite(value) and raw.dtype == numpy.float32:
            value, _ = self._loss.evaluate(raw.astype(numpy.float64), target, sample_weight)
        if self._grad != 1:
            grad *= self._grad
        return value * self._value, grad


def output(raw: Array, out_activation: str) -> Array:
    """Return raw scores as probabilities or values, of the same shape and dtype.

    A fresh array, but for ``"identity"``.
    """
    result: Array
    if out_activation == "identity":
        result = raw
    elif out_activation == "exp":
        result = numpy.exp(raw)
    elif out_activation == "logistic":
        result = expit(raw)
    else:
        result = raw - numpy.maximum.reduce(raw, axis=-1, keepdims=True)
        numpy.exp(result, out=result)
        result /= numpy.add.reduce(result, axis=-1, keepdims=True)
    return result


def log_probabilities(raw: Array, out_activation: str) -> Array:
    """Return the logarithms of `output`, finite where the probability itself rounds to 0.

    Two probabilities that are equal have equal logarithms.
    """
    result: Array
    if out_activation != "logistic":
        result = log_softmax(raw, axis=-1)
    else:
        result = log_expit(raw)
        numpy.log(expit(raw), where=raw >= 0, out=result)
    return result
