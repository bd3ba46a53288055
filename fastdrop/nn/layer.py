"""What every layer is: a forward and a backward pass, parameters, a name."""

import numpy

from fastdrop.arguments import as_array, contiguous

__all__ = ["Elementwise", "Layer"]


class Layer:
    """Base of all layers.

    A layer of your own derives from it and defines `forward` and `backward`; a `Sequential` then
    calls them with whole arrays.

    Attributes
    ----------
    name : str
        By which errors, parameters and states call it; a `Sequential` numbers its layers by kind:
        "dense0", "relu0", "dense1".

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> class Double(nn.Layer):
    ...     def forward(self, x, training=False):
    ...         return 2 * x
    ...     def backward(self, grad, input_gradient=True):
    ...         return 2 * grad if input_gradient else None
    >>> nn.Sequential([Double()]).forward(numpy.ones((1, 2)))
    array([[2., 2.]], dtype=float32)
    """

    def __init__(self):
        self.name = type(self).__name__.lower()

    def forward(self, x, training=False):
        """Return the layer's output for a batch, a fresh array of shape (batch, ...)."""
        raise NotImplementedError(f"{self.name} defines no forward")

    def backward(self, grad, input_gradient=True):
        """Set the parameters' gradients; return the input's, or None if it is not asked for.

        Parameters
        ----------
        grad : numpy.ndarray
            Gradient of the loss with respect to the output of the last training forward.
        input_gradient : bool, optional
        """
        raise NotImplementedError(f"{self.name} defines no backward")

    def parameters(self):
        """Return the list of the layer's `Parameter` objects, the same ones every time."""
        return []

    def _missing_forward(self):
        return RuntimeError(
            f"{self.name}: backward needs a forward with training=True before it, there was none"
        )


class Elementwise(Layer):
    """Base of the activation functions: each element by itself, derivative known from the output.

    ``_apply(x, out, scratch)`` writes the function of x to out, which may be x;
    ``_derive(output, grad, scratch)`` multiplies grad, in place, by the derivative. `scratch(name,
    shape, dtype)` gives work arrays.
    """

    # Whether f(s * x) = s * f(x) for s >= 0: such a function may change places with a dropout.
    _homogeneous = False

    def __init__(self):
        super().__init__()
        self._output = None

    def forward(self, x, training=False):
        """Return the activations.

        Parameters
        ----------
        x : array_like of float32 or float64, any shape
        training : bool, optional
            Keep what `backward` needs.

        Returns
        -------
        numpy.ndarray, shape and dtype of `x`
        """
        x = as_floats(x, self.name)
        y = numpy.empty(x.shape, x.dtype)
        self._apply(x, y, fresh)
        if training:
            self._output = y.copy()
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
        self._derive(self._output, grad, fresh)
        return grad


def fresh(name, shape, dtype):
    """A work array nobody else has; `name` says what for."""
    return numpy.empty(shape, dtype)


def as_floats(x, name):
    """x as a contiguous array of float32 or float64.

    Raises
    ------
    TypeError
        For another dtype; `name` is the layer's.
    """
    x = as_array(x, name)
    if x.dtype.char not in "fd":
        raise TypeError(f"{name}: x must be float32 or float64, got dtype {x.dtype}")
    return contiguous(x, x.dtype.newbyteorder("="))


def fitting_gradient(grad, shape, dtype, name):
    """The gradient as an array of a dtype, contiguous.

    Raises
    ------
    TypeError
        If it holds no real numbers.
    ValueError
        If its shape is not that of the output.
    """
    grad = as_array(grad, "grad")
    if grad.dtype.kind not in "biuf":
        raise TypeError(f"{name}: grad must hold real numbers, got dtype {grad.dtype}")
    if grad.shape != shape:
        raise ValueError(
            f"{name}: grad must have the shape of the output, expected {shape}, got {grad.shape}"
        )
    return contiguous(grad, dtype)
