"""Losses: called with predictions and targets, they return the mean loss and its gradient."""

import math

import numpy
from numpy.typing import ArrayLike

from fastdrop.arguments import as_array, integer
from fastdrop.attributes import Sealed
from fastdrop.types import Array

__all__ = [
    "Loss",
    "MeanSquaredError",
    "PoissonDeviance",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
]


class Loss(Sealed):
    """Base of the losses; ``loss(prediction, target, sample_weight=None) -> (value, grad)``.

    Attributes
    ----------
    step : int
        Calls that returned; a value that is not finite is reported with this number. May be set.
    """

    _step = 0

    @property
    def step(self) -> int:
        """int: calls that returned."""
        return self._step

    @step.setter
    def step(self, step: int) -> None:
        step = integer(step, "step")
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}")
        self._step = step

    def __call__(
        self, prediction: ArrayLike, target: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[float, Array]:
        """Return the loss of a batch and its gradient.

        Parameters
        ----------
        prediction : numpy.ndarray of float16, float32 or float64, shape (batch, ...)
            What the network returned; float16 is computed in float32.
        target : array_like
            What it should have returned; see the class.
        sample_weight : array_like of real numbers, shape (batch,), optional
            What each example counts for: the mean is weighted by it, so that a weight of 2 is the
            same as the example twice. At least 0, not all of them 0.

        Returns
        -------
        value : float
        grad : numpy.ndarray, shape and dtype of `prediction`; of float16, float32
            With respect to the prediction; a fresh array.

        Raises
        ------
        FloatingPointError
            If the value is not finite; the message names the step.
        TypeError, ValueError
            If prediction or target cannot be what they should.
        """
        value, grad = self.evaluate(prediction, target, sample_weight)
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{type(self).__name__}: the loss of step {self.step} is {value}; the learning "
                "rate may be too large, or the data not finite"
            )
        self._step += 1
        return value, grad

    def evaluate(
        self, prediction: ArrayLike, target: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[float, Array]:
        """Return the loss of a batch and its gradient, also where the value is not finite.

        Parameters and returned values are those of a call, which counts as no step here.
        """
        prediction = as_array(prediction, "prediction")
        name = type(self).__name__
        if prediction.dtype.char not in "efd":
            raise TypeError(
                f"{name}: prediction must be float16, float32 or float64, got dtype "
                f"{prediction.dtype}"
            )
        if prediction.size == 0 or prediction.ndim == 0:
            raise ValueError(
                f"{name}: prediction must have shape (batch, ...) and not be empty, got "
                f"{prediction.shape}"
            )
        if prediction.dtype.char == "e":
            prediction = prediction.astype(numpy.float32)
        shares = None
        if sample_weight is not None:
            shares = self._shares(as_array(sample_weight, "sample_weight"), prediction)
        return self._evaluate(prediction, as_array(target, "target"), shares)

    def _evaluate(
        self, prediction: Array, target: Array, shares: Array | None
    ) -> tuple[float, Array]:
        raise NotImplementedError(f"{type(self).__name__} defines no _evaluate")

    def _shares(self, weights: Array, prediction: Array) -> Array:
        """The weights as shares of their sum, one for each example."""
        name, batch = type(self).__name__, len(prediction)
        if weights.dtype.kind not in "biuf":
            raise TypeError(
                f"{name}: sample_weight must hold real numbers, got dtype {weights.dtype}"
            )
        if weights.shape != (batch,):
            raise ValueError(
                f"{name}: sample_weight must have shape ({batch},), got {weights.shape}"
            )
        weights = weights.astype(prediction.dtype, copy=False)
        total = float(numpy.add.reduce(weights))
        if not (numpy.minimum.reduce(weights) >= 0 and 0 < total < math.inf):
            raise ValueError(
                f"{name}: sample_weight must be finite, at least 0 and not all 0, got a least "
                f"weight of {weights.min()} and a sum of {total}"
            )
        return weights / total

    @staticmethod
    def _mean(each: Array, grad: Array, shares: Array | None) -> float:
        """Mean of the losses of all elements; turns their gradients into those of the mean."""
        if shares is None:
            grad *= 1 / grad.size
            return float(each.mean())
        shares = shares.reshape(-1, *[1] * (grad.ndim - 1))
        others = grad.size // len(grad)
        grad *= shares / others
        return float(numpy.sum(each * shares)) / others

    def _same_shape(self, prediction: Array, target: Array) -> Array:
        if target.dtype.kind not in "biuf":
            raise TypeError(
                f"{type(self).__name__}: target must hold real numbers, got dtype {target.dtype}"
            )
        if target.shape != prediction.shape:
            raise ValueError(
                f"{type(self).__name__}: target must have the shape of the prediction, expected "
                f"{prediction.shape}, got {target.shape}"
            )
        return target.astype(prediction.dtype, copy=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of the softmax of scores, mean over the batch.

    Targets are class numbers, shape (batch,), or probabilities of the classes, shape
    (batch, classes).

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> value, grad = nn.SoftmaxCrossEntropy()(numpy.zeros((1, 2)), [0])
    >>> round(value, 4), grad
    (0.6931, array([[-0.5,  0.5]]))
    """

    _sealed = True

    def _evaluate(
        self, prediction: Array, target: Array, shares: Array | None
    ) -> tuple[float, Array]:
        if prediction.ndim != 2:
            raise ValueError(
                "SoftmaxCrossEntropy: prediction must have shape (batch, classes), got "
                f"{prediction.shape}"
            )
        batch, classes = prediction.shape
        top = numpy.maximum.reduce(prediction, axis=1, keepdims=True)
        with numpy.errstate(invalid="ignore"):  # infinite scores end in a loss that is reported
            shifted = prediction - top
        grad = numpy.exp(shifted)
        total = numpy.add.reduce(grad, axis=1, keepdims=True)
        grad /= total
        if target.ndim == 2:
            target = self._same_shape(prediction, target)
            logs = shifted - numpy.log(total)
            # A class of probability 0 adds nothing, also where its logarithm is infinite.
            each = -numpy.sum(logs * target, axis=1, where=target != 0)
            mass = numpy.add.reduce(target, axis=1, keepdims=True)
            grad *= mass
            grad -= target
        else:
            self._check_labels(target, batch, classes)
            rows = numpy.arange(batch)
            chosen = shifted[rows, target]
            each = numpy.log(total[:, 0]) - chosen
            grad[rows, target] -= 1
        if shares is None:
            grad *= 1 / batch
            return float(numpy.add.reduce(each)) / batch, grad
        grad *= shares[:, None]
        return float(numpy.dot(each, shares)), grad

    @staticmethod
    def _check_labels(target: Array, batch: int, classes: int) -> None:
        if target.dtype.kind not in "iu":
            raise TypeError(
                "SoftmaxCrossEntropy: target must hold class numbers (ints), or probabilities of "
                f"shape (batch, classes), got dtype {target.dtype} and shape {target.shape}"
            )
        if target.shape != (batch,):
            raise ValueError(
                f"SoftmaxCrossEntropy: target must have shape ({batch},), got {target.shape}"
            )
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"SoftmaxCrossEntropy: target must be in [0, {classes}), got "
                f"{low if low < 0 else high}"
            )


class SigmoidCrossEntropy(Loss):
    """Cross-entropy of the logistic function of scores, mean over all elements.

    Targets are probabilities of the shape of the prediction. ``max(s, 0) - s*t +
    log(1 + exp(-|s|))`` of score s and target t overflows nowhere.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> value, grad = nn.SigmoidCrossEntropy()(numpy.zeros((1, 2)), [[0, 1]])
    >>> round(value, 4), grad
    (0.6931, array([[ 0.25, -0.25]]))
    """

    _sealed = True

    def _evaluate(
        self, prediction: Array, target: Array, shares: Array | None
    ) -> tuple[float, Array]:
        target = self._same_shape(prediction, target)
        small = numpy.exp(-numpy.abs(prediction))
        with numpy.errstate(invalid="ignore"):
            each = numpy.maximum(prediction, 0) - prediction * target + numpy.log1p(small)
        grad = numpy.where(prediction >= 0, 1, small) / (1 + small)
        grad -= target
        return self._mean(each, grad, shares), grad


class MeanSquaredError(Loss):
    """Mean over all elements of the squared difference.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.MeanSquaredError()(numpy.array([[3.0]]), [[1.0]])
    (4.0, array([[4.]]))
    """

    _sealed = True

    def _evaluate(
        self, prediction: Array, target: Array, shares: Array | None
    ) -> tuple[float, Array]:
        with numpy.errstate(invalid="ignore", over="ignore"):
            grad = prediction - self._same_shape(prediction, target)
            value = self._mean(numpy.square(grad), grad, shares)
        grad *= 2
        return value, grad


class PoissonDeviance(Loss):
    """Half the Poisson deviance of counts from the exponential of scores, mean over all elements.

    ``exp(s) - t*s + t*log(t) - t`` of score s and target t, at least 0: the regression of counts,
    and of other targets that are not negative, with a logarithmic link.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.PoissonDeviance()(numpy.zeros((1, 1)), [[1]])
    (0.0, array([[0.]]))
    """

    _sealed = True

    def _evaluate(
        self, prediction: Array, target: Array, shares: Array | None
    ) -> tuple[float, Array]:
        target = self._same_shape(prediction, target)
        if numpy.minimum.reduce(target, axis=None) < 0:
            raise ValueError(f"PoissonDeviance: target must be at least 0, got {target.min()}")
        with numpy.errstate(over="ignore", invalid="ignore"):
            grad = numpy.exp(prediction)
            each = grad - target * prediction
            each += target * numpy.log(numpy.where(target > 0, target, 1)) - target
            grad -= target
            return self._mean(each, grad, shares), grad
