"""Monte Carlo dropout: samples, mean and deviation, predictive log-likelihood."""

import tracemalloc
import warnings

import numpy
import pytest

pytest.importorskip("sklearn", reason="the estimators need the extra 'sklearn'")

from estimator_cases import classifier, data, dropouts, regressor
from scipy import sparse, stats
from scipy.special import logsumexp

import fastdrop
from fastdrop import nn
from fastdrop.estimators import examples, sampling

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def one_pass(model, x, random_state, number):
    """Raw scores of sample `number`, from dense products in float64."""
    words = numpy.random.RandomState(random_state).randint(0, 2**32, 4, dtype=numpy.uint32)
    seed = [int(word) for word in words]
    streams = iter(fastdrop.MaskStream(seed).spawn(len(dropouts(model))))
    x = x.astype(float)
    for layer in model._network.layers:
        if isinstance(layer, nn.Dense):
            x = x @ layer.weight.astype(float) + layer.bias
        elif isinstance(layer, nn.Dropout):
            mask = next(streams).draw(
                (1, x.shape[1]),
                keep_prob=layer.keep_prob,
                exact_count=layer.exact_count,
                at=number,
            )
            x = numpy.where(mask.to_array(), x * mask.scale, 0)
        else:
            x = layer.forward(x)
    return x


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.5},
        {"dropout": 0.2, "input_dropout": 0.2, "rows_per_mask": "batch"},
        {"dropout": [0.0, 0.5], "rows_per_mask": 4},
        {"dropout": [0.5, 0.0], "exact_count": True},
        {"input_dropout": 0.5},
    ],
    ids=str,
)
def test_a_sample_is_one_set_of_units_for_all_rows(activation, options):
    x, y = data(outputs=2)
    model = regressor(activation=activation, **options).fit(x, y)
    samples = model.predict_samples(x, 6, random_state=9)
    assert samples.shape == (6, *y.shape)
    for number in range(6):
        expected = one_pass(model, x, 9, number)
        numpy.testing.assert_allclose(samples[number], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_rows_samples_and_chunks_change_no_mask(monkeypatch, dtype):
    x, y = data(dtype=dtype)
    model = regressor(dropout=0.5, input_dropout=0.1).fit(x, y)
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == numpy.float32 else {"rtol": 1e-12}
    whole = model.predict_samples(x, 10, random_state=1)
    moments = model.predict(x, return_std=True, n_samples=10, random_state=1)
    likely = model.predictive_log_likelihood(x, y, 4.0, 10, 1)
    few = model.predict_samples(x, 4, random_state=1)
    numpy.testing.assert_allclose(few, whole[:4], **close)
    part = model.predict_samples(x[30:50], 10, random_state=1)
    numpy.testing.assert_allclose(part, whole[:, 30:50], **close)
    monkeypatch.setattr(examples, "CHUNK", 1)
    monkeypatch.setattr(examples, "LEAST_ROWS", 7)
    sizes = [len(part) for _, part in examples.chunks(model._network, x)]
    assert sizes == [7] * 17 + [1]
    numpy.testing.assert_allclose(model.predict_samples(x, 10, random_state=1), whole, **close)
    again = model.predict(x, return_std=True, n_samples=10, random_state=1)
    for one, other in zip(again, moments, strict=True):
        numpy.testing.assert_allclose(one, other, **close)
    chunked = model.predictive_log_likelihood(x, y, 4.0, 10, 1)
    numpy.testing.assert_allclose(chunked, likely, rtol=1e-4)
    assert (whole != model.predict_samples(x, 10, random_state=2)).any()


def test_samples_leave_model_and_masks_alone():
    x, y = data()
    model, same = (regressor(dropout=0.5, warm_start=True).fit(x, y) for _ in range(2))
    before = [weight.copy() for weight in model.coefs_]
    model.predict_samples(x, 5)
    model.predict(x, return_std=True)
    for weight, old in zip(model.coefs_, before, strict=True):
        numpy.testing.assert_array_equal(weight, old)
    for one, other in zip(model.fit(x, y).coefs_, same.fit(x, y).coefs_, strict=True):
        numpy.testing.assert_array_equal(one, other)


def test_random_state_of_samples():
    x, y = data()
    model = regressor(dropout=0.5).fit(x, y)
    state = numpy.random.RandomState(3)
    first, second = model.predict_samples(x, 3, state), model.predict_samples(x, 3, state)
    assert (first != second).any()
    numpy.testing.assert_array_equal(first, model.predict_samples(x, 3, 3))
    assert (model.predict_samples(x, 3) != model.predict_samples(x, 3)).any()


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("change", [numpy.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_mean_and_deviation(outputs, change):
    x, y = data(outputs=outputs)
    x = change(x)
    model = regressor(dropout=0.3).fit(x, y)
    samples = model.predict_samples(x, 50, random_state=7)
    options = {"return_std": True, "n_samples": 50, "random_state": 7}
    mean, std = model.predict(x, **options)
    assert mean.shape == std.shape == y.shape
    assert mean.dtype == std.dtype == model.predict(x).dtype
    numpy.testing.assert_allclose(mean, samples.mean(axis=0), rtol=1e-9)
    numpy.testing.assert_allclose(std, samples.std(axis=0), rtol=1e-9)
    _, noisy = model.predict(x, **options, tau=4.0)
    numpy.testing.assert_allclose(noisy, numpy.sqrt(samples.var(axis=0) + 0.25), rtol=1e-9)


def test_the_mean_of_a_linear_model_is_its_prediction():
    x, y = data()
    model = regressor(activation="identity", dropout=0.2, max_iter=50).fit(x, y)
    mean, std = model.predict(x, return_std=True, n_samples=4000, random_state=0)
    error = abs(mean - model.predict(x)) / (std / numpy.sqrt(4000))
    assert error.max() < 5


@pytest.mark.parametrize("number", [1, 8, 64, 65])
@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.5, "input_dropout": 0.2}, {"dropout": [0.3, 0.0], "exact_count": True},
        {"dropout": 0.5, "hidden_layer_sizes": (17, 9), "activation": "tanh"},
        {"dropout": [0.0, 1.0]},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:dropout=1")
def test_stacked_samples_are_those_of_one_at_a_time(monkeypatch, number, options):
    x, y = data(outputs=2)
    model = regressor(**options).fit(x, y)
    found = []
    for few in (0, 10**6):
        monkeypatch.setattr(sampling, "FEW_ROWS", few)
        monkeypatch.setattr(sampling, "MORE_ROWS", 0)
        found.append(model.predict_samples(x[:number], 30, random_state=1))
        monkeypatch.setattr(examples, "CHUNK", 1)
        monkeypatch.setattr(examples, "LEAST_ROWS", 40)
        found.append(model.predict_samples(x[:number], 30, random_state=1))
        monkeypatch.undo()
    for other in found[1:]:
        numpy.testing.assert_allclose(other, found[0], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("few", [0, 10**6])
def test_one_call_has_one_set_of_masks_for_all_its_chunks(monkeypatch, few):
    x, y = data()
    model = regressor(dropout=0.5).fit(x, y)
    monkeypatch.setattr(sampling, "FEW_ROWS", few)
    monkeypatch.setattr(sampling, "MORE_ROWS", 0)
    monkeypatch.setattr(examples, "CHUNK", 1)
    monkeypatch.setattr(examples, "LEAST_ROWS", 20)
    same = model.predict_samples(numpy.repeat(x[:1], 60, axis=0), 5)  # random_state=None
    numpy.testing.assert_allclose(same, same[:, :1].repeat(60, axis=1), rtol=1e-12)


def test_uncertainty_grows_away_from_the_data():
    x, y = data()
    model = regressor(dropout=0.1, max_iter=200).fit(x, y)
    _, near = model.predict(x, return_std=True, random_state=0)
    _, far = model.predict(10 * x, return_std=True, random_state=0)
    assert numpy.median(far) > 3 * numpy.median(near)


def test_classifier_samples():
    x, y = data()
    for target in (
        (y > 0) * 1,
        numpy.digitize(y, [-1, 1]),
        numpy.stack([y > 0, y > 1], axis=1) * 1,
    ):
        model = classifier(dropout=0.4).fit(x, target)
        samples = model.predict_samples(x, 30, random_state=0)
        assert samples.shape == (30, *model.predict_proba(x).shape)
        assert ((samples >= 0) & (samples <= 1)).all()
        assert samples.std(axis=0).max() > 0.001
        if target.ndim == 1:
            numpy.testing.assert_allclose(samples.sum(axis=2), 1)


# --- Predictive log-likelihood -------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
def test_gaussian_log_likelihood(outputs):
    """That of a mixture of normal distributions, one about each sample."""
    x, y = data(outputs=outputs)
    tau = 7.0
    model = regressor(dropout=0.3).fit(x, y)
    samples = model.predict_samples(x, 40, random_state=5)
    densities = stats.norm.logpdf(y, samples, tau**-0.5).reshape(40, len(x), -1).sum(axis=2)
    expected = logsumexp(densities, axis=0) - numpy.log(40)
    given = model.predictive_log_likelihood(x, y, tau, n_samples=40, random_state=5)
    assert given.shape == (len(x),)
    numpy.testing.assert_allclose(given, expected, rtol=1e-9)
    # Where every density rounds to 0.
    assert numpy.isfinite(model.predictive_log_likelihood(x, y + 1e3, tau)).all()


def test_poisson_log_likelihood():
    x, y = data()
    counts = numpy.random.default_rng(0).poisson(numpy.exp(0.5 * y)).astype(float)
    model = regressor(dropout=0.3, loss="poisson").fit(x, counts)
    samples = model.predict_samples(x, 40, random_state=5)
    expected = logsumexp(stats.poisson.logpmf(counts, samples), axis=0) - numpy.log(40)
    given = model.predictive_log_likelihood(x, counts, n_samples=40, random_state=5)
    numpy.testing.assert_allclose(given, expected, rtol=1e-9)


def test_log_likelihood_of_classes():
    x, y = data()
    labels = numpy.stack([y > 0, y > 1], axis=1) * 1
    names = numpy.array(["low", "middle", "top"])[numpy.digitize(y, [-1, 1])]
    for target in (names, numpy.where(y > 0, 5, -5), labels):
        model = classifier(dropout=0.4).fit(x, target)
        samples = model.predict_samples(x, 30, random_state=2)
        if target.ndim == 2:
            likely = numpy.where(labels == 1, samples, 1 - samples).prod(axis=2)
        else:
            places = numpy.searchsorted(model.classes_, target)
            likely = samples[:, numpy.arange(len(x)), places]
        given = model.predictive_log_likelihood(x, target, 30, random_state=2)
        numpy.testing.assert_allclose(given, numpy.log(likely.mean(axis=0)), rtol=1e-7)


def test_wrong_use_is_told():
    x, y = data()
    model = regressor(dropout=0.5).fit(x, y)
    for tau in (0, -1.0):
        with pytest.raises(ValueError, match="tau"):
            model.predict(x, return_std=True, tau=tau)
    for tau in (None, "1"):
        with pytest.raises(TypeError, match="tau"):
            model.predictive_log_likelihood(x, y, tau)
    for number in (0, -3):
        with pytest.raises(ValueError, match="n_samples"):
            model.predict_samples(x, number)
    with pytest.raises(TypeError, match="n_samples"):
        model.predict_samples(x, 2.5)
    with pytest.raises(ValueError, match="must have 1 outputs, got 2"):
        model.predictive_log_likelihood(x, numpy.stack([y, y], axis=1), 1.0)
    counts = regressor(dropout=0.5, loss="poisson").fit(x, abs(y))
    with pytest.raises(ValueError, match="tau"):
        counts.predictive_log_likelihood(x, abs(y), 1.0)
    labels = classifier(dropout=0.5).fit(x, (y > 0) * 1)
    with pytest.raises(ValueError, match="classes"):
        labels.predictive_log_likelihood(x, numpy.full(len(x), 2))
    for unfitted in (regressor(), classifier()):
        with pytest.raises(ValueError, match="not fitted"):
            unfitted.predict_samples(x)


def test_without_dropout_samples_are_equal_and_a_warning_says_so():
    x, y = data()
    model = regressor().fit(x, y)
    with pytest.warns(UserWarning, match="dropout=0: every sample is the same"):
        mean, std = model.predict(x, return_std=True, n_samples=3)
    numpy.testing.assert_allclose(mean, model.predict(x))
    assert not std.any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = model.predict_samples(x, 2)
    numpy.testing.assert_allclose(samples, [model.predict(x)] * 2)


def test_rates_set_after_the_fit_are_told():
    x, y = data()
    model = regressor().fit(x, y).set_params(dropout=0.5)
    with pytest.warns(UserWarning, match=r"until the next fit; set since are .* dropout=0\.5"):
        model.predict_samples(x, 2)
    model = regressor(dropout=[0.5, 0.25]).fit(x, y).set_params(input_dropout=0.1)
    with pytest.warns(UserWarning, match=r"fitted with input_dropout=0, dropout=\[0\.5, 0\.25\]"):
        model.predict(x, return_std=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.set_params(input_dropout=0).predict(x, return_std=True)


def test_one_sample_has_no_spread_and_a_warning_says_so():
    x, y = data()
    model = regressor(dropout=0.5).fit(x, y)
    with pytest.warns(UserWarning, match="n_samples=1 has no spread"):
        _, std = model.predict(x, return_std=True, n_samples=1)
    assert not std.any()


# --- The precision of the noise ------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_precision_that_a_fit_chooses_is_the_most_likely(outputs):
    x, y = data(n=600, outputs=outputs)
    options = {"dropout": 0.1, "max_iter": 60, "learning_rate_init": 0.01}
    model = regressor(**options, tau="fit").fit(x[:400], y[:400], X_val=x[400:], y_val=y[400:])
    assert model.t_ == 400 * model.n_iter_
    scores = {
        factor: model.predictive_log_likelihood(
            x[400:], y[400:], factor * model.tau_, 100, random_state=4
        ).mean()
        for factor in (1 / 8, 1 / 2, 1, 2, 8)
    }
    # Of other masks than the fit's, which move the greatest a little.
    assert scores[1] > max(scores.values()) - 0.03, scores
    assert scores[1] > max(scores[1 / 8], scores[8]) + 0.03, scores
    given = model.predictive_log_likelihood(x, y, "fit", 20, random_state=0)
    named = model.predictive_log_likelihood(x, y, model.tau_, 20, random_state=0)
    numpy.testing.assert_array_equal(given, named)


@pytest.mark.parametrize("early", [False, True])
def test_intervals_with_the_fitted_precision_hold_what_they_promise(early):
    """Without noise, mean and deviation are those of the model alone, and hold far too few."""
    rng = numpy.random.default_rng(0)
    x = rng.uniform(-1, 1, (1500, 3))
    y = x @ [3.0, -2.0, 1.0] + rng.standard_normal(1500)
    options = {"dropout": 0.1, "max_iter": 60, "learning_rate_init": 0.01, "tau": "fit"}
    model = regressor(**options, early_stopping=early, validation_fraction=0.2)
    model.fit(x[:1000], y[:1000])
    held = {}
    for tau in (None, "fit"):
        mean, std = model.predict(x[1000:], return_std=True, tau=tau, random_state=0)
        held[tau] = (abs(y[1000:] - mean) < 1.96 * std).mean()
    assert held[None] < 0.7
    assert 0.9 < held["fit"] < 0.99
    assert 0.5 < model.tau_ < 1.5


def test_wrong_use_of_the_fitted_precision_is_told():
    x, y = data()
    model = regressor(dropout=0.5, tau="fit")
    with pytest.raises(ValueError, match="partial_fit does not support tau='fit'"):
        model.partial_fit(x, y)
    with pytest.raises(ValueError, match="loss='poisson' has none"):
        regressor(loss="poisson", tau="fit").fit(x, abs(y))
    model.fit(x, y).set_params(tau=None).fit(x, y)
    with pytest.raises(ValueError, match="tau='fit' needs a fit with the parameter"):
        model.predict(x, return_std=True, tau="fit")


@pytest.mark.parametrize("method", ["predict", "predictive_log_likelihood"])
def test_memory_does_not_grow_with_the_samples(method):
    """Neither mean and deviation nor likelihood keep samples: 3000 x 200 of them are 4.8 MB."""
    x, y = data(n=3000)
    model = regressor(dropout=0.5, max_iter=1).fit(x, y)
    peaks = []
    for number in (2, 200):
        options = {"n_samples": number, "random_state": 0}
        tracemalloc.start()
        if method == "predict":
            model.predict(x, return_std=True, **options)
        else:
            model.predictive_log_likelihood(x, y, 1.0, **options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
