"""scikit-learn's multilayer perceptrons, with dropout.

>>> from fastdrop import MLPClassifier
>>> model = MLPClassifier(hidden_layer_sizes=(32,), dropout=0.2, max_iter=300, random_state=0)
>>> model.fit([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 0, 1, 1]).predict([[0.9, 0.5]])
array([1])

This package alone imports scikit-learn; `fastdrop` imports it when one of its names is used.
"""

import contextlib

from fastdrop.interop import needs

with needs(
    "sklearn", "sklearn", "fastdrop.MLPClassifier and fastdrop.MLPRegressor need scikit-learn"
):
    import sklearn  # noqa: F401

from fastdrop.estimators.classifier import MLPClassifier
from fastdrop.estimators.regressor import MLPRegressor

with contextlib.suppress(ImportError):  # an old threadpoolctl: its limits hold for others only
    from fastdrop.interop import threadpoolctl

    threadpoolctl.register()

__all__ = ["MLPClassifier", "MLPRegressor"]
