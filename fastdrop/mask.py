"""`Mask`: one bit for each element, 1 for kept ones, and the factor on kept elements."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastdrop.arguments import as_array, inverse, keep_probability, real_number
from fastdrop.refusal import NoArithmetic, is_product
from fastdrop.types import Array, RowsPerMask, Shape

__all__ = ["Mask", "mask_operand", "new_mask"]

Bits: TypeAlias = NDArray[numpy.uint8]
Window: TypeAlias = Any  # a slice, the ellipsis, or a tuple of them


class Mask(NoArithmetic):
    """Which elements of an array are kept: one bit per element.

    Masks come from `MaskStream.draw`, `dropout` and `Mask.from_array`. They are immutable: the
    same mask can serve the forward pass, the backward pass and the update.

    ``|``, ``&``, ``^`` and ``~`` combine masks of one layout; the result has scale 1. Slices of
    step 1 give a window: ``mask[:32]`` has the bits, scale and ``keep_prob`` of the first 32 rows.
    Arithmetic with a mask (``grad * mask``, ``mask @ w``, NumPy's functions) would leave out the
    scale and is a TypeError: `apply_mask` multiplies, `to_array` gives the bits.

    Attributes
    ----------
    shape : tuple of int
        The mask's own shape: 1 on shared axes, one row per group of rows.
    rows_per_mask : int or "batch"
        How many consecutive rows of an array (axis 0) use one row of the mask.
    keep_prob : float or None
        The probability with which an element was kept; None if unknown.
    scale : float
        The factor on kept values.
    bits : numpy.ndarray of uint8, shape (ceil(elements / 8),), read-only
        Element ``e`` (C order) is bit ``e & 7`` of byte ``e >> 3``; 1 is kept. Unused bits are 0.
    nbytes : int
        Bytes of `bits`.
    ndim, size : int
        Axes and elements of the mask's own shape; ``len(mask)`` is the length of its first axis.

    Examples
    --------
    >>> import fastdrop
    >>> mask = fastdrop.MaskStream(0).draw((2, 4), rate=0.5)
    >>> mask
    Mask(shape=(2, 4), rows_per_mask=1, keep_prob=0.5, scale=2.0)
    >>> mask.to_array(dtype=int)
    array([[1, 1, 0, 0],
           [1, 0, 0, 0]])
    >>> mask.count(), mask.nbytes
    (3, 1)
    >>> mask[1:, :2].to_array(dtype=int)
    array([[1, 0]])
    """

    __slots__ = ("_bits", "_keep_prob", "_rows", "_rows_per_mask", "_scale", "_shape")

    _bits: Bits
    _keep_prob: float | None
    _rows: Any
    _rows_per_mask: RowsPerMask
    _scale: float
    _shape: Shape

    _refused = (
        "a fastdrop.Mask takes no part in arithmetic, which would leave out its scale; "
        "fastdrop.apply_mask(x, mask) keeps and scales, mask.to_array() gives the bits"
    )

    def __init__(self) -> None:
        raise TypeError(
            "masks are made by MaskStream.draw, dropout and Mask.from_array, not by Mask()"
        )

    @classmethod
    def from_array(cls, a: ArrayLike, keep_prob: float | None = None) -> "Mask":
        """Make a mask of an array's non-zero elements.

        Parameters
        ----------
        a : array_like of bool, int or float, any shape
            Non-zero is kept. Axes of length 1 broadcast when the mask is applied.
        keep_prob : float, optional
            In [0, 1]: kept values are multiplied by ``1 / keep_prob``. Without it the scale is 1.

        Raises
        ------
        TypeError
            If `a` holds something else than numbers.
        ValueError
            If ``keep_prob`` is not in [0, 1].

        Examples
        --------
        >>> from fastdrop import Mask
        >>> Mask.from_array([[True, False, True]], keep_prob=0.5).scale
        2.0
        """
        array = as_array(a, "a")
        if array.dtype.kind not in "biuf":
            raise TypeError(f"a must hold booleans or real numbers, got dtype {array.dtype}")
        scale = 1.0
        if keep_prob is not None:
            keep_prob = keep_probability(None, keep_prob)
            scale = inverse(keep_prob)
        bits = numpy.packbits(numpy.ravel(array != 0), bitorder="little")
        return new_mask(bits, array.shape, 1, keep_prob, scale)

    @property
    def shape(self) -> Shape:
        """tuple of int: the mask's own shape."""
        return self._shape

    @property
    def rows_per_mask(self) -> RowsPerMask:
        """int or "batch": rows that share a mask row."""
        return self._rows_per_mask

    @property
    def keep_prob(self) -> float | None:
        """float or None: the probability with which an element was kept, if known."""
        return self._keep_prob

    @property
    def scale(self) -> float:
        """float: the factor on kept values."""
        return self._scale

    @property
    def nbytes(self) -> int:
        """int: bytes of the packed bits."""
        return self._bits.nbytes

    @property
    def ndim(self) -> int:
        """int: axes of the mask's own shape."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """int: elements, kept and dropped."""
        return math.prod(self._shape)

    @property
    def bits(self) -> Bits:
        """numpy.ndarray of uint8: the packed bits, read-only."""
        self._bits.flags.writeable = False  # here, not for every mask: few are ever looked at
        return self._bits.view()

    def count(self) -> int:
        """Return the number of kept elements, an int."""
        return int(numpy.bitwise_count(self._bits).sum(dtype=numpy.int64))

    def indices(self) -> NDArray[numpy.intp]:
        """Return the C-order indices of the kept elements, ascending.

        For a unit mask of shape ``(1, units)`` these are the active units.

        Returns
        -------
        numpy.ndarray of intp, shape (count,)
        """
        return numpy.flatnonzero(self._flat())

    def to_array(self, dtype: DTypeLike = bool) -> Array:
        """Return the mask unpacked: an array of its own shape, 1 where kept, 0 where dropped."""
        return self._flat().reshape(self._shape).astype(dtype, copy=False)

    def _flat(self) -> NDArray[numpy.bool_]:
        flat = numpy.unpackbits(self._bits, count=self.size, bitorder="little")
        return flat.view(numpy.bool_)

    def with_scale(self, s: float) -> "Mask":
        """Return the same mask with the factor `s` on kept values; the bits are shared.

        Raises
        ------
        TypeError
            If `s` is not a real number.
        """
        return new_mask(
            self._bits, self._shape, self._rows_per_mask, self._keep_prob, real_number(s, "s")
        )

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(
                "a mask is packed, so that an array of it is always a copy: leave out copy=False"
            )
        return self.to_array(bool if dtype is None else dtype)

    def __array_function__(
        self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        """Give NumPy's functions the bits, as `numpy.asarray` does; refuse those that multiply."""
        if is_product(func):
            raise TypeError(f"numpy.{func.__name__}: {self._refused}")
        return func(*_with_arrays(args), **_with_arrays(kwargs))

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("len() of a mask without axes")
        return self._shape[0]

    def __bool__(self) -> bool:
        return True  # a mask is there, whatever it keeps: `if mask` asks for None

    __iter__ = None  # rows are slices: mask[i : i + 1]

    def __getitem__(self, window: Window) -> "Mask":
        """Return a window: slices of step 1, one per axis or fewer, and ``...`` as in NumPy.

        Raises
        ------
        TypeError
            For an index that is no slice.
        ValueError
            For slices of another step, or more of them than axes.
        """
        parts = window if isinstance(window, tuple) else (window,)
        for part in parts:
            if part is not Ellipsis and not isinstance(part, slice):
                raise TypeError(
                    f"a mask is indexed by slices, got {part!r}; mask.to_array() takes any index"
                )
            if isinstance(part, slice) and part.step not in (None, 1):
                raise ValueError(f"a mask is indexed by slices of step 1, got {part!r}")
        try:
            kept = self.to_array()[window]
        except IndexError as error:
            raise ValueError(f"{error}: a mask of shape {self._shape} got {window!r}") from None
        bits = numpy.packbits(kept.reshape(-1), bitorder="little")
        return new_mask(bits, kept.shape, self._rows_per_mask, self._keep_prob, self._scale)

    def __or__(self, other: "Mask") -> "Mask":
        """Keep the elements that either of two masks of the same layout keeps; scale 1."""
        return self._joined(numpy.bitwise_or, other)

    def __and__(self, other: "Mask") -> "Mask":
        """Keep the elements that both of two masks of the same layout keep; scale 1."""
        return self._joined(numpy.bitwise_and, other)

    def __xor__(self, other: "Mask") -> "Mask":
        """Keep the elements that exactly one of two masks of the same layout keeps; scale 1."""
        return self._joined(numpy.bitwise_xor, other)

    # Without these, `mask |= other` would find the refusals of the base.
    __ior__, __iand__, __ixor__ = __or__, __and__, __xor__

    def _joined(self, join: numpy.ufunc, other: object) -> "Mask":
        if not isinstance(other, Mask):
            raise TypeError(f"numpy.{join.__name__}: {self._refused}; masks combine with masks")
        for name in ("shape", "rows_per_mask"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise ValueError(f"masks of different {name} cannot be joined: {ours}, {theirs}")
        bits = join(self._bits, other._bits)
        return new_mask(bits, self._shape, self._rows_per_mask, None, 1.0)

    def __invert__(self) -> "Mask":
        """Keep exactly the elements that this mask drops; scale 1."""
        bits = ~self._bits
        if self.size % 8:
            bits[-1] &= (1 << self.size % 8) - 1
        dropped = None if self._keep_prob is None else 1.0 - self._keep_prob
        return new_mask(bits, self._shape, self._rows_per_mask, dropped, 1.0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return self._shape == other._shape and numpy.array_equal(self._bits, other._bits)

    def __hash__(self) -> int:
        return hash((self._shape, self._bits.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self._bits.tobytes(), self._shape, self._rows_per_mask)
        return _unpickle, (*state, self._keep_prob, self._scale)

    def __repr__(self) -> str:
        return (
            f"Mask(shape={self._shape}, rows_per_mask={self._rows_per_mask!r}, "
            f"keep_prob={self._keep_prob}, scale={self._scale})"
        )

    def _repr_html_(self) -> str:
        """Notebooks show a picture, kept elements dark."""
        from fastdrop.display import mask_html  # imported for notebooks only

        return mask_html(self)


def new_mask(
    bits: Bits, shape: Shape, rows_per_mask: RowsPerMask, keep_prob: float | None, scale: float
) -> Mask:
    """Return a mask of packed bits that nobody else writes to."""
    mask = Mask.__new__(Mask)
    mask._bits = bits
    mask._shape = shape
    mask._rows_per_mask = rows_per_mask
    mask._keep_prob = keep_prob
    mask._rows = None
    mask._scale = scale
    return mask


def remembered_rows(mask: Mask, shape: Shape) -> Any:
    """What `remember_rows` was told of a mask for arrays of this shape; None if nothing."""
    rows = mask._rows
    return rows[1] if rows is not None and rows[0] == shape else None


def remember_rows(mask: Mask, shape: Shape, rows: Any) -> None:
    """Remember a mask as rows of bits for arrays of one shape: the same mask comes again."""
    mask._rows = (shape, rows)


def mask_operand(mask: Mask, shape: Shape, name: str = "x") -> tuple[Bits, Shape, int]:
    """A mask as the kernels take it for an array of `shape`: packed bits, shape, rows per mask.

    Raises
    ------
    ValueError
        If the mask does not fit; `name` is the array's name in the message.
    """
    bits, own, rows = mask._bits, mask._shape, mask._rows_per_mask
    if own == shape and rows == 1:
        return bits, own, 1
    missing = len(shape) - len(own)
    fits = missing == 0 or (missing > 0 and rows == 1)
    aligned = (1,) * missing + own
    if fits and rows != "batch" and rows != 1:
        fits = own[0] == -(-shape[0] // rows)
        fits = fits and _broadcasts(own[1:], shape[1:])
    else:
        fits = fits and _broadcasts(aligned, shape)
    if not fits:
        raise ValueError(
            f"mask of shape {own} with rows_per_mask={rows!r} does not fit {name} of shape {shape}"
        )
    if rows == "batch":
        return bits, aligned, 1
    # More rows than there are mean as much as all of them, and may be beyond the kernels.
    return bits, aligned, rows if rows == 1 else min(rows, max(shape[0], 1))


def _with_arrays(value: Any) -> Any:
    """Arguments of a function with an array in the place of every mask."""
    if isinstance(value, Mask):
        return value.to_array()
    if isinstance(value, NoArithmetic):  # a pair, whose mask is what NumPy has found
        raise TypeError(value._refused)
    if isinstance(value, dict):
        return {name: _with_arrays(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_with_arrays, value))
    return value


def _broadcasts(own: Shape, shape: Shape) -> bool:
    return all(mine in (1, theirs) for mine, theirs in zip(own, shape, strict=True))


def _unpickle(data: Any, shape: Any, rows_per_mask: Any, keep_prob: Any, scale: Any) -> Mask:
    """Rebuild a pickled mask; an impossible mask is a TypeError or ValueError."""
    if not isinstance(data, bytes):
        raise TypeError(f"the bits of a mask must be bytes, got {type(data).__name__}")
    shape = tuple(int(extent) for extent in shape)
    size = math.prod(shape)
    if min(shape, default=0) < 0 or len(data) != -(-size // 8):
        raise ValueError(f"a mask of shape {shape} does not have {len(data)} bytes of bits")
    if rows_per_mask != "batch" and not (isinstance(rows_per_mask, int) and rows_per_mask >= 1):
        raise ValueError(f"rows_per_mask must be an int from 1 or 'batch', got {rows_per_mask!r}")
    if rows_per_mask != 1 and not shape:
        raise ValueError(f"rows_per_mask must be 1 for 0 dimensions, got {rows_per_mask!r}")
    bits = numpy.frombuffer(data, dtype=numpy.uint8).copy()
    if size % 8:
        bits[-1] &= (1 << size % 8) - 1
    keep_prob = None if keep_prob is None else keep_probability(None, keep_prob)
    return new_mask(bits, shape, rows_per_mask, keep_prob, real_number(scale, "scale"))
