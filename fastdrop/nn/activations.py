"""Activation functions: each element by itself."""

import math

import numpy

from fastdrop.arguments import real_number
from fastdrop.nn.layer import Layer, as_floats, fitting_gradient, fresh

__all__ = ["Elementwise", "Identity", "LeakyReLU", "ReLU", "Sigmoid", "Tanh"]


class Elementwise(Layer):
    """Base of the activation functions: each element by itself.

    One of your own derives from it and defines `function` and `derivative`. A `Sequential` computes
    it with the Dense before it, on what the masks keep only. What is to be as fast as the ones here
    defines `apply` and `multiply_derivative` instead, which work in place.

    Attributes
    ----------
    from_output : bool
        Whether the derivative can be told from the output alone; the input is then not kept, and
        None is handed over in its place. False unless a class says otherwise.
    homogeneous : bool
        Whether ``f(s * x) == s * f(x)`` for every ``s >= 0``. Such a function may change places
        with a dropout. False unless a class says otherwise.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> class Swish(nn.Elementwise):
    ...     def function(self, x):
    ...         return x / (1 + numpy.exp(-x))
    ...     def derivative(self, x, y):
    ...         gate = 1 / (1 + numpy.exp(-x))
    ...         return y + gate * (1 - y)
    >>> net = nn.Sequential([nn.Dense(2, 3), Swish(), nn.Dropout(0.5), nn.Dense(3, 1)], rng=0)
    >>> net.forward(numpy.ones((4, 2)), training=True).shape
    (4, 1)
    """

    _sealed = True
    fused_as = "elementwise"
    from_output = False
    homogeneous = False
    _input = _output = _applied = None

    def function(self, x):
        """Return the function of every element of x, an array of its shape.

        Parameters
        ----------
        x : numpy.ndarray of float32 or float64
            Not to be changed.
        """
        raise NotImplementedError(f"{self.name} defines no function")

    def derivative(self, x, y):
        """Return the derivative at x, where the function is y; an array of their shape.

        Parameters
        ----------
        x, y : numpy.ndarray of float32 or float64
            Not to be changed. `x` is None where `from_output` is true.
        """
        raise NotImplementedError(f"{self.name} defines no derivative")

    def apply(self, x, out, scratch):
        """Write the function of x to out.

        Parameters
        ----------
        x, out : numpy.ndarray
            Two arrays, or where `from_output` is true perhaps one.
        scratch : callable
            ``scratch(name, shape, dtype)`` gives a work array.
        """
        y = numpy.asarray(self.function(x))
        if y.shape != x.shape:
            raise ValueError(
                f"{self.name}: function must return the shape of x, expected {x.shape}, got "
                f"{y.shape}"
            )
        numpy.copyto(out, y, casting="same_kind")

    def multiply_derivative(self, grad, x, y, scratch):
        """Multiply grad by the derivative, in place.

        Parameters
        ----------
        grad : numpy.ndarray
        x, y : numpy.ndarray
            As for `derivative`.
        scratch : callable
            As for `apply`.
        """
        slope = numpy.asarray(self.derivative(x, y))
        if slope.shape != grad.shape:
            raise ValueError(
                f"{self.name}: derivative must return the shape of y, expected {grad.shape}, got "
                f"{slope.shape}"
            )
        numpy.multiply(grad, slope, out=grad)

    def forward(self, x, training=False):
        """Return the activations.

        Parameters
        ----------
        x : array_like of float16, float32 or float64, any shape
        training : bool, optional
            Keep what `backward` needs.

        Returns
        -------
        numpy.ndarray, shape and dtype of `x`; of float16, float32
        """
        x = as_floats(x, self.name)
        y = numpy.empty(x.shape, x.dtype)
        self.apply(x, y, fresh)
        if training:
            self._input = None if self.from_output else x.copy()
            self._output = y.copy()
            self._applied = self.as_applied()
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
        if self._output is None:
            raise self._missing_forward()
        grad = fitting_gradient(grad, self._output.shape, self._output.dtype, self.name)
        if not input_gradient:
            return None
        grad = grad.copy()
        self._applied.multiply_derivative(grad, self._input, self._output, fresh)
        return grad

    def __repr__(self):
        return f"{type(self).__name__}()"


class ReLU(Elementwise):
    """``max(x, 0)`` [1]_.

    NaN stays NaN, so that a loss can tell; the derivative at 0 is 0. The products behind a ReLU
    leave out the zeros it makes where that is faster.

    References
    ----------
    .. [1] V. Nair, G. Hinton, "Rectified linear units improve restricted Boltzmann machines",
       ICML 2010.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.ReLU().forward(numpy.array([[-1.0, 2.0]]))
    array([[0., 2.]])
    """

    _sealed = True
    fused_as = "relu"
    from_output = homogeneous = True

    def apply(self, x, out, scratch):
        """Write ``max(x, 0)`` to out."""
        numpy.maximum(x, 0, out=out)

    def multiply_derivative(self, grad, x, y, scratch):
        """Set grad to 0 where y is not positive."""
        off = scratch("off", y.shape, numpy.bool_)
        numpy.less_equal(y, 0, out=off)
        numpy.copyto(grad, 0, where=off)


class LeakyReLU(Elementwise):
    """``x`` where it is positive, ``negative_slope * x`` elsewhere [1]_.

    Parameters
    ----------
    negative_slope : float, optional
        At least 0 and finite. May be set later.

    References
    ----------
    .. [1] A. L. Maas, A. Y. Hannun, A. Y. Ng, "Rectifier nonlinearities improve neural network
       acoustic models", ICML 2013, section 2.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.LeakyReLU(0.5).forward(numpy.array([[-1.0, 2.0]]))
    array([[-0.5,  2. ]])
    """

    _sealed = True
    fused_as = "elementwise"
    from_output = homogeneous = True

    def __init__(self, negative_slope=0.01):
        super().__init__()
        self.negative_slope = negative_slope

    @property
    def negative_slope(self):
        """float: the factor on negative values."""
        return self._slope

    @negative_slope.setter
    def negative_slope(self, slope):
        slope = real_number(slope, "negative_slope")
        if not 0 <= slope < math.inf:
            raise ValueError(f"negative_slope must be at least 0 and finite, got {slope}")
        self._slope = slope

    def settings(self):
        """Return the slope, by name."""
        return {"negative_slope": self._slope}

    def apply(self, x, out, scratch):
        """Write x or the slope times x to out."""
        slope = self._slope
        lowered = scratch("lowered", x.shape, x.dtype)
        numpy.multiply(x, slope, out=lowered)
        (numpy.maximum if slope <= 1 else numpy.minimum)(x, lowered, out=out)

    def multiply_derivative(self, grad, x, y, scratch):
        """Multiply grad by the slope where y is not positive."""
        # The slope is not negative: the output has the sign of the input, or is 0 with it.
        low = scratch("off", y.shape, numpy.bool_)
        numpy.less_equal(y, 0, out=low)
        numpy.multiply(grad, self._slope, out=grad, where=low)

    def as_applied(self):
        """Return a layer with the slope of now, which another one set later does not change."""
        return LeakyReLU(self._slope)

    def __repr__(self):
        return f"LeakyReLU({self._slope})"


class Tanh(Elementwise):
    """``tanh(x)``; its derivative is ``1 - tanh(x)**2``.

    Centred at 0, unlike the logistic function, which keeps gradients balanced [1]_.

    References
    ----------
    .. [1] Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, "Efficient backprop", in: Neural networks:
       tricks of the trade, Springer (1998), section 4.4.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.Tanh()
    >>> layer.forward(numpy.zeros((1, 2)), training=True)
    array([[0., 0.]])
    >>> layer.backward(numpy.ones((1, 2)))
    array([[1., 1.]])
    """

    _sealed = True
    fused_as = "elementwise"
    from_output = True

    def apply(self, x, out, scratch):
        """Write ``tanh(x)`` to out."""
        numpy.tanh(x, out=out)

    def multiply_derivative(self, grad, x, y, scratch):
        """Multiply grad by ``1 - y**2``."""
        slope = scratch("slope", y.shape, y.dtype)
        numpy.multiply(y, y, out=slope)
        numpy.subtract(1, slope, out=slope)
        numpy.multiply(grad, slope, out=grad)


class Sigmoid(Elementwise):
    """``1 / (1 + exp(-x))``; its derivative is ``y * (1 - y)``.

    Computed as ``0.5 + 0.5 * tanh(x / 2)``, which overflows nowhere. For the last layer of a
    network that tells classes apart, leave it out and use `SigmoidCrossEntropy`, which takes the
    scores themselves.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.Sigmoid().forward(numpy.array([[-1000.0, 0.0, 1000.0]]))
    array([[0. , 0.5, 1. ]])
    >>> nn.Sequential([nn.Dense(2, 1), nn.Sigmoid()], rng=0).forward([[0, 0]])
    array([[0.5]], dtype=float32)
    """

    _sealed = True
    fused_as = "elementwise"
    from_output = True

    def apply(self, x, out, scratch):
        """Write the logistic function of x to out."""
        numpy.multiply(x, 0.5, out=out)
        numpy.tanh(out, out=out)
        numpy.multiply(out, 0.5, out=out)
        numpy.add(out, 0.5, out=out)

    def multiply_derivative(self, grad, x, y, scratch):
        """Multiply grad by ``y * (1 - y)``."""
        slope = scratch("slope", y.shape, y.dtype)
        numpy.subtract(1, y, out=slope)
        numpy.multiply(slope, y, out=slope)
        numpy.multiply(grad, slope, out=grad)


class Identity(Elementwise):
    """``x`` itself, copied: a place holder where an activation function may stand.

    A `Sequential` leaves it out of the computation.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.Identity()
    >>> x = numpy.array([[-1.0, 2.0]])
    >>> y = layer.forward(x, training=True)
    >>> y
    array([[-1.,  2.]])
    >>> y is x
    False
    >>> layer.backward(numpy.ones((1, 2)))
    array([[1., 1.]])
    """

    _sealed = True
    fused_as = "identity"
    from_output = homogeneous = True

    def apply(self, x, out, scratch):
        """Copy x to out."""
        if out is not x:
            numpy.copyto(out, x)

    def multiply_derivative(self, grad, x, y, scratch):
        """Leave grad as it is."""
