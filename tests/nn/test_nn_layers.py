"""One table of all layers, and what holds for every one of them."""

import doctest

import numpy
import pytest
from nn_cases import values

import fastdrop
from fastdrop import nn

LAYERS = {
    "Dense": lambda: nn.Dense(6, 4),
    "Dense, Glorot, no bias": lambda: nn.Dense(6, 4, initializer="glorot", bias=False),
    "ReLU": nn.ReLU,
    "LeakyReLU": nn.LeakyReLU,
    "LeakyReLU, steep": lambda: nn.LeakyReLU(2),
    "LeakyReLU, 0": lambda: nn.LeakyReLU(0),
    "Tanh": nn.Tanh,
    "Sigmoid": nn.Sigmoid,
    "Identity": nn.Identity,
    "Dropout": lambda: nn.Dropout(0.5),
    "Dropout, grouped": lambda: nn.Dropout(0.5, rows_per_mask=2),
    "Dropout, batchwise": lambda: nn.Dropout(0.5, rows_per_mask="batch"),
    "Dropout, exact": lambda: nn.Dropout(keep_prob=0.5, exact_count=True),
    "Dropout, test": lambda: nn.Dropout(0.5, scale_at="test"),
    "Dropout, shared": lambda: nn.Dropout(0.5, shared_axes=-1),
    "Dropout, 0": lambda: nn.Dropout(0),
    "Dropout, 1": lambda: nn.Dropout(1.0),
    "GaussianDropout": lambda: nn.GaussianDropout(0.5),
    "UniformDropout": lambda: nn.UniformDropout(0.5),
    "GaussianNoise": lambda: nn.GaussianNoise(0.5),
    "GELU": nn.GELU,
    "GELU, tanh": lambda: nn.GELU("tanh"),
    "SELU": nn.SELU,
    "SiLU": nn.SiLU,
    "Softmax": nn.Softmax,
    "LayerNorm": lambda: nn.LayerNorm(6),
    "BatchNorm1d": lambda: nn.BatchNorm1d(6),
    "ConcreteDropout": lambda: nn.ConcreteDropout(0.3),
    "StandoutDropout": nn.StandoutDropout,
    "StandoutDropout, learned": lambda: nn.StandoutDropout(
        0.5, 0.25, activation=nn.Tanh(), learned=True
    ),
}
ROWS = 5


def built(name):
    """The layer in a network in float64, alone: with a stream and parameters of its own."""
    layer = LAYERS[name]()
    nn.Sequential([layer], rng=4, dtype=numpy.float64)
    return layer


def network(name, dtype=numpy.float64):
    return nn.Sequential([LAYERS[name]()], rng=4, dtype=dtype)


@pytest.fixture(params=LAYERS)
def name(request):
    return request.param


@pytest.fixture(params=["layer", "network"])
def both(request, name):
    """The layer by itself, and as a network of one layer."""
    return (built if request.param == "layer" else network)(name)


def test_alone_and_in_a_network_agree(name):
    layer, net = built(name), network(name)
    x = values((ROWS, 6))
    for _ in range(2):
        y = net.forward(x, training=True)
        numpy.testing.assert_allclose(layer.forward(x, training=True), y, rtol=1e-12)
        grad = values(y.shape, 1)
        expected = net.backward(grad, input_gradient=True)
        numpy.testing.assert_allclose(layer.backward(grad), expected, rtol=1e-12)
    numpy.testing.assert_allclose(layer.forward(x), net.forward(x), rtol=1e-12)
    for mine, theirs in zip(layer.parameters(), net.parameters(), strict=True):
        numpy.testing.assert_allclose(mine.full_grad(), theirs.full_grad(), rtol=1e-12)


def test_results_are_fresh(both):
    x = values((ROWS, 6))
    for training in (False, True):
        first = both.forward(x, training=training)
        kept = first.copy()
        assert not numpy.shares_memory(first, x)
        both.forward(values((ROWS, 6), 9), training=training)
        numpy.testing.assert_array_equal(first, kept)
        first[...] = 7  # the caller's to write to
    grad = values(kept.shape, 1)
    given = grad.copy()
    gradient = both.backward(grad, input_gradient=True)
    kept = gradient.copy()
    assert not numpy.shares_memory(gradient, grad)
    both.backward(values(grad.shape, 2), input_gradient=True)
    numpy.testing.assert_array_equal(gradient, kept)
    numpy.testing.assert_array_equal(grad, given)


def test_inputs_stay_as_they_are(both):
    x = values((ROWS, 6))
    before = x.copy()
    y = both.forward(x, training=True)
    both.backward(numpy.ones(y.shape), input_gradient=True)
    both.forward(x)
    numpy.testing.assert_array_equal(x, before)


def test_backward_twice_gives_the_same(both):
    y = both.forward(values((ROWS, 6)), training=True)
    grad = values(y.shape, 1)
    first = both.backward(grad, input_gradient=True)
    numpy.testing.assert_array_equal(both.backward(grad, input_gradient=True), first)


def test_test_time_between_forward_and_backward_changes_nothing(both):
    y = both.forward(values((ROWS, 6)), training=True)
    grad = values(y.shape, 1)
    first = both.backward(grad, input_gradient=True)
    both.forward(values((2, 6), 5))
    numpy.testing.assert_array_equal(both.backward(grad, input_gradient=True), first)


def test_no_gradient_of_the_input_unless_asked(both):
    y = both.forward(values((ROWS, 6)), training=True)
    assert both.backward(numpy.ones(y.shape), input_gradient=False) is None
    default = both.backward(numpy.ones(y.shape))
    assert (default is None) == isinstance(both, nn.Sequential)


def test_backward_before_forward(both):
    message = "backward needs a forward with training=True before it"
    with pytest.raises(RuntimeError, match=message):
        both.backward(numpy.ones((ROWS, 6)))
    both.forward(values((ROWS, 6)))  # not in training
    with pytest.raises(RuntimeError, match=f"^{both.name}: {message}"):
        both.backward(numpy.ones((ROWS, 6)))


def test_a_gradient_of_another_shape(both):
    y = both.forward(values((ROWS, 6)), training=True)
    with pytest.raises(ValueError, match=rf"^{both.name}: grad must .* expected \({ROWS}, "):
        both.backward(numpy.ones((ROWS, y.shape[1] + 1)))


@pytest.mark.parametrize("layout", ["Fortran", "strided", "list", "float32", "int"])
def test_any_layout_and_type_of_input(name, layout):
    x = numpy.round(values((ROWS, 6)) * 4)
    other = {
        "Fortran": numpy.asfortranarray(x),
        "strided": numpy.repeat(x, 2, axis=1)[:, ::2],
        "list": x.tolist(),
        "float32": x.astype(numpy.float32),
        "int": x.astype(numpy.int16),
    }[layout]
    numpy.testing.assert_allclose(
        network(name).forward(other, training=True), network(name).forward(x, training=True)
    )


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_dtype_of_the_network(name, dtype):
    net = network(name, dtype)
    y = net.forward(values((ROWS, 6)), training=True)
    gradient = net.backward(numpy.ones(y.shape), input_gradient=True)
    kinds = {y.dtype, gradient.dtype, net.forward(values((ROWS, 6))).dtype}
    for parameter in net.parameters():
        kinds |= {parameter.value.dtype, parameter.grad.dtype}
    assert kinds == {numpy.dtype(dtype)}


def test_parameters_are_the_same_objects(both):
    first = both.parameters()
    y = both.forward(values((ROWS, 6)), training=True)
    both.backward(numpy.ones(y.shape))
    for mine, again in zip(first, both.parameters(), strict=True):
        assert mine is again
        assert mine.full_grad().shape == mine.value.shape


def test_representation_makes_the_layer_again(name):
    layer = LAYERS[name]()
    again = eval(repr(layer), vars(nn))
    assert repr(again) == repr(layer)


def test_empty_batch(both):
    y = both.forward(numpy.zeros((0, 6)), training=True)
    assert y.shape[0] == 0
    assert both.backward(y, input_gradient=True).shape == (0, 6)


def test_nan_and_infinity_pass(name):
    if name == "Dropout, 1":
        assert (network(name).forward(numpy.full((ROWS, 6), numpy.nan), training=True) == 0).all()
        return
    y = network(name).forward(numpy.full((ROWS, 6), numpy.nan), training=True)
    assert numpy.isnan(y).any()
    assert not numpy.isfinite(y).all()


@pytest.mark.parametrize(
    ("initializer", "variance"), [("he", 2 / 300), ("glorot", 2 / (300 + 200))]
)
def test_initial_weights(initializer, variance):
    net = nn.Sequential([nn.Dense(300, 200, initializer)], rng=0)
    weight = net.layers[0].weight
    # The mean of 60000 numbers, and their variance, within 5 standard errors.
    assert abs(weight.mean()) < 5 * (variance / weight.size) ** 0.5
    assert abs(weight.var() / variance - 1) < 5 * (2 / weight.size) ** 0.5
    assert (net.layers[0].bias == 0).all()
    again = nn.Sequential([nn.Dense(300, 200, initializer)], rng=0)
    numpy.testing.assert_array_equal(again.layers[0].weight, weight)
    other = nn.Sequential([nn.Dense(300, 200, initializer)], rng=1)
    assert (other.layers[0].weight != weight).any()


@pytest.mark.parametrize("rng", [None, fastdrop.MaskStream(0), numpy.random.default_rng(0)])
def test_networks_of_one_source_differ(rng):
    first, second = (
        nn.Sequential([nn.Dense(6, 4), *dropout], rng=rng) for dropout in ([], [nn.Dropout(0.5)])
    )
    assert (first.layers[0].weight != second.layers[0].weight).any()


def test_dropout_changes_no_initial_weights():
    plain = nn.Sequential([nn.Dense(6, 5), nn.Dense(5, 4)], rng=0)
    dropped = nn.Sequential([nn.Dense(6, 5), nn.ReLU(), nn.Dropout(0.5), nn.Dense(5, 4)], rng=0)
    for mine, theirs in zip(plain.parameters(), dropped.parameters(), strict=True):
        numpy.testing.assert_array_equal(mine.value, theirs.value)


def test_names():
    layers = [nn.Dense(6, 5), nn.ReLU(), nn.Dropout(0.5), nn.Dense(5, 4), nn.ReLU()]
    net = nn.Sequential(layers, rng=0)
    assert [layer.name for layer in net.layers] == [
        "dense0",
        "relu0",
        "dropout0",
        "dense1",
        "relu1",
    ]
    assert [parameter.name for parameter in net.parameters()] == [
        "dense0.weight", "dense0.bias", "dense1.weight", "dense1.bias",
    ]  # fmt: skip
    assert net.layers[0].grad_weight is None


def test_package_example():
    assert doctest.testmod(nn).failed == 0
