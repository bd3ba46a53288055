"""`dropout_kind`: Gaussian and alpha dropout in the estimators."""

import pickle

import numpy
import pytest

pytest.importorskip("sklearn", reason="the estimators need the extra 'sklearn'")

from estimator_cases import classifier, data, regressor
from sklearn.base import clone

import fastdrop
from fastdrop import nn, schedules
from fastdrop.estimators import examples
from fastdrop.estimators.network import dropout_layers

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

KINDS = {
    "gaussian": ({"dropout_kind": "gaussian"}, nn.ReLU, nn.GaussianDropout),
    "alpha": ({"dropout_kind": "alpha", "activation": "selu"}, nn.SELU, nn.AlphaDropout),
}
FUNCTIONS = {"gaussian": fastdrop.gaussian_dropout, "alpha": fastdrop.alpha_dropout}


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_is_that_of_the_layers(kind):
    """One epoch, written out with `fastdrop.nn`."""
    options, activation, dropout = KINDS[kind]
    x, y = data(n=32, outputs=2)
    model = regressor(
        **options,
        dropout=0.4,
        input_dropout=0.2,
        alpha=0,
        solver="sgd",
        batch_size=8,
        shuffle=False,
    )
    model.partial_fit(x, y)
    layers = [dropout(0.2)]
    for inside, outside in ((5, 24), (24, 16)):
        layers += [nn.Dense(inside, outside), activation(), dropout(0.4)]
    words = numpy.random.RandomState(0).randint(0, 2**32, 4, dtype=numpy.uint32)
    net = nn.Sequential([*layers, nn.Dense(16, 2)], rng=[int(w) for w in words], dtype=x.dtype)
    still = {"solver": "sgd", "learning_rate_init": 1e-300, "activation": model.activation}
    begun = regressor(max_iter=1, **still).fit(x, y)
    dense = [layer for layer in net.layers if isinstance(layer, nn.Dense)]
    for layer, weight, bias in zip(dense, begun.coefs_, begun.intercepts_, strict=True):
        layer.weight, layer.bias = weight, bias
    opt = fastdrop.optim.SGD(net, 0.001, momentum=0.9, nesterov=True)
    for first in range(0, 32, 8):
        part = slice(first, first + 8)
        prediction = net.forward(x[part], training=True)
        net.backward((prediction - y[part]) / 8)
        opt.step()
    for layer, weight, bias in zip(dense, model.coefs_, model.intercepts_, strict=True):
        numpy.testing.assert_allclose(weight, layer.weight, rtol=1e-7, atol=1e-10)
        numpy.testing.assert_allclose(bias, layer.bias, rtol=1e-7, atol=1e-10)
    numpy.testing.assert_allclose(model.predict(x), net.forward(x), rtol=1e-6)


def test_selu_weights_begin_as_self_normalising_networks_do():
    x, y = numpy.random.default_rng(0).standard_normal((400, 100)), numpy.zeros(400)
    still = {"solver": "sgd", "learning_rate_init": 1e-300, "max_iter": 1}
    model = regressor(hidden_layer_sizes=(500, 300), activation="selu", **still).fit(x, y)
    for weight, bias in zip(model.coefs_[:2], model.intercepts_, strict=False):
        assert weight.mean() == pytest.approx(0, abs=0.01)
        assert weight.var() * len(weight) == pytest.approx(1, abs=0.03)
        assert abs(bias).max() < 1e-290  # moved by one step of 1e-300
    for training in (False, True):  # mean and variance go through the layers, dropout or not
        model = regressor(
            hidden_layer_sizes=(500, 300), activation="selu", dropout=0.2, dropout_kind="alpha",
            **still,
        ).fit(x, y)  # fmt: skip
        h = x
        for layer in model._network.layers[:-1]:
            h = layer.forward(h, training=training)
        assert h.mean() == pytest.approx(0, abs=0.1)
        assert h.var() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_a_sample_is_one_noise_for_all_rows(kind, dtype, monkeypatch):
    options, _, dropout = KINDS[kind]
    x, y = data(outputs=2, dtype=dtype)
    model = regressor(**options, dropout=[0.0, 0.3], input_dropout=0.1).fit(x, y)
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == numpy.float32 else {"rtol": 1e-9}
    samples = model.predict_samples(x, 6, random_state=9)
    words = numpy.random.RandomState(9).randint(0, 2**32, 4, dtype=numpy.uint32)
    streams = fastdrop.MaskStream([int(word) for word in words]).spawn(2)
    for expected in samples:
        h, following = x, iter(streams)
        for layer in model._network.layers:
            if isinstance(layer, dropout):
                h, _ = FUNCTIONS[kind](h, layer.rate, rng=next(following), shared_axes=0)
            else:
                h = layer.forward(h)
        numpy.testing.assert_allclose(h, expected, **close)
    numpy.testing.assert_allclose(model.predict_samples(x[7:9], 4, 9), samples[:4, 7:9], **close)
    monkeypatch.setattr(examples, "CHUNK", 1)
    monkeypatch.setattr(examples, "LEAST_ROWS", 7)
    numpy.testing.assert_allclose(model.predict_samples(x, 6, 9), samples, **close)
    mean, std = model.predict(x, return_std=True, n_samples=6, random_state=9)
    numpy.testing.assert_allclose(mean, samples.mean(axis=0), **close)
    numpy.testing.assert_allclose(std, samples.std(axis=0), **close)
    assert std.min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_pickles_and_warm_starts_go_on(kind):
    options, _, dropout = KINDS[kind]
    x, y = data()
    labels = y > 0
    model, other = (classifier(**options, dropout=0.2) for _ in range(2))
    for number in range(3):
        model.partial_fit(x, labels, classes=[False, True])
        other.partial_fit(x, labels, classes=[False, True])
        other = pickle.loads(pickle.dumps(other))
        assert [one.stream.position for one in dropout_layers(other._network)] == [number + 1] * 2
    assert all(isinstance(one, dropout) for one in dropout_layers(other._network))
    for one, two in zip(model.coefs_, other.coefs_, strict=True):
        numpy.testing.assert_array_equal(one, two)
    assert clone(model).dropout_kind == kind
    model.set_params(dropout_kind="bernoulli", rows_per_mask=4).partial_fit(x, labels)
    kinds = {(type(one), one.stream.position) for one in dropout_layers(model._network)}
    assert kinds == {(nn.Dropout, 4)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_moves_the_rate(kind):
    x, y = data()
    ramp = schedules.Linear(0.0, 0.4, 8)
    model = regressor(**KINDS[kind][0], dropout=ramp, max_iter=5).fit(x, y)
    assert [one.rate for one in dropout_layers(model._network)] == pytest.approx([ramp(4)] * 2)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns(kind):
    x, y = data(n=300)
    model = regressor(**KINDS[kind][0], dropout=0.1, max_iter=150, learning_rate_init=0.01)
    assert model.fit(x, y).score(x, y) > 0.8


GAUSSIAN = {"dropout_kind": "gaussian", "dropout": 0.2}
ALPHA = {"dropout_kind": "alpha", "dropout": 0.2, "activation": "selu"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout_kind": "normal"}, "'dropout_kind' parameter of MLPRegressor must be a str"),
        (ALPHA | {"activation": "relu"}, "needs activation='selu'.*got activation='relu'"),
        (GAUSSIAN | {"rows_per_mask": "batch"}, "needs rows_per_mask=1.*rows_per_mask='batch'"),
        (ALPHA | {"rows_per_mask": 4}, "needs rows_per_mask=1.*rows_per_mask=4"),
        (GAUSSIAN | {"exact_count": True}, "exact_count=False.*exact_count=True"),
        (GAUSSIAN | {"dropout": 1.0}, "needs rates below 1.*dropout=1"),
        (ALPHA | {"input_dropout": 1}, "needs rates below 1.*input_dropout=1"),
        (GAUSSIAN | {"solver": "lbfgs"}, "solver='lbfgs' needs dropout=0"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(options, message):
    x, y = data()
    with pytest.raises(ValueError, match=message):
        regressor(**options).fit(x, y)
