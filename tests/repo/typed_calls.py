"""Calls as users write them, for mypy: results have these types, wrong calls are refused.

Nothing here runs. mypy is strict about it, so a `type: ignore` that refuses nothing is an error.
"""

from typing import Any, assert_type

import numpy
from numpy.typing import NDArray

import fastdrop
from fastdrop import Mask, MLPClassifier, MLPRegressor, Noise, nn, optim, schedules

Array = NDArray[Any]


def functions(x: NDArray[numpy.float32]) -> None:
    stream = fastdrop.MaskStream(0)
    y, mask = fastdrop.dropout(x, rate=0.5, rng=stream)
    assert_type(y, Array)
    assert_type(mask, Mask | None)
    y, noise = fastdrop.gaussian_dropout(x, 0.2, rng=1)
    assert_type(noise, Noise | None)
    y, mask, probabilities = fastdrop.softmax_dropout([[0.0, 1.0]], 0.1, causal=True)
    assert_type(probabilities, Array)
    fastdrop.dropblock2d(x, 0.1, (3, 3), normalise="example")
    fastdrop.dropout(x, "half")  # type: ignore[arg-type]
    fastdrop.dropout(x, 0.5, scale_at="always")  # type: ignore[arg-type]
    fastdrop.dropout(x, 0.5, seed=1)  # type: ignore[call-arg]
    fastdrop.dropblock2d(x, 0.1, normalise="all")  # type: ignore[arg-type]


def products(x: Array, w: Array, mask: Mask) -> None:
    assert_type(fastdrop.masked_matmul(x, w, mask_in=mask, method="skip"), Array)
    *_, grad_bias = fastdrop.masked_matmul_backward(x @ w, x, w, mask_in=mask)
    assert_type(grad_bias, Array)
    fastdrop.masked_matmul(x, w, method="fastest")  # type: ignore[arg-type]
    fastdrop.masked_matmul(x, w, mask)  # type: ignore[call-arg]


def estimators(x: Array, y: Array) -> None:
    rate = schedules.Linear(0.0, 0.5, 100)
    model = MLPClassifier((64, 64), dropout=rate, dropout_kind="gaussian", random_state=0)
    assert_type(model.fit(x, y), MLPClassifier)
    assert_type(model.predict_proba(x), Array)
    MLPClassifier(dropout_kind="poisson")  # type: ignore[arg-type]
    MLPClassifier(drop=0.5)  # type: ignore[call-arg]
    regressor = MLPRegressor(hidden_layer_sizes=64, dropout=[0.5], rows_per_mask="batch")
    assert_type(regressor.predict(x), Array)
    assert_type(regressor.predict(x, return_std=True), tuple[Array, Array])
    MLPRegressor(rows_per_mask="all")  # type: ignore[arg-type]


def training(x: Array, grad: Array) -> None:
    net = nn.Sequential([nn.Dense(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Dense(8, 2)], rng=0)
    opt = optim.AdamW(net, learning_rate=schedules.Linear(1e-3, 0.0, 1000), weight_decay=0.1)
    net.forward(x, training=True)
    net.backward(grad)
    opt.step()
    optim.SGD(net)  # type: ignore[call-arg]
    optim.SGD(net, 0.1, momentum="0.9")  # type: ignore[arg-type]
