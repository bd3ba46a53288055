"""What is set on a layer or network later is checked and takes effect, or cannot be set."""

import math

import numpy
import pytest
from nn_cases import Reference, assert_step_agrees, randomise, values

import fastdrop
from fastdrop import nn


def network(dtype=numpy.float64, **options):
    dropout = nn.Dropout(0.5, **options)
    layers = [nn.Dense(6, 40), nn.LeakyReLU(0.1), dropout, nn.Dense(40, 3)]
    net = nn.Sequential(layers, rng=3, dtype=dtype)
    randomise(net)
    return net


CHANGES = [
    {"rate": 0.25},
    {"keep_prob": 0.9},
    {"rate": 0},
    {"rate": 1.0},
    {"rows_per_mask": "batch"},
    {"rows_per_mask": 4},
    {"exact_count": True},
    {"shared_axes": -1},
    {"scale_at": "test"},
    {"rate": 0.75, "rows_per_mask": "batch", "exact_count": True, "scale_at": "test"},
]


@pytest.mark.parametrize("rows_per_mask", [1, 8, "batch"])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_settings_of_a_dropout_take_effect(changes, rows_per_mask):
    """In a network that has run already: forward, backward, scale and test time."""
    net = network(rows_per_mask=rows_per_mask)
    x = values((22, 6))
    assert_step_agrees(net, 3, x, 0, 1e-11)
    dropout = net.layers[2]
    for name, value in changes.items():
        setattr(dropout, name, value)
    assert_step_agrees(net, 3, x, 1, 1e-11)
    arguments = {"keep_prob": 0.5, "rows_per_mask": rows_per_mask} | changes
    if "rate" in changes:
        del arguments["keep_prob"]
    same = network()
    fresh = nn.Dropout(**arguments)
    other = nn.Sequential([*same.layers[:2], fresh, same.layers[3]], dtype=numpy.float64)
    numpy.testing.assert_array_equal(net.forward(x), other.forward(x))
    assert dropout.settings() == fresh.settings()
    assert dropout.rate == 1 - dropout.keep_prob
    assert repr(dropout) == repr(fresh)
    alone, again = nn.Dropout(0.5, rng=1), nn.Dropout(**arguments, rng=1)
    ones = numpy.ones((4, 8))
    alone.forward(ones, training=True)
    again.stream.position = 1
    alone.rows_per_mask = rows_per_mask
    for name, value in changes.items():
        setattr(alone, name, value)
    for training in (True, False):
        numpy.testing.assert_array_equal(
            alone.forward(ones, training=training), again.forward(ones, training=training)
        )


def test_the_mean_of_a_rate_that_was_set():
    net = nn.Sequential([nn.Dropout(0.5)], rng=0)
    net.forward(numpy.ones((2, 10000)), training=True)
    net.layers[0].keep_prob = 0.9
    y = net.forward(numpy.ones((2, 10000)), training=True)
    assert abs(y.mean() - 1) < 5 * math.sqrt(0.1 / 0.9 / y.size)
    assert set(numpy.unique(y)) == {0, numpy.float32(1 / 0.9)}


def test_a_slope_that_is_set():
    net = network(rows_per_mask="batch")
    net.forward(values((22, 6)), training=True)
    net.layers[1].negative_slope = 0.7
    assert_step_agrees(net, 3, values((22, 6)), 1, 1e-11)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("rate", 1.5, ValueError, r"rate must be in \[0, 1\], got 1.5"),
        ("rate", math.nan, ValueError, "rate must be .* got nan"),
        ("rate", None, TypeError, "rate must be a real number, got None"),
        ("keep_prob", -0.1, ValueError, "keep_prob must be .* got -0.1"),
        ("keep_prob", "0.5", TypeError, "keep_prob must be a real number, got '0.5'"),
        ("keep_prob", None, TypeError, "keep_prob must be a real number, got None"),
        ("rows_per_mask", 0, ValueError, "rows_per_mask must be at least 1, got 0"),
        ("rows_per_mask", "all", ValueError, "rows_per_mask must be .* got 'all'"),
        ("exact_count", "yes", TypeError, "exact_count must be True or False, got 'yes'"),
        ("shared_axes", 0.5, TypeError, "shared_axes must be an int"),
        ("scale_at", "never", ValueError, 'scale_at must be "train" or "test", got \'never\''),
        ("stream", 0, TypeError, "stream must be a fastdrop.MaskStream, got int"),
        ("name", "x", AttributeError, "name of Dropout cannot be set: the network"),
        ("p", 0.1, AttributeError, "Dropout has no attribute 'p', nothing was set; it has: "),
        ("training", False, AttributeError, "Dropout has no attribute 'training'"),
    ],
)
def test_settings_of_a_dropout_are_checked(name, value, error, message):
    net = network()
    dropout = net.layers[2]
    before = dropout.settings()
    with pytest.raises(error, match=message):
        setattr(dropout, name, value)
    assert dropout.settings() == before
    assert_step_agrees(net, 3, values((5, 6)), 0, 1e-11)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.Dense(2, 3), "units_in"),
        (nn.Dense(2, 3), "units_out"),
        (nn.Dense(2, 3), "initializer"),
        (nn.Dense(2, 3), "grad_weight"),
        (nn.Dense(2, 3), "grad_bias"),
        (nn.Dense(2, 3), "name"),
        (nn.ReLU(), "name"),
        (nn.Sequential([nn.ReLU()]), "layers"),
        (nn.Sequential([nn.ReLU()]), "dtype"),
        (nn.Sequential([nn.ReLU()]), "name"),
        (nn.Dense(2, 3).parameters()[0], "name"),
    ],
)
def test_what_cannot_be_set(layer, name):
    before = getattr(layer, name)
    message = f"^{name} of {type(layer).__name__} cannot be set: [a-z]"
    with pytest.raises(AttributeError, match=message):
        setattr(layer, name, before)
    assert getattr(layer, name) == before


@pytest.mark.parametrize(
    "layer",
    [nn.Dense(2, 3), nn.ReLU(), nn.LeakyReLU(), nn.Tanh(), nn.Sigmoid(), nn.Identity(),
     nn.Sequential([nn.ReLU()])],
)  # fmt: skip
def test_what_there_is_not_cannot_be_set(layer):
    with pytest.raises(
        AttributeError, match=rf"^{type(layer).__name__} has no attribute 'weights'"
    ):
        layer.weights = numpy.ones((2, 3))
    assert not hasattr(layer, "weights")

    class Own(type(layer)):
        pass

    if not isinstance(layer, nn.Dense | nn.Sequential):
        Own().weights = 1  # a class of one's own may keep what it likes


def test_the_layers_of_a_network_cannot_be_changed():
    net = network()
    layers = net.layers
    message = r"^the layers of a network cannot be changed: make a new one .* keep their weights"
    with pytest.raises(AttributeError, match=message):
        net.layers[1] = nn.Tanh()
    with pytest.raises(AttributeError, match=message):
        del net.layers[1]
    for change in (
        lambda: net.layers.pop(),
        lambda: net.layers.append(nn.Tanh()),
        lambda: net.layers.insert(0, nn.Tanh()),
        lambda: net.layers.extend([nn.Tanh()]),
        lambda: net.layers.remove(net.layers[0]),
        lambda: net.layers.clear(),
        lambda: net.layers.reverse(),
        lambda: net.layers.sort(),
    ):
        with pytest.raises(AttributeError, match=message):
            change()
    with pytest.raises(AttributeError, match=message):
        net.layers += [nn.Tanh()]
    assert net.layers is layers
    assert len(layers) == 4
    changed = nn.Sequential([layers[0], nn.Tanh(), *layers[2:]], dtype=numpy.float64)
    reference = Reference(changed, 3)
    x = values((5, 6))
    expected = reference.forward(x, 0)
    numpy.testing.assert_allclose(changed.forward(x, training=True), expected, rtol=1e-12)


def test_a_list_of_layers_that_changes_afterwards():
    layers = [nn.Dense(2, 3), nn.ReLU()]
    net = nn.Sequential(layers)
    layers.append(nn.Dense(3, 4))
    assert net.forward(numpy.ones((1, 2))).shape == (1, 3)


def test_the_step_of_a_loss():
    loss = nn.MeanSquaredError()
    loss.step = 41
    loss(numpy.ones((1, 1)), [[1]])
    with pytest.raises(FloatingPointError, match="the loss of step 42 is inf"):
        loss(numpy.full((1, 1), 1e200), [[1]])
    for value, error in ((-1, ValueError), (1.5, TypeError), ("x", TypeError)):
        with pytest.raises(error, match=f"step must be .*, got {value!r}"):
            loss.step = value
    with pytest.raises(AttributeError, match="MeanSquaredError has no attribute 'steps'"):
        loss.steps = 3
    assert loss.step == 42


def test_dropout_of_its_own_seed():
    layer = nn.Dropout(0.5, rng=0)
    expected, _ = fastdrop.dropout(numpy.ones((2, 9)), 0.5, rng=0)
    numpy.testing.assert_array_equal(layer.forward(numpy.ones((2, 9)), training=True), expected)
    with pytest.raises(TypeError, match="rng must be None, an int"):
        nn.Dropout(0.5, rng="seed")


def test_a_slope_set_before_the_backward_pass_holds_from_the_next_forward_pass_on():
    layer = nn.LeakyReLU(0.25)
    x = -numpy.ones((2, 3))
    for compute in (layer, nn.Sequential([layer], rng=0, dtype=numpy.float64)):
        layer.negative_slope = 0.25
        compute.forward(x, training=True)
        layer.negative_slope = 0.75
        grad = compute.backward(numpy.ones((2, 3)), input_gradient=True)
        numpy.testing.assert_array_equal(grad, numpy.full((2, 3), 0.25))
        assert compute.forward(x)[0, 0] == -0.75
