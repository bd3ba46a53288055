"""What scikit-learn's perceptrons do not have: dropout, max-norm, dtype, Monte Carlo samples."""

import tracemalloc
import warnings

import numpy
import pytest

pytest.importorskip("sklearn", reason="the estimators need the extra 'sklearn'")

from scipy import sparse, stats
from scipy.special import logsumexp

import fastdrop
from fastdrop import MLPClassifier, MLPRegressor, nn
from fastdrop.estimators import rows

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

MASKS = {"per-sample": 1, "grouped": 4, "batchwise": "batch"}


def data(n=120, outputs=1, dtype=numpy.float64):
    rng = numpy.random.default_rng(2)
    x = rng.standard_normal((n, 5))
    y = x @ rng.standard_normal((5, outputs)) + 0.1 * rng.standard_normal((n, outputs))
    return x.astype(dtype), y[:, 0] if outputs == 1 else y


def regressor(**options):
    options = {"hidden_layer_sizes": (24, 16), "random_state": 0, "max_iter": 8} | options
    return MLPRegressor(**options)


def classifier(**options):
    options = {"hidden_layer_sizes": (24, 16), "random_state": 0, "max_iter": 8} | options
    return MLPClassifier(**options)


def dropouts(model):
    return [layer for layer in model._network.layers if isinstance(layer, nn.Dropout)]


# --- Fit with dropout ----------------------------------------------------------------------------


def test_rates_and_masks_reach_their_layers():
    x, y = data()
    model = regressor(dropout=[0.0, 0.3], input_dropout=0.1, rows_per_mask=4, exact_count=True)
    model.fit(x, y)
    kinds = [type(layer).__name__ for layer in model._network.layers]
    hidden = ["Dense", "ReLU"]
    assert kinds == ["Dropout", *hidden, *hidden, "Dropout", "Dense"]
    assert [layer.rate for layer in dropouts(model)] == pytest.approx([0.1, 0.3])
    for layer in dropouts(model):
        assert (layer.rows_per_mask, layer.exact_count) == (4, True)
        assert layer.stream.position == 8  # 120 rows are one batch


@pytest.mark.parametrize("rows_per_mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_dropout_trains_what_a_plain_loop_trains(rows_per_mask, solver):
    """Every step is that of `fastdrop.nn` and `fastdrop.optim`, written out; alpha is 0."""
    x, y = data(n=32, outputs=2)
    options = {"dropout": 0.4, "input_dropout": 0.2, "rows_per_mask": rows_per_mask, "alpha": 0}
    model = regressor(solver=solver, batch_size=8, shuffle=False, max_norm=1.5, **options)
    model.partial_fit(x, y)
    masks = {"rows_per_mask": rows_per_mask}
    layers = [nn.Dropout(0.2, **masks)]
    for inside, outside in ((5, 24), (24, 16)):
        layers += [nn.Dense(inside, outside), nn.ReLU(), nn.Dropout(0.4, **masks)]
    words = numpy.random.RandomState(0).randint(0, 2**32, 4, dtype=numpy.uint32)
    net = nn.Sequential([*layers, nn.Dense(16, 2)], rng=[int(w) for w in words], dtype=x.dtype)
    plain = regressor(max_iter=1, shuffle=False, solver="sgd", learning_rate_init=1e-300).fit(x, y)
    dense = [layer for layer in net.layers if isinstance(layer, nn.Dense)]
    for layer, weight, bias in zip(dense, plain.coefs_, plain.intercepts_, strict=True):
        layer.weight, layer.bias = weight, bias
    if solver == "adam":
        opt = fastdrop.optim.Adam(net, 0.001, max_norm=1.5, epsilon=1e-12)
        model.set_params(epsilon=1e-12)
        model = regressor(**model.get_params()).partial_fit(x, y)
    else:
        opt = fastdrop.optim.SGD(net, 0.001, momentum=0.9, nesterov=True, max_norm=1.5)
    for first in range(0, 32, 8):
        part = slice(first, first + 8)
        prediction = net.forward(x[part], training=True)
        net.backward((prediction - y[part]) / 8)
        opt.step()
    for layer, weight, bias in zip(dense, model.coefs_, model.intercepts_, strict=True):
        numpy.testing.assert_allclose(weight, layer.weight, rtol=1e-7, atol=1e-10)
        numpy.testing.assert_allclose(bias, layer.bias, rtol=1e-7, atol=1e-10)


def test_dropout_changes_neither_weights_split_nor_order_of_the_random_state():
    x, y = data()
    states = []
    for dropout in (0.0, 0.5):
        state = numpy.random.RandomState(4)
        options = {"dropout": dropout, "learning_rate_init": 1e-300, "solver": "sgd"}
        model = regressor(random_state=state, early_stopping=True, **options).fit(x, y)
        states.append((model.coefs_, state.get_state()[1:3]))
    (plain, after), (dropped, also) = states
    for one, other in zip(plain, dropped, strict=True):
        numpy.testing.assert_array_equal(one, other)
    numpy.testing.assert_array_equal(after[0], also[0])
    assert after[1] == also[1]


@pytest.mark.parametrize("rows_per_mask", MASKS.values(), ids=MASKS)
def test_the_same_state_gives_the_same_model(rows_per_mask):
    x, y = data()
    options = {"dropout": 0.5, "rows_per_mask": rows_per_mask}
    first, second = (regressor(**options).fit(x, y) for _ in range(2))
    third = regressor(**options, random_state=1).fit(x, y)
    for one, two, other in zip(first.coefs_, second.coefs_, third.coefs_, strict=True):
        numpy.testing.assert_array_equal(one, two)
        assert (one != other).any()


def test_masks_go_on_in_partial_fit_and_warm_start():
    x, y = data()
    model = regressor(dropout=0.5)
    for _ in range(3):
        model.partial_fit(x, y)
    assert {layer.stream.position for layer in dropouts(model)} == {3}
    model = regressor(dropout=0.5, warm_start=True, max_iter=2).fit(x, y).fit(x, y)
    assert {layer.stream.position for layer in dropouts(model)} == {4}
    model.set_params(dropout=[0.2, 0.0], rows_per_mask="batch").fit(x, y)
    assert [layer.rate for layer in dropouts(model)] == pytest.approx([0.2])
    assert {layer.stream.position for layer in dropouts(model)} == {6}


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_max_norm_bounds_incoming_weights(solver):
    x, y = data()
    norms = {}
    for max_norm in (None, 0.5):
        model = regressor(max_norm=max_norm, solver=solver, learning_rate_init=0.02, max_iter=30)
        model.fit(x, y)
        norms[max_norm] = max(numpy.linalg.norm(w, axis=0).max() for w in model.coefs_)
    assert norms[None] > 1
    assert norms[0.5] <= 0.5 * (1 + 1e-12)
    assert abs(numpy.concatenate(model.intercepts_)).max() > 0


def test_the_loss_of_masks_does_not_end_the_training_by_one_lucky_epoch():
    """With dropout it is the mean loss of `n_iter_no_change` epochs that has to improve."""
    x, y = data(n=40)
    options = {"hidden_layer_sizes": 64, "dropout": 0.5, "max_iter": 400, "solver": "sgd"}
    model = regressor(**options, n_iter_no_change=10, learning_rate_init=0.002, tol=1e-5).fit(x, y)
    curve = numpy.array(model.loss_curve_)
    means = numpy.convolve(curve, numpy.ones(10) / 10, "valid")
    best = numpy.minimum.accumulate(means)
    worse = means[1:] > best[:-1] - 1e-5
    run, longest = 0, []
    for one in worse:
        run = run + 1 if one else 0
        longest.append(run)
    assert max(longest[:-1]) <= 10
    assert model.n_iter_ == 400 or longest[-1] == 11
    assert model.best_loss_ == curve.min()


@pytest.mark.parametrize(
    ("given", "wanted", "expected"),
    [
        ("float32", None, "float32"), ("float64", None, "float64"), ("int64", None, "float64"),
        ("float64", "float32", "float32"), ("float32", numpy.float64, "float64"),
        ("float64", numpy.dtype("f4"), "float32"),
    ],
)  # fmt: skip
def test_dtype(given, wanted, expected):
    x, y = data()
    x = (10 * x).astype(given)
    model = classifier(dtype=wanted, dropout=0.2).fit(x, (y > 0) * 1)
    assert {array.dtype for array in model.coefs_ + model.intercepts_} == {numpy.dtype(expected)}
    assert model.predict_proba(x).dtype == expected
    assert model.predict_samples(x, 2).dtype == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dropout", 1.0, "dropout"), ("dropout", -0.1, "dropout"), ("dropout", "half", "dropout"),
        ("dropout", [0.5], "one for each of the 2 hidden layers"),
        ("dropout", [0.5, 1.0], "rates in"), ("dropout", [0.5, None], "rates in"),
        ("dropout", float("nan"), "dropout"), ("input_dropout", 1.5, "input_dropout"),
        ("input_dropout", [0.1], "input_dropout"), ("rows_per_mask", 0, "rows_per_mask"),
        ("rows_per_mask", "all", "rows_per_mask"), ("rows_per_mask", 2.5, "rows_per_mask"),
        ("exact_count", "yes", "exact_count"), ("max_norm", 0, "max_norm"),
        ("max_norm", "1", "max_norm"), ("dtype", "float16", "dtype"), ("dtype", int, "dtype"),
        ("dtype", numpy.dtype("i4"), "dtype"), ("solver", "lbfgs", "sklearn.neural_network"),
        ("hidden_layer_sizes", (5.5, 5), "hidden_layer_sizes"),
    ],
)  # fmt: skip
def test_wrong_parameters(name, value, message):
    x, y = data()
    for fit in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=message):
            getattr(regressor(**{name: value}), fit)(x, y)


# --- Monte Carlo dropout -------------------------------------------------------------------------


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
    numpy.testing.assert_array_equal(model.predict_samples(x, 4, random_state=1), whole[:4])
    part = model.predict_samples(x[30:50], 10, random_state=1)
    numpy.testing.assert_allclose(part, whole[:, 30:50], **close)
    monkeypatch.setattr(rows, "CHUNK", 1)
    monkeypatch.setattr(rows, "LEAST_ROWS", 7)
    sizes = [len(part) for _, part in rows.chunks(model._network, x)]
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
    with pytest.warns(UserWarning, match="every sample is the same"):
        mean, std = model.predict(x, return_std=True, n_samples=3)
    numpy.testing.assert_allclose(mean, model.predict(x))
    assert not std.any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = model.predict_samples(x, 2)
    numpy.testing.assert_allclose(samples, [model.predict(x)] * 2)


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
