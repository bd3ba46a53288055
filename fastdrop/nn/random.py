"""What layers that draw at random have in common: a stream, a rate, a mask kept for backward."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy
from numpy.typing import ArrayLike

from fastdrop.arguments import is_one_of, keep_probability, probability, threshold
from fastdrop.attributes import read_only
from fastdrop.functional import dropout_backward
from fastdrop.mask import Mask
from fastdrop.nn.layer import Layer, as_floats, fitting_gradient
from fastdrop.nn.types import Dtype, Rate, Rows
from fastdrop.nn.windows import draw_rows
from fastdrop.schedules import described, evaluated
from fastdrop.stream import MaskStream, RandomSource, as_stream
from fastdrop.types import Array, ScaleAt, Shape

__all__ = [
    "DrawnLayer",
    "FunctionLayer",
    "MaskedLayer",
    "RandomLayer",
    "RateLayer",
    "one_of",
    "trained",
]


_Word = TypeVar("_Word", bound=str)


class RandomLayer(Layer):
    """Base of layers with a mask stream; a `Sequential` offers each of them a child of its own.

    Attributes
    ----------
    stream : MaskStream
        Training forward number t uses its draw number t. A `Sequential` gives these layers the
        children of its own stream, in their order, except those that have one already: of `rng`,
        set here, or of the network they were in before. A layer outside has entropy of its own.
    """

    draws_masks = True
    _stream: MaskStream | None = None
    _stream_is_own = False
    _rows: Rows | None = None  # that a forward pass is of, where others are elsewhere

    def __init__(self, rng: RandomSource = None) -> None:
        super().__init__()
        if rng is not None:
            self.stream = as_stream(rng)

    @property
    def stream(self) -> MaskStream:
        """MaskStream: where the masks come from."""
        if self._stream is None:
            self._stream = MaskStream()
        return self._stream

    @stream.setter
    def stream(self, stream: MaskStream) -> None:
        if not isinstance(stream, MaskStream):
            raise TypeError(f"stream must be a fastdrop.MaskStream, got {type(stream).__name__}")
        self._stream = stream
        self._stream_is_own = True
        self.follow_schedule(drawn=True)

    def take_rows(self, rows: Rows | None) -> None:
        """Hear from a `Sequential` which rows of a larger batch the next training forward has.

        Parameters
        ----------
        rows : tuple of int or None
            (first, total), for `fastdrop.nn.windows`; None: the batch itself.
        """
        self._rows = rows

    def follow_schedule(self, drawn: bool = False) -> None:
        """Adapt what a schedule moves to the draw to come, or to the one before; see `RateLayer`.

        A `Sequential` calls it for all its layers that draw when a training forward begins.
        """

    def offer_stream(self, stream: MaskStream) -> None:
        """Take a stream, unless the layer has been given one before."""
        if not self._stream_is_own:
            self.stream = stream


class RateLayer(RandomLayer):
    """Base of layers that drop each unit with one probability.

    Parameters
    ----------
    rate, keep_prob : float
        Probability that a unit is dropped, or kept; exactly one of the two. Setting one later
        checks it and holds from the next forward pass on. A rate can be a schedule: a function of
        the number of the draw, such as those of `fastdrop.schedules`.
    rng : optional
        As for `fastdrop.dropout`.
    """

    _schedule: Any = None  # a function of the number of the draw
    _argument = "rate"  # what the layer's user calls it
    _keep_prob: float
    _threshold: int

    def __init__(
        self, rate: Rate | None = None, keep_prob: float | None = None, rng: RandomSource = None
    ) -> None:
        super().__init__(rng)
        if callable(rate):
            if keep_prob is not None:
                raise TypeError("give exactly one of rate and keep_prob, got both")
            self.rate = rate
        else:
            if rate is not None and keep_prob is None:
                rate = probability(rate, self._argument)
            self._set_keep_prob(keep_probability(rate, keep_prob))

    @property
    def rate(self) -> Any:
        """float: probability that a unit is dropped; of a schedule, in the last draw."""
        return 1.0 - self._keep_prob

    @rate.setter
    def rate(self, rate: Rate) -> None:
        if not callable(rate):
            self._set_keep_prob(1.0 - probability(rate, self._argument))
            self._schedule = None
            return
        before, self._schedule = self._schedule, rate
        try:
            self.follow_schedule(drawn=True)
        except BaseException:
            self._schedule = before
            raise

    @property
    def keep_prob(self) -> float:
        """float: probability that a unit is kept."""
        return self._keep_prob

    @keep_prob.setter
    def keep_prob(self, keep_prob: float) -> None:
        self._set_keep_prob(probability(keep_prob, "keep_prob"))
        self._schedule = None

    @read_only("assign a function of the draw to rate")
    def schedule(self) -> Callable[[int], float] | None:
        """callable or None: the schedule of the rate."""
        schedule: Callable[[int], float] | None = self._schedule
        return schedule

    def follow_schedule(self, drawn: bool = False) -> None:
        """Take the rate of the draw to come, or with `drawn` of the one before it.

        Raises
        ------
        TypeError, ValueError
            If the schedule gives no rate there.
        """
        if self._schedule is None:
            return
        # Without a stream nothing has been drawn: making one here would be too early.
        step = 0 if self._stream is None else self._stream.position
        step = max(step - 1, 0) if drawn else step
        rate = evaluated(self._schedule, step, self._argument)
        probability(rate, f"{self._argument}({step})")
        if 1.0 - rate != getattr(self, "_keep_prob", None):
            self._set_keep_prob(1.0 - rate)

    def _set_keep_prob(self, keep_prob: float) -> None:
        self._keep_prob = keep_prob
        self._threshold = threshold(keep_prob)

    def settings(self) -> dict[str, Any]:
        """Return the arguments by name."""
        return {"keep_prob": self._chosen_keep_prob()}

    def _chosen_keep_prob(self) -> float | str:
        """What was chosen, for states to compare: a number, or a schedule in words."""
        return self._keep_prob if self._schedule is None else f"of {described(self._schedule)}"

    def _chosen_rate(self) -> str:
        """The rate as it was given, for representations."""
        return f"{self.rate:g}" if self._schedule is None else described(self._schedule)


class DrawnLayer(RandomLayer):
    """Base of layers whose backward pass needs what the forward pass has drawn, and no more.

    A class derived from it defines ``_drop(x, training, out)``, which writes the result to `out`
    and returns what was drawn, and ``_gradient(grad, drawn)``.
    """

    _mask: Any = None
    _drawn_for: tuple[Shape, Dtype] | None = None

    def _drop(self, x: Array, training: bool, out: Array) -> Any:
        raise NotImplementedError(f"{self.name} defines no _drop")

    def _gradient(self, grad: Array, drawn: Any) -> Array:
        raise NotImplementedError(f"{self.name} defines no _gradient")

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
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
        if training:
            self.follow_schedule()
        mask = self._drop(x, training, y)
        if training:
            self._mask, self._drawn_for = mask, (x.shape, x.dtype)
        return y

    def backward(self, grad: ArrayLike, input_gradient: bool = True) -> Array | None:
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

    def _gradient(self, grad: Array, mask: Any) -> Array:
        return dropout_backward(grad, mask)


class FunctionLayer(MaskedLayer):
    """Base of layers that call one function of the family, with options that cannot be changed.

    A class derived from it sets ``_function`` and makes ``_options``, the function's arguments by
    name, and says in ``_sharing`` how the function draws.
    """

    _function: Any = None
    _options: dict[str, Any] = {}  # noqa: RUF012 - each object has its own

    def settings(self) -> dict[str, Any]:
        """Return the arguments by name."""
        return super().settings() | self._options

    def _drop(self, x: Array, training: bool, out: Array) -> Any:
        options = self._options | {"training": training, "out": out}
        if training and self._rows is not None:
            options |= {"mask": self._part(x.shape, self._rows)}
            return type(self)._function(x, **options)[1]
        return type(self)._function(x, keep_prob=self.keep_prob, rng=self.stream, **options)[1]

    def _part(self, shape: Shape, rows: Rows) -> Mask:
        """Draw the mask of some rows of a larger batch."""
        options = self._sharing(shape) | {"keep_prob": self.keep_prob}
        mask = draw_rows(self.stream, shape, rows, **options)
        return trained(mask, self._options.get("scale_at", "train"))

    def _sharing(self, shape: Shape) -> dict[str, Any]:
        """Arguments of `MaskStream.draw` with which the function draws for an array of a shape."""
        return {}

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"{type(self).__name__}({self._chosen_rate()}{options})"


def trained(mask: Mask, scale_at: ScaleAt) -> Mask:
    """The mask with the factor on kept elements in training."""
    return mask if scale_at == "train" or not mask.scale else mask.with_scale(1.0)


def one_of(value: _Word, words: Sequence[str], name: str) -> _Word:
    """Check that a setting is one of some words, and return it.

    Raises
    ------
    ValueError
        If it is not.
    """
    if not is_one_of(value, words):
        known = " or ".join(f'"{word}"' for word in words)
        raise ValueError(f"{name} must be {known}, got {value!r}")
    return value
