"""Layers of one's own: parameters, buffers, settings, activations, and layers inside a block."""

import numpy
import pytest
from nn_cases import differences, randomise, values

import fastdrop
from fastdrop import nn, optim


class Scale(nn.Layer):
    """A factor for every unit, made by the network; it forgets to call `Layer.__init__`."""

    def __init__(self, units):
        self.units, self.factor = units, None

    def build(self, dtype, generator):
        if self.factor is None:
            self.factor = nn.Parameter(
                "factor", generator.standard_normal(self.units).astype(dtype)
            )

    def parameters(self):
        return [self.factor]

    def forward(self, x, training=False):
        if training:
            self.x = x.copy()
        return x * self.factor.value

    def backward(self, grad, input_gradient=True):
        axes = tuple(range(grad.ndim - 1))
        self.factor.grad = (grad * self.x).sum(axis=axes)
        return grad * self.factor.value if input_gradient else None


class Gain(nn.Layer):
    """One factor for all units, inside a block."""

    fused_as = "any units"

    def __init__(self, gain=0.7):
        self.gain = nn.Parameter("gain", numpy.array([gain]))

    def parameters(self):
        return [self.gain]

    def forward(self, x, training=False):
        self.x = x
        return x * self.gain.value[0]

    def backward(self, grad, input_gradient=True):
        self.gain.grad = numpy.array([float((grad * self.x).sum())])
        return grad * self.gain.value[0]


class Swish(nn.Elementwise):
    def function(self, x):
        return x / (1 + numpy.exp(-x))

    def derivative(self, x, y):
        gate = 1 / (1 + numpy.exp(-x))
        return y + gate * (1 - y)


class Squashed(nn.Elementwise):
    """From the output alone, and through the in-place methods' defaults."""

    from_output = True

    def function(self, x):
        return numpy.tanh(x)

    def derivative(self, x, y):
        assert x is None
        return 1 - y * y


class Softsign(nn.Elementwise):
    """In place, with a work array."""

    def apply(self, x, out, scratch):
        assert not numpy.shares_memory(x, out)  # the derivative needs x
        numpy.abs(x, out=out)
        numpy.add(out, 1, out=out)
        numpy.divide(x, out, out=out)

    def multiply_derivative(self, grad, x, y, scratch):
        slope = scratch("slope", x.shape, x.dtype)
        numpy.abs(x, out=slope)
        numpy.add(slope, 1, out=slope)
        numpy.square(slope, out=slope)
        numpy.divide(grad, slope, out=grad)


class Mean(nn.Layer):
    def __init__(self, units=4):
        self.mean, self.count = numpy.zeros(units, numpy.float32), numpy.zeros((), numpy.int64)

    def buffers(self):
        return {"mean": self.mean, "count": self.count}

    def settings(self):
        return {"momentum": 0.9}

    def forward(self, x, training=False):
        if training:
            self.mean = (0.9 * self.mean + 0.1 * x.mean(axis=0)).astype(numpy.float32)
            self.count += 1
        return x - self.mean

    def backward(self, grad, input_gradient=True):
        return grad


@pytest.mark.parametrize("rows_per_mask", [1, 4, "batch"])
@pytest.mark.parametrize("shape", [(6, 5), (3, 2, 5)])
@pytest.mark.parametrize(
    "inside",
    [
        lambda: [Swish()],
        lambda: [Squashed()],
        lambda: [Swish(), Squashed(), nn.ReLU()],
        lambda: [nn.Tanh(), Swish()],
        lambda: [Softsign(), nn.ReLU()],
        lambda: [Gain(), nn.ReLU()],
        lambda: [nn.Tanh(), Gain(), Swish()],
        lambda: [Gain(), Gain(-1.5), nn.LeakyReLU(0.3)],
        lambda: [Swish(), Scale(8), nn.ReLU()],
        lambda: [nn.ReLU(), nn.ReLU()],
        lambda: [nn.Tanh(), nn.ReLU()],
    ],
)
def test_gradients_of_all_that_may_stand_in_a_block(inside, shape, rows_per_mask):
    dropout = nn.Dropout(0.4, rows_per_mask=rows_per_mask)
    layers = [nn.Dense(5, 8), *inside(), dropout, *inside()[-1:], nn.Dense(8, 3)]
    net = nn.Sequential(layers, rng=2, dtype=numpy.float64)
    randomise(net)
    x, weights = values(shape, 3), values((*shape[:-1], 3), 4)

    def value():
        dropout.stream.position = 0
        return float((net.forward(x, training=True) * weights).sum())

    value()
    grad_x = net.backward(weights, input_gradient=True)
    tolerance = {"rtol": 1e-6, "atol": 1e-6}
    numpy.testing.assert_allclose(grad_x, differences(value, x), **tolerance)
    gradients = [(parameter, parameter.full_grad()) for parameter in net.parameters()]
    for parameter, grad in gradients:
        expected = differences(value, parameter.value)
        numpy.testing.assert_allclose(grad, expected, **tolerance, err_msg=parameter.name)
    net.backward(weights)  # without the input's
    for parameter, grad in gradients:
        numpy.testing.assert_array_equal(parameter.full_grad(), grad, parameter.name)
    one_by_one = x
    for layer in net.layers:
        one_by_one = layer.forward(one_by_one)
    numpy.testing.assert_allclose(net.forward(x), one_by_one, rtol=1e-12)


def test_what_is_dropped_is_not_computed():
    """A batchwise mask: functions and layers of a block see the kept units only."""
    seen = []

    class Watch(nn.Layer):
        fused_as = "any units"

        def forward(self, x, training=False):
            seen.append((training, x.shape))
            return x

        def backward(self, grad, input_gradient=True):
            seen.append(("back", grad.shape))
            return grad

    class Watched(Swish):
        def function(self, x):
            seen.append(("function", x.shape))
            return super().function(x)

    options = {"rows_per_mask": "batch", "exact_count": True}
    layers = [nn.Dense(4, 12), Watch(), Watched(), nn.Dropout(0.75, **options), nn.Dense(12, 2)]
    net = nn.Sequential(layers, rng=0)
    net.backward(net.forward(numpy.ones((5, 4)), training=True))
    assert seen == [(True, (5, 3)), ("function", (5, 3)), ("back", (5, 3))]
    net.forward(numpy.ones((5, 4)))
    assert seen[3:] == [(False, (5, 12)), ("function", (5, 12))]


def test_names_and_training_of_parameters():
    net = nn.Sequential([Gain(), nn.Dense(4, 6), Scale(6), Gain(), nn.Tanh(), Scale(6)], rng=0)
    assert [parameter.name for parameter in net.parameters()] == [
        "gain0.gain", "dense0.weight", "dense0.bias", "scale0.factor", "gain1.gain",
        "scale1.factor",
    ]  # fmt: skip
    assert net.parameters()[3].value.dtype == numpy.float32
    again = nn.Sequential([Gain(), nn.Dense(4, 6), Scale(6), Gain(), nn.Tanh(), Scale(6)], rng=0)
    numpy.testing.assert_equal(again.state_dict(), net.state_dict())
    opt = optim.Adam(net, 0.1)
    before = net.state_dict()
    net.backward(net.forward(values((3, 4)), training=True))
    opt.step()
    for name, value in net.state_dict().items():
        if name != "settings":
            assert (value != before[name]).any(), name
    layers = net.layers
    other = nn.Sequential(layers[2:3], rng=5)
    assert other.parameters() == [layers[2].factor]


def test_buffers_are_saved_and_loaded(tmp_path):
    path = tmp_path / "net.npz"
    net, other = (nn.Sequential([Mean(), nn.Dense(4, 2), Mean(2)], rng=n) for n in range(2))
    for number in range(3):
        net.forward(values((5, 4), number), training=True)
    state = net.state_dict()
    assert {"mean0.mean", "mean0.count", "mean1.mean"} <= state.keys()
    assert state["mean0.mean"] is not net.layers[0].mean
    assert state["settings"]["mean0"] == {"momentum": 0.9}
    assert net.buffers().keys() == {"mean0.mean", "mean0.count", "mean1.mean", "mean1.count"}
    fastdrop.save(path, net)
    fastdrop.load(path, other, strict=True)
    x = values((5, 4), 9)
    numpy.testing.assert_array_equal(other.forward(x), net.forward(x))
    assert other.layers[0].count == 3
    numpy.testing.assert_equal(other.state_dict(), net.state_dict())
    before = other.state_dict()
    state["mean0.mean"] = numpy.zeros(5, numpy.float32)
    with pytest.raises(ValueError, match=r"mean0.mean: expected shape \(4,\) and dtype float32"):
        other.load_state_dict(state)
    del state["mean0.mean"]
    with pytest.raises(ValueError, match=r"the state lacks: mean0.mean"):
        other.load_state_dict(state)
    numpy.testing.assert_equal(other.state_dict(), before)


def test_buffers_and_parameters_that_cannot_be():
    class Wrong(Gain):
        buffer = None

        def buffers(self):
            return {"gain": self.buffer}

    with pytest.raises(TypeError, match="wrong0: buffers must hold NumPy arrays, got NoneType for"):
        nn.Sequential([Wrong()])
    Wrong.buffer = numpy.ones(1)
    with pytest.raises(ValueError, match=r"different names, got twice: wrong0\.gain"):
        nn.Sequential([Wrong()])

    class Fresh(Gain):
        def parameters(self):
            return [nn.Parameter("gain", numpy.ones(1))]

    with pytest.raises(ValueError, match=r"fresh0: parameters\(\) must return the same"):
        nn.Sequential([Fresh()])


class Half(nn.Layer):
    fused_as = "any units"

    def forward(self, x, training=False):
        return x[:, : x.shape[1] // 2]

    def backward(self, grad, input_gradient=True):
        return grad


class HalfBack(Half):
    def forward(self, x, training=False):
        return 2 * x

    def backward(self, grad, input_gradient=True):
        return grad[:, 1:]


class Sum(nn.Elementwise):
    def function(self, x):
        return x.sum()

    def derivative(self, x, y):
        return 1.0


class SumBack(Sum):
    def function(self, x):
        return x + 1


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Half, r"half0: forward must return the shape .* expected \(3, 6\), got \(3, 3\)"),
        (HalfBack, r"halfback0: backward must return the shape .* expected \(3, 6\), got \(3, 5\)"),
        (Sum, r"sum0: function must return the shape of x, expected \(3, 6\), got \(\)"),
        (SumBack, r"sumback0: derivative must return the shape of y, expected \(3, 6\), got \(\)"),
        (nn.Elementwise, "elementwise0 defines no function"),
    ],
)
def test_layers_that_return_something_else(layer, message):
    net = nn.Sequential([nn.Dense(4, 6), layer(), nn.Dense(6, 2)], rng=0)
    error = NotImplementedError if layer is nn.Elementwise else ValueError
    with pytest.raises(error, match=message):
        net.backward(net.forward(numpy.ones((3, 4)), training=True))


@pytest.mark.parametrize("word", ["dense", "elementwise", "dropout", "units", "", 3, True])
def test_words_that_a_layer_cannot_say(word):
    class Odd(Gain):
        fused_as = word

    with pytest.raises(ValueError, match='odd0: fused_as must be None or "any units", got'):
        nn.Sequential([Odd()])


def test_classes_with_passes_of_their_own_are_called():
    """One that derives from a layer of this package and defines `forward` anew is not left out."""
    calls = []

    def with_own_forward(kind, *arguments):
        class Own(kind):
            def forward(self, x, training=False):
                calls.append(kind)
                return super().forward(x, training)

        return Own(*arguments)

    kinds = [(nn.Dense, 4, 6), (nn.ReLU,), (nn.Tanh,), (nn.Dropout, 0.5), (nn.Identity,)]
    net = nn.Sequential([with_own_forward(*kind) for kind in kinds], rng=0)
    net.backward(net.forward(numpy.ones((2, 4), numpy.float32), training=True))
    assert calls == [kind[0] for kind in kinds]

    class Louder(nn.ReLU):
        def apply(self, x, out, scratch):
            super().apply(x, out, scratch)
            numpy.multiply(out, 3, out=out)

    net = nn.Sequential([nn.Dense(4, 6), Louder(), nn.Dropout(0.5)], rng=0)
    expected = 3 * numpy.maximum(numpy.ones((2, 4)) @ net.layers[0].weight, 0)
    numpy.testing.assert_allclose(net.forward(numpy.ones((2, 4))), expected, rtol=1e-6)
