"""DropBlock: neighbouring places of feature maps are dropped together."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import ArrayLike

from fastdrop._backend import kernels
from fastdrop.arguments import integer, is_one_of, keep_probability
from fastdrop.dropouts.given import check_given, flat_bits, result_array, written
from fastdrop.functional import apply_mask, dropout, dropout_backward, float_array
from fastdrop.mask import Mask, mask_operand, new_mask
from fastdrop.pair import OutputAndMask
from fastdrop.stream import MaskStream, RandomSource, as_stream
from fastdrop.types import Array, Normalised, Shape

__all__ = [
    "block_sizes",
    "dropblock1d",
    "dropblock2d",
    "dropblock3d",
    "dropblock_backward",
    "seed_rate",
]

NORMALISED = ("batch", "example", "none")


def dropblock1d(
    x: ArrayLike,
    rate: float | None = None,
    block_size: int | Sequence[int] = 7,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    normalise: Normalised = "batch",
    training: bool = True,
    out: Array | None = None,
) -> OutputAndMask:
    """Drop blocks of neighbouring places of sequences; see `dropblock2d`.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, shape (N, C, L)
    rate, block_size, keep_prob, rng, mask, normalise, training, out : optional
        As for `dropblock2d`.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
    mask : Mask or None

    Examples
    --------
    >>> import numpy, fastdrop
    >>> y, _ = fastdrop.dropblock1d(numpy.ones((1, 1, 12)), rate=0.3, block_size=3, rng=1)
    >>> (y != 0).astype(int)
    array([[[1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1]]])
    """
    return _blocks(1, x, rate, block_size, keep_prob, rng, mask, normalise, training, out)


def dropblock2d(
    x: ArrayLike,
    rate: float | None = None,
    block_size: int | Sequence[int] = 7,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    normalise: Normalised = "batch",
    training: bool = True,
    out: Array | None = None,
) -> OutputAndMask:
    """Drop square blocks of neighbouring positions of images, and scale the rest.

    Blocks begin at random places, each of those where a block lies inside of the map with the
    probability that makes the expected share of dropped places about `rate` [1]_, and every channel
    of every example has its own:
    ``rate / block_size**2 * H * W / ((H - block_size + 1) * (W - block_size + 1))``. Blocks may
    overlap, so that fewer places are dropped than `rate` says, as in the paper and in torchvision;
    a rate of 1 drops all.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, shape (N, C, H, W)
    rate, keep_prob : float
        Share of dropped, or kept, places that is aimed at, in [0, 1]; exactly one of the two.
    block_size : int or tuple of int, optional
        Places of a block along each axis, the same or one for each; cut to the size of the map.
    rng : optional
        As for `dropout`.
    mask : Mask, optional
        A mask to apply, as this function returned it, in the place of a drawn one; then no rate.
    normalise : "batch", "example" or "none", optional
        By what the kept places are multiplied. "batch": the number of places of the whole array
        by that of kept ones, as the paper's authors and torchvision do. "example": the same of each
        example, which then does not depend on the others of its batch (the paper's Algorithm 1,
        applied to one). "none": 1.
    training : bool, optional
        False: nothing is drawn, and `x` itself is returned, with None for the mask.
    out : numpy.ndarray, optional
        Where the result goes; `x` itself, or an array that does not overlap it.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
        Dropped places are exactly +0.0.
    mask : Mask or None
        One bit for each element. For `dropout_backward`, or with ``normalise="example"`` for
        `dropblock_backward`.

    Raises
    ------
    TypeError
        If an argument is of another type, or not exactly one of `rate` and `keep_prob` is given.
    ValueError
        If `x` has another number of axes, or an argument is out of its range.

    References
    ----------
    .. [1] G. Ghiasi, T.-Y. Lin, Q. V. Le, "DropBlock: a regularization method for convolutional
       networks", NeurIPS 2018, section 3, Algorithm 1 and equation 1.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> x = numpy.ones((1, 1, 5, 8))
    >>> y, mask = fastdrop.dropblock2d(x, rate=0.3, block_size=3, rng=5)
    >>> (y[0, 0] != 0).astype(int)
    array([[1, 1, 1, 1, 1, 1, 1, 1],
           [1, 1, 0, 0, 0, 1, 1, 1],
           [1, 1, 0, 0, 0, 1, 1, 1],
           [1, 1, 0, 0, 0, 1, 1, 1],
           [1, 1, 1, 1, 1, 1, 1, 1]])
    """
    return _blocks(2, x, rate, block_size, keep_prob, rng, mask, normalise, training, out)


def dropblock3d(
    x: ArrayLike,
    rate: float | None = None,
    block_size: int | Sequence[int] = 3,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    normalise: Normalised = "batch",
    training: bool = True,
    out: Array | None = None,
) -> OutputAndMask:
    """Drop cubes of neighbouring places of volumes; see `dropblock2d`.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, shape (N, C, D, H, W)
    rate, block_size, keep_prob, rng, mask, normalise, training, out : optional
        As for `dropblock2d`.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
    mask : Mask or None

    Examples
    --------
    >>> import numpy, fastdrop
    >>> y, mask = fastdrop.dropblock3d(numpy.ones((2, 4, 6, 6, 6)), rate=0.2, rng=0)
    >>> mask.scale == mask.size / mask.count()
    True
    """
    return _blocks(3, x, rate, block_size, keep_prob, rng, mask, normalise, training, out)


def dropblock_backward(
    grad_y: ArrayLike,
    mask: Mask | None,
    *,
    normalise: Normalised = "batch",
    out: Array | None = None,
) -> Array:
    """Return the gradient of `dropblock1d`, `dropblock2d` or `dropblock3d`.

    Parameters
    ----------
    grad_y : array_like of float16, float32 or float64
        Gradient with respect to the output.
    mask : Mask or None
        The forward pass's mask.
    normalise : "batch", "example" or "none", optional
        As in the forward pass. Only "example" differs from `dropout_backward`.
    out : numpy.ndarray, optional
        Where the result goes; `grad_y` itself, or an array that does not overlap it.

    Returns
    -------
    numpy.ndarray, shape and dtype of `grad_y`

    Examples
    --------
    >>> import numpy, fastdrop
    >>> x = numpy.ones((3, 2, 9))
    >>> y, mask = fastdrop.dropblock1d(x, 0.3, 2, rng=0, normalise="example")
    >>> numpy.array_equal(fastdrop.dropblock_backward(x, mask, normalise="example"), y)
    True
    """
    if _normalised(normalise) != "example" or mask is None:
        return dropout_backward(grad_y, mask, out=out)
    grad_y = float_array(grad_y, "grad_y")
    return _each_example(grad_y, mask, result_array(out, grad_y))


def seed_rate(rate: float, extent: Sequence[int], block: Sequence[int]) -> float:
    """The probability with which a block begins at a place where it fits [1]_.

    Parameters
    ----------
    rate : float
        Share of dropped places that is aimed at.
    extent, block : sequence of int
        Of a map and of a block, along each of its axes.

    References
    ----------
    .. [1] As for `dropblock2d`, equation 1.

    Examples
    --------
    >>> from fastdrop.dropouts.blocks import seed_rate
    >>> seed_rate(0.18, (7, 7), (3, 3))
    0.0392
    """
    if rate == 1:
        return 1.0
    places = math.prod(extent)
    fitting = math.prod(whole - part + 1 for whole, part in zip(extent, block, strict=True))
    return min(1.0, rate / math.prod(block) * places / fitting) if places else 0.0


def _blocks(
    space: int,
    x: ArrayLike,
    rate: float | None,
    block_size: int | Sequence[int],
    keep_prob: float | None,
    rng: RandomSource,
    mask: Mask | None,
    normalise: Normalised,
    training: bool,
    out: Array | None,
) -> OutputAndMask:
    _normalised(normalise)
    if mask is not None:
        check_given(mask, rate, keep_prob, rng, training)
    if not training:
        return dropout(x, rate, keep_prob=keep_prob, training=False, out=out)
    x = float_array(x, "x")
    block = fitting_block(block_size, space, x.shape)
    if mask is not None:
        if normalise != "example":
            return OutputAndMask((apply_mask(x, mask, out=out), mask))
        y = result_array(out, x)
    else:
        keep = keep_probability(rate, keep_prob)
        y = result_array(out, x)
        mask = _drawn(as_stream(rng), 1.0 - keep, x.shape, block, normalise)
        if normalise != "example":
            return OutputAndMask((apply_mask(x, mask, out=y), mask))
    mask_operand(mask, x.shape)
    return OutputAndMask((_each_example(x, mask, y), mask))


def _drawn(
    stream: MaskStream, rate: float, shape: Shape, block: Shape, normalise: Normalised
) -> Mask:
    """The mask of an array: its blocks begin where a draw of the stream keeps."""
    seeds = stream.draw(**seeds_of(shape, block, rate))
    mask, kept = mask_of_seeds(seeds, shape, block)
    if normalise != "batch":
        return mask
    return mask.with_scale(mask.size / kept if kept else 0.0)


def seeds_of(shape: Shape, block: Shape, rate: float) -> dict[str, Any]:
    """Arguments of `MaskStream.draw` for the places where blocks begin in an array of a shape."""
    extent = shape[2:]
    starts = tuple(max(whole - part + 1, 0) for whole, part in zip(extent, block, strict=True))
    return {"shape": (*shape[:2], *starts), "keep_prob": seed_rate(rate, extent, block)}


def mask_of_seeds(seeds: Mask, shape: Shape, block: Shape) -> tuple[Mask, int]:
    """The mask of an array whose blocks begin at `seeds`, and the number of elements it keeps.

    Parameters
    ----------
    seeds : Mask
    shape : tuple of int
        Of the array.
    block : tuple of int

    Returns
    -------
    mask : Mask
        Its scale is 1.
    kept : int
    """
    extent = shape[2:]
    bits = numpy.empty(-(-math.prod(shape) // 8), numpy.uint8)
    ones = (1,) * (3 - len(extent))
    kept = kernels.drop_blocks(
        flat_bits(seeds, seeds.shape),
        shape[0] * shape[1],
        (*ones, *extent),
        (*ones, *block),
        bits,
    )
    return new_mask(bits, shape, 1, None, 1.0), kept


def _each_example(x: Array, mask: Mask, y: Array) -> Array:
    """Apply a mask with a factor for each example: its places by its kept ones."""
    flat = numpy.unpackbits(flat_bits(mask, x.shape), count=x.size, bitorder="little")
    kept = flat.reshape(x.shape)
    counts = kept.sum(axis=tuple(range(1, x.ndim)), dtype=int)
    places = math.prod(x.shape[1:])
    for one, own, part, count in zip(x, kept, y, counts.tolist(), strict=True):
        bits = numpy.packbits(own, bitorder="little")
        scale = places / count if count else 0.0
        shape = own.shape
        written(part, functools.partial(kernels.apply_mask, one, bits, shape, 1, scale))
    return y


def fitting_block(block_size: int | Sequence[int], space: int, shape: Shape) -> tuple[int, ...]:
    """A block's extent along each axis of a map, at most the map's, for an array of a shape.

    Raises
    ------
    ValueError
        If the array has no examples, channels and `space` axes.
    """
    if len(shape) != space + 2:
        raise ValueError(f"x must have {space + 2} axes for dropblock{space}d, got {len(shape)}")
    sizes = zip(block_sizes(block_size, space), shape[2:], strict=True)
    return tuple(max(min(size, whole), 1) for size, whole in sizes)


def block_sizes(block_size: int | Sequence[int], space: int) -> tuple[int, ...]:
    """The argument `block_size` as a tuple of `space` ints.

    Raises
    ------
    TypeError, ValueError
        If it is no int from 1 and not as many of them.
    """
    given = block_size if isinstance(block_size, tuple | list) else (block_size,) * space
    sizes = tuple(integer(size, "block_size") for size in given)
    if len(sizes) != space or min(sizes) < 1:
        raise ValueError(
            f"block_size must be an int from 1, or {space} of them, got {block_size!r}"
        )
    return sizes


def _normalised(normalise: Normalised) -> Normalised:
    if not is_one_of(normalise, NORMALISED):
        raise ValueError(f'normalise must be "batch", "example" or "none", got {normalise!r}')
    return normalise
