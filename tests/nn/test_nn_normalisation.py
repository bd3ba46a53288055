"""Normalisation, smooth activation functions, embeddings: formulas, gradients, states."""

import math
import pickle

import numpy
import pytest
from nn_cases import differences, values

import fastdrop
from fastdrop import nn, optim

LAYERS = {
    "LayerNorm": lambda: nn.LayerNorm(5),
    "BatchNorm1d": lambda: nn.BatchNorm1d(5),
    "GELU": nn.GELU,
    "GELU, tanh": lambda: nn.GELU(approximate="tanh"),
    "SELU": nn.SELU,
    "SiLU": nn.SiLU,
    "Softmax": nn.Softmax,
    "GaussianDropout": lambda: nn.GaussianDropout(0.3, rng=1),
}


def built(name):
    layer = LAYERS[name]()
    nn.Sequential([layer], rng=1, dtype=numpy.float64)
    for number, parameter in enumerate(layer.parameters()):
        parameter.value[...] = 1 + 0.3 * values(parameter.value.shape, number)
    return layer


@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 5)])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_equal_finite_differences(name, shape):
    layer, x, weights = built(name), 2 * values(shape, 3), values(shape, 4)

    def loss():
        if hasattr(layer, "stream"):
            layer.stream.position = 0
        return float((layer.forward(x, training=True) * weights).sum())

    loss()
    given = layer.backward(weights)
    numpy.testing.assert_allclose(given, differences(loss, x), rtol=2e-6, atol=2e-8)
    for parameter in layer.parameters():
        given = parameter.full_grad()
        expected = differences(loss, parameter.value)
        numpy.testing.assert_allclose(given, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("dtype", "tolerance"), [(numpy.float32, 4e-7), (numpy.float64, 3e-15)])
def test_gelu_is_accurate(dtype, tolerance):
    x = numpy.concatenate([numpy.linspace(-40, 40, 4001), [0.0, -0.0, 1e-30, -1e-30, 1e30]])
    x = x.astype(dtype)
    right = [v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(float).tolist()]
    y = nn.GELU().forward(x)
    assert y.dtype == dtype
    # The exponential of -z*z amplifies the rounding of z far out, where the result is tiny.
    numpy.testing.assert_allclose(y, right, rtol=tolerance * 40, atol=tolerance)
    near = abs(x) < 2
    numpy.testing.assert_allclose(y[near], numpy.array(right)[near], rtol=tolerance * 8, atol=0)


@pytest.mark.parametrize("name", ["GELU", "GELU, tanh", "SiLU"])
def test_far_out_activations_are_x_or_zero(name):
    x = numpy.array([-1e30, -1e3, 1e3, 1e30, numpy.inf], numpy.float32)
    layer = LAYERS[name]()
    y = layer.forward(x, training=True)
    numpy.testing.assert_array_equal(y[2:], x[2:])
    numpy.testing.assert_array_equal(y[:2] + 0.0, [0, 0])
    grad = layer.backward(numpy.ones(5, numpy.float32))
    numpy.testing.assert_array_equal(grad[:4] + 0.0, [0, 0, 1, 1])


def test_layer_norm_is_the_formula():
    x = 3 + 2 * values((4, 3, 5))
    layer = built("LayerNorm")
    layer.epsilon = 0.1
    normal = (x - x.mean(-1, keepdims=True)) / numpy.sqrt(x.var(-1, keepdims=True) + 0.1)
    expected = normal * layer.weight + layer.bias
    numpy.testing.assert_allclose(layer.forward(x), expected, rtol=1e-12, atol=1e-12)
    numpy.testing.assert_allclose(layer.forward(x, training=True), expected, rtol=1e-12, atol=1e-12)


def test_batch_norm_moves_its_running_averages():
    layer = nn.BatchNorm1d(5, momentum=0.25)
    nn.Sequential([layer], dtype=numpy.float64)
    mean, variance = numpy.zeros(5), numpy.ones(5)
    for step in range(3):
        x = 1 + values((6, 2, 5), step)
        y = layer.forward(x, training=True)
        rows = x.reshape(-1, 5)
        normal = (rows - rows.mean(0)) / numpy.sqrt(rows.var(0) + 1e-5)
        numpy.testing.assert_allclose(y.reshape(-1, 5), normal, rtol=1e-12, atol=1e-12)
        mean += 0.25 * (rows.mean(0) - mean)
        variance += 0.25 * (rows.var(0, ddof=1) - variance)
    numpy.testing.assert_allclose(layer.running_mean, mean)
    numpy.testing.assert_allclose(layer.running_variance, variance)
    x = values((1, 5))
    expected = (x - mean) / numpy.sqrt(variance + 1e-5)
    numpy.testing.assert_allclose(layer.forward(x), expected)
    with pytest.raises(ValueError, match="more than one row in training"):
        layer.forward(x, training=True)
    assert layer.running_mean is not layer.running_mean


def test_a_network_of_them_is_saved_and_resumed(tmp_path):
    def made(seed):
        layers = [
            nn.Embedding(11, 6, word_dropout=0.3),
            nn.LayerNorm(6),
            nn.Dense(6, 8),
            nn.BatchNorm1d(8),
            nn.GELU(),
            nn.GaussianDropout(0.2),
            nn.Dense(8, 3),
        ]
        net = nn.Sequential(layers, rng=seed)
        return net, optim.Adam(net, 0.01)

    x = numpy.random.default_rng(0).integers(0, 11, (4, 5))

    def step(net, opt):
        y = net.forward(x, training=True)
        _, grad = nn.MeanSquaredError()(y, numpy.ones_like(y))
        net.backward(grad)
        opt.step()
        return y

    net, opt = made(1)
    step(net, opt)
    fastdrop.save(tmp_path / "net", net, opt)
    other, its = made(2)
    fastdrop.load(tmp_path / "net", other, its)
    for _ in range(2):
        numpy.testing.assert_array_equal(step(other, its), step(net, opt))
    numpy.testing.assert_array_equal(other.forward(x), net.forward(x))
    copy, its = pickle.loads(pickle.dumps((net, opt)))
    numpy.testing.assert_array_equal(step(copy, its), step(net, opt))


def test_embedding_drops_words_wherever_they_stand():
    layer = nn.Embedding(50, 4, word_dropout=0.4, rng=3)
    x = numpy.random.default_rng(1).integers(0, 50, (30, 20))
    y = layer.forward(x, training=True)
    mask = fastdrop.MaskStream(3).draw((50,), rate=0.4)
    kept = mask.to_array()[x]
    expected = numpy.where(kept[..., None], layer.weight[x] * numpy.float32(mask.scale), 0)
    numpy.testing.assert_array_equal(y, expected)
    numpy.testing.assert_array_equal(layer.forward(x), layer.weight[x])
    grad = values(y.shape, 2, numpy.float32)
    layer.backward(grad, input_gradient=False)
    expected = numpy.zeros((50, 4))
    numpy.add.at(expected, x[kept], grad[kept] * mask.scale)
    given = layer.parameters()[0]
    numpy.testing.assert_allclose(given.grad, expected, rtol=1e-4, atol=1e-5)
    # Words that were not there, or dropped, keep weights and moments.
    before = layer.weight.copy()
    optim.SGD(layer, 0.1, momentum=0.9, weight_decay=0.5).step()
    moved = (layer.weight != before).any(axis=1)
    numpy.testing.assert_array_equal(moved, mask.to_array() & numpy.isin(numpy.arange(50), x))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[-1]], "from 0 to 4, got numbers from -1"),
        ([[5]], "from 0 to 4"),
        ([[3.0, 10.0]], "got numbers from 3 to 10$"),
        ([[3.5, 10.0]], "got numbers from 3.5 to 10$"),
        ([[0.5]], "whole numbers"),
        ([[numpy.nan]], "from 0 to 4"),
        (3, r"must have shape \(batch"),
    ],
)
def test_what_is_no_word(x, message):
    with pytest.raises(ValueError, match=message):
        nn.Embedding(5, 2).forward(x)


def test_what_is_assigned_before_a_network_stays():
    layer = nn.LayerNorm(3)
    layer.weight = [1.0, 2.0, 1 / 3]
    nn.Sequential([layer], dtype=numpy.float64)
    numpy.testing.assert_array_equal(layer.weight, [1.0, 2.0, 1 / 3])
    assert layer.weight.dtype == numpy.float64


def test_settings_are_checked():
    for make, message in (
        (lambda: nn.LayerNorm(0), "units must be at least 1"),
        (lambda: nn.LayerNorm(3, epsilon=0), "epsilon must be greater than 0"),
        (lambda: nn.BatchNorm1d(3, momentum=0), r"momentum must be in \(0, 1\]"),
        (lambda: nn.GELU("erf"), "approximate must be"),
        (lambda: nn.Embedding(3, 2, word_dropout=2), "rate must be in"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    layer = nn.LayerNorm(3)
    with pytest.raises(ValueError, match=r"must have shape \(batch, ..., 3\), got \(2, 4\)"):
        layer.forward(numpy.ones((2, 4)))
    with pytest.raises(ValueError, match=r"weight must have shape \(3,\), got \(2,\)"):
        layer.weight = [1, 2]
    with pytest.raises(AttributeError, match="make a new layer"):
        layer.units = 4
    with pytest.raises(AttributeError, match="has no attribute 'eps'"):
        layer.eps = 1
    layer.parameters()
    with pytest.raises(ValueError, match="its parameters are float32 and the network is float64"):
        nn.Sequential([layer], dtype=numpy.float64)
