"""The fully connected layer."""

import math
import os
import threading
from typing import Any, Literal, TypeAlias

import numpy
from numpy.typing import ArrayLike

from fastdrop.aligned import aligned_zeros
from fastdrop.arguments import as_array, integer, is_one_of
from fastdrop.attributes import read_only
from fastdrop.dropouts import dropconnect_backward
from fastdrop.nn.connect import DropConnect, DroppingWeights
from fastdrop.nn.layer import fitting_gradient
from fastdrop.nn.types import Dtype, Rate
from fastdrop.parameters import Parameter
from fastdrop.stream import RandomSource
from fastdrop.types import Array, RowsPerMask, Shape

__all__ = ["Dense"]

INITIALIZERS = ("he", "glorot", "zeros")
Initializer: TypeAlias = Literal["he", "glorot", "zeros"]

# Guards the first use of layers outside of a network, which makes their weights: threads that share
# a layer share them, too. A forked child gets a lock of its own.
_first_use = threading.Lock()


def _after_fork_in_child() -> None:
    global _first_use
    _first_use = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Dense(DroppingWeights):
    """``x @ weight + bias``.

    Parameters
    ----------
    units_in, units_out : int
    initializer : {"he", "glorot", "zeros"}, optional
        Normal weights of variance ``2 / units_in`` [1]_ (for ReLU), or uniform ones of variance
        ``2 / (units_in + units_out)`` [2]_ (for Tanh and Sigmoid), or zeros, for weights that are
        assigned afterwards. Biases begin at 0.
    bias : bool, optional
        Whether there is one.
    drop_connect : float or callable, optional
        Rate at which single weights are dropped in training (DropConnect, see
        `fastdrop.dropconnect`); kept ones are divided by ``1 - rate``. At test time all weights
        take part. A schedule is called with the number of the draw. Weights that no row of the
        batch keeps, and what an optimiser remembers of them, stay as they are. Such a layer is
        no part of a fused block: dropout before and after it saves no work in its products.
    rows_per_mask : "batch" or int, optional
        Of `drop_connect`: whether all rows of a batch share one mask of the weights, or how many
        do. 1, the paper's way, is for small layers.
    rng : optional
        Of `drop_connect`, as for `fastdrop.dropout`. By default the network decides.

    Attributes
    ----------
    units_in, units_out : int
    initializer : str
        Read-only, as the units are: a new layer has others.
    drop_connect, rows_per_mask
        As given, None without `drop_connect`. The rate can be set where there is one; of a
        schedule, it is the rate of the last draw.
    stream : MaskStream
        Where the masks of weights come from: training forward number t uses its draw number t.
        Only where there is a `drop_connect`.
    weight : numpy.ndarray, shape (units_in, units_out)
        Assigning copies into it.
    bias : numpy.ndarray, shape (units_out,), or None
        Assigning copies into it.
    grad_weight, grad_bias : numpy.ndarray or None
        Gradients after a backward pass, in full, exactly 0 where a unit took no part; fresh
        arrays. None before.

    Raises
    ------
    TypeError, ValueError
        For arguments that cannot be.

    Notes
    -----
    The first `Sequential` decides the dtype and draws weights that were not assigned before; a
    layer outside of networks is float32, with weights from the operating system's entropy. The
    parameters then stay: in another network of the same dtype the layer has the same ones.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", ICCV 2015, section 2.2.
    .. [2] X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
       networks", AISTATS 2010, section 4.2.1.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.Dense(2, 3)
    >>> layer.weight = numpy.ones((2, 3))
    >>> layer.forward(numpy.ones((1, 2)), training=True)
    array([[2., 2., 2.]], dtype=float32)
    >>> layer.backward([[1, 0, 0]])
    array([[1., 1.]], dtype=float32)
    >>> layer.grad_bias
    array([1., 0., 0.], dtype=float32)
    """

    _sealed = True

    def __init__(
        self,
        units_in: int,
        units_out: int,
        initializer: Initializer = "he",
        bias: bool = True,
        *,
        drop_connect: Rate | None = None,
        rows_per_mask: RowsPerMask = "batch",
        rng: RandomSource = None,
    ) -> None:
        super().__init__()
        self._units_in = integer(units_in, "units_in")
        self._units_out = integer(units_out, "units_out")
        for name in ("units_in", "units_out"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not is_one_of(initializer, INITIALIZERS):
            raise ValueError(
                f"initializer must be one of {', '.join(INITIALIZERS)}, got {initializer!r}"
            )
        if not isinstance(bias, bool | numpy.bool_):
            raise TypeError(f"bias must be a bool, got {bias!r}")
        self._initializer = initializer
        self._has_bias = bool(bias)
        self._weight: Parameter | None = None
        self._bias: Parameter | None = None
        self._input: Array | None = None
        self._assigned: dict[str, Array] = {}
        if drop_connect is not None:
            self._connect = DropConnect(drop_connect, rows_per_mask, rng)
        elif rng is not None or rows_per_mask != "batch":
            raise TypeError("rng and rows_per_mask are of drop_connect, got drop_connect=None")

    @read_only("make a new layer")
    def units_in(self) -> int:
        """int: units of the input."""
        return self._units_in

    @read_only("make a new layer")
    def units_out(self) -> int:
        """int: units of the output."""
        return self._units_out

    @read_only("make a new layer")
    def initializer(self) -> Initializer:
        """str: how the weights are drawn."""
        return self._initializer

    @property
    def fused_as(self) -> str | None:  # type: ignore[override]
        """str or None: a part of fused blocks, unless its weights are dropped."""
        return "dense" if self._connect is None else None

    def build(self, dtype: Dtype, generator: "numpy.random.Generator") -> None:
        """Make the parameters, unless they were made before; what was assigned stays.

        Parameters
        ----------
        dtype : numpy.dtype
        generator : numpy.random.Generator
            Draws the weights.

        Raises
        ------
        ValueError
            If they were made before, in another dtype.
        """
        if self._weight is not None:
            mine = self._weight.value.dtype
            if mine != dtype:
                raise ValueError(
                    f"{self.name}: its parameters are {mine} and the network is {dtype}: give the "
                    f"network dtype={mine}, or make a new layer and assign its weight and bias"
                )
            return
        shape = (self.units_in, self.units_out)
        weight = aligned_zeros(shape, dtype)
        if "weight" in self._assigned:
            weight[...] = self._assigned["weight"]
        elif self.initializer == "he":
            weight[...] = generator.normal(0.0, math.sqrt(2 / self.units_in), shape)
        elif self.initializer == "glorot":
            limit = math.sqrt(6 / (self.units_in + self.units_out))
            weight[...] = generator.uniform(-limit, limit, shape)
        if self._has_bias:
            bias = aligned_zeros((self.units_out,), dtype)
            bias[...] = self._assigned.get("bias", 0)
            self._bias = Parameter("bias", bias)
        self._assigned = {}
        self._weight = Parameter("weight", weight)  # last: it says that all is there

    def parameters(self) -> list[Parameter]:
        """Return the list of the layer's `Parameter` objects, the same ones every time."""
        weight, bias = self._weight, self._bias
        if weight is None:
            self._make_alone()
            return self.parameters()
        return [weight] if bias is None else [weight, bias]

    def _make_alone(self) -> None:
        """Make the parameters for a first use outside of networks."""
        with _first_use:
            if self._weight is None:
                self.build(numpy.dtype(numpy.float32), numpy.random.default_rng())
                for parameter in self.parameters():
                    parameter.belongs_to(self.name)

    @property
    def weight(self) -> Array:
        """numpy.ndarray: the weights themselves, shape (units_in, units_out)."""
        return self.parameters()[0].value

    @weight.setter
    def weight(self, value: ArrayLike) -> None:
        self._assign("weight", value, (self.units_in, self.units_out))

    @property
    def bias(self) -> Any:
        """numpy.ndarray or None: the biases themselves, shape (units_out,)."""
        parameters = self.parameters()
        return parameters[1].value if self._has_bias else None

    @bias.setter
    def bias(self, value: ArrayLike) -> None:
        if not self._has_bias:
            raise AttributeError(f"{self.name} has no bias")
        self._assign("bias", value, (self.units_out,))

    def _assign(self, what: str, value: ArrayLike, shape: Shape) -> None:
        """Copy values into a parameter; until there is one, keep them in their own dtype."""
        value = as_array(value, f"{self.name}.{what}")
        if value.dtype.kind not in "biuf":
            raise TypeError(f"{self.name}.{what} must hold real numbers, got dtype {value.dtype}")
        if value.shape != shape:
            raise ValueError(f"{self.name}.{what} must have shape {shape}, got {value.shape}")
        parameter = self._weight if what == "weight" else self._bias
        if parameter is None:
            self._assigned[what] = value.copy()
        else:
            parameter.value[...] = value

    @read_only("a backward pass sets it")
    def grad_weight(self) -> Array | None:
        """numpy.ndarray or None: the gradient of the weights, of their shape."""
        return self._gradient(self._weight)

    @read_only("a backward pass sets it")
    def grad_bias(self) -> Array | None:
        """numpy.ndarray or None: the gradient of the biases."""
        return self._gradient(self._bias)

    @staticmethod
    def _gradient(parameter: Parameter | None) -> Array | None:
        if parameter is None or parameter.grad is None:
            return None
        full = parameter.full_grad()
        return full.copy() if numpy.may_share_memory(full, parameter.grad) else full

    def check_input(self, shape: Shape) -> None:
        """Check the shape of an input.

        Raises
        ------
        ValueError
            With the layer's name, what it got and what it expects.
        """
        if len(shape) < 2 or shape[-1] != self.units_in:
            raise ValueError(
                f"{self.name}: x must have shape (batch, ..., {self.units_in}), got {shape}"
            )

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Return ``x @ weight + bias``.

        Parameters
        ----------
        x : array_like of real numbers, shape (batch, ..., units_in)
            Converted to the layer's dtype.
        training : bool, optional
            Keep what `backward` needs.

        Returns
        -------
        numpy.ndarray, shape (batch, ..., units_out)
        """
        weight = self.weight
        x = as_array(x, "x")
        if x.dtype.kind not in "biuf":
            raise TypeError(f"{self.name}: x must hold real numbers, got dtype {x.dtype}")
        x = numpy.asarray(x, weight.dtype)
        self.check_input(x.shape)
        if training:
            self._input = x
            if self._connect is not None:
                bias = None if self._bias is None else self._bias.value
                return self._connect.product(x, weight, bias)
        y: Array = numpy.matmul(x, weight)
        if self._bias is not None:
            y += self._bias.value
        return y

    def backward(self, grad: ArrayLike, input_gradient: bool = True) -> Array | None:
        """Set the gradients; return the input's, or None if it is not asked for.

        Parameters
        ----------
        grad : array_like, shape (batch, ..., units_out)
        input_gradient : bool, optional

        Raises
        ------
        RuntimeError
            Without a training forward before it.
        ValueError
            If `grad` has another shape than the output.
        """
        x = self._input
        if x is None:
            raise self._missing_forward()
        grad = fitting_gradient(grad, (*x.shape[:-1], self.units_out), x.dtype, self.name)
        weight, *bias = self.parameters()
        if self._connect is not None:
            grad_x, grad_weight, grad_bias = dropconnect_backward(
                grad, x, weight.value, self._connect.mask, input_gradient=input_gradient
            )
            set_gradient(weight, grad_weight)
            weight.mask = self._connect.any_kept()
            for parameter in bias:
                set_gradient(parameter, grad_bias)
            return grad_x
        rows = grad.reshape(-1, self.units_out)
        set_gradient(weight, numpy.matmul(x.reshape(-1, self.units_in).T, rows))
        for parameter in bias:
            set_gradient(parameter, rows.sum(axis=0))
        return numpy.matmul(grad, weight.value.T) if input_gradient else None

    def __repr__(self) -> str:
        bias = "" if self._has_bias else ", bias=False"
        connect = "" if self._connect is None else repr(self._connect)
        return f"Dense({self.units_in}, {self.units_out}, {self.initializer!r}{bias}{connect})"


def set_gradient(
    parameter: Parameter,
    grad: Array,
    rows: Array | None = None,
    columns: Array | None = None,
    compact: bool = False,
) -> None:
    """Hand a gradient and the units that took part to a parameter; units are packed bits."""
    parameter.grad = grad
    parameter.rows = None if rows is None else (rows, 0)
    parameter.columns = None if columns is None else (columns, 0)
    parameter.compact = compact
