"""Without dropout, the estimators do what scikit-learn's do: same weights, losses, stops, scores.

Both get the same `random_state`, from which both draw initial weights, validation split and order;
what remains is the order of additions.
"""

import inspect
import warnings

import numpy
import pytest

pytest.importorskip("sklearn", "1.7", reason="compares with scikit-learn's loss and sample_weight")

from scipy import sparse
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning

import fastdrop

SKLEARN = {"classifier": neural_network.MLPClassifier, "regressor": neural_network.MLPRegressor}
OURS = {"classifier": fastdrop.MLPClassifier, "regressor": fastdrop.MLPRegressor}
# Of float64, after some hundred steps; Adam divides by roots of small sums.
CLOSE = {"rtol": 1e-7, "atol": 1e-9}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def examples(kind, n=150):
    """Data of 150 rows and 6 features, and targets of a kind; not to be learnt perfectly."""
    rng = numpy.random.default_rng(5)
    x = rng.standard_normal((n, 6))
    score = x @ rng.standard_normal((6, 3)) + 0.5 * rng.standard_normal((n, 3))
    targets = {
        "classes": score.argmax(axis=1) * 2 - 1,
        "two classes": numpy.where(score[:, 0] > 0, "yes", "no"),
        "labels": (score > 0).astype(int),
        "column": (score[:, :1] > 0).astype(int),
        "values": score[:, 0],
        "several values": score,
        "counts": rng.poisson(numpy.exp(0.3 * score[:, 0])).astype(float),
        "several counts": rng.poisson(numpy.exp(0.3 * score)).astype(float),
    }
    return x, targets[kind]


def public(model):
    """What a fit has set, by name."""
    return {k: v for k, v in vars(model).items() if k.endswith("_") and not k.startswith("_")}


def assert_same_fit(ours, theirs, close=CLOSE):
    """All that a fit sets agrees."""
    mine, other = public(ours), public(theirs)
    assert mine.keys() == other.keys()
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "n_features_in_", "out_activation_"):
        assert mine[name] == other[name], name
    for name in ("loss_", "loss_curve_", "best_loss_", "validation_scores_"):
        _assert_close(mine[name], other[name], name, close)
    _assert_close(mine["best_validation_score_"], other["best_validation_score_"], "best", close)
    for name in ("coefs_", "intercepts_"):
        assert len(mine[name]) == len(other[name])
        for a, b in zip(mine[name], other[name], strict=True):
            assert a.dtype == b.dtype
            _assert_close(a, b, name, close)
    if "classes_" in other:
        numpy.testing.assert_array_equal(mine["classes_"], other["classes_"])


def _assert_close(mine, other, name, close):
    if other is None:
        assert mine is None, name
    else:
        numpy.testing.assert_allclose(mine, other, err_msg=name, **close)


def assert_same_predictions(ours, theirs, x, close=CLOSE):
    mine, other = ours.predict(x), theirs.predict(x)
    assert mine.shape == other.shape
    if hasattr(theirs, "predict_proba"):
        numpy.testing.assert_array_equal(mine, other)
        assert mine.dtype == other.dtype
        for method in ("predict_proba", "predict_log_proba"):
            mine, other = (getattr(one, method)(x) for one in (ours, theirs))
            assert mine.shape == other.shape
            numpy.testing.assert_allclose(mine, other, err_msg=method, **close)
    else:
        numpy.testing.assert_allclose(mine, other, **close)


def pair(kind, **options):
    options = {"hidden_layer_sizes": (9, 7), "max_iter": 12, "random_state": 3} | options
    return OURS[kind](**options), SKLEARN[kind](**options)


def both(kind, target, weights=None, change=lambda x: x, **options):
    """Fit both on the same data, compare all, and return them with the data."""
    x, y = examples(target)
    x = change(x)
    ours, theirs = pair(kind, **options)
    for model in (ours, theirs):
        model.fit(x, y, sample_weight=weights)
    assert_same_fit(ours, theirs)
    assert_same_predictions(ours, theirs, x)
    assert ours.score(x, y) == pytest.approx(theirs.score(x, y), rel=1e-7)
    return ours, theirs, x, y


def weights_of(n=150):
    weights = numpy.random.default_rng(8).integers(0, 4, n).astype(float)
    weights[:5] = 2.5
    return weights


# --- Constructor and methods ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", OURS)
def test_parameters_are_scikit_learns_and_some_more(kind):
    mine = inspect.signature(OURS[kind]).parameters
    other = inspect.signature(SKLEARN[kind]).parameters
    assert list(mine)[: len(other)] == list(other)
    for name, parameter in other.items():
        assert mine[name].default == parameter.default, name
        assert mine[name].kind == parameter.kind, name
    more = ["dropout", "input_dropout", "dropout_kind", "rows_per_mask", "exact_count", "max_norm"]
    more += ["dtype", "scoring", "class_weight" if kind == "classifier" else "tau"]
    assert list(mine)[len(other) :] == more


@pytest.mark.parametrize("kind", OURS)
def test_methods_are_scikit_learns_and_some_more(kind):
    mine, other = (
        {name for name in dir(one) if not name.startswith("_")}
        for one in (OURS[kind], SKLEARN[kind])
    )
    # What the last is for: the parameters that this `predict` has more.
    more = {"predict_samples", "predictive_log_likelihood", "set_predict_request"}
    assert other <= mine
    assert mine - other <= more
    for name in ("fit", "partial_fit", "score"):
        theirs = inspect.signature(getattr(SKLEARN[kind], name)).parameters
        mine = inspect.signature(getattr(OURS[kind], name)).parameters
        more = ["X_val", "y_val", "sample_weight_val"] if name == "fit" else []
        assert list(mine) == [*theirs, *more]


# --- The same fit ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["classes", "two classes", "labels"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_classifiers(target, solver, activation):
    both("classifier", target, solver=solver, activation=activation, learning_rate_init=0.01)


@pytest.mark.parametrize("target", ["values", "several values", "counts", "several counts"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_regressors(target, solver):
    loss = "poisson" if "counts" in target else "squared_error"
    both("regressor", target, solver=solver, loss=loss, learning_rate_init=0.005)


OPTIONS = {
    "no shuffle": {"shuffle": False},
    "odd batches": {"batch_size": 11},
    "one batch": {"batch_size": 150},
    "no hidden layer": {"hidden_layer_sizes": ()},
    "int as size": {"hidden_layer_sizes": 5},
    "three layers": {"hidden_layer_sizes": [6, 5, 4]},
    "no L2": {"alpha": 0},
    "strong L2": {"alpha": 3.0, "batch_size": 30},
    "betas": {"beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-3},
    "no momentum": {"solver": "sgd", "momentum": 0, "learning_rate_init": 0.05},
    "plain momentum": {"solver": "sgd", "nesterovs_momentum": False, "learning_rate_init": 0.02},
    "invscaling": {
        "solver": "sgd", "learning_rate": "invscaling", "power_t": 0.3, "learning_rate_init": 0.5,
        "batch_size": 40,
    },
    "adaptive": {
        "solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.2, "tol": 1e-2,
        "n_iter_no_change": 2, "max_iter": 60,
    },
    "adaptive to the end": {
        "solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 2e-5, "tol": 0.1,
        "n_iter_no_change": 1, "max_iter": 60,
    },
    "stops": {"tol": 0.05, "n_iter_no_change": 3, "max_iter": 100, "learning_rate_init": 0.01},
    "never stops": {"tol": 10.0, "n_iter_no_change": numpy.inf},
    "early stopping": {
        "early_stopping": True, "max_iter": 60, "n_iter_no_change": 4, "learning_rate_init": 0.02,
    },
    "early stopping, adaptive": {
        "early_stopping": True, "solver": "sgd", "learning_rate": "adaptive", "n_iter_no_change": 2,
        "validation_fraction": 0.3, "max_iter": 40, "learning_rate_init": 0.1,
    },
}  # fmt: skip


STOPPING = ("stops", "early stopping", "adaptive", "adaptive to the end")


@pytest.mark.parametrize("target", ["classes", "two classes", "values"])
@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, target):
    kind = "regressor" if target == "values" else "classifier"
    ours, theirs, *_ = both(kind, target, **OPTIONS[name])
    assert (ours.n_iter_ < ours.max_iter) == (name in STOPPING)
    if "adaptive" in name:
        assert ours._solver.learning_rate == theirs._optimizer.learning_rate
        assert ours._solver.learning_rate < ours.learning_rate_init


@pytest.mark.parametrize("target", ["classes", "two classes", "labels", "several values", "counts"])
@pytest.mark.parametrize("early", [False, True])
def test_sample_weights(target, early):
    kind = "regressor" if target in ("several values", "counts") else "classifier"
    options = {"loss": "poisson"} if target == "counts" else {}
    both(kind, target, weights_of(), early_stopping=early, batch_size=25, **options)


def test_a_batch_that_weighs_nothing_is_left_out():
    x, y = examples("classes")
    weights = numpy.repeat([1.0, 0.0, 1.0], 50)
    options = {"shuffle": False, "batch_size": 50, "random_state": 0, "max_iter": 4, "alpha": 0}
    whole = fastdrop.MLPClassifier(**options).fit(x, y, sample_weight=weights)
    part = fastdrop.MLPClassifier(**options).fit(x[weights > 0], y[weights > 0])
    numpy.testing.assert_allclose(whole.coefs_[0], part.coefs_[0], **CLOSE)


@pytest.mark.parametrize("change", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
@pytest.mark.parametrize("early", [False, True])
def test_sparse_data(change, early):
    both("classifier", "classes", change=lambda x: change(x * (x > 0.3)), early_stopping=early)


@pytest.mark.parametrize("kind", OURS)
def test_float32(kind):
    """Weights of float32 for data of float32; the sums' order is more visible."""
    x, y = examples("classes" if kind == "classifier" else "values")
    x = x.astype(numpy.float32)
    ours, theirs = (model.fit(x, y) for model in pair(kind))
    close = {"rtol": 1e-3, "atol": 1e-5}
    assert_same_fit(ours, theirs, close)
    assert_same_predictions(ours, theirs, x, close)
    assert ours.predict_proba(x).dtype == numpy.float32 if kind == "classifier" else True


def test_a_column_of_labels_is_flattened():
    x, y = examples("column")
    ours, theirs = pair("classifier")
    for model in (ours, theirs):
        with pytest.warns(UserWarning, match="column-vector"):
            model.fit(x, y)
    assert_same_fit(ours, theirs)


def test_sparse_labels():
    x, y = examples("labels")
    ours, theirs = (model.fit(x, sparse.csr_matrix(y)) for model in pair("classifier"))
    assert_same_fit(ours, theirs)


# --- Going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["classes", "two classes", "values"])
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_warm_start(target, early, solver):
    kind = "regressor" if target == "values" else "classifier"
    x, y = examples(target)
    models = pair(kind, warm_start=True, early_stopping=early, solver=solver, max_iter=5)
    for _ in range(3):
        for model in models:
            model.fit(x, y)
        assert_same_fit(*models)
        # After a fit, its best weights are also those that the next one trains in place.
        for name in ("_best_coefs", "_best_intercepts"):
            setattr(models[1], name, [array.copy() for array in getattr(models[1], name)])


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("target", ["classes", "two classes", "labels", "values"])
def test_partial_fit(target, solver):
    kind = "regressor" if target == "values" else "classifier"
    x, y = examples(target)
    models = pair(kind, solver=solver, learning_rate="invscaling")
    known = numpy.arange(3) if target == "labels" else numpy.unique(y)
    first = {} if kind == "regressor" else {"classes": known}
    for number, part in enumerate((slice(0, 60), slice(60, 110), slice(110, 150), slice(0, 150))):
        weights = weights_of()[part] if number == 2 else None
        for model in models:
            model.partial_fit(
                x[part], y[part], sample_weight=weights, **(first if not number else {})
            )
        assert_same_fit(*models)
    assert models[0].n_iter_ == 1
    assert len(models[0].loss_curve_) == 4


def test_partial_fit_after_fit_and_fit_after_partial_fit():
    x, y = examples("classes")
    models = pair("classifier", solver="sgd")
    for model in models:
        model.fit(x, y).partial_fit(x[:70], y[:70])
    assert_same_fit(*models)
    for model in models:
        model.fit(x, y)
    assert_same_fit(*models)


def test_weights_of_ones_choice():
    """Arrays assigned to `coefs_` and `intercepts_` are those that predict, and are trained on."""
    x, y = examples("classes")
    models = [model.fit(x, y) for model in pair("classifier")]
    rng = numpy.random.default_rng(0)
    coefs = [0.3 * rng.standard_normal(weight.shape) for weight in models[0].coefs_]
    biases = [0.3 * rng.standard_normal(bias.shape) for bias in models[0].intercepts_]
    for model in models:
        model.coefs_ = [weight.copy() for weight in coefs]
        model.intercepts_ = [bias.copy() for bias in biases]
    assert_same_predictions(*models, x)
    for model in models:
        model.partial_fit(x, y)
    assert_same_fit(*models)
    models[0].coefs_[0][...] = models[1].coefs_[0][...] = 0.1
    assert_same_predictions(*models, x)


# --- The same complaints -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_layer_sizes", (5, 0)), ("hidden_layer_sizes", -1), ("activation", "swish"),
        ("solver", "rmsprop"), ("alpha", -1), ("batch_size", 0), ("batch_size", "all"),
        ("learning_rate", 0.1), ("learning_rate_init", 0), ("power_t", -1), ("max_iter", 0),
        ("shuffle", "yes"), ("random_state", "seed"), ("tol", -1), ("verbose", -1),
        ("warm_start", None), ("momentum", 1.1), ("nesterovs_momentum", 2),
        ("early_stopping", "on"),
        ("validation_fraction", 1.0), ("beta_1", 1.0), ("beta_2", -0.1), ("epsilon", 0),
        ("n_iter_no_change", 0), ("max_fun", 0),
    ],
)  # fmt: skip
def test_wrong_parameters(kind, name, value):
    x, y = examples("classes" if kind == "classifier" else "values")
    for model in pair(kind, **{name: value}):
        with pytest.raises(ValueError, match=name):
            model.fit(x, y)


def test_other_errors():
    x, y = examples("classes")
    for model in pair("classifier", early_stopping=True):
        with pytest.raises(ValueError, match="early_stopping"):
            model.partial_fit(x, y, classes=[-1, 1, 3])
    for model in pair("classifier", early_stopping=True, validation_fraction=0.005):
        with pytest.raises(ValueError, match="validation"):
            model.fit(x, y)
    for model in pair("classifier"):
        with pytest.raises(ValueError, match="classes"):
            model.partial_fit(x, y)
        model.partial_fit(x, y, classes=[-1, 1, 3])
        with pytest.raises(ValueError, match="classes"):
            model.partial_fit(x, y + 7)
    for model in pair("classifier", warm_start=True):
        model.fit(x, y)
        with pytest.raises(ValueError, match="classes"):
            model.fit(x, numpy.where(y == 3, 1, y))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence():
    """Without early stopping an error; what it begins with is scikit-learn's."""
    x, y = examples("values")
    for model in pair("regressor", solver="sgd", learning_rate_init=1e200):
        with pytest.raises(
            ValueError, match=r"Solver produced non-finite parameter weights\. The "
        ):
            model.fit(x, y)
        if isinstance(model, fastdrop.MLPRegressor):
            assert not public(model)


def test_warnings():
    x, y = examples("classes")
    for model in pair("classifier", batch_size=1000):
        with pytest.warns(UserWarning, match="batch_size"):
            model.fit(x, y)
    for model in pair("classifier", max_iter=2):
        with pytest.warns(ConvergenceWarning):
            model.fit(x, y)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.set_params(max_iter=1).partial_fit(x, y)
