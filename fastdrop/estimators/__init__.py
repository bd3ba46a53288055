"""scikit-learn's multilayer perceptrons, with dropout.

>>> from fastdrop import MLPClassifier
>>> model = MLPClassifier(hidden_layer_sizes=(32,), dropout=0.2, max_iter=300, random_state=0)
>>> model.fit([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 0, 1, 1]).predict([[0.9, 0.5]])
array([1])

This package alone imports scikit-learn; `fastdrop` imports it when one of its names is used.
"""

import contextlib

try:
    import sklearn  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "sklearn":
        raise  # it is there, but broken
    raise ImportError(
        "fastdrop.MLPClassifier and fastdrop.MLPRegressor need scikit-learn. Install it with\n"
        "    python -m pip install 'fastdrop-numpy[sklearn]'"
    ) from None

from fastdrop.estimators.classifier import MLPClassifier
from fastdrop.estimators.regressor import MLPRegressor
from fastdrop.interop import threadpoolctl

with contextlib.suppress(ImportError):  # an old threadpoolctl: its limits hold for others only
    threadpoolctl.register()

__all__ = ["MLPClassifier", "MLPRegressor"]
