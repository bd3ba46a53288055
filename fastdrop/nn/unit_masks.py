"""Masks of many samples of a network, each of them one set of units."""

import numpy

from fastdrop._backend import kernels
from fastdrop.arguments import threshold
from fastdrop.mask import Mask, new_mask
from fastdrop.nn.dropout import Dropout, Layout
from fastdrop.stream import MaskStream, stream_key
from fastdrop.types import Array

__all__ = ["unit_masks"]


def unit_masks(
    layer: Dropout, stream: MaskStream, first: int, draws: int, rows: int, width: int
) -> Mask:
    """Draw the masks of samples that are stacked, each as a batch whose rows share one mask.

    Parameters
    ----------
    layer : Dropout
        Decides rate, count and factor.
    stream : MaskStream
        Is left where it is.
    first, draws : int
        Number of the first sample, which is that of its draw, and how many there are.
    rows : int
        Of each sample.
    width : int
        Units.

    Returns
    -------
    Mask, shape (draws, width)
        For the samples' rows one after the other, ``rows_per_mask=rows``.
    """
    layout = Layout((1, width), (), "batch", layer.keep_prob, layer.exact_count)
    bits: Array = numpy.empty((draws, layout.nbytes), numpy.uint8)
    key = stream_key(stream)
    if layout.kept is None:
        kernels.draw_bernoulli_rows(*key, first, threshold(layer.keep_prob), width, bits)
    else:
        for number, row in enumerate(bits, first):
            kernels.draw_exact_count(*key, number, layout.kept, (width,), (0,), (width,), row)
    if width % 8:  # rows of bits begin at a byte, those of a mask where the one before ends
        kept = numpy.unpackbits(bits, axis=1, count=width, bitorder="little")
        bits = numpy.packbits(kept.reshape(-1), bitorder="little")
    scale = layout.scale if layer.scale_at == "train" else 1.0
    return new_mask(bits.reshape(-1), (draws, width), rows, layer.keep_prob, scale)
