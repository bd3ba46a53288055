"""What every layer is: a forward and a backward pass, parameters, buffers, a name."""

from typing import Any

import numpy
from numpy.typing import ArrayLike

from fastdrop.arguments import as_array, contiguous, is_one_of
from fastdrop.attributes import Sealed, read_only
from fastdrop.nn.types import Dtype
from fastdrop.parameters import Parameter
from fastdrop.types import Array, Shape

__all__ = ["Layer", "fused_as"]

PASSES = ("forward", "backward")
FUNCTIONS = ("apply", "multiply_derivative", "function", "derivative")
# What a fused block calls of a layer of each kind; and what it does not call, so that a class that
# defines it anew is no longer of that kind.
KINDS = {
    "dense": (("weight", "bias"), PASSES),
    "elementwise": (("apply", "multiply_derivative"), PASSES),
    "relu": ((), (*PASSES, *FUNCTIONS)),
    "identity": ((), (*PASSES, *FUNCTIONS)),
    "dropout": (("draw",), PASSES),
    "any units": (PASSES, ()),
}


class Layer(Sealed):
    """Base of all layers.

    A layer of your own derives from it and defines `forward` and `backward`, and what else it has:
    `parameters`, `buffers`, `settings`, `build`. A `Sequential` calls it with whole arrays, or
    where it says so with those units only that a mask has kept.

    Attributes
    ----------
    name : str
        By which errors, parameters and states call it. A `Sequential` numbers its layers by kind,
        "dense0", "relu0", "dense1"; in another network a layer gets another name. Read-only.
    fused_as : str or None
        What the layer is to the fused block of a `Sequential`; of the class. None: nothing, the
        layer is called with whole arrays. "any units": what it does with one unit does not depend
        on another, so it may be called with those that a mask has kept, an array of shape (batch,
        ..., some units), and returns an array of that shape. The layers of this package have other
        words there, which classes derived from them inherit; but a class that defines passes of its
        own, such as `forward`, is called with whole arrays unless it sets `fused_as` as well.
    draws_masks : bool
        Whether training forwards draw from a mask stream. Such a layer has the methods and the
        stream of this package's dropout layers, and derives from one of them.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> class Double(nn.Layer):
    ...     fused_as = "any units"
    ...     def forward(self, x, training=False):
    ...         return 2 * x
    ...     def backward(self, grad, input_gradient=True):
    ...         return 2 * grad if input_gradient else None
    >>> nn.Sequential([Double()]).forward(numpy.ones((1, 2)))
    array([[2., 2.]], dtype=float32)
    """

    fused_as: str | None = None
    draws_masks = False
    takes_one_array = True  # else a network cannot call it
    _name: str | None = None  # until a network gives one
    # Whose training forward was the last one, where the layer keeps what its backward pass needs.
    _forward_of: object = None

    @read_only("the network that the layer is in gives the name")
    def name(self) -> str:
        """str: the name of the layer in errors, parameters and states."""
        return self._name or type(self).__name__.lower()

    def named(self, name: str) -> None:
        """Take a name; a `Sequential` calls it."""
        self._name = name

    def build(self, dtype: Dtype, generator: "numpy.random.Generator") -> None:
        """Make the parameters, unless they were made before.

        A `Sequential` calls it once for each of its layers, in their order.

        Parameters
        ----------
        dtype : numpy.dtype
            Of the network.
        generator : numpy.random.Generator
            Draws what is random in them.
        """

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the layer's output for a batch, a fresh array of shape (batch, ...)."""
        raise NotImplementedError(f"{self.name} defines no forward")

    def backward(self, grad: ArrayLike, input_gradient: bool = True) -> Array | None:
        """Set the parameters' gradients; return the input's, or None if it is not asked for.

        Parameters
        ----------
        grad : numpy.ndarray
            Gradient of the loss with respect to the output of the last training forward.
        input_gradient : bool, optional
        """
        raise NotImplementedError(f"{self.name} defines no backward")

    def parameters(self) -> list[Parameter]:
        """Return the list of the layer's `Parameter` objects, the same ones every time."""
        return []

    def buffers(self) -> dict[str, Array]:
        """Return arrays that training changes and no optimiser moves, by name, as they are now.

        States hold them, and loading a state writes to them in place: running means, for instance.

        Returns
        -------
        dict of str to numpy.ndarray
        """
        return {}

    def settings(self) -> dict[str, Any]:
        """Return what was chosen when the layer was made and changes what it computes.

        States hold it, so that loading one into a network with other settings is noticed.

        Returns
        -------
        dict
            By name; numbers, strings, bools, None, and lists of them.
        """
        return {}

    def _missing_forward(self) -> RuntimeError:
        return RuntimeError(
            f"{self.name}: backward needs a forward with training=True before it, there was none"
        )


def fused_as(layer: Layer) -> str | None:
    """What a layer is to a fused block: its `fused_as`, unless it has passes of its own.

    Raises
    ------
    ValueError
        For another word than those of `Layer`.
    """
    kind = layer.fused_as
    if kind is None:
        return None
    if not is_one_of(kind, KINDS) or not all(hasattr(type(layer), name) for name in KINDS[kind][0]):
        raise ValueError(f'{layer.name}: fused_as must be None or "any units", got {kind!r}')
    for cls in type(layer).__mro__:
        if "fused_as" in vars(cls):
            return kind
        if not vars(cls).keys().isdisjoint(KINDS[kind][1]):
            return None
    return kind  # of this object alone


def fresh(name: str, shape: Shape, dtype: Any) -> Array:
    """A work array nobody else has; `name` says what for."""
    return numpy.empty(shape, dtype)


def as_floats(x: ArrayLike, name: str) -> Array:
    """x as a contiguous array of float32 or float64; float16 becomes float32.

    Raises
    ------
    TypeError
        For another dtype; `name` is the layer's.
    """
    x = as_array(x, name)
    if x.dtype.char not in "efd":
        raise TypeError(f"{name}: x must be float16, float32 or float64, got dtype {x.dtype}")
    return contiguous(x, numpy.dtype(numpy.float32) if x.dtype.char == "e" else x.dtype)


def fitting_gradient(grad: ArrayLike, shape: Shape, dtype: Dtype, name: str) -> Array:
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
