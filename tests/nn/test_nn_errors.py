"""Wrong use of layers and networks is told plainly: which layer, what it got, what it expects."""

import math
import re

import numpy
import pytest

from fastdrop import nn


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Dense(0, 3), ValueError, "units_in must be at least 1, got 0"),
        (lambda: nn.Dense(3, -1), ValueError, "units_out must be at least 1, got -1"),
        (lambda: nn.Dense(3.5, 1), TypeError, "units_in must be an int, got 3.5"),
        (lambda: nn.Dense(3, 1, "xavier"), ValueError, "one of he, glorot, zeros, got 'xavier'"),
        (lambda: nn.Dense(3, 1, bias="no"), TypeError, "bias must be a bool, got 'no'"),
        (lambda: nn.LeakyReLU(-1), ValueError, "negative_slope must be at least 0 and finite"),
        (lambda: nn.LeakyReLU(math.inf), ValueError, "negative_slope must be .* got inf"),
        (lambda: nn.LeakyReLU("1"), TypeError, "negative_slope must be a real number"),
        (nn.Dropout, TypeError, "exactly one of rate and keep_prob, got neither"),
        (lambda: nn.Dropout(0.5, keep_prob=0.5), TypeError, "got both"),
        (lambda: nn.Dropout(1.5), ValueError, r"rate must be in \[0, 1\], got 1.5"),
        (lambda: nn.Dropout(keep_prob=-1), ValueError, r"keep_prob must be in \[0, 1\]"),
        (lambda: nn.Dropout(0.5, rows_per_mask=0), ValueError, "rows_per_mask must be at least 1"),
        (lambda: nn.Dropout(0.5, rows_per_mask="all"), ValueError, "an int or 'batch', got 'all'"),
        (lambda: nn.Dropout(0.5, shared_axes=0.5), TypeError, "shared_axes must be an int"),
        (lambda: nn.Dropout(0.5, scale_at="never"), ValueError, 'must be "train" or "test"'),
        (lambda: nn.Dense(3, 4, drop_connect="a"), TypeError, "^drop_connect must be a real"),
        (
            lambda: nn.Dense(3, 4, drop_connect=lambda step: 2),
            ValueError,
            r"^drop_connect\(0\) must be in \[0, 1\], got 2",
        ),
        (
            lambda: nn.Sequential([nn.BiasDropoutResidual(4, 0.3)]),
            TypeError,
            "^layers must each take one array, got BiasDropoutResidual",
        ),
        (lambda: nn.Sequential([]), ValueError, "layers must hold at least one layer"),
        (lambda: nn.Sequential([nn.ReLU]), TypeError, "got type .the class, not an object of it."),
        (lambda: nn.Sequential([print]), TypeError, "nn layers, got builtin_function_or_method"),
        (lambda: nn.Sequential([nn.Sequential([nn.ReLU()])]), TypeError, "must not hold a network"),
        (lambda: nn.Sequential([nn.ReLU()] * 2), ValueError, "must not hold a layer twice"),
        (lambda: nn.Sequential([nn.ReLU()], dtype="float16"), TypeError, "float32 or float64"),
        (lambda: nn.Sequential([nn.ReLU()], rng="seed"), TypeError, "rng"),
        (
            lambda: nn.Sequential([nn.Dense(4, 8), nn.ReLU(), nn.Dense(9, 2)]),
            ValueError,
            "^dense1: units_in does not fit the layers before it, expected 8, got 9",
        ),
    ],
)
def test_construction(make, error, message):
    with pytest.raises(error, match=message):
        make()


def network():
    return nn.Sequential([nn.Dropout(0.2), nn.Dense(4, 8), nn.ReLU(), nn.Dense(8, 2)], rng=0)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (numpy.ones((3, 5)), ValueError, r"^dense0: .* \(batch, \.\.\., 4\), got \(3, 5\)"),
        (numpy.ones(4), ValueError, r"^dense0: .* got \(4,\)"),
        (numpy.ones((3, 4), complex), TypeError, "x must hold real numbers, got dtype complex128"),
        ([["a"] * 4], TypeError, "x must hold real numbers, got dtype <U1"),
    ],
)
def test_inputs(x, error, message, training):
    net = network()
    with pytest.raises(error, match=message):
        net.forward(x, training=training)
    assert net.layers[0].stream.position == 0  # a failed forward draws nothing


def test_gradient_of_another_shape():
    net = network()
    net.forward(numpy.ones((3, 4)), training=True)
    expected = (
        r"^sequential: grad must have the shape of the output, expected \(3, 2\), got \(3, 4\)"
    )
    with pytest.raises(ValueError, match=expected):
        net.backward(numpy.ones((3, 4)))
    with pytest.raises(TypeError, match="grad must hold real numbers, got dtype <U1"):
        net.backward([["a", "b"]] * 3)


def test_no_draw_counts_of_a_forward_that_fails_halfway():
    """Else the layers' draws would no longer belong together."""

    class Fails(nn.Layer):
        failing = True

        def forward(self, x, training=False):
            if self.failing:
                raise KeyboardInterrupt
            return x

    fails = Fails()
    layers = [nn.Dropout(0.5), nn.Dense(4, 4), nn.Dropout(0.5), fails, nn.Dropout(0.5)]
    net = nn.Sequential(layers, rng=0)
    with pytest.raises(KeyboardInterrupt):
        net.forward(numpy.ones((3, 4)), training=True)
    drawn = [layer.stream.position for layer in layers if isinstance(layer, nn.Dropout)]
    assert drawn == [0, 0, 0]
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        net.backward(numpy.ones((3, 4)))
    fails.failing = False
    net.forward(numpy.ones((3, 4)), training=True)
    drawn = [layer.stream.position for layer in layers if isinstance(layer, nn.Dropout)]
    assert drawn == [1, 1, 1]


class Scale(nn.Layer):
    def __init__(self, *names):
        self.scales = [nn.Parameter(name, numpy.ones(4, numpy.float32)) for name in names]

    def parameters(self):
        return self.scales


def test_two_parameters_of_one_name():
    with pytest.raises(ValueError, match=r"different names, got twice: scale0\.a"):
        nn.Sequential([Scale("a", "a")])
    net = nn.Sequential([Scale("a"), Scale("a", "b")])
    names = ["scale0.a", "scale1.a", "scale1.b"]
    assert [parameter.name for parameter in net.parameters()] == names
    assert [name for name, _ in net.named_parameters()] == names
    for name in ("", None, 3):
        with pytest.raises(
            TypeError, match=f"name must be a string that is not empty, got {name!r}"
        ):
            nn.Parameter(name, numpy.ones(4))


def test_backward_after_a_forward_that_failed():
    net = network()
    net.forward(numpy.ones((3, 4)), training=True)
    net.load_state_dict(net.state_dict())
    with pytest.raises(RuntimeError, match=r"^sequential: backward needs a forward with training="):
        net.backward(numpy.ones((3, 2)))


def test_layers_without_definitions():
    class Empty(nn.Layer):
        pass

    for call in (Empty().forward, Empty().backward):
        with pytest.raises(NotImplementedError, match=r"^empty defines no "):
            call(numpy.ones((1, 1)))
    assert Empty().parameters() == []


class Wrong(nn.Layer):
    def forward(self, x, training=False):
        return numpy.ones((len(x) + 1, 2))


def test_a_layer_of_ones_own_that_loses_the_batch():
    net = nn.Sequential([Wrong()])
    with pytest.raises(ValueError, match=r"^wrong0: forward must return shape \(3, \.\.\.\), got"):
        net.forward(numpy.ones((3, 2)), training=True)


class Narrow(Wrong):
    def forward(self, x, training=False):
        return x[:, :1]

    def backward(self, grad, input_gradient=True):
        return grad


@pytest.mark.parametrize("training", [False, True])
def test_a_layer_that_gets_what_it_cannot_use(training):
    net = nn.Sequential([Narrow(), nn.Dense(2, 2)])
    with pytest.raises(ValueError, match=r"^dense0: x must have shape .* 2\), got \(3, 1\)"):
        net.forward(numpy.ones((3, 2)), training=training)


def test_a_layer_of_ones_own_that_returns_another_gradient():
    net = nn.Sequential([nn.Dense(2, 2), Narrow()])
    net.forward(numpy.ones((3, 2)), training=True)
    with pytest.raises(ValueError, match=re.escape("narrow0: backward must return the shape")):
        net.backward(numpy.ones((3, 1)))


def test_assignments():
    layer = nn.Dense(2, 3, bias=False)
    with pytest.raises(ValueError, match=r"dense.weight must have shape \(2, 3\), got \(3, 2\)"):
        layer.weight = numpy.ones((3, 2))
    with pytest.raises(AttributeError, match="dense has no bias"):
        layer.bias = numpy.ones(3)
    with pytest.raises(TypeError, match=r"stream must be a fastdrop.MaskStream, got int"):
        nn.Dropout(0.5).stream = 0


def test_shared_axes_are_checked_against_the_array():
    net = nn.Sequential([nn.Dropout(0.5, shared_axes=2)])
    with pytest.raises(ValueError, match="shared_axes must be axes of 2 dimensions"):
        net.forward(numpy.ones((3, 2)), training=True)
    net = nn.Sequential([nn.Dropout(0.5, shared_axes=(0, 1), exact_count=True)])
    with pytest.raises(ValueError, match="exact_count needs an axis that is not shared"):
        net.forward(numpy.ones((3, 2)), training=True)


def test_layers_want_floats():
    for layer in (nn.ReLU(), nn.Dropout(0.5)):
        with pytest.raises(
            TypeError, match=f"^{layer.name}: x must be float16, float32 or float64, got"
        ):
            layer.forward(numpy.ones((1, 2), int))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("dense0.bias"), "the state lacks: dense0.bias"),
        (lambda s: s.update({"dense7.bias": 0}), "has what the network does not: dense7.bias"),
        (
            lambda s: s.update({"dense1.bias": numpy.ones(3, numpy.float32)}),
            r"dense1.bias: expected shape \(2,\) and dtype float32, got \(3,\) and float32",
        ),
        (lambda s: s.update({"dense1.bias": numpy.ones(2)}), "dtype float32, got .* float64"),
        (lambda s: s.update({"dropout0.stream": 5}), "dropout0.stream: no state of a mask stream"),
        (
            lambda s: s["dropout0.stream"].pop("position"),
            "dropout0.stream: no state of .*'position'",
        ),
    ],
)
def test_states_that_do_not_fit_change_nothing(change, message):
    net = network()
    state = nn.Sequential(
        [nn.Dropout(0.2), nn.Dense(4, 8), nn.ReLU(), nn.Dense(8, 2)], rng=1
    ).state_dict()
    before = net.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        net.load_state_dict(state)
    for name, value in net.state_dict().items():
        numpy.testing.assert_equal(value, before[name])
