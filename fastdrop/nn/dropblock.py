"""Layers of DropBlock."""

import math

from fastdrop.dropouts import dropblock1d, dropblock2d, dropblock3d, dropblock_backward
from fastdrop.dropouts.blocks import (
    NORMALISED,
    block_sizes,
    fitting_block,
    mask_of_seeds,
    seeds_of,
)
from fastdrop.nn.random import FunctionLayer, one_of
from fastdrop.nn.windows import draw_rows

__all__ = ["DropBlock1d", "DropBlock2d", "DropBlock3d"]

# Rows of a batch whose blocks are counted at a time.
AT_A_TIME = 32


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

    def _part(self, shape):
        number, total = self.stream.position, self._rows[1]
        mask, _ = self._blocks_of(shape, self._rows)
        if self._options["normalise"] != "batch":
            return mask
        # The factor is that of the whole batch; its other rows' blocks are only counted.
        kept = 0
        for first in range(0, total, AT_A_TIME):
            rows = min(AT_A_TIME, total - first)
            kept += self._blocks_of((rows, *shape[1:]), (first, total), number)[1]
        return mask.with_scale(total * math.prod(shape[1:]) / kept if kept else 0.0)

    def _blocks_of(self, shape, rows, at=None):
        """The mask of some rows of a batch, with scale 1, and how many elements it keeps."""
        block = fitting_block(self._options["block_size"], self._space, shape)
        drawn = seeds_of(shape, block, 1.0 - self.keep_prob)
        seeds = draw_rows(self.stream, rows=rows, at=at, **drawn)
        return mask_of_seeds(seeds, shape, block)

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
