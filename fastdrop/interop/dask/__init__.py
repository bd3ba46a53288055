"""Dropout on dask arrays, for data larger than memory and for clusters.

Every block draws its window of one mask, which is a function of seed, draw and element index: the
result has the same bits for every chunking, scheduler and number of workers, and is that of
`fastdrop.dropout` of the whole array.
"""

from fastdrop.interop import needs

with needs("dask", "dask", "fastdrop.dask needs dask"):
    import dask.array  # noqa: F401

__all__ = []
