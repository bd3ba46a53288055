"""Fitting with dropout, max-norm and a dtype: what scikit-learn's perceptrons do not have."""

import warnings

import numpy
import pytest

pytest.importorskip("sklearn", reason="the estimators need the extra 'sklearn'")

from estimator_cases import classifier, data, dropouts, regressor
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning

import fastdrop
from fastdrop import MLPClassifier, nn
from fastdrop.estimators import training
from fastdrop.estimators.examples import Examples

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

MASKS = {"per-sample": 1, "grouped": 4, "batchwise": "batch"}


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
    for dropout in (0.0, 0.5):
        model.set_params(dropout=dropout).fit(x, y)
    assert {layer.stream.position for layer in dropouts(model)} == {6}
    model.set_params(dropout=[0.2, 0.0], rows_per_mask="batch").fit(x, y)
    assert [layer.rate for layer in dropouts(model)] == pytest.approx([0.2])
    assert {layer.stream.position for layer in dropouts(model)} == {8}


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


def looks(model, x, y):
    """Fit, and return the losses of the network without masks that the rule saw, and its window."""
    seen = []
    original = training.TrendRule.converged

    def converged(rule):
        result = original(rule)
        seen[:] = [rule._losses, rule._window, rule._between]
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.TrendRule, "converged", converged)
        model.fit(x, y)
    return seen


@pytest.mark.parametrize("batch", [40, 5])
def test_the_mean_loss_without_masks_has_to_fall(batch):
    x, y = data(n=40)
    options = {"hidden_layer_sizes": 64, "dropout": 0.5, "max_iter": 4000, "batch_size": batch}
    model = regressor(**options, n_iter_no_change=20, tol=1e-3, learning_rate_init=0.01)
    losses, window, between = looks(model, x, y)
    steps = 40 // batch
    assert between == (10 if steps == 1 else 2)
    assert window * between >= max(20, 300 / steps)
    assert len(losses) == model.n_iter_ // between
    assert model.n_iter_ < 4000
    means = numpy.convolve(losses, numpy.ones(window) / window, "valid")
    lowest = numpy.minimum.accumulate(means)
    falls = lowest[: -2 * window] - lowest[2 * window :]
    least = 1e-3 / 2 * 2 * window * between
    assert (falls[:-1] > least).all()
    assert falls[-1] <= least
    # What was looked at last is the network that is left.
    if model.n_iter_ % between == 0:
        assert losses[-1] == pytest.approx(numpy.square(model.predict(x) - y).mean() / 2)


def test_few_steps_an_epoch_are_trained_to_the_end():
    """Raw iris, one step an epoch: accuracies of 0.3 to 0.83 are where ten epochs lead."""
    x, y = load_iris(return_X_y=True)
    for seed in range(3):
        model = MLPClassifier((8,), dropout=0.1, max_iter=1500, random_state=seed).fit(x, y)
        assert model.score(x, y) > 0.94


def test_the_rule_looks_at_a_part_of_many_rows():
    x, y = data(n=1000)
    weights = numpy.ones(1000)
    weights[::2] = 0
    for given, expected in ((None, 200), (weights, 200)):
        part = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Examples, "loss", lambda self, model, part=part: part.append(self) or 1.0)
            regressor(dropout=0.5, max_iter=2).fit(x, y, sample_weight=given)
        assert len(part[0]) == expected
        assert len(numpy.unique(part[0].places)) == expected
        if given is not None:
            assert weights[part[0].places].all()


def test_a_rate_of_one_leaves_the_output_bias():
    x, y = data()
    with pytest.warns(UserWarning, match="dropout=1 drops everything"):
        model = regressor(dropout=1.0, max_iter=300, learning_rate_init=0.05).fit(x, y + 3)
    assert len(set(model.predict(x))) == 1
    assert model.predict(x)[0] == pytest.approx((y + 3).mean(), abs=0.05)
    assert set(model.predict_samples(x, 3).ravel()) == set(model.predict(x))
    with pytest.warns(UserWarning, match="input_dropout=1 drops"):
        model = classifier(input_dropout=1.0).fit(x, (y > 0) * 1)
    assert len(numpy.unique(model.predict_proba(x), axis=0)) == 1


def test_a_batchwise_fit_that_ends_far_from_its_data_says_so():
    x, y = load_digits(return_X_y=True)
    options = {"hidden_layer_sizes": 100, "dropout": 0.5, "rows_per_mask": "batch"}
    options |= {"solver": "sgd", "batch_size": 50, "max_iter": 20, "random_state": 0}
    with pytest.warns(UserWarning, match="ends far from its training data.*rows_per_mask=6"):
        MLPClassifier(**options, learning_rate_init=0.3).fit(x / 16, y)
    with pytest.warns(UserWarning, match="the network says the same of every row.*rows_per_mask=6"):
        MLPClassifier(**options, learning_rate_init=10.0).fit(x / 16, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        MLPClassifier(**options, learning_rate_init=0.02).fit(x / 16, y)


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
        ("dropout", 1.01, "dropout"), ("dropout", -0.1, "dropout"), ("dropout", "half", "dropout"),
        ("dropout", [0.5], "one for each of the 2 hidden layers"),
        ("dropout", [0.5, 1.5], "rates in"), ("dropout", [0.5, None], "rates in"),
        ("dropout", float("nan"), "dropout"), ("input_dropout", 1.5, "input_dropout"),
        ("input_dropout", [0.1], "input_dropout"), ("rows_per_mask", 0, "rows_per_mask"),
        ("rows_per_mask", "all", "rows_per_mask"), ("rows_per_mask", 2.5, "rows_per_mask"),
        ("exact_count", "yes", "exact_count"), ("max_norm", 0, "max_norm"),
        ("max_norm", "1", "max_norm"), ("dtype", "float16", "dtype"), ("dtype", int, "dtype"),
        ("dtype", numpy.dtype("i4"), "dtype"), ("scoring", "beauty", "scoring"),
        ("scoring", "r2", "early_stopping=True"), ("tau", 1.0, "tau"),
        ("hidden_layer_sizes", (5.5, 5), "hidden_layer_sizes"),
    ],
)  # fmt: skip
def test_wrong_parameters(name, value, message):
    x, y = data()
    for fit in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=message):
            getattr(regressor(**{name: value}), fit)(x, y)
