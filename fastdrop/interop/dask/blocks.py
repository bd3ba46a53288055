"""Blocks of rows in memory, one after the other, the next one computed meanwhile."""

import collections
import concurrent.futures
import contextvars

import dask
import dask.array as da
import numpy

from fastdrop.arguments import as_array
from fastdrop.interop.dask.arrays import known_array, whole_rows

__all__ = ["row_blocks", "stream", "table"]

# Blocks that are computed while the caller works on one: two are in memory, with this.
AHEAD = 1


def table(X):
    """X as a dask array of whole rows in known chunks.

    Raises
    ------
    TypeError
        If it is no dask array.
    ValueError
        If it does not have two axes, or chunk sizes are unknown.
    """
    X = known_array(X, "X")
    if X.ndim != 2:
        raise ValueError(f"X must have 2 axes, (n_samples, n_features), got shape {X.shape}")
    return whole_rows(X)


def row_blocks(value, name, X, most_axes=1):
    """Something with an entry for each row of X, in X's chunks of rows.

    Parameters
    ----------
    value : dask.array.Array or array_like
        Other chunks of rows become those of X.
    X : dask.array.Array, shape (n_samples, n_features)
    most_axes : int, optional

    Returns
    -------
    dask.array.Array

    Raises
    ------
    TypeError, ValueError
        If it does not fit X, or chunk sizes are unknown.
    """
    lazy = hasattr(value, "dask") or hasattr(value, "__dask_graph__")
    value = known_array(value, name) if lazy else as_array(value, name)
    if not 1 <= value.ndim <= most_axes:
        shapes = "(n_samples,)" + (" or (n_samples, n_outputs)" if most_axes > 1 else "")
        raise ValueError(f"{name} must have shape {shapes}, got {value.shape}")
    if value.shape[0] != X.shape[0]:
        raise ValueError(
            f"{name} must have an entry for each of the {X.shape[0]} rows of X, got "
            f"{value.shape[0]}"
        )
    if value.ndim == 2 and value.shape[1] == 1:
        value = value[:, 0]  # as the estimators take it, which warn
    chunks = (X.chunks[0], *((extent,) for extent in value.shape[1:]))
    return value.rechunk(chunks) if lazy else da.from_array(value, chunks=chunks)


def stream(arrays, order):
    """Yield blocks of arrays as NumPy arrays, in an order; the next is computed meanwhile.

    Parameters
    ----------
    arrays : sequence of dask.array.Array
        With the same chunks along axis 0, and one chunk along others.
    order : sequence of int
        Numbers of blocks along axis 0.

    Yields
    ------
    tuple of numpy.ndarray
        One block of each array. A caller who drops it before asking for the next one never has
        more than two in memory.
    """
    # The scheduler and the client that the caller chose, in a context or by default.
    context = contextvars.copy_context()
    pool = concurrent.futures.ThreadPoolExecutor(1, "fastdrop-dask")
    try:
        futures = collections.deque()
        for number in order:
            futures.append(pool.submit(context.run, _compute, arrays, int(number)))
            if len(futures) > AHEAD:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _compute(arrays, number):
    blocks = dask.compute(*[array.blocks[number] for array in arrays])
    return tuple(numpy.asarray(block) for block in blocks)
