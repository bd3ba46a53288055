"""Layers of DropBlock."""

from fastdrop.dropouts import dropblock1d, dropblock2d, dropblock3d, dropblock_backward
from fastdrop.dropouts.blocks import NORMALISED, block_sizes
from fastdrop.nn.random import FunctionLayer, one_of

__all__ = ["DropBlock1d", "DropBlock2d", "DropBlock3d"]


class _DropBlock(FunctionLayer):
    """What the three have in common."""

    _space = 0

    def __init__(self, rate=None, block_size=7, *, keep_prob=None, normalise="batch", rng=None):
        super().__init__(rate, keep_prob, rng)
        block_sizes(block_size, self._space)
        self._options = {
            "block_size": block_size,
            "normalise": one_of(normalise, NORMALISED, "normalise"),
        }

    def settings(self):
        """Return the arguments by name."""
        size = self._options["block_size"]
        size = list(size) if isinstance(size, tuple) else size
        return super().settings() | {"block_size": size}

    def _gradient(self, grad, mask):
        return dropblock_backward(grad, mask, normalise=self._options["normalise"])


class DropBlock1d(_DropBlock):
    """Drop blocks of neighbouring places of arrays of shape (N, C, L); see `DropBlock2d`."""

    _sealed = True
    _space = 1
    _function = staticmethod(dropblock1d)


class DropBlock2d(_DropBlock):
    """Drop blocks of neighbouring places of feature maps, shape (N, C, H, W), in training.

    Parameters
    ----------
    rate, keep_prob : float
        Share of dropped, or kept, places that is aimed at; exactly one of the two. Can be set
        later: the paper raises the rate slowly in training.
    block_size, normalise : optional
        As for `fastdrop.dropblock2d`.
    rng : optional
        As for `fastdrop.dropout`. By default the network decides.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.DropBlock2d(0.3, block_size=3, rng=5)
    >>> y = layer.forward(numpy.ones((1, 1, 5, 8)), training=True)
    >>> (y == 0).sum()
    np.int64(9)
    """

    _sealed = True
    _space = 2
    _function = staticmethod(dropblock2d)


class DropBlock3d(_DropBlock):
    """Drop blocks of neighbouring places of arrays of shape (N, C, D, H, W); see `DropBlock2d`."""

    _sealed = True
    _space = 3
    _function = staticmethod(dropblock3d)
