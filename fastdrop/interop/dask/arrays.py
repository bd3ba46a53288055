"""Dask arrays as arguments: checked before anything is computed, and where their blocks lie."""

import math

import dask
import dask.array as da
import numpy

from fastdrop.arguments import as_array, check_unmasked

__all__ = ["Grid", "float_array", "known_array", "single_block", "whole_rows"]

_FLOATS = frozenset(map(numpy.dtype, (numpy.float16, numpy.float32, numpy.float64)))


def known_array(x, name):
    """A dask array of NumPy blocks whose shape is known.

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If chunk sizes are unknown.
    """
    if not isinstance(x, da.Array):
        hint = ""
        if hasattr(x, "to_dask_array"):
            hint = f"; {name}.to_dask_array(lengths=True) makes one of it"
        elif isinstance(x, numpy.ndarray):
            hint = f"; dask.array.from_array({name}) makes one of it"
        raise TypeError(f"{name} must be a dask array, got {type(x).__name__}{hint}")
    check_unmasked(x._meta, name)
    if not isinstance(x._meta, numpy.ndarray):
        raise TypeError(
            f"{name} must have blocks that are NumPy arrays, got blocks of type "
            f"{type(x._meta).__name__}"
        )
    unknown = [axis for axis, extent in enumerate(x.shape) if math.isnan(extent)]
    if unknown:
        raise ValueError(
            f"{name} must have known chunk sizes, those of axis {unknown[0]} are unknown; "
            f"{name}.compute_chunk_sizes() finds them out"
        )
    return x


def float_array(x, name):
    """A known dask array of a dtype that masks apply to, in the machine's byte order."""
    x = known_array(x, name)
    native = x.dtype.newbyteorder("=")
    if native not in _FLOATS:
        raise TypeError(f"{name} must be float16, float32 or float64, got dtype {x.dtype}")
    return x.astype(native, copy=False)


def whole_rows(x):
    """The array with its last axis in one chunk; rows are cut where blocks would get too large."""
    if x.numblocks[-1] == 1:
        return x
    last = x.ndim - 1
    largest = math.prod(x.chunksize[:-1]) * x.shape[-1] * x.itemsize
    if largest <= dask.utils.parse_bytes(dask.config.get("array.chunk-size")):
        return x.rechunk({last: -1})
    return x.rechunk({**dict.fromkeys(range(last), "auto"), last: -1})


def single_block(value, name):
    """A NumPy or dask array as a dask array of one block: one key of the graph for all tasks."""
    if isinstance(value, da.Array):
        return known_array(value, name).rechunk(-1)
    return da.from_array(as_array(value, name), chunks=-1)


class Grid:
    """Where the blocks of an array begin and end.

    Every task carries it, so chunks of one size (but for the last) take two numbers per axis.

    Parameters
    ----------
    chunks : tuple of tuple of int
    """

    def __init__(self, chunks):
        self._axes = [_regular(sizes) or _edges(sizes) for sizes in chunks]

    def bounds(self, block_id):
        """Starts and stops of a block along every axis, as tuples of int."""
        starts, stops = [], []
        for axis, number in zip(self._axes, block_id, strict=True):
            if isinstance(axis, tuple):
                size, extent = axis
                start, stop = number * size, min((number + 1) * size, extent)
            else:
                start, stop = int(axis[number]), int(axis[number + 1])
            starts.append(start)
            stops.append(stop)
        return tuple(starts), tuple(stops)

    def __dask_tokenize__(self):
        return type(self).__name__, self._axes


def _regular(sizes):
    """Size of the chunks and their sum, where all but a smaller last have one size; else None."""
    first, last = sizes[0], sizes[-1]
    if last > first or any(size != first for size in sizes[:-1]):
        return None
    return first, first * (len(sizes) - 1) + last


def _edges(sizes):
    return numpy.cumsum((0, *sizes))
