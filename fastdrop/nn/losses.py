"""Losses: called with predictions and targets, they return the mean loss and its gradient."""

import math

import numpy

__all__ = ["Loss", "MeanSquaredError", "SigmoidCrossEntropy", "SoftmaxCrossEntropy"]


class Loss:
    """Base of the losses; ``loss(prediction, target) -> (value, grad)``.

    Attributes
    ----------
    step : int
        Calls that returned; a value that is not finite is reported with this number.
    """

    def __init__(self):
        self.step = 0

    def __call__(self, prediction, target):
        """Return the loss of a batch and its gradient.

        Parameters
        ----------
        prediction : numpy.ndarray of float32 or float64, shape (batch, ...)
            What the network returned.
        target : array_like
            What it should have returned; see the class.

        Returns
        -------
        value : float
        grad : numpy.ndarray, shape and dtype of `prediction`
            With respect to the prediction; a fresh array.

        Raises
        ------
        FloatingPointError
            If the value is not finite; the message names the step.
        TypeError, ValueError
            If prediction or target cannot be what they should.
        """
        prediction = numpy.asarray(prediction)
        name = type(self).__name__
        if prediction.dtype.char not in "fd":
            raise TypeError(
                f"{name}: prediction must be float32 or float64, got dtype {prediction.dtype}"
            )
        if prediction.size == 0 or prediction.ndim == 0:
            raise ValueError(
                f"{name}: prediction must have shape (batch, ...) and not be empty, got "
                f"{prediction.shape}"
            )
        value, grad = self._evaluate(prediction, numpy.asarray(target))
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{name}: the loss of step {self.step} is {value}; the learning rate may be too "
                "large, or the data not finite"
            )
        self.step += 1
        return value, grad

    def _same_shape(self, prediction, target):
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

    def __repr__(self):
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

    def _evaluate(self, prediction, target):
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
            value = -float(numpy.sum(logs * target, where=target != 0)) / batch
            mass = numpy.add.reduce(target, axis=1, keepdims=True)
            grad *= mass
            grad -= target
        else:
            self._check_labels(target, batch, classes)
            rows = numpy.arange(batch)
            chosen = shifted[rows, target]
            value = float(numpy.add.reduce(numpy.log(total[:, 0]) - chosen)) / batch
            grad[rows, target] -= 1
        grad *= 1 / batch
        return value, grad

    @staticmethod
    def _check_labels(target, batch, classes):
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

    def _evaluate(self, prediction, target):
        target = self._same_shape(prediction, target)
        small = numpy.exp(-numpy.abs(prediction))
        with numpy.errstate(invalid="ignore"):
            each = numpy.maximum(prediction, 0) - prediction * target + numpy.log1p(small)
        grad = numpy.where(prediction >= 0, 1, small) / (1 + small)
        grad -= target
        grad *= 1 / prediction.size
        return float(each.mean()), grad


class MeanSquaredError(Loss):
    """Mean over all elements of the squared difference.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.MeanSquaredError()(numpy.array([[3.0]]), [[1.0]])
    (4.0, array([[4.]]))
    """

    def _evaluate(self, prediction, target):
        with numpy.errstate(invalid="ignore", over="ignore"):
            difference = prediction - self._same_shape(prediction, target)
            value = float(numpy.mean(numpy.square(difference)))
        difference *= 2 / prediction.size
        return value, difference
