"""The layer of standout, whose probabilities depend on what it is given."""

import math
from typing import Any

import numpy
from numpy.typing import ArrayLike

from fastdrop.arguments import real_number
from fastdrop.attributes import read_only
from fastdrop.dropouts import standout, standout_backward
from fastdrop.dropouts.learned import standout_mask
from fastdrop.nn.activations import ReLU
from fastdrop.nn.dense import set_gradient
from fastdrop.nn.elementwise import Elementwise
from fastdrop.nn.layer import as_floats, fitting_gradient
from fastdrop.nn.random import RandomLayer
from fastdrop.nn.weighted import WeightedLayer
from fastdrop.nn.windows import draw_noise
from fastdrop.stream import RandomSource
from fastdrop.types import Array

__all__ = ["StandoutDropout"]


class StandoutDropout(WeightedLayer, RandomLayer):
    """An activation function with dropout that depends on its input; see `fastdrop.standout` [1]_.

    ``y = m * f(a)``, m kept with probability ``sigmoid(alpha * a + beta)``: it stands in the place
    of the activation function f behind a Dense, with whose weights it ties those of its
    probabilities. Outside of training ``y = sigmoid(alpha * a + beta) * f(a)``.

    Parameters
    ----------
    alpha, beta : float, optional
        Finite. At first, where they are learned.
    activation : Elementwise, optional
        ReLU unless given.
    learned : bool, optional
        Whether alpha and beta are parameters, and the gradient goes by way of the probabilities,
        too. The paper's experiments leave both as they are.
    rng : optional
        As for `fastdrop.dropout`. By default the network decides.

    Attributes
    ----------
    alpha, beta : float
        As they are now. Setting one holds from the next forward pass on.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name.

    References
    ----------
    .. [1] L. J. Ba, B. Frey, "Adaptive dropout for training deep neural networks", NIPS 2013,
       sections 3 and 4.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> net = nn.Sequential([nn.Dense(4, 8), nn.StandoutDropout(), nn.Dense(8, 2)], rng=0)
    >>> net.forward(numpy.ones((3, 4)), training=True).shape
    (3, 2)
    """

    _sealed = True
    _kept: Any = None

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 0.0,
        *,
        activation: Elementwise | None = None,
        learned: bool = False,
        rng: RandomSource = None,
    ) -> None:
        RandomLayer.__init__(self, rng)
        activation = ReLU() if activation is None else activation
        if not isinstance(activation, Elementwise):
            raise TypeError(
                f"activation must be an activation function of nn, got {type(activation).__name__}"
            )
        if not isinstance(learned, bool | numpy.bool_):
            raise TypeError(f"learned must be True or False, got {learned!r}")
        self._activation = activation
        self._learned = bool(learned)
        self._numbers = {"alpha": _finite(alpha, "alpha"), "beta": _finite(beta, "beta")}

    @property
    def alpha(self) -> float:
        """float: how much the probability to keep depends on the pre-activation."""
        return self._number("alpha")

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        self._set_number("alpha", alpha)

    @property
    def beta(self) -> float:
        """float: the logit of the probability to keep at a pre-activation of 0."""
        return self._number("beta")

    @beta.setter
    def beta(self, beta: float) -> None:
        self._set_number("beta", beta)

    @read_only("make a new layer")
    def learned(self) -> bool:
        """bool: whether alpha and beta are parameters."""
        return self._learned

    def _number(self, name: str) -> float:
        if self._made:
            return float(self._made[name].value[0])
        return self._numbers[name]

    def _set_number(self, name: str, value: float) -> None:
        value = _finite(value, name)
        if self._made:
            self._made[name].value[0] = value
        else:
            self._numbers[name] = value

    def _initial(self, generator: "numpy.random.Generator") -> dict[str, Array]:
        if not self._learned:
            return {}
        return {name: numpy.array([value]) for name, value in self._numbers.items()}

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the layer, by name."""
        chosen = {"activation": repr(self._activation), "learned": self._learned}
        return chosen if self._learned else chosen | self._numbers

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the activations with units dropped, or their expectation.

        Parameters
        ----------
        x : array_like of float16, float32 or float64, any shape
            Pre-activations.
        training : bool, optional

        Returns
        -------
        numpy.ndarray, shape and dtype of `x`; of float16, float32
        """
        a = as_floats(x, self.name)
        numbers: dict[str, Any] = {"alpha": self.alpha, "beta": self.beta}
        active = self._activation.forward(a, training)
        if not training:
            return standout(active, a, **numbers, training=False)[0]
        drawn: dict[str, Any] = {"rng": self.stream}
        if self._rows is not None:
            noise = draw_noise(self.stream, "uniform", a.shape, 1.0, False, self._rows)
            drawn = {"mask": standout_mask(noise, a, **numbers)}
        y, mask = standout(active, a, **numbers, **drawn)
        self._kept = active, a.copy(), mask, numbers
        return y

    def backward(self, grad: ArrayLike, input_gradient: bool = True) -> Array | None:
        """Set the gradients of alpha and beta; return the input's, or None if not asked for.

        Raises
        ------
        RuntimeError
            Without a training forward before it.
        ValueError
            If `grad` has another shape than the output.
        """
        if self._kept is None:
            raise self._missing_forward()
        active, a, mask, numbers = self._kept
        grad = fitting_gradient(grad, a.shape, a.dtype, self.name)
        of_active, of_a, of_alpha, of_beta = standout_backward(grad, active, a, mask, **numbers)
        if self._learned:
            for name, value in (("alpha", of_alpha), ("beta", of_beta)):
                set_gradient(self._parameter(name), numpy.array([value], self._dtype()))
        if not input_gradient:
            return None
        given = self._activation.backward(of_active)
        return given + of_a if self._learned else given

    def __repr__(self) -> str:
        return (
            f"StandoutDropout({self.alpha:g}, {self.beta:g}, activation={self._activation!r}, "
            f"learned={self._learned})"
        )


def _finite(value: float, name: str) -> float:
    value = real_number(value, name)
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return value
