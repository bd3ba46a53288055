"""Dropout for NumPy that makes training faster instead of slower.

>>> import numpy, fastdrop
>>> stream = fastdrop.MaskStream(0)
>>> y, mask = fastdrop.dropout(numpy.ones((2, 4), numpy.float32), rate=0.5, rng=stream)
>>> y
array([[2., 2., 0., 0.],
       [2., 0., 0., 0.]], dtype=float32)
>>> fastdrop.dropout_backward(numpy.ones((2, 4), numpy.float32), mask)
array([[2., 2., 0., 0.],
       [2., 0., 0., 0.]], dtype=float32)
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastdrop._version import __version__
from fastdrop.config import (
    default_num_threads,
    follow_num_threads,
    get_num_threads,
    set_num_threads,
    show_config,
    stop_threads,
)
from fastdrop.dropouts import (
    alpha_dropout,
    apply_noise,
    bias_dropout_residual,
    bias_dropout_residual_backward,
    concrete_dropout,
    concrete_dropout_backward,
    dropblock1d,
    dropblock2d,
    dropblock3d,
    dropblock_backward,
    dropconnect,
    dropconnect_backward,
    dropconnect_inference,
    dropconnect_moments,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
    gaussian_dropout,
    gaussian_noise,
    noise_backward,
    softmax_dropout,
    softmax_dropout_backward,
    standout,
    standout_backward,
    stochastic_depth,
    uniform_dropout,
    variational_dropout,
    zoneout,
    zoneout_backward,
)
from fastdrop.functional import apply_mask, dropout, dropout_backward
from fastdrop.mask import Mask
from fastdrop.matmul import masked_matmul, masked_matmul_backward
from fastdrop.noise import Noise
from fastdrop.stream import MaskStream

if TYPE_CHECKING:  # what `import fastdrop` leaves for the first use
    from fastdrop import nn, optim, reference, schedules
    from fastdrop.checkpoint import load, save
    from fastdrop.estimators import MLPClassifier as MLPClassifier
    from fastdrop.estimators import MLPRegressor as MLPRegressor

__all__ = [
    "Mask",
    "MaskStream",
    "Noise",
    "__version__",
    "alpha_dropout",
    "apply_mask",
    "apply_noise",
    "bias_dropout_residual",
    "bias_dropout_residual_backward",
    "concrete_dropout",
    "concrete_dropout_backward",
    "dropblock1d",
    "dropblock2d",
    "dropblock3d",
    "dropblock_backward",
    "dropconnect",
    "dropconnect_backward",
    "dropconnect_inference",
    "dropconnect_moments",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "dropout_backward",
    "feature_alpha_dropout",
    "gaussian_dropout",
    "gaussian_noise",
    "get_num_threads",
    "load",
    "masked_matmul",
    "masked_matmul_backward",
    "nn",
    "noise_backward",
    "optim",
    "reference",
    "save",
    "schedules",
    "set_num_threads",
    "show_config",
    "softmax_dropout",
    "softmax_dropout_backward",
    "standout",
    "standout_backward",
    "stochastic_depth",
    "stop_threads",
    "uniform_dropout",
    "variational_dropout",
    "zoneout",
    "zoneout_backward",
]

follow_num_threads(default_num_threads())
del default_num_threads, follow_num_threads

# Submodules that `import fastdrop` leaves for the first use, and names of such. What needs another
# package is not in `__all__`, since `from fastdrop import *` would then need that package as well.
_LAZY = {"estimators", "nn", "optim", "reference", "schedules"}
# Public doors to `fastdrop.interop`, each a module of that name beside this file, and the package
# that each needs.
_DOORS = {"dask": "dask", "mpi": "mpi4py", "torch": "torch"}
_LAZY_NAMES = {
    "MLPClassifier": "estimators",
    "MLPRegressor": "estimators",
    "load": "checkpoint",
    "save": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY or name in _DOORS:
        return importlib.import_module(f"fastdrop.{name}")
    if name in _LAZY_NAMES:
        return getattr(importlib.import_module(f"fastdrop.{_LAZY_NAMES[name]}"), name)
    raise AttributeError(f"module 'fastdrop' has no attribute {name!r}")


def __dir__() -> list[str]:
    import importlib.util

    names = {*globals(), *__all__}
    names |= {door for door, package in _DOORS.items() if importlib.util.find_spec(package)}
    if importlib.util.find_spec("sklearn"):
        names |= {name for name, module in _LAZY_NAMES.items() if module == "estimators"}
    return sorted(names)
