"""What a fit does about failures, weights set beforehand, changed parameters and validation."""

import pickle
import warnings

import numpy
import pytest

pytest.importorskip("sklearn", reason="the estimators need the extra 'sklearn'")

import sklearn
from estimator_cases import classifier, data, dropouts, regressor
from sklearn import config_context, neural_network
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss, mean_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastdrop
from fastdrop import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

LINE = numpy.arange(20.0)[:, None]


def assert_equal_models(one, other):
    for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        numpy.testing.assert_array_equal(a, b)


# --- Divergence and overflow -------------------------------------------------------------------


def diverging(**options):
    fixed = {"hidden_layer_sizes": 1, "activation": "identity", "solver": "sgd"}
    return MLPRegressor(**fixed, learning_rate_init=1, max_iter=50, random_state=0, **options)


def test_early_stopping_survives_a_divergence_with_the_best_weights():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = diverging(early_stopping=True).fit(LINE, LINE[:, 0])
    assert len(told) == 1
    assert "non-finite parameter weights after epoch" in str(told[0].message)
    assert numpy.isfinite(model.predict(LINE)).all()
    if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 7):
        return  # theirs raises
    theirs = neural_network.MLPRegressor(**{
        name: value for name, value in model.get_params().items()
        if name in neural_network.MLPRegressor().get_params()
    })  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.fit(LINE, LINE[:, 0])
    for mine, other in zip(model.coefs_, theirs.coefs_, strict=True):
        numpy.testing.assert_allclose(mine, other, rtol=1e-9)


@pytest.mark.parametrize("way", ["fit", "partial_fit", "partial_fit of other data"])
def test_without_early_stopping_a_divergence_leaves_the_model_as_it_was(way):
    model = diverging()
    with pytest.raises(ValueError, match=r"^Solver produced non-finite .*learning_rate_init=1 "):
        model.fit(LINE, LINE[:, 0])
    with pytest.raises(NotFittedError):
        model.predict(LINE)
    model = regressor(dropout=0.5, warm_start=True, solver="sgd").fit(LINE, LINE[:, 0] / 20)
    before = pickle.loads(pickle.dumps(model))
    scale, rate = (1e300, 0.001) if "other" in way else (1, 1e308)
    model.set_params(learning_rate_init=rate)
    with pytest.raises(ValueError, match="non-finite"):
        getattr(model, way.split()[0])(scale * LINE, LINE[:, 0] / 20)
    assert_equal_models(model, before)
    assert model.loss_curve_ == before.loss_curve_
    # It goes on with the same masks, and with its velocities where they were not used.
    assert hasattr(model, "_solver") == ("other" not in way)
    if "other" in way:
        del before._solver
    for one in (model, before):
        one.set_params(learning_rate_init=0.001).partial_fit(LINE, LINE[:, 0] / 20)
    assert_equal_models(model, before)


def test_a_fit_of_other_data_that_fails_leaves_the_model_as_it_was():
    x, y = data()
    model = classifier().fit(x, (y > 0) * 1)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(numpy.full((4, 3), numpy.nan), [0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"stratify|least populated"):
        model.set_params(early_stopping=True).fit(x[:4], ["a", "a", "a", "b"])
    assert model.n_features_in_ == 5
    assert list(model.classes_) == [0, 1]
    assert model.predict(x).shape == y.shape


@pytest.mark.parametrize("scale", [1e10, 1e30, 1e75, 1e150])
@pytest.mark.parametrize("what", ["features", "targets", "both"])
def test_large_numbers_train_where_scikit_learn_trains(scale, what):
    x, y = data(n=50)
    x = x * (scale if what != "targets" else 1)
    y = y * (scale if what != "features" else 1)
    losses = []
    for kind in (MLPRegressor, neural_network.MLPRegressor):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            losses.append(kind(max_iter=5, random_state=0).fit(x, y).loss_)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_loss_that_overflows_alone_is_no_divergence():
    x, y = data(n=50, dtype=numpy.float32)
    model = MLPRegressor(max_iter=3, random_state=0).fit(x, 1e20 * y)
    assert model.loss_ == pytest.approx(0.5 * numpy.mean(numpy.square(1e20 * y)), rel=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(ValueError, match="overflow float32: scale y, or compute in float64"):
            MLPRegressor(random_state=0).fit(x, 1e75 * y.astype(float))
        big = numpy.full((20, 2), 3e38, numpy.float32)
        with pytest.raises(ValueError, match=r"in float32: .*overflow float32: scale the data"):
            MLPRegressor(max_iter=5, random_state=0).fit(big, numpy.arange(20.0))


# --- Weights set beforehand, and warm starts -----------------------------------------------------


@pytest.mark.parametrize("way", ["partial_fit", "fit"])
def test_weights_set_before_the_first_fit(way):
    x, y = data()
    donor = regressor(max_iter=1).fit(x, y)
    model = regressor(warm_start=True, max_iter=1)
    model.coefs_ = [weight.copy() for weight in donor.coefs_]
    model.intercepts_ = [bias.tolist() for bias in donor.intercepts_]
    getattr(model, way)(x, y)
    assert (model.t_, model.n_layers_, model.n_features_in_) == (120, 4, 5)
    donor.set_params(warm_start=True)
    del donor._solver
    getattr(donor, way)(x, y)
    assert_equal_models(model, donor)
    assert_equal_models(pickle.loads(pickle.dumps(model)), donor)


def test_weights_that_do_not_fit_are_named():
    x, y = data()
    model = regressor()
    model.coefs_ = [numpy.zeros((5, 3))]
    with pytest.raises(NotFittedError):
        model.predict(x)
    with pytest.raises(ValueError, match=r"coefs_ must have the shapes .*\(5, 24\).*\(5, 3\)"):
        model.partial_fit(x, y)
    model.coefs_ = [numpy.zeros(s) for s in ((5, 24), (24, 16), (16, 1))]
    with pytest.raises(ValueError, match="intercepts_ must have the shapes"):
        model.partial_fit(x, y)


CHANGES = {
    "learning_rate_init": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-2, "max_norm": 0.5,
    "solver": "sgd", "alpha": 10.0, "batch_size": 7, "activation": "tanh", "shuffle": False,
    "dropout": 0.2,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("way", ["partial_fit", "fit"])
def test_changed_parameters_hold_at_once(name, way):
    x, y = data()
    models = [regressor(dropout=0.5, warm_start=True, max_iter=2).fit(x, y) for _ in range(2)]
    models[1].set_params(**{name: CHANGES[name]})
    for model in models:
        getattr(model, way)(x, y)
    assert (models[0].coefs_[0] != models[1].coefs_[0]).any()
    # Moments and masks are kept, by the copy in a pickle as well.
    copy = pickle.loads(pickle.dumps(models[1]))
    for model in (models[1], copy):
        model.partial_fit(x, y)
    assert_equal_models(models[1], copy)


def test_partial_fit_keeps_what_it_knows_of_gradients():
    x, y = data()
    model = regressor(solver="sgd", momentum=0.9).partial_fit(x, y)
    velocity = model._solver.state()["weights"]["dense0.weight.velocity"]
    before = [weight.copy() for weight in model.coefs_]
    model.set_params(learning_rate_init=1e-300).partial_fit(x, y)
    # A step under way keeps its speed, whatever the rate of the next one.
    assert abs(velocity).max() > 0
    moved = abs(model.coefs_[0] - before[0])
    numpy.testing.assert_allclose(moved, 0.9**2 * 0.001 * abs(velocity), rtol=1e-6, atol=1e-12)


def test_another_loss_is_refused_by_name():
    x, y = data()
    model = regressor(warm_start=True).fit(x, abs(y))
    for way in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=r"loss must stay .* 'poisson' after 'squared_error'"):
            getattr(model.set_params(loss="poisson"), way)(x, abs(y))
    model.set_params(warm_start=False).fit(x, abs(y))
    assert model.out_activation_ == "exp"


# --- Arguments -----------------------------------------------------------------------------------


def test_unknown_keywords_name_the_class_that_was_written():
    for kind in (MLPClassifier, MLPRegressor):
        with pytest.raises(TypeError, match=rf"^{kind.__name__}.__init__\(\)"):
            kind(depth=3)
    x, y = data()
    with pytest.raises(ValueError, match=r"MLPRegressor\(hidden_layer_sizes=\(50,\)\)"):
        MLPRegressor((50,)).fit(x, y)


def test_splits_without_weight_are_told():
    labels = numpy.arange(20) % 2
    weights = (LINE[:, 0] < 2) * 1.0
    model = MLPClassifier(early_stopping=True, max_iter=2, random_state=0)
    with pytest.raises(ValueError, match="sample_weight is 0 for all 2 samples of the validation"):
        model.fit(LINE, labels, sample_weight=weights)
    told = set()
    for place in range(20):
        with pytest.raises(ValueError, match="sample_weight is 0 for all") as error:
            model.fit(LINE, labels, sample_weight=numpy.eye(20)[place])
        told.add("training part" in str(error.value))
    assert len(told) == 2


def test_batches_of_weight_0_do_not_count_for_the_loss():
    x, y = data(n=100)
    weights = numpy.repeat([1.0, 0.0], 50)
    options = {"shuffle": False, "batch_size": 50, "max_iter": 1}
    whole = regressor(**options).fit(x, y, sample_weight=weights)
    part = regressor(**options).fit(x[:50], y[:50])
    assert whole.loss_ == pytest.approx(part.loss_)


def test_stratification_names_classes_as_the_user_does():
    model = MLPClassifier(early_stopping=True)
    for labels in ([0, 0, 0, 1], ["no", "no", "no", "yes"]):
        with pytest.raises(ValueError, match="least populated") as error:
            model.fit(LINE[:4], labels)
        if "[" in str(error.value):  # newer scikit-learns name them
            assert str(error.value).rpartition(" ")[2].strip("[']") == str(labels[3])


# --- Weights of classes ------------------------------------------------------------------------


def test_class_weights_are_sample_weights():
    x, y = data()
    labels = numpy.digitize(y, [-1, 2])
    shares = numpy.bincount(labels)
    for given, weights in (
        ({0: 2.0, 1: 0.5, 2: 3.0}, numpy.array([2.0, 0.5, 3.0])),
        ({1: 0.25}, numpy.array([1.0, 0.25, 1.0])),
        ("balanced", 120 / (3 * shares)),
    ):
        model = classifier(class_weight=given).fit(x, labels)
        assert_equal_models(model, classifier().fit(x, labels, sample_weight=weights[labels]))
        both = classifier(class_weight=given).fit(x, labels, sample_weight=numpy.arange(120))
        product = numpy.arange(120) * weights[labels]
        assert_equal_models(both, classifier().fit(x, labels, sample_weight=product))


def test_class_weights_help_the_rare_class():
    rng = numpy.random.default_rng(0)
    x = rng.standard_normal((600, 2))
    labels = (x[:, 0] + rng.standard_normal(600) > 2.2) * 1
    options = {"dropout": 0.2, "max_iter": 60, "learning_rate_init": 0.01}
    models = [classifier(**options, class_weight=one).fit(x, labels) for one in (None, "balanced")]
    found = [model.predict(x)[labels == 1].mean() for model in models]
    assert found[1] > found[0] + 0.2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("heavy", "class_weight"), ({7: 1.0}, "class_weight"), ({0: -1.0}, "class_weight"),
        ({0: 0.0, 1: 0.0}, "class_weight"), ({0: numpy.inf}, "class_weight"),
    ],
)  # fmt: skip
def test_wrong_class_weights(given, message):
    x, y = data()
    with pytest.raises(ValueError, match=message):
        classifier(class_weight=given).fit(x, (y > 0) * 1)


def test_partial_fit_takes_weights_of_classes_it_is_told():
    x, y = data()
    labels = (y > 0) * 1
    with pytest.raises(ValueError, match="class_weight='balanced' is not supported by partial_fit"):
        classifier(class_weight="balanced").partial_fit(x, labels, classes=[0, 1])
    model = classifier(class_weight={1: 3.0}).partial_fit(x, labels, classes=[0, 1])
    other = classifier().partial_fit(x, labels, 1 + 2.0 * labels, classes=[0, 1])
    assert_equal_models(model, other)


# --- Validation of one's own ---------------------------------------------------------------------


def test_own_validation_data_are_scored_and_all_of_the_data_learnt():
    x, y = data()
    options = {"dropout": 0.2, "early_stopping": True, "max_iter": 15, "n_iter_no_change": 100}
    model = regressor(**options).fit(x[:80], y[:80], X_val=x[80:], y_val=y[80:])
    assert model.t_ == 15 * 80
    scores = model.validation_scores_
    assert model.score(x[80:], y[80:]) == pytest.approx(max(scores))
    # The fit is that without early stopping, but for the weights that are kept.
    plain = regressor(dropout=0.2, max_iter=int(numpy.argmax(scores)) + 1).fit(x[:80], y[:80])
    assert_equal_models(model, plain)
    weights = numpy.arange(40.0)
    more = {"X_val": x[80:], "y_val": y[80:], "sample_weight_val": weights}
    model = regressor(**options).fit(x[:80], y[:80], **more)
    best = model.score(x[80:], y[80:], sample_weight=weights)
    assert best == pytest.approx(max(model.validation_scores_))


def test_scoring_by_loss_name_and_function():
    x, y = load_iris(return_X_y=True)
    names = numpy.array(["a", "b", "c"])[y]
    options = {"early_stopping": True, "max_iter": 6, "dropout": 0.1}
    own = {"X_val": x[::2], "y_val": names[::2]}
    for scoring in ("loss", "neg_log_loss"):
        model = classifier(**options, scoring=scoring).fit(x[1::2], names[1::2], **own)
        loss = log_loss(names[::2], model.predict_proba(x[::2]))
        assert max(model.validation_scores_) == pytest.approx(-loss)

    def scorer(estimator, x, y):
        return -mean_absolute_error(y, estimator.predict(x))

    x, y = data()
    model = regressor(**options, scoring=scorer).fit(x[1::2], y[1::2], X_val=x[::2], y_val=y[::2])
    assert max(model.validation_scores_) == pytest.approx(scorer(model, x[::2], y[::2]))
    model = regressor(**options, scoring="r2").fit(x, y)
    assert len(model.validation_scores_) == 6


def test_validation_data_are_routed_through_a_pipeline():
    x, y = data()
    with config_context(enable_metadata_routing=True):
        network = regressor(early_stopping=True).set_fit_request(X_val=True, y_val=True)
        pipeline = make_pipeline(StandardScaler(), network)
        pipeline.fit(x[:80], y[:80], X_val=x[80:], y_val=y[80:])
    assert network.t_ == network.n_iter_ * 80


@pytest.mark.parametrize(
    ("parameters", "given", "message"),
    [
        ({}, {"X_val": LINE, "y_val": LINE[:, 0]}, "X_val is for early_stopping=True"),
        ({"early_stopping": True}, {"X_val": LINE}, "X_val was given without y_val"),
        ({"early_stopping": True}, {"y_val": LINE[:, 0]}, "y_val was given without X_val"),
        ({"early_stopping": True}, {"X_val": LINE[:, [0, 0]], "y_val": LINE[:, 0]}, "features"),
        ({"early_stopping": True}, {"X_val": LINE, "y_val": LINE[:, [0, 0]]}, "1 outputs"),
        (
            {"early_stopping": True},
            {"X_val": LINE, "y_val": LINE[:, 0], "sample_weight_val": -LINE[:, 0]},
            "sample_weight_val",
        ),
    ],
)
def test_wrong_validation_data(parameters, given, message):
    with pytest.raises(ValueError, match=message):
        regressor(**parameters).fit(LINE, LINE[:, 0], **given)


def test_validation_classes_have_to_be_known():
    x, y = data()
    with pytest.raises(ValueError, match=r"classes not in `self\.classes_`"):
        classifier(early_stopping=True).fit(x, (y > 0) * 1, X_val=x, y_val=(y > 0) * 2)


# --- Random states and files ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [numpy.random.default_rng, fastdrop.MaskStream])
def test_generators_and_streams_as_random_state(make):
    x, y = data()
    first = regressor(dropout=0.5, random_state=make(3)).fit(x, y)
    assert_equal_models(first, regressor(dropout=0.5, random_state=make(3)).fit(x, y))
    source = make(3)
    models = [regressor(dropout=0.5, random_state=source).fit(x, y) for _ in range(2)]
    assert_equal_models(models[0], first)
    assert (models[0].coefs_[0] != models[1].coefs_[0]).any()  # it was advanced
    assert_equal_models(pickle.loads(pickle.dumps(models[1])), models[1])
    samples = [models[0].predict_samples(x, 2, random_state=make(1)) for _ in range(2)]
    numpy.testing.assert_array_equal(*samples)
    assert dropouts(models[0])[0].stream.position == 8


def test_a_pickle_of_another_version_says_so(monkeypatch):
    x, y = data()
    model = regressor().fit(x, y)
    text = pickle.dumps(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal_models(pickle.loads(text), model)
    monkeypatch.setattr("fastdrop.estimators.base.__version__", "99.0")
    with pytest.warns(UserWarning, match=r"MLPRegressor was pickled by fastdrop .* by 99\.0"):
        assert_equal_models(pickle.loads(text), model)
