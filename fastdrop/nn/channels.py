"""Layers that drop whole channels: Dropout1d, Dropout2d, Dropout3d."""

from typing import Any

from fastdrop.dropouts import dropout1d, dropout2d, dropout3d
from fastdrop.dropouts.channels import FORMATS, channel_axes
from fastdrop.nn.random import FunctionLayer, one_of
from fastdrop.nn.types import Rate
from fastdrop.stream import RandomSource
from fastdrop.types import DataFormat, ScaleAt, Shape

__all__ = ["Dropout1d", "Dropout2d", "Dropout3d"]


class _ChannelDropout(FunctionLayer):
    """What the three have in common."""

    _space = 0

    def __init__(
        self,
        rate: Rate | None = None,
        *,
        keep_prob: float | None = None,
        data_format: DataFormat = "channels_first",
        exact_count: bool = False,
        scale_at: ScaleAt = "train",
        rng: RandomSource = None,
    ) -> None:
        super().__init__(rate, keep_prob, rng)
        self._options = {
            "data_format": one_of(data_format, FORMATS, "data_format"),
            "exact_count": bool(exact_count),
            "scale_at": one_of(scale_at, ("train", "test"), "scale_at"),
        }

    def _sharing(self, shape: Shape) -> dict[str, Any]:
        axes = channel_axes(self._space, len(shape), self._options["data_format"])
        return {"shared_axes": axes, "exact_count": self._options["exact_count"]}


class Dropout1d(_ChannelDropout):
    """Drop whole channels of arrays of shape (N, C, L) in training; see `fastdrop.dropout1d`.

    Parameters
    ----------
    rate : float
        Probability that a channel is dropped. Give `rate` or `keep_prob`, not both. Can be set
        later.
    keep_prob : float
        Probability that a channel is kept, ``1 - rate``.
    data_format, exact_count, scale_at : optional
        As for `fastdrop.dropout1d`.
    rng : optional
        As for `fastdrop.dropout`. By default the network decides.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.Dropout1d(0.5, rng=3)
    >>> layer.forward(numpy.ones((2, 3, 2)), training=True)[..., 1]
    array([[2., 0., 0.],
           [0., 0., 2.]])
    """

    _sealed = True
    _space = 1
    _function = staticmethod(dropout1d)


class Dropout2d(_ChannelDropout):
    """Drop whole channels of arrays of shape (N, C, H, W); see `Dropout1d`."""

    _sealed = True
    _space = 2
    _function = staticmethod(dropout2d)


class Dropout3d(_ChannelDropout):
    """Drop whole channels of arrays of shape (N, C, D, H, W); see `Dropout1d`."""

    _sealed = True
    _space = 3
    _function = staticmethod(dropout3d)
