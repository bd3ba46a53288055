"""A warning points at the line that called fastdrop, not into it."""

import pickle
import warnings
from pathlib import Path

import numpy
import pytest

import fastdrop
from fastdrop import nn

pytest.importorskip("sklearn", reason="the estimators need the extra 'sklearn'")

from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

X = numpy.random.default_rng(0).standard_normal((40, 3))
Y = X[:, 0] > 0
PACKAGE = Path(fastdrop.__file__).parent


def model(**options):
    options = {"hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0} | options
    return fastdrop.MLPClassifier(**options)


def fitted(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model(**options).fit(X, Y)


def loaded_with_other_settings(path):
    layers = [nn.Dense(3, 4), nn.Dropout(0.5), nn.Dense(4, 2)]
    fastdrop.save(path, nn.Sequential(layers, rng=0))
    layers = [nn.Dense(3, 4), nn.Dropout(0.2), nn.Dense(4, 2)]
    fastdrop.load(path, nn.Sequential(layers, rng=0))


def of_another_version():
    state = pickle.dumps(fitted())
    return pickle.loads(state.replace(fastdrop.__version__.encode(), b"0.0.9"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: model().fit(X, Y), "converged"),
        (lambda _: make_pipeline(StandardScaler(), model()).fit(X, Y), "converged"),
        (lambda _: model(batch_size=1000).fit(X, Y), "clipped"),
        (lambda _: model(solver="lbfgs", max_iter=2).fit(X, Y), "lbfgs failed to converge"),
        (lambda _: model(dropout=1.0).fit(X, Y), "drops everything"),
        (lambda _: model(input_dropout=1.0).fit(X, Y), "drops everything"),
        (lambda _: fitted().predict_samples(X, n_samples=2), "every sample is the same"),
        (lambda path: loaded_with_other_settings(path), "other settings"),
        (lambda _: of_another_version(), "pickled by"),
    ],
    ids=range(9),
)
def test_warnings_point_here(call, message, tmp_path):
    with pytest.warns(Warning, match=message) as caught:
        call(tmp_path / "net.npz")
    places = [one.filename for one in caught if message in str(one.message)]
    assert places == [__file__] * len(places)


def test_every_warning_goes_that_way():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert path.name == "callers.py" or "warnings.warn(" not in text, path
