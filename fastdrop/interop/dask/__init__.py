"""Dropout on dask arrays, for data larger than memory and for clusters.

Every block draws its window of one mask, which is a function of seed, draw and element index: the
result has the same bits for every chunking, scheduler and number of workers, and is that of
`fastdrop.dropout` of the whole array.

>>> import dask.array, fastdrop.dask
>>> x = dask.array.ones((4, 6), chunks=(3, 2), dtype="float32")
>>> y, mask = fastdrop.dask.dropout(x, rate=0.5, rng=0)
>>> y.compute()
array([[2., 2., 0., 0., 2., 0.],
       [0., 0., 0., 0., 2., 2.],
       [0., 0., 0., 2., 2., 2.],
       [0., 2., 0., 0., 0., 2.]], dtype=float32)
"""

from fastdrop.interop import needs

with needs("dask", "dask", "fastdrop.dask needs dask"):
    import dask.array  # noqa: F401

from fastdrop.interop.dask.files import from_memmap
from fastdrop.interop.dask.functional import apply_mask, dropout, dropout_backward
from fastdrop.interop.dask.masks import LazyMask, mask
from fastdrop.interop.dask.matmul import masked_matmul
from fastdrop.interop.dask.prediction import predict, predict_proba, predict_samples
from fastdrop.interop.dask.training import fit

__all__ = [
    "LazyMask",
    "apply_mask",
    "dropout",
    "dropout_backward",
    "fit",
    "from_memmap",
    "mask",
    "masked_matmul",
    "predict",
    "predict_proba",
    "predict_samples",
]
