"""`Noise`: numbers that are added to values, or multiply them, by their place in a stream."""

import math
from typing import Any, Literal

import numpy
from numpy.typing import DTypeLike

from fastdrop._backend import kernels
from fastdrop.arguments import integer, is_one_of, real_number
from fastdrop.refusal import NoArithmetic
from fastdrop.types import Array, Shape

__all__ = ["KINDS", "Noise", "check_kind", "new_noise", "noise_operand"]

# By the kernels' numbers; `fastdrop.reference.NORMAL` and UNIFORM.
KINDS: tuple[Literal["normal"], Literal["uniform"]] = ("normal", "uniform")


class Noise(NoArithmetic):
    """The noise of one draw of a stream: where its numbers come from, not the numbers.

    `gaussian_dropout`, `uniform_dropout` and `gaussian_noise` return it, and their backward pass
    makes the same numbers again: a noise takes some hundred bytes, whatever the size of the array.
    Immutable; pickled, it gives the same numbers on every machine.

    Arithmetic with it (``x * noise``) is a TypeError: `fastdrop.apply_noise` computes with it, and
    `to_array` gives the numbers.

    Attributes
    ----------
    kind : str
        "normal": standard normal numbers z; "uniform": uniform ones in (-1, 1).
    shape : tuple of int
        Of the noise: 1 along axes that share it.
    scale : float
        The factor s on z: the standard deviation, or half the width.
    additive : bool
        Whether a value x becomes ``x + s * z``, and not ``x * (1 + s * z)``.
    draw : int
        Number of the draw.
    ndim, size : int
        Axes and elements.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> y, noise = fastdrop.gaussian_dropout(numpy.ones((2, 3)), rate=0.5, rng=0)
    >>> noise
    Noise('normal', shape=(2, 3), scale=1.0, additive=False, draw=0)
    >>> numpy.array_equal(1 + noise.to_array(numpy.float64), y)
    True
    """

    __slots__ = ("_additive", "_draw", "_first", "_key", "_kind", "_rows", "_scale", "_shape")

    _additive: bool
    _draw: int
    _first: int
    _key: tuple[int, int]
    _kind: int
    _rows: int | None
    _scale: float
    _shape: Shape

    _refused = (
        "a fastdrop.Noise takes no part in arithmetic; fastdrop.apply_noise(x, noise) applies it, "
        "noise.to_array() gives the numbers"
    )

    def __init__(self) -> None:
        raise TypeError(
            "noise is made by gaussian_dropout, uniform_dropout and gaussian_noise, not by Noise()"
        )

    @property
    def kind(self) -> Literal["normal", "uniform"]:
        """str: "normal" or "uniform"."""
        return KINDS[self._kind]

    @property
    def shape(self) -> Shape:
        """tuple of int: the noise's own shape."""
        return self._shape

    @property
    def scale(self) -> float:
        """float: the factor on its numbers."""
        return self._scale

    @property
    def additive(self) -> bool:
        """bool: added, not multiplied by."""
        return self._additive

    @property
    def draw(self) -> int:
        """int: number of the draw."""
        return self._draw

    @property
    def ndim(self) -> int:
        """int: axes of the noise's own shape."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """int: elements of the noise."""
        return math.prod(self._shape)

    def to_array(self, dtype: DTypeLike = numpy.float32) -> Array:
        """Return ``scale * z``, an array of the noise's own shape.

        The numbers z have the precision of float32 in every dtype.

        Parameters
        ----------
        dtype : optional
            float32, the default, float64 or float16.

        Raises
        ------
        TypeError
            For another dtype.
        """
        dtype = numpy.dtype(dtype)
        if dtype.char not in "efd":
            raise TypeError(f"dtype must be float16, float32 or float64, got {dtype}")
        working = numpy.promote_types(dtype, numpy.float32)
        z = self._numbers()
        with numpy.errstate(all="ignore"):
            return numpy.asarray(z.astype(working, copy=False) * working.type(self._scale), dtype)

    def _numbers(self) -> Array:
        """The numbers themselves, float32."""
        shape = self._shape
        z = numpy.empty(shape, numpy.float32)
        starts, stops, whole = (0,) * len(shape), shape, shape
        if self._rows is not None:
            starts = (self._first, *starts[1:])
            stops = (self._first + shape[0], *shape[1:])
            whole = (self._rows, *shape[1:])
        kernels.draw_noise(*self._key, self._draw, self._kind, whole, starts, stops, z)
        return z

    def with_scale(self, s: float) -> "Noise":
        """Return the same numbers with another factor.

        Raises
        ------
        TypeError
            If `s` is not a real number.
        """
        key, draw, kind, shape, _, *rest = self._state()
        return new_noise(key, draw, kind, shape, real_number(s, "s"), *rest)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("noise has no array of its own: leave out copy=False")
        return self.to_array(numpy.float32 if dtype is None else dtype)

    def __bool__(self) -> bool:
        return True  # `if noise` asks for None

    def _state(self) -> tuple[Any, ...]:
        first, rows = self._first, self._rows
        return (
            self._key, self._draw, self.kind, self._shape, self._scale, self._additive, first, rows
        )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return self._state() == other._state() if isinstance(other, Noise) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._state())

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, self._state()

    def __repr__(self) -> str:
        return (
            f"Noise({self.kind!r}, shape={self._shape}, scale={self._scale}, "
            f"additive={self._additive}, draw={self._draw})"
        )


def new_noise(
    key: tuple[int, int],
    draw: int,
    kind: Literal["normal", "uniform"],
    shape: Shape,
    scale: float,
    additive: bool,
    first: int = 0,
    rows: int | None = None,
) -> Noise:
    """Return a noise.

    Parameters
    ----------
    key : tuple of int
        The two words of the stream's.
    draw : int
    kind : str
        One of `KINDS`.
    shape : tuple of int
    scale : float
    additive : bool
    first, rows : int, optional
        With `rows`: its rows are rows ``first``, ``first + 1``, ... of a noise of so many rows.
    """
    noise = Noise.__new__(Noise)
    noise._key = key
    noise._draw = draw
    noise._kind = KINDS.index(kind)
    noise._shape = shape
    noise._scale = scale
    noise._additive = additive
    noise._first = first
    noise._rows = rows
    return noise


def noise_operand(
    noise: Any, shape: Shape, name: str = "x"
) -> tuple[Shape, tuple[Any, ...] | None]:
    """What kernels want to know of a noise for an array of `shape`.

    Returns
    -------
    own : tuple of int
        The noise's shape with the axes that the array has before it.
    arguments : tuple or None
        Of ``kernels.apply_noise``, between the two arrays; None where it does not begin at
        element 0, or has another shape.

    Raises
    ------
    TypeError
        If it is none.
    ValueError
        If it does not broadcast to the array; `name` is the array's.
    """
    _check_noise(noise)
    own = (1,) * (len(shape) - len(noise._shape)) + noise._shape
    if len(own) != len(shape) or any(
        mine not in (1, theirs) for mine, theirs in zip(own, shape, strict=True)
    ):
        raise ValueError(f"noise of shape {noise._shape} does not fit {name} of shape {shape}")
    if own != shape or noise._rows is not None:
        return own, None
    return own, (*noise._key, noise._draw, noise._kind, noise._scale, noise._additive)


def check_kind(
    noise: Any, kind: str, additive: bool, function: str, scale: float | None = None
) -> None:
    """Check that a noise is such as a function draws.

    Parameters
    ----------
    noise : Noise
    kind, additive
        What it has to be.
    function : str
        The function's name.
    scale : float, optional
        That of all its noises, if there is one.

    Raises
    ------
    TypeError
        If it is no noise.
    ValueError
        If it is another.
    """
    _check_noise(noise)
    if (noise.kind, noise.additive) != (kind, additive) or scale not in (None, noise.scale):
        factor = "" if scale is None else f" and scale={scale}"
        raise ValueError(
            f"noise must be as {function} draws it, {kind} with additive={additive}{factor}, got "
            f"{noise!r}"
        )


def _check_noise(noise: object) -> None:
    if not isinstance(noise, Noise):
        raise TypeError(f"noise must be a fastdrop.Noise, got {type(noise).__name__}")


def _unpickle(
    key: Any,
    draw: int,
    kind: Any,
    shape: Any,
    scale: float,
    additive: bool,
    first: int = 0,
    rows: int | None = None,
) -> Noise:
    """Rebuild a pickled noise; what no noise can be is a TypeError or ValueError."""
    key = tuple(integer(word, "key") for word in key)
    draw, shape = integer(draw, "draw"), tuple(integer(extent, "shape") for extent in shape)
    if len(key) != 2 or not all(0 <= word < 1 << 32 for word in key) or not 0 <= draw < 1 << 56:
        raise ValueError(
            f"a noise needs a key of two words and a draw below 2**56, got {key}, {draw}"
        )
    if not is_one_of(kind, KINDS) or min(shape, default=0) < 0 or math.prod(shape) >= 1 << 63:
        raise ValueError(f"there is no noise of kind {kind!r} and shape {shape}")
    first = integer(first, "first")
    if rows is not None and not (shape and 0 <= first <= integer(rows, "rows") - shape[0]):
        raise ValueError(f"a noise of shape {shape} is no part of {rows} rows from row {first} on")
    scale = real_number(scale, "scale")
    return new_noise(key, draw, kind, shape, scale, bool(additive), first, rows)
