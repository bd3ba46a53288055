"""The solver "lbfgs" takes the steps that scikit-learn's takes."""

import warnings

import numpy
import pytest

pytest.importorskip("sklearn", "1.7", reason="compares with scikit-learn's loss and sample_weight")

from scipy import sparse
from test_estimators_equivalence import examples, pair, public, weights_of

import fastdrop

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

LBFGS = {
    "stopped": {"max_iter": 7},
    "few evaluations": {"max_fun": 5},
    "without early stopping": {"early_stopping": True, "max_iter": 5},
    "to the end": {"max_iter": 500, "tol": 1e-2, "alpha": 1.0},
    "no hidden layer": {"hidden_layer_sizes": (), "max_iter": 30},
}


@pytest.mark.parametrize("target", ["classes", "two classes", "labels", "several values", "counts"])
@pytest.mark.parametrize("name", LBFGS)
@pytest.mark.parametrize("weighted", [False, True])
def test_lbfgs(target, name, weighted):
    """Of smooth units, since a ReLU's kink makes much of a rounding."""
    kind = "regressor" if target in ("several values", "counts") else "classifier"
    options = LBFGS[name] | ({"loss": "poisson"} if target == "counts" else {})
    x, y = examples(target)
    models = pair(kind, solver="lbfgs", activation="tanh", **options)
    told = []
    for model in models:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(x, y, sample_weight=weights_of() if weighted else None)
        told.append([str(one.message) for one in caught])
    ours, theirs = models
    assert told[0] == told[1]
    assert public(ours).keys() == public(theirs).keys()
    if name == "to the end":
        assert not told[0]
        assert ours.loss_ == pytest.approx(theirs.loss_, rel=5e-2)
    else:
        assert ours.n_iter_ == theirs.n_iter_
        assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-7)
        for mine, other in zip(ours.coefs_, theirs.coefs_, strict=True):
            numpy.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-7)
    assert ours.predict(x).shape == theirs.predict(x).shape


def test_lbfgs_in_chunks_of_sparse_data(monkeypatch):
    x, y = examples("classes")
    models = [fastdrop.MLPClassifier(solver="lbfgs", max_iter=6, random_state=0) for _ in range(2)]
    models[0].fit(x, y)
    monkeypatch.setattr("fastdrop.estimators.examples.CHUNK", 1)
    monkeypatch.setattr("fastdrop.estimators.examples.LEAST_ROWS", 37)
    models[1].fit(sparse.csr_matrix(x), y)
    for mine, other in zip(*(model.coefs_ for model in models), strict=True):
        numpy.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-8)


def test_lbfgs_goes_on_from_its_weights():
    x, y = examples("classes")
    for model in pair("classifier", solver="lbfgs", warm_start=True, max_iter=3):
        losses = [model.fit(x, y).loss_ for _ in range(3)]
        assert losses == sorted(losses, reverse=True)
    assert not hasattr(fastdrop.MLPClassifier(solver="lbfgs"), "partial_fit")
    model = fastdrop.MLPClassifier(solver="lbfgs", dtype="float32", max_iter=5).fit(x, y)
    assert {array.dtype for array in model.coefs_} == {numpy.dtype("f4")}
    model.set_params(solver="adam").partial_fit(x, y)
    assert len(model.loss_curve_) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 0.5}, "solver='lbfgs' needs dropout=0"),
        ({"input_dropout": 0.1}, "solver='lbfgs' needs dropout=0 and input_dropout=0"),
        ({"max_norm": 2.0}, "needs max_norm=None"),
    ],
)
def test_lbfgs_says_what_it_cannot_do(options, message):
    x, y = examples("classes")
    with pytest.raises(ValueError, match=message):
        fastdrop.MLPClassifier(solver="lbfgs", **options).fit(x, y)


def test_lbfgs_has_no_use_for_validation_data():
    x, y = examples("values")
    model = fastdrop.MLPRegressor(solver="lbfgs", max_iter=5, early_stopping=True)
    with pytest.raises(ValueError, match="X_val is for early_stopping=True, which solver='lbfgs'"):
        model.fit(x, y, X_val=x, y_val=y)
    model.set_params(tau="fit").fit(x[:100], y[:100], X_val=x[100:], y_val=y[100:])
    errors = y[100:] - model.predict(x[100:])
    assert model.tau_ == pytest.approx(1 / numpy.square(errors).mean(), rel=1e-3)
