"""Rates that are learned: formulas, gradients, statistics, and that they learn."""

import pickle

import numpy
import pytest
from nn_cases import STEP, differences, values

import fastdrop
from fastdrop import MaskStream, nn, optim

DTYPES = (numpy.float16, numpy.float32, numpy.float64)


def sigmoid(x):
    return 1 / (1 + numpy.exp(-x))


def logit(p):
    return numpy.log(p / (1 - p))


@pytest.mark.parametrize("dtype", DTYPES)
def test_concrete_dropout_is_the_formula(dtype, each_backend):
    x = values((5, 40), 1).astype(dtype)
    y, noise = fastdrop.concrete_dropout(x, 0.3, temperature=0.2, rng=MaskStream(4))
    u = (noise.to_array(numpy.float64) + 1) / 2
    kept = 1 - sigmoid((logit(0.3) + logit(u)) / 0.2)
    assert y.dtype == dtype
    bound = 40 * numpy.finfo(numpy.float32 if dtype != numpy.float16 else dtype).eps
    numpy.testing.assert_allclose(y, x.astype(float) * kept / 0.7, rtol=bound, atol=bound)
    again = fastdrop.concrete_dropout(
        x, 0.3, temperature=0.2, noise=pickle.loads(pickle.dumps(noise))
    )
    numpy.testing.assert_array_equal(again[0], y)
    assert fastdrop.concrete_dropout(x, 0.3, training=False)[0] is x


def test_arrays_without_axes_stay_arrays():
    y, noise = fastdrop.concrete_dropout(2.0, 0.3, rng=1)
    grad, _ = fastdrop.concrete_dropout_backward(1.0, 2.0, 0.3, noise)
    results = [y, grad, fastdrop.standout(2.0, 0.5, training=False)[0]]
    y, mask = fastdrop.standout(2.0, 0.5, rng=1)
    results += [y, *fastdrop.standout_backward(1.0, 2.0, 0.5, mask)[:2]]
    for result in results:
        assert type(result) is numpy.ndarray
        assert result.shape == ()


@pytest.mark.parametrize("logit", [50.0, -50.0, 800.0, -800.0])
def test_a_rate_that_was_learned_far_out_is_still_one(logit):
    dense, layer = nn.Dense(5, 3), nn.ConcreteDropout(0.3)
    net = nn.Sequential([layer, dense], rng=1)
    layer.parameters()[0].value[0] = logit
    assert 0 < layer.rate < 1
    assert layer.rate == pytest.approx(float(logit > 0))
    net.forward(values((6, 5)), training=True)
    net.backward(values((6, 3), 1))
    assert numpy.isfinite(layer.regularise(dense, dropout=0.2, weight=0.01))


def test_concrete_dropout_keeps_mostly_all_or_nothing():
    y, _ = fastdrop.concrete_dropout(numpy.ones(200_000), 0.2, temperature=0.02, rng=1)
    kept = y * 0.8
    assert ((kept < 0.01) | (kept > 0.99)).mean() > 0.95
    assert abs((kept > 0.5).mean() - 0.8) < 6 * (0.16 / y.size) ** 0.5


@pytest.mark.parametrize("axes", [(), (0,)])
def test_the_gradients_of_concrete_dropout_equal_finite_differences(axes):
    x, grad = values((4, 6), 1), values((4, 6), 2)
    rate, temperature = 0.3, 0.4
    _, noise = fastdrop.concrete_dropout(x, rate, temperature=temperature, rng=3, shared_axes=axes)

    def loss(eta=None):
        p = rate if eta is None else sigmoid(eta)
        y, _ = fastdrop.concrete_dropout(x, p, temperature=temperature, noise=noise)
        return float((y * grad).sum())

    given, of_logit = fastdrop.concrete_dropout_backward(
        grad, x, rate, noise, temperature=temperature
    )
    numpy.testing.assert_allclose(given, differences(loss, x), rtol=1e-6, atol=1e-8)
    eta = logit(rate)
    expected = (loss(eta + STEP) - loss(eta - STEP)) / (2 * STEP)
    assert of_logit == pytest.approx(expected, rel=1e-6)


def test_the_regulariser_and_its_gradients():
    dense, layer = nn.Dense(5, 3), nn.ConcreteDropout(0.3, temperature=0.5)
    net = nn.Sequential([layer, dense], rng=1, dtype=numpy.float64)
    x, grad = values((6, 5)), values((6, 3), 1)

    def value():
        p = layer.rate
        entropy = p * numpy.log(p) + (1 - p) * numpy.log(1 - p)
        return 0.01 * (dense.weight**2).sum() / (1 - p) + 0.2 * 5 * entropy

    def loss():
        layer.stream.position = 0
        return float((net.forward(x, training=True) * grad).sum()) + value()

    loss()
    with pytest.raises(RuntimeError, match="after a backward pass"):
        nn.ConcreteDropout().regularise(dense, dropout=1.0)
    net.backward(grad)
    assert layer.regularise(dense, dropout=0.2, weight=0.01) == pytest.approx(value())
    for parameter in net.parameters():
        expected = differences(loss, parameter.value)
        numpy.testing.assert_allclose(parameter.full_grad(), expected, rtol=1e-5, atol=1e-7)


def test_the_rate_falls_where_every_unit_is_needed_and_rises_where_none_is():
    x = values((64, 8), dtype=numpy.float32)
    for target, low, high in ((x @ numpy.ones((8, 1), "f"), 0.0, 0.1), (0 * x[:, :1], 0.4, 0.6)):
        dense, layer = nn.Dense(8, 1, "zeros"), nn.ConcreteDropout(0.2)
        net = nn.Sequential([layer, dense], rng=0)
        opt = optim.Adam(net, 0.05)
        for _ in range(150):
            _, grad = nn.MeanSquaredError()(net.forward(x, training=True), target)
            net.backward(grad)
            layer.regularise(dense, dropout=0.02)
            opt.step()
        assert low < layer.rate < high


@pytest.mark.parametrize("dtype", DTYPES)
def test_standout_is_the_formula(dtype, each_backend):
    x, a = values((5, 40), 1).astype(dtype), values((5, 40), 2).astype(dtype)
    numbers = {"alpha": 1.5, "beta": -0.5}
    keep = sigmoid(1.5 * a.astype(float) - 0.5)
    y, mask = fastdrop.standout(x, a, **numbers, rng=MaskStream(4))
    assert mask.scale == 1
    numpy.testing.assert_array_equal(y, numpy.where(mask.to_array(), x, 0))
    assert y.dtype == dtype
    evaluated = fastdrop.standout(x, a, **numbers, training=False)[0]
    bound = 8 * numpy.finfo(dtype).eps
    numpy.testing.assert_allclose(evaluated, x * keep, rtol=bound, atol=bound)
    again = fastdrop.standout(x, a, **numbers, mask=pickle.loads(pickle.dumps(mask)))
    numpy.testing.assert_array_equal(again[0], y)


def test_standout_keeps_with_its_probabilities():
    a = numpy.repeat([-2.0, 0.0, 1.0], 100_000)
    _, mask = fastdrop.standout(numpy.ones(a.size), a, beta=0.5, rng=1)
    shares = mask.to_array(float).reshape(3, -1).mean(axis=1)
    keep = sigmoid(numpy.array([-1.5, 0.5, 1.5]))
    assert (abs(shares - keep) < 6 * (keep * (1 - keep) / 100_000) ** 0.5).all()


def test_the_gradients_of_standout_are_those_of_its_surrogate():
    """Of ``(m + keep(a) - keep(a0)) * x``, whose derivatives are the straight-through estimate."""
    x, a, grad = values((4, 6), 1), values((4, 6), 2), values((4, 6), 3)
    numbers = numpy.array([1.3, -0.4])
    _, mask = fastdrop.standout(x, a, alpha=1.3, beta=-0.4, rng=5)
    base = mask.to_array(float) - sigmoid(1.3 * a - 0.4)

    def loss():
        return float(((base + sigmoid(numbers[0] * a + numbers[1])) * x * grad).sum())

    given = fastdrop.standout_backward(grad, x, a, mask, alpha=1.3, beta=-0.4)
    numpy.testing.assert_allclose(given[0], differences(loss, x), rtol=1e-6, atol=1e-8)
    numpy.testing.assert_allclose(given[1], differences(loss, a), rtol=1e-6, atol=1e-8)
    numpy.testing.assert_allclose(given[2:], differences(loss, numbers), rtol=1e-6, atol=1e-8)


def test_the_standout_layer_is_the_function():
    for learned in (False, True):
        layer = nn.StandoutDropout(0.7, 0.2, activation=nn.Tanh(), learned=learned, rng=3)
        nn.Sequential([layer], dtype=numpy.float64)
        a, grad = values((4, 6), 2), values((4, 6), 3)
        numbers = {"alpha": 0.7, "beta": 0.2}
        expected, mask = fastdrop.standout(numpy.tanh(a), a, **numbers, rng=MaskStream(3))
        numpy.testing.assert_allclose(layer.forward(a, training=True), expected, rtol=1e-12)
        given = fastdrop.standout_backward(grad, numpy.tanh(a), a, mask, **numbers)
        through = given[0] * (1 - numpy.tanh(a) ** 2)
        numpy.testing.assert_allclose(
            layer.backward(grad), through + given[1] if learned else through, rtol=1e-10
        )
        found = [float(parameter.grad[0]) for parameter in layer.parameters()]
        assert found == pytest.approx(list(given[2:]) if learned else [])
        expected = fastdrop.standout(numpy.tanh(a), a, **numbers, training=False)[0]
        numpy.testing.assert_allclose(layer.forward(a), expected, rtol=1e-12)


def test_they_are_saved_and_resumed(tmp_path):
    def made(seed):
        layers = [
            nn.ConcreteDropout(0.2),
            nn.Dense(6, 8),
            nn.StandoutDropout(learned=True),
            nn.Dense(8, 2),
        ]
        net = nn.Sequential(layers, rng=seed)
        return net, optim.Adam(net, 0.01)

    def step(net, opt):
        y = net.forward(values((4, 6)), training=True)
        net.backward(numpy.ones_like(y))
        net.layers[0].regularise(net.layers[1], dropout=0.1, weight=0.1)
        opt.step()
        return y

    net, opt = made(1)
    for _ in range(3):
        step(net, opt)
    fastdrop.save(tmp_path / "net", net, opt)
    other, its = made(2)
    fastdrop.load(tmp_path / "net", other, its, strict=True)
    assert other.layers[0].rate == net.layers[0].rate != 0.2
    for _ in range(2):
        numpy.testing.assert_array_equal(step(other, its), step(net, opt))
    copy, its = pickle.loads(pickle.dumps((net, opt)))
    numpy.testing.assert_array_equal(step(copy, its), step(net, opt))


def test_refusals():
    x, stream = numpy.ones((2, 3)), MaskStream(0)
    for rate in (0.0, 1.0, -0.1, numpy.nan):
        with pytest.raises(ValueError, match=r"rate must be in \(0, 1\)"):
            fastdrop.concrete_dropout(x, rate, rng=stream)
        with pytest.raises(ValueError, match=r"rate must be in \(0, 1\)"):
            nn.ConcreteDropout(rate)
    with pytest.raises(ValueError, match="temperature must be greater than 0"):
        fastdrop.concrete_dropout(x, 0.5, temperature=0, rng=stream)
    with pytest.raises(TypeError, match="float16, float32 or float64"):
        fastdrop.concrete_dropout(x.astype(int), 0.5, rng=stream)
    with pytest.raises(ValueError, match="a must have the shape of x"):
        fastdrop.standout(x, x[:1], rng=stream)
    with pytest.raises(ValueError, match="alpha must be finite"):
        fastdrop.standout(x, x, alpha=numpy.inf, rng=stream)
    with pytest.raises(TypeError, match="activation must be an activation function"):
        nn.StandoutDropout(activation=numpy.tanh)
    with pytest.raises(TypeError, match=r"dense must be an nn\.Dense"):
        nn.ConcreteDropout().regularise(None, dropout=1.0)
    assert stream.position == 0
    _, noise = fastdrop.concrete_dropout(x, 0.5, rng=stream)
    with pytest.raises(TypeError, match="give a noise or rng, not both"):
        fastdrop.concrete_dropout(x, 0.5, rng=stream, noise=noise)
    with pytest.raises(ValueError, match="does not fit"):
        fastdrop.concrete_dropout(x.T, 0.5, noise=noise)
    _, mask = fastdrop.standout(x, x, rng=stream)
    with pytest.raises(ValueError, match="does not fit"):
        fastdrop.standout(x.T, x.T, mask=mask)
    assert stream.position == 2
