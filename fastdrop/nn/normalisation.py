"""Normalisation: LayerNorm, BatchNorm1d.

Both work on the last axis, as everything in `fastdrop.nn` does.
"""

import math
from typing import Any

import numpy
from numpy.typing import ArrayLike

from fastdrop.arguments import as_array, real_number
from fastdrop.attributes import read_only
from fastdrop.nn.dense import set_gradient
from fastdrop.nn.layer import fitting_gradient
from fastdrop.nn.weighted import WeightedLayer, at_least_one, weight_of
from fastdrop.types import Array

__all__ = ["BatchNorm1d", "LayerNorm"]


class _Normalisation(WeightedLayer):
    """What both have in common: ``y = weight * (x - mean) / sqrt(variance + epsilon) + bias``."""

    _kept: tuple[Array, Array] | None = None

    def __init__(self, units: int, epsilon: float) -> None:
        super().__init__()
        self._units = at_least_one(units, "units")
        self.epsilon = epsilon

    @read_only("make a new layer")
    def units(self) -> int:
        """int: units of the last axis."""
        return self._units

    @property
    def epsilon(self) -> float:
        """float: added to the variance."""
        return self._epsilon

    @epsilon.setter
    def epsilon(self, epsilon: float) -> None:
        epsilon = real_number(epsilon, "epsilon")
        if not 0 < epsilon < math.inf:
            raise ValueError(f"epsilon must be greater than 0 and finite, got {epsilon}")
        self._epsilon = epsilon

    weight = weight_of("weight", "numpy.ndarray: the factors, shape (units,); 1 at first.")
    bias = weight_of("bias", "numpy.ndarray: shift of each unit, shape (units,); 0 at first.")

    def _initial(self, generator: "numpy.random.Generator") -> dict[str, Array]:
        return {"weight": numpy.ones(self._units), "bias": numpy.zeros(self._units)}

    def _checked(self, x: ArrayLike) -> Array:
        x = as_array(x, "x")
        if x.dtype.kind not in "biuf":
            raise TypeError(f"{self.name}: x must hold real numbers, got dtype {x.dtype}")
        if x.ndim < 2 or x.shape[-1] != self._units:
            raise ValueError(
                f"{self.name}: x must have shape (batch, ..., {self._units}), got {x.shape}"
            )
        return numpy.asarray(x, self._dtype())

    def _finished(self, normal: Array) -> Array:
        y: Array = normal * self.weight
        y += self.bias
        return y

    def _parameters_gradient(self, grad: Array, normal: Array) -> None:
        rows = grad.reshape(-1, self._units)
        normal = normal.reshape(-1, self._units)
        set_gradient(self._parameter("weight"), numpy.einsum("ij,ij->j", rows, normal))
        set_gradient(self._parameter("bias"), rows.sum(axis=0))


class LayerNorm(_Normalisation):
    """Bring the units of every example to mean 0 and variance 1, then scale and shift them [1]_.

    ``y = weight * (x - mean(x)) / sqrt(var(x) + epsilon) + bias``, mean and variance over the last
    axis, in training as at test time.

    Parameters
    ----------
    units : int
        Length of the last axis.
    epsilon : float, optional
        Added to the variance. May be set later.

    Attributes
    ----------
    weight, bias : numpy.ndarray, shape (units,)
        Assigning copies into them.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name.

    Notes
    -----
    Put dropout behind it, not before: what was dropped counts in mean and variance, which then move
    with every mask.

    References
    ----------
    .. [1] J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", arXiv 1607.06450 (2016),
       section 3.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.LayerNorm(2).forward(numpy.array([[1.0, 3.0]])).round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    _sealed = True

    def __init__(self, units: int, epsilon: float = 1e-5) -> None:
        super().__init__(units, epsilon)

    def settings(self) -> dict[str, Any]:
        """Return epsilon, by name."""
        return {"epsilon": self._epsilon}

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Return x normalised.

        Parameters
        ----------
        x : array_like of real numbers, shape (batch, ..., units)
            Converted to the layer's dtype.
        training : bool, optional
            Keep what `backward` needs.

        Returns
        -------
        numpy.ndarray, shape of `x`
        """
        x = self._checked(x)
        with numpy.errstate(invalid="ignore"):
            normal = x - x.mean(axis=-1, keepdims=True)
            variance = numpy.einsum("...i,...i->...", normal, normal)[..., None] / self._units
            inverse = 1 / numpy.sqrt(variance + x.dtype.type(self._epsilon))
            normal *= inverse
        if training:
            self._kept = normal, inverse
        return self._finished(normal)

    def backward(self, grad: ArrayLike, input_gradient: bool = True) -> Array | None:
        """Set the gradients; return the input's, or None if it is not asked for.

        Raises
        ------
        RuntimeError
            Without a training forward before it.
        ValueError
            If `grad` has another shape than the output.
        """
        if self._kept is None:
            raise self._missing_forward()
        normal, inverse = self._kept
        grad = fitting_gradient(grad, normal.shape, normal.dtype, self.name)
        self._parameters_gradient(grad, normal)
        if not input_gradient:
            return None
        given: Array = grad * self.weight
        along = numpy.einsum("...i,...i->...", given, normal)[..., None] / self._units
        given -= given.mean(axis=-1, keepdims=True)
        given -= normal * along
        given *= inverse
        return given

    def __repr__(self) -> str:
        return f"LayerNorm({self._units}, epsilon={self._epsilon})"


class BatchNorm1d(_Normalisation):
    """Bring every unit to mean 0 and variance 1 over the batch, then scale and shift it [1]_.

    ``y = weight * (x - mean) / sqrt(variance + epsilon) + bias``. In training, mean and variance
    are those of the batch, over all axes but the last; at test time they are running averages,
    which every training forward moves: ``running = (1 - momentum) * running + momentum * batch``.

    Parameters
    ----------
    units : int
        Length of the last axis.
    momentum : float, optional
        Weight of the newest batch, in (0, 1]. (Keras' momentum is 1 minus this one.)
    epsilon : float, optional
        Added to the variance. Both may be set later.

    Attributes
    ----------
    weight, bias : numpy.ndarray, shape (units,)
        Assigning copies into them.
    running_mean, running_variance : numpy.ndarray, shape (units,)
        Buffers: states hold them. The variance is the unbiased one, as torch's is.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name; in training for a batch of one row, whose variance
        says nothing.

    Notes
    -----
    Dropout before a batch normalisation makes variances in training that are ``1 / keep_prob``
    times those at test time, while the running averages are of training: the shift of [2]_. So the
    order is Dense, BatchNorm1d, ReLU, Dropout, and dropout only behind the last normalisation of a
    network; where it has to stand before one, `UniformDropout` at a small rate shifts least ([2]_,
    section 5). Masks of whole units (``rows_per_mask="batch"``) before it make a unit's batch
    constant.

    References
    ----------
    .. [1] S. Ioffe, C. Szegedy, "Batch normalization", ICML 2015, algorithms 1 and 2.
    .. [2] X. Li, S. Chen, X. Hu, J. Yang, "Understanding the disharmony between dropout and batch
       normalization by variance shift", CVPR 2019, sections 3 and 5.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.BatchNorm1d(1)
    >>> layer.forward(numpy.array([[1.0], [3.0]]), training=True).round(3)
    array([[-1.],
           [ 1.]], dtype=float32)
    >>> layer.running_mean, layer.running_variance.round(3)
    (array([0.2], dtype=float32), array([1.1], dtype=float32))
    """

    _sealed = True

    def __init__(self, units: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__(units, epsilon)
        self.momentum = momentum
        self._running: dict[str, Array] | None = None

    @property
    def momentum(self) -> float:
        """float: weight of the newest batch in the running averages."""
        return self._momentum

    @momentum.setter
    def momentum(self, momentum: float) -> None:
        momentum = real_number(momentum, "momentum")
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be in (0, 1], got {momentum}")
        self._momentum = momentum

    def settings(self) -> dict[str, Any]:
        """Return momentum and epsilon, by name."""
        return {"momentum": self._momentum, "epsilon": self._epsilon}

    def buffers(self) -> dict[str, Array]:
        """Return the running averages by name."""
        if self._running is None:
            dtype = self._dtype()
            self._running = {
                "running_mean": numpy.zeros(self._units, dtype),
                "running_variance": numpy.ones(self._units, dtype),
            }
        return self._running

    @read_only("training forwards move it; buffers() gives an array to write to")
    def running_mean(self) -> Array:
        """numpy.ndarray: the running mean, a copy."""
        return self.buffers()["running_mean"].copy()

    @read_only("training forwards move it; buffers() gives an array to write to")
    def running_variance(self) -> Array:
        """numpy.ndarray: the running variance, a copy."""
        return self.buffers()["running_variance"].copy()

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Return x normalised; in training, move the running averages.

        Parameters
        ----------
        x : array_like of real numbers, shape (batch, ..., units)
            Converted to the layer's dtype.
        training : bool, optional

        Returns
        -------
        numpy.ndarray, shape of `x`
        """
        x = self._checked(x)
        running = self.buffers()
        if not training:
            inverse = 1 / numpy.sqrt(running["running_variance"] + x.dtype.type(self._epsilon))
            return self._finished((x - running["running_mean"]) * inverse)
        axes = tuple(range(x.ndim - 1))
        rows = x.size // self._units
        if rows == 1:
            raise ValueError(
                f"{self.name}: x must have more than one row in training, whose variance "
                f"normalises it, got shape {x.shape}"
            )
        if rows == 0:
            self._kept = x.copy(), numpy.ones(self._units, x.dtype)
            return x.copy()
        with numpy.errstate(invalid="ignore"):
            mean = x.mean(axis=axes)
            normal = x - mean
            variance = numpy.square(normal).mean(axis=axes)
            inverse = 1 / numpy.sqrt(variance + x.dtype.type(self._epsilon))
            normal *= inverse
        for name, batch in (
            ("running_mean", mean),
            ("running_variance", variance * (rows / (rows - 1))),
        ):
            running[name] += self._momentum * (batch - running[name])
        self._kept = normal, inverse
        return self._finished(normal)

    def backward(self, grad: ArrayLike, input_gradient: bool = True) -> Array | None:
        """Set the gradients; return the input's, or None if it is not asked for.

        Raises
        ------
        RuntimeError
            Without a training forward before it.
        ValueError
            If `grad` has another shape than the output.
        """
        if self._kept is None:
            raise self._missing_forward()
        normal, inverse = self._kept
        grad = fitting_gradient(grad, normal.shape, normal.dtype, self.name)
        self._parameters_gradient(grad, normal)
        if not input_gradient:
            return None
        rows = max(grad.size // self._units, 1)
        along, across = (parameter.full_grad() / rows for parameter in self.parameters())
        given = grad - across
        given -= normal * along
        given *= self.weight * inverse
        return given

    def __repr__(self) -> str:
        return f"BatchNorm1d({self._units}, momentum={self._momentum}, epsilon={self._epsilon})"
