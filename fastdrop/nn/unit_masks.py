"""Masks of many samples of a network, each of them one set of units."""

import numpy

from fastdrop._backend import kernels
from fastdrop.arguments import threshold
from fastdrop.nn.dropout import Layout

__all__ = ["unit_masks"]


def unit_masks(layer, stream, first, draws, width):
    """Draw masks of one row each, as for batches whose rows share one.

    Parameters
    ----------
    layer : Dropout
        Decides rate, count and factor.
    stream : MaskStream
        Is left where it is.
    first, draws : int
        Number of the first draw, and how many there are.
    width : int
        Units.

    Returns
    -------
    masks : numpy.ndarray of bool, shape (draws, width)
    scale : float
        The factor on what is kept.
    """
    layout = Layout((1, width), (), "batch", layer.keep_prob, layer.exact_count)
    bits = numpy.full((draws, layout.nbytes), 255, numpy.uint8)
    key0, key1, shape, starts = stream._key0, stream._key1, layout.plan.shape, layout.starts
    limit = threshold(layer.keep_prob)
    if layout.kept is not None:
        shape, starts = layout.row_shape, starts[: len(layout.row_shape)]
        for number, row in enumerate(bits, first):
            kernels.draw_exact_count(key0, key1, number, layout.kept, shape, starts, shape, row)
    elif limit != 1 << 64:
        for number, row in enumerate(bits, first):
            kernels.draw_bernoulli(key0, key1, number, limit, shape, starts, shape, row)
    masks = numpy.unpackbits(bits, axis=1, count=width, bitorder="little").view(bool)
    return masks, layout.scale if layer.scale_at == "train" else 1.0
