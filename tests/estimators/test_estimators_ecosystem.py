"""The estimators among others: scikit-learn's tools, pandas, sparse data, files, the terminal."""

import copy
import pickle
import signal
import tracemalloc
import warnings

import numpy
import pytest

pytest.importorskip("sklearn", reason="the estimators need the extra 'sklearn'")

import joblib
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastdrop import MLPClassifier, MLPRegressor
from fastdrop.estimators import training

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (16,), "dropout": 0.2, "max_iter": 10, "random_state": 0}


@pytest.fixture
def iris():
    return load_iris(return_X_y=True)


# --- scikit-learn's tools ------------------------------------------------------------------------


def test_pipeline_search_and_cross_validation(iris):
    x, y = iris
    options = SMALL | {"max_iter": 20, "learning_rate_init": 0.01, "batch_size": 20}
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**options))
    grid = {"mlpclassifier__dropout": [0.0, 0.2], "mlpclassifier__rows_per_mask": [1, "batch"]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(x, y)
    assert search.best_score_ > 0.85
    assert len(search.cv_results_["params"]) == 4
    scores = cross_val_score(pipeline, x, y, cv=3)
    assert scores.min() > 0.7
    # Worker processes draw the masks that this one draws.
    same = {"mlpclassifier__dropout": 0.2, "mlpclassifier__rows_per_mask": 1}
    place = search.cv_results_["params"].index(same)
    assert search.cv_results_["mean_test_score"][place] == pytest.approx(scores.mean())


def test_calibration(iris):
    x, y = iris
    model = MLPClassifier(**SMALL, learning_rate_init=0.01, batch_size=20)
    calibrated = CalibratedClassifierCV(model, cv=3).fit(x, y)
    probabilities = calibrated.predict_proba(x)
    numpy.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert calibrated.score(x, y) > 0.8


def test_clone_and_parameters():
    model = MLPRegressor(dropout=[0.1, 0.2], hidden_layer_sizes=(3, 4), rows_per_mask="batch")
    cloned = clone(model)
    assert cloned.get_params() == model.get_params()
    assert not hasattr(cloned, "coefs_")
    assert is_regressor(model)
    assert is_classifier(MLPClassifier())
    assert repr(MLPClassifier(dropout=0.5)) == "MLPClassifier(dropout=0.5)"


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("rows_per_mask", [1, "batch"])
def test_copies_and_files_go_on_as_the_original(tmp_path, iris, kind, rows_per_mask):
    x, y = iris
    options = SMALL | {"rows_per_mask": rows_per_mask, "input_dropout": 0.1, "alpha": 0.1}
    model = kind(**options).fit(x, y)
    joblib.dump(model, tmp_path / "model.joblib")
    copies = [
        joblib.load(tmp_path / "model.joblib"),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ]
    for one in copies:
        numpy.testing.assert_array_equal(one.predict(x), model.predict(x))
        numpy.testing.assert_array_equal(
            one.predict_samples(x, 2, random_state=0), model.predict_samples(x, 2, random_state=0)
        )
        assert one.loss_curve_ == model.loss_curve_
    model.partial_fit(x, y)  # with its moments, its masks, its random state
    for one in copies:
        one.partial_fit(x, y)
        for mine, other in zip(one.coefs_, model.coefs_, strict=True):
            numpy.testing.assert_array_equal(mine, other)
    assert len(pickle.dumps(model)) < 6 * sum(w.nbytes for w in model.coefs_) + 20000


# --- Data --------------------------------------------------------------------------------------


def test_data_frames(iris):
    pandas = pytest.importorskip("pandas", reason="optional")
    x, y = load_iris(return_X_y=True, as_frame=True)
    model = MLPClassifier(**SMALL).fit(x, y)
    assert list(model.feature_names_in_) == list(x.columns)
    plain = MLPClassifier(**SMALL).fit(*iris)
    assert not hasattr(plain, "feature_names_in_")
    with warnings.catch_warnings():
        # No complaint about names, not of the data held out either.
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.set_params(early_stopping=True).fit(x, y).set_params(early_stopping=False).fit(x, y)
        numpy.testing.assert_array_equal(model.predict(x), plain.predict(iris[0]))
        model.predict_samples(x, 2)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(x[x.columns[::-1]])
    with pytest.warns(UserWarning, match="feature names"):
        model.predict(iris[0])
    names = pandas.Series(["a", "b", "c"])[y].to_numpy()
    assert set(MLPClassifier(**SMALL).fit(x, pandas.Series(names)).predict(x)) <= {"a", "b", "c"}


def sparse_data(rows=2000, columns=3000):
    x = sparse.random(rows, columns, 0.002, "csr", dtype=numpy.float32, random_state=0)
    return x, numpy.asarray(x[:, :20].sum(axis=1)).ravel()


@pytest.mark.parametrize("layout", ["csr", "csc"])
@pytest.mark.parametrize("early", [False, True])
def test_sparse_data_stay_sparse(layout, early):
    """No array of the size of the data (48 MB) is made, only batches of it."""
    x, y = sparse_data(4000)
    x = x.asformat(layout)
    model = MLPRegressor(**SMALL | {"max_iter": 2}, batch_size=50, early_stopping=early)
    tracemalloc.start()
    model.fit(x, y)
    fitted = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    model.predict(x)
    model.predict(x, return_std=True, n_samples=2, random_state=0)
    predicted = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    dense = 4 * x.shape[0] * x.shape[1]
    assert fitted < dense / 4
    assert predicted < dense / 2


@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_sparse_data_are_learnt_as_dense_ones(layout):
    x, y = sparse_data(200, 300)
    models = [
        MLPRegressor(**SMALL | {"input_dropout": 0.2}).fit(data, y)
        for data in (x.asformat(layout), x.toarray())
    ]
    for one, other in zip(*(model.coefs_ for model in models), strict=True):
        numpy.testing.assert_array_equal(one, other)
    close = {"rtol": 1e-5, "atol": 1e-6}
    for name, options in (
        ("predict", {}),
        ("predict_samples", {"n_samples": 3, "random_state": 0}),
    ):
        given = getattr(models[0], name)(x.asformat(layout), **options)
        numpy.testing.assert_allclose(
            given, getattr(models[0], name)(x.toarray(), **options), **close
        )


def test_data_that_cannot_be(iris):
    x, y = iris
    model = MLPClassifier(**SMALL)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(numpy.where(x > 5, numpy.nan, x), y)
    model.fit(x, y)
    with pytest.raises(ValueError, match="3 features"):
        model.predict(x[:, :3])
    with pytest.raises(ValueError, match="sample_weight"):
        model.fit(x, y, sample_weight=-numpy.ones(len(x)))
    with pytest.raises(ValueError, match=r"sample_weight|Sample weights"):
        model.fit(x, y, sample_weight=numpy.zeros(len(x)))
    for name in ("predict", "predict_proba", "predict_log_proba"):
        with pytest.raises(ValueError, match="not fitted"):
            getattr(MLPClassifier(), name)(x)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: numpy.where(x == x.max(), numpy.nan, x), "contains NaN"),
        (lambda x: numpy.where(x == x.max(), numpy.inf, x), "contains infinity"),
        (lambda x: x[:, :3], "expecting 4 features"),
        (lambda x: x[:0], "minimum of 1 is required"),
        (lambda x: x[0], "Expected 2D array"),
        (lambda x: x.astype(complex), "Complex data not supported"),
    ],
)
def test_what_needs_no_check_is_nothing_else(iris, spoil, message):
    """Arrays that scikit-learn would return as they are skip its check; all others are checked."""
    x, y = iris
    model = MLPRegressor(**SMALL).fit(x, y)
    for ask in (model.predict, lambda x: model.predict(x, return_std=True, n_samples=2)):
        ask(x)
        with pytest.raises(ValueError, match=message):
            ask(spoil(x))


@pytest.mark.parametrize("dtype", [None, "float32", "float64"])
def test_data_of_other_kinds_are_converted_for_predictions(iris, dtype):
    x, y = iris
    x = numpy.rint(x)  # which all of these can hold
    model = MLPRegressor(**SMALL, dtype=dtype).fit(x, y)
    expected = model.predict(x[:9], return_std=True, n_samples=9, random_state=0)
    others = x.astype("f4"), x.astype(int), x.astype(">f8"), x.astype(object), x.tolist()
    for other in (*others, numpy.asfortranarray(x), x[::-1][::-1]):
        found = model.predict(other[:9], return_std=True, n_samples=9, random_state=0)
        numpy.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", [{"hidden_layer_sizes": (8,)}, {"hidden_layer_sizes": (16, 16)}])
def test_another_architecture_is_refused_by_warm_start(iris, change):
    model = MLPClassifier(**SMALL, warm_start=True).fit(*iris)
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        model.set_params(**change).fit(*iris)


def test_parameter_validation_can_be_switched_off(iris):
    with config_context(skip_parameter_validation=True):
        MLPClassifier(**SMALL | {"shuffle": 1}).fit(*iris)
    with pytest.raises(ValueError, match="shuffle"):
        MLPClassifier(**SMALL | {"shuffle": 1}).fit(*iris)


# --- The terminal ------------------------------------------------------------------------------


def fit_and_interrupt(model, x, y, after, monkeypatch):
    """Raise Ctrl-C's exception at the end of epoch number `after`, by the signal itself."""
    original = training._epoch

    def interrupted(model, *rest):
        loss = original(model, *rest)
        if model.n_iter_ + 1 == after:
            signal.raise_signal(signal.SIGINT)
        return loss

    monkeypatch.setattr(training, "_epoch", interrupted)
    # A process that was started in the background may have been told to ignore the signal.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.warns(UserWarning, match="interrupted"):
            model.fit(x, y)
    finally:
        signal.signal(signal.SIGINT, handler)
    monkeypatch.setattr(training, "_epoch", original)


@pytest.mark.parametrize("early", [False, True])
def test_ctrl_c_leaves_a_usable_model(monkeypatch, iris, early):
    x, y = iris
    options = SMALL | {"max_iter": 1000, "early_stopping": early, "n_iter_no_change": 1000}
    model = MLPClassifier(**options)
    fit_and_interrupt(model, x, y, 5, monkeypatch)
    assert model.n_iter_ == 4
    assert len(model.loss_curve_) == 4
    assert model.predict(x).shape == y.shape
    if early:  # the weights are the best so far
        assert len(model.validation_scores_) == 4
        assert model.best_validation_score_ == max(model.validation_scores_)
        model.set_params(early_stopping=False)
    model.partial_fit(x, y)
    assert len(model.loss_curve_) == 5


def test_ctrl_c_in_the_first_epoch(monkeypatch, iris):
    x, y = iris
    model = MLPClassifier(**SMALL)
    fit_and_interrupt(model, x, y, 1, monkeypatch)
    assert model.n_iter_ == 0
    assert model.predict(x).shape == y.shape
    model.fit(x, y)
    assert model.n_iter_ == 10


def test_digits_are_learnt():
    x, y = load_digits(return_X_y=True)
    options = {"hidden_layer_sizes": (64, 64), "dropout": 0.2, "max_iter": 20, "random_state": 0}
    model = MLPClassifier(**options, early_stopping=True, learning_rate_init=0.005)
    model.fit(x[:1200] / 16, y[:1200])
    assert model.score(x[1200:] / 16, y[1200:]) > 0.88
