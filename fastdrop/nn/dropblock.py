"""Layers of DropBlock."""

import math
from typing import Any

from fastdrop.dropouts import dropblock1d, dropblock2d, dropblock3d, dropblock_backward
from fastdrop.dropouts.blocks import (
    NORMALISED,
    block_sizes,
    fitting_block,
    mask_of_seeds,
    seeds_of,
)
from fastdrop.mask import Mask
from fastdrop.nn.random import FunctionLayer, one_of
from fastdrop.nn.types import Rate, Rows
from fastdrop.nn.windows import draw_rows
from fastdrop.stream import RandomSource
from fastdrop.types import Array, Normalised, Shape

__all__ = ["DropBlock1d", "DropBlock2d", "DropBlock3d"]

# Rows of a batch whose blocks are counted at a time.
AT_A_TIME = 32


class _DropBlock(FunctionLayer):
    """What the three have in common."""

    _space = 0

    def __init__(
        self,
        rate: Rate | None = None,
        block_size: int | tuple[int, ...] = 7,
        *,
        keep_prob: float | None = None,
        normalise: Normalised = "batch",
        rng: RandomSource = None,
    ) -> None:
        super().__init__(rate, keep_prob, rng)
        block_sizes(block_size, self._space)
        self._options = {
            "block_size": block_size,
            "normalise": one_of(normalise, NORMALISED, "normalise"),
        }

    def settings(self) -> dict[str, Any]:
        """Return the arguments by name."""
        size = self._options["block_size"]
        size = list(size) if isinstance(size, tuple) else size
        return super().settings() | {"block_size": size}

    def _part(self, shape: Shape, rows: Rows) -> Mask:
        number, total = self.stream.position, rows[1]
        mask, _ = self._blocks_of(shape, rows)
        if self._options["normalise"] != "batch":
            return mask
        # The factor is that of the whole batch; its other rows' blocks are only counted.
        kept = 0
        for first in range(0, total, AT_A_TIME):
            part = (min(AT_A_TIME, total - first), *shape[1:])
            kept += self._blocks_of(part, (first, total), number)[1]
        return mask.with_scale(total * math.prod(shape[1:]) / kept if kept else 0.0)

    def _blocks_of(self, shape: Shape, rows: Rows, at: int | None = None) -> tuple[Mask, int]:
        """The mask of some rows of a batch, with scale 1, and how many elements it keeps."""
        block = fitting_block(self._options["block_size"], self._space, shape)
        drawn = seeds_of(shape, block, 1.0 - self.keep_prob)
        seeds = draw_rows(self.stream, rows=rows, at=at, **drawn)
        return mask_of_seeds(seeds, shape, block)

    def _gradient(self, grad: Array, mask: Any) -> Array:
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
    """Drop blocks of neighbouring places of arrays of shape (N, C, D, H, W); see `DropBlock2d`.

    Blocks are cubes of 3 places along each axis, unless `block_size` says otherwise.
    """

    _sealed = True
    _space = 3
    _function = staticmethod(dropblock3d)

    def __init__(
        self,
        rate: Rate | None = None,
        block_size: int | tuple[int, ...] = 3,
        *,
        keep_prob: float | None = None,
        normalise: Normalised = "batch",
        rng: RandomSource = None,
    ) -> None:
        super().__init__(rate, block_size, keep_prob=keep_prob, normalise=normalise, rng=rng)
