"""What layers that draw at random have in common: a stream, a rate, a mask kept for backward."""

import numpy

from fastdrop.arguments import keep_probability, threshold
from fastdrop.functional import dropout_backward
from fastdrop.nn.layer import Layer, as_floats, fitting_gradient
from fastdrop.stream import MaskStream, as_stream

__all__ = ["DrawnLayer", "MaskedLayer", "RandomLayer", "RateLayer"]


class RandomLayer(Layer):
    """Base of layers with a mask stream; a `Sequential` offers each of them a child of its own.

    Attributes
    ----------
    stream : MaskStream
        Training forward number t uses its draw number t. A `Sequential` gives these layers the
        children of its own stream, in their order, except those that have one already: of `rng`,
        set here, or of the network they were in before. A layer outside has entropy of its own.
    """

    _stream = None
    _stream_is_own = False

    def __init__(self, rng=None):
        super().__init__()
        if rng is not None:
            self.stream = as_stream(rng)

    @property
    def stream(self):
        """MaskStream: where the masks come from."""
        if self._stream is None:
            self._stream = MaskStream()
        return self._stream

    @stream.setter
    def stream(self, stream):
        if not isinstance(stream, MaskStream):
            raise TypeError(f"stream must be a fastdrop.MaskStream, got {type(stream).__name__}")
        self._stream = stream
        self._stream_is_own = True

    def offer_stream(self, stream):
        """Take a stream, unless the layer has been given one before."""
        if not self._stream_is_own:
            self.stream = stream


class RateLayer(RandomLayer):
    """Base of layers that drop each unit with one probability.

    Parameters
    ----------
    rate, keep_prob : float
        Probability that a unit is dropped, or kept; exactly one of the two. Setting one later
        checks it and holds from the next forward pass on.
    rng : optional
        As for `fastdrop.dropout`.
    """

    def __init__(self, rate=None, keep_prob=None, rng=None):
        super().__init__(rng)
        self._set_keep_prob(keep_probability(rate, keep_prob))

    @property
    def rate(self):
        """float: probability that a unit is dropped."""
        return 1.0 - self._keep_prob

    @rate.setter
    def rate(self, rate):
        self._set_keep_prob(keep_probability(_given(rate, "rate"), None))

    @property
    def keep_prob(self):
        """float: probability that a unit is kept."""
        return self._keep_prob

    @keep_prob.setter
    def keep_prob(self, keep_prob):
        self._set_keep_prob(keep_probability(None, _given(keep_prob, "keep_prob")))

    def _set_keep_prob(self, keep_prob):
        self._keep_prob = keep_prob
        self._threshold = threshold(keep_prob)

    def settings(self):
        """Return the arguments by name."""
        return {"keep_prob": self._keep_prob}


class DrawnLayer(RandomLayer):
    """Base of layers whose backward pass needs what the forward pass has drawn, and no more.

    A class derived from it defines ``_drop(x, training, out)``, which writes the result to `out`
    and returns what was drawn, and ``_gradient(grad, drawn)``.
    """

    _mask = _drawn_for = None

    def _drop(self, x, training, out):
        raise NotImplementedError(f"{self.name} defines no _drop")

    def _gradient(self, grad, drawn):
        raise NotImplementedError(f"{self.name} defines no _gradient")

    def forward(self, x, training=False):
        """Return x with units dropped, or as it is used at test time.

        Parameters
        ----------
        x : array_like of float16, float32 or float64, shape (batch, ...)
        training : bool, optional

        Returns
        -------
        numpy.ndarray, shape and dtype of `x`; of float16, float32
            A fresh array.
        """
        x = as_floats(x, self.name)
        y = numpy.empty(x.shape, x.dtype)
        mask = self._drop(x, training, y)
        if training:
            self._mask, self._drawn_for = mask, (x.shape, x.dtype)
        return y

    def backward(self, grad, input_gradient=True):
        """Return the gradient with respect to the input, or None if it is not asked for.

        Raises
        ------
        RuntimeError
            Without a training forward before it.
        ValueError
            If `grad` has another shape than the output.
        """
        if self._drawn_for is None:
            raise self._missing_forward()
        grad = fitting_gradient(grad, *self._drawn_for, self.name)
        return self._gradient(grad, self._mask) if input_gradient else None


class MaskedLayer(DrawnLayer, RateLayer):
    """Base of layers whose gradient is that of their input under the mask of the forward pass."""

    def _gradient(self, grad, mask):
        return dropout_backward(grad, mask)


def _given(value, name):
    """A probability that is set, which must be there."""
    if value is None:
        raise TypeError(f"{name} must be a real number, got None")
    return value
