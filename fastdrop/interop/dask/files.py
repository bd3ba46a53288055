"""Memory-mapped files as dask arrays that read a block when it is needed."""

import mmap
import os

import dask.array as da
import numpy

from fastdrop.interop.dask.arrays import Grid

__all__ = ["from_memmap"]


def from_memmap(array, chunks="auto"):
    """Return a dask array of a memory-mapped file, of which no more is in memory than blocks.

    The graph holds the file's name and not the data, so workers on machines that see the file under
    that name read it themselves. ``dask.array.from_array`` copies all of it into memory (dask
    2026.8 does), reads it to find a name for it, and sends it to the workers of a cluster.

    Parameters
    ----------
    array : numpy.memmap
        As ``numpy.load(path, mmap_mode="r")`` or ``numpy.memmap`` returns it; no part of one.
    chunks : optional
        As dask's functions take them. Chunks of whole rows are read in one go.

    Returns
    -------
    dask.array.Array, shape and dtype of `array`
        It reads the file when it is computed.

    Raises
    ------
    TypeError
        If `array` is no memory-mapped file.
    ValueError
        If it is a part of one, was opened for private changes, or its file has no name.

    Examples
    --------
    >>> import numpy, tempfile, fastdrop.dask
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     numpy.save(f"{folder}/x.npy", numpy.arange(12).reshape(4, 3))
    ...     x = fastdrop.dask.from_memmap(numpy.load(f"{folder}/x.npy", mmap_mode="r"), (2, 3))
    ...     print(x.sum(axis=1).compute())
    [ 3 12 21 30]
    """
    if not isinstance(array, numpy.memmap):
        raise TypeError(f"array must be a numpy.memmap, got {type(array).__name__}")
    # A part of a memmap tells the offset of the whole.
    if not isinstance(array.base, mmap.mmap) or not array.flags.forc:
        raise ValueError(
            "array must be a whole memory-mapped file, got a part of one: take parts of the result"
        )
    if array.mode == "c":
        raise ValueError('array must not have mode "c": its changes are not in the file')
    if array.filename is None:
        raise ValueError("array must be of a file that has a name")
    chunks = da.core.normalize_chunks(chunks, array.shape, dtype=array.dtype)
    if array.mode != "r":
        array.flush()
    return da.map_blocks(
        _read,
        chunks=chunks,
        dtype=array.dtype,
        meta=numpy.empty((0,) * array.ndim, array.dtype),
        token="fastdrop-memmap",
        path=os.path.abspath(array.filename),
        modified=os.stat(array.filename).st_mtime_ns,
        offset=array.offset,
        shape=array.shape,
        order="C" if array.flags.c_contiguous else "F",
        kind=array.dtype,
        grid=Grid(chunks),
    )


def _read(*, path, modified, offset, shape, order, kind, grid, block_id):
    """Read one block; `modified` only makes another name in the graph for another content."""
    starts, stops = grid.bounds(block_id)
    if order == "C" and shape:
        # Map the rows alone: the process may not have the addresses for the whole file.
        offset += starts[0] * kind.itemsize * int(numpy.prod(shape[1:], dtype=numpy.int64))
        shape = (stops[0] - starts[0], *shape[1:])
        starts, stops = (0, *starts[1:]), (shape[0], *stops[1:])
    part = tuple(map(slice, starts, stops))
    return numpy.array(numpy.memmap(path, kind, "r", offset, shape, order)[part])
