"""Masks of many samples of a network, each of them one set of units."""

import numpy

from fastdrop._backend import kernels
from fastdrop.arguments import threshold
from fastdrop.nn.dropout import Layout
from fastdrop.stream import stream_key

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
    bits = numpy.empty((draws, layout.nbytes), numpy.uint8)
    key = stream_key(stream)
    if layout.kept is None:
        kernels.draw_bernoulli_rows(*key, first, threshold(layer.keep_prob), width, bits)
    else:
        for number, row in enumerate(bits, first):
            kernels.draw_exact_count(*key, number, layout.kept, (width,), (0,), (width,), row)
    masks = numpy.unpackbits(bits, axis=1, count=width, bitorder="little").view(bool)
    return masks, layout.scale if layer.scale_at == "train" else 1.0
