"""What an estimator minimises, and what its raw scores mean.

The losses of `fastdrop.nn` are means over all elements; here are the sums over the outputs, and the
halves, that scikit-learn's perceptrons report and descend.
"""

import math

import numpy
from scipy.special import expit, log_expit, log_softmax

from fastdrop import nn

__all__ = ["Objective", "log_probabilities", "output"]


class Objective:
    """The loss that belongs to an output activation, and its gradient by raw scores.

    Parameters
    ----------
    out_activation : {"softmax", "logistic", "identity", "exp"}
        Cross-entropy of classes; of independent labels, summed over them; half the squared error,
        averaged over the outputs, its gradient summed; half the Poisson deviance, summed.
    outputs : int
    """

    def __init__(self, out_activation, outputs):
        loss, value, grad = {
            "softmax": (nn.SoftmaxCrossEntropy, 1, 1),
            "logistic": (nn.SigmoidCrossEntropy, outputs, outputs),
            "identity": (nn.MeanSquaredError, 0.5, 0.5 * outputs),
            "exp": (nn.PoissonDeviance, outputs, outputs),
        }[out_activation]
        self._loss = loss()
        self._value = value
        self._grad = grad

    def __call__(self, raw, target, sample_weight):
        """Return value and gradient for a batch, as an `nn.Loss` does.

        A value that overflows float32 is that of float64.
        """
        value, grad = self._loss.evaluate(raw, target, sample_weight)
        if not math.isfinite(value) and raw.dtype == numpy.float32:
            value, _ = self._loss.evaluate(raw.astype(numpy.float64), target, sample_weight)
        if self._grad != 1:
            grad *= self._grad
        return value * self._value, grad


def output(raw, out_activation):
    """Return raw scores as probabilities or values, of the same shape and dtype.

    A fresh array, but for ``"identity"``.
    """
    if out_activation == "identity":
        return raw
    if out_activation == "exp":
        return numpy.exp(raw)
    if out_activation == "logistic":
        return expit(raw)
    result = raw - numpy.maximum.reduce(raw, axis=-1, keepdims=True)
    numpy.exp(result, out=result)
    result /= numpy.add.reduce(result, axis=-1, keepdims=True)
    return result


def log_probabilities(raw, out_activation):
    """Return the logarithms of `output`, finite where the probability itself rounds to 0.

    Two probabilities that are equal have equal logarithms.
    """
    if out_activation != "logistic":
        return log_softmax(raw, axis=-1)
    result = log_expit(raw)
    return numpy.log(expit(raw), where=raw >= 0, out=result)
