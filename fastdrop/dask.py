"""Dropout on dask arrays: the public door to `fastdrop.interop.dask`."""

from fastdrop.interop.dask import *  # noqa: F403
from fastdrop.interop.dask import __all__ as __all__
