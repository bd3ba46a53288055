"""Dropout for PyTorch on the CPU: the public door to `fastdrop.interop.torch`."""

from fastdrop.interop.torch import *  # noqa: F403
from fastdrop.interop.torch import __all__ as __all__
