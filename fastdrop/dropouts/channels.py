"""Dropout of whole channels: `dropout1d`, `dropout2d`, `dropout3d`.

Neighbouring values of a feature map carry nearly the same information, so that dropping single ones
drops little; here a channel is kept or dropped as a whole (Tompson et al. 2015, section 3.2).
"""

from numpy.typing import ArrayLike

from fastdrop.arguments import as_array, is_one_of
from fastdrop.callers import warn_caller
from fastdrop.dropouts.given import with_mask
from fastdrop.functional import dropout
from fastdrop.mask import Mask
from fastdrop.pair import OutputAndMask
from fastdrop.stream import RandomSource
from fastdrop.types import Array, DataFormat, ScaleAt

__all__ = ["channel_axes", "dropout1d", "dropout2d", "dropout3d"]

FORMATS = ("channels_first", "channels_last")


def dropout1d(
    x: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    data_format: DataFormat = "channels_first",
    exact_count: bool = False,
    training: bool = True,
    scale_at: ScaleAt = "train",
    out: Array | None = None,
) -> OutputAndMask:
    """Drop whole channels of sequences and scale the kept ones.

    ``y[n, c] = m[n, c] * x[n, c] / keep_prob``, with one bit ``m[n, c]`` for each channel of each
    example [1]_.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, shape (N, C, L) or (C, L)
        With ``data_format="channels_last"`` (N, L, C) or (L, C).
    rate : float
        Probability that a channel is dropped, in [0, 1]. Give `rate` or `keep_prob`, not both.
    keep_prob : float
        Probability that a channel is kept, ``1 - rate``.
    rng : optional
        As for `dropout`: where the mask comes from.
    mask : Mask, optional
        A mask to apply, as this function returned it, in the place of a drawn one; then no rate.
    data_format : "channels_first" or "channels_last", optional
        Where the channels are. Torch's layers have the first, Keras' by default the second.
    exact_count : bool, optional
        Keep the same number of channels of every example: ``floor(keep_prob * C + 0.5 + 1e-6)``.
    training : bool, optional
        False: nothing is drawn; see `dropout`.
    scale_at : "train" or "test", optional
        As for `dropout`.
    out : numpy.ndarray, optional
        Where the result goes; `x` itself, or an array that does not overlap it.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
        Dropped channels are exactly +0.0.
    mask : Mask or None
        For `dropout_backward`; one bit per channel.

    Raises
    ------
    TypeError
        If an argument is of another type, or not exactly one of `rate` and `keep_prob` is given.
    ValueError
        If `x` has another number of axes, or an argument is out of its range.

    References
    ----------
    .. [1] J. Tompson, R. Goroshin, A. Jain, Y. LeCun, C. Bregler, "Efficient object localization
       using convolutional networks", CVPR 2015, section 3.2.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> y, mask = fastdrop.dropout1d(numpy.ones((2, 3, 2)), rate=0.5, rng=3)
    >>> y[..., 0]
    array([[2., 0., 0.],
           [0., 0., 2.]])
    >>> numpy.array_equal(fastdrop.dropout_backward(numpy.ones((2, 3, 2)), mask), y)
    True
    """
    return _channels(
        1, x, rate, keep_prob, rng, mask, data_format, exact_count, training, scale_at, out
    )


def dropout2d(
    x: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    data_format: DataFormat = "channels_first",
    exact_count: bool = False,
    training: bool = True,
    scale_at: ScaleAt = "train",
    out: Array | None = None,
) -> OutputAndMask:
    """Drop whole channels of images and scale the kept ones; else as `dropout1d`.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, shape (N, C, H, W)
        With ``data_format="channels_last"`` (N, H, W, C). As torch does, three axes are taken for
        (N, C, L), with a warning: `dropout1d` means that, and ``x[None]`` is one image.
    rate, keep_prob, rng, mask, data_format, exact_count, training, scale_at, out : optional
        As for `dropout1d`.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
    mask : Mask or None

    Examples
    --------
    >>> import numpy, fastdrop
    >>> images = numpy.ones((1, 2, 2, 4), numpy.float32)
    >>> y, mask = fastdrop.dropout2d(images, rate=0.5, rng=0, data_format="channels_last")
    >>> y[0, :, :, :].reshape(4, 4)
    array([[2., 2., 0., 0.],
           [2., 2., 0., 0.],
           [2., 2., 0., 0.],
           [2., 2., 0., 0.]], dtype=float32)
    """
    return _channels(
        2, x, rate, keep_prob, rng, mask, data_format, exact_count, training, scale_at, out
    )


def dropout3d(
    x: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    data_format: DataFormat = "channels_first",
    exact_count: bool = False,
    training: bool = True,
    scale_at: ScaleAt = "train",
    out: Array | None = None,
) -> OutputAndMask:
    """Drop whole channels of volumes and scale the kept ones; else as `dropout1d`.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, shape (N, C, D, H, W) or (C, D, H, W)
        With ``data_format="channels_last"`` (N, D, H, W, C) or (D, H, W, C).
    rate, keep_prob, rng, mask, data_format, exact_count, training, scale_at, out : optional
        As for `dropout1d`.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
    mask : Mask or None

    Examples
    --------
    >>> import numpy, fastdrop
    >>> y, mask = fastdrop.dropout3d(numpy.ones((2, 3, 2, 2, 2)), rate=0.5, rng=3)
    >>> mask.shape
    (2, 3, 1, 1, 1)
    """
    return _channels(
        3, x, rate, keep_prob, rng, mask, data_format, exact_count, training, scale_at, out
    )


def channel_axes(space: int, dimensions: int, data_format: DataFormat) -> tuple[int, ...]:
    """The axes along which a channel extends, as a tuple.

    Parameters
    ----------
    space : int
        Axes of one feature map: 1, 2 or 3.
    dimensions : int
        Axes of the array.
    data_format : str

    Raises
    ------
    ValueError
        For another number of axes or format.
    """
    if not is_one_of(data_format, FORMATS):
        raise ValueError(
            f'data_format must be "channels_first" or "channels_last", got {data_format!r}'
        )
    if space == 2 and dimensions == 3:
        warn_caller(
            "dropout2d takes an array of 3 axes for (N, C, L), as torch does: dropout1d says so, "
            "and x[None] makes one image of four axes"
        )
        space = 1
    # One image without an axis of examples cannot be told from examples of sequences.
    usual = (4,) if space == 2 else (space + 1, space + 2)
    if dimensions not in usual:
        raise ValueError(
            f"x must have {' or '.join(map(str, usual))} axes for dropout{space}d, got {dimensions}"
        )
    first = dimensions - space
    return tuple(
        range(first, dimensions) if data_format == FORMATS[0] else range(first - 1, -1 + dimensions)
    )


def _channels(
    space: int,
    x: ArrayLike,
    rate: float | None,
    keep_prob: float | None,
    rng: RandomSource,
    mask: Mask | None,
    data_format: DataFormat,
    exact_count: bool,
    training: bool,
    scale_at: ScaleAt,
    out: Array | None,
) -> OutputAndMask:
    x = x if hasattr(x, "ndim") else as_array(x, "x")
    shared = channel_axes(space, x.ndim, data_format)
    if mask is not None:
        return with_mask(x, mask, rate, keep_prob, rng, training, out)
    return dropout(
        x,
        rate,
        keep_prob=keep_prob,
        rng=rng,
        shared_axes=shared,
        exact_count=exact_count,
        training=training,
        scale_at=scale_at,
        out=out,
    )
