"""The fused chain equals the same layers one by one, whatever the masks and the method."""

import itertools

import numpy
import pytest
from nn_cases import ACTIVATIONS, Reference, assert_step_agrees, randomise, values

import fastdrop
from fastdrop import nn
from fastdrop.nn import product

ROWS = 22  # not a multiple of 4 or 7: the last group is short
TIGHT, LOOSE = 1e-11, 2e-4


def network(orders, make, rates=(0.5, 0.4), dtype=numpy.float64, seed=3, **options):
    """Dense 20 to 5 with two hidden layers; `orders` says how their layers follow each other."""

    def hidden(rate):
        parts = {"a": make, "d": lambda: nn.Dropout(rate, **options), "t": nn.Tanh}
        parts["s"] = nn.Sigmoid
        return [parts[letter]() for letter in orders]

    layers = [nn.Dense(20, 37), *hidden(rates[0]), nn.Dense(37, 40), *hidden(rates[1])]
    net = nn.Sequential([*layers, nn.Dense(40, 5)], rng=seed, dtype=dtype)
    randomise(net)
    return net


@pytest.mark.parametrize("scale_at", ["train", "test"])
@pytest.mark.parametrize("exact_count", [False, True])
@pytest.mark.parametrize("rows_per_mask", [1, 4, 7, "batch"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_equals_the_unfused_chain(name, rows_per_mask, exact_count, scale_at):
    options = {"rows_per_mask": rows_per_mask, "exact_count": exact_count, "scale_at": scale_at}
    for dtype, tolerance in ((numpy.float64, TIGHT), (numpy.float32, LOOSE)):
        net = network("ad", ACTIVATIONS[name], dtype=dtype, **options)
        for draw in range(2):
            assert_step_agrees(net, 3, values((ROWS, 20), draw, dtype), draw, tolerance)


@pytest.mark.parametrize("rows_per_mask", [1, 4, "batch"])
@pytest.mark.parametrize("orders", ["d", "da", "tad", "dt", "ds", "adad", "dad", "sdtd", "add"])
def test_layers_in_other_orders(orders, rows_per_mask):
    net = network(orders, nn.ReLU, rows_per_mask=rows_per_mask)
    for draw in range(2):
        assert_step_agrees(net, 3, values((ROWS, 20), draw), draw, TIGHT)


@pytest.mark.parametrize("kinds", [*itertools.product([1, 4, "batch"], repeat=3)])
def test_kinds_of_masks_may_be_mixed(kinds):
    first, second, third = (nn.Dropout(0.4, rows_per_mask=kind) for kind in kinds)
    layers = [first, nn.Dense(20, 32), nn.ReLU(), second, nn.Dense(32, 24), third]
    net = nn.Sequential([*layers, nn.Dense(24, 16), nn.Tanh()], rng=5, dtype=numpy.float64)
    randomise(net)
    for draw in range(2):
        assert_step_agrees(net, 5, values((ROWS, 20), draw), draw, TIGHT)


@pytest.mark.parametrize("rows_per_mask", [1, 4, "batch"])
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.95, 1.0])
def test_rates(rate, rows_per_mask):
    net = network("ad", nn.ReLU, rates=(rate, rate), rows_per_mask=rows_per_mask)
    for draw in range(2):
        assert_step_agrees(net, 3, values((ROWS, 20), draw), draw, TIGHT)
    positions = {layer.stream.position for layer in net.layers if isinstance(layer, nn.Dropout)}
    assert positions == {2}


@pytest.mark.parametrize("method", ["dense", "packed", "compact", "skip"])
@pytest.mark.parametrize("rows_per_mask", [1, 4, "batch"])
def test_every_method(monkeypatch, method, rows_per_mask, each_backend):
    """All methods compute the same product."""
    forced = []

    class Kernels:
        def __getattr__(self, name):
            return getattr(kernels, name)

        def Product(self, *operands, **options):
            forced.append(method)
            return kernels.Product(*operands, method=method, **options)

    kernels = product.kernels
    monkeypatch.setattr(product, "kernels", Kernels())
    net = network("ad", nn.ReLU, rows_per_mask=rows_per_mask)
    for draw in range(2):
        assert_step_agrees(net, 3, values((ROWS, 20), draw), draw, TIGHT)
    assert len(forced) == 2 * (3 + 3 + 3)


@pytest.mark.parametrize(
    ("rows_per_mask", "shared_axes"),
    [
        *itertools.product([1, 2, "batch"], [(), (1,), (-1,)]),
        *itertools.product([1], [(0,), (0, 1), (0, 2)]),
    ],
)
def test_more_axes(rows_per_mask, shared_axes):
    dropout = nn.Dropout(0.5, rows_per_mask=rows_per_mask, shared_axes=shared_axes)
    layers = [nn.Dense(6, 9), nn.ReLU(), dropout, nn.Dense(9, 4)]
    net = nn.Sequential(layers, rng=1, dtype=numpy.float64)
    randomise(net)
    for draw in range(2):
        assert_step_agrees(net, 1, values((5, 3, 6), draw), draw, TIGHT)


def test_batches_of_changing_size():
    net = network("ad", nn.ReLU, rows_per_mask=8)
    for draw, rows in enumerate((22, 5, 40, 1, 22)):
        assert_step_agrees(net, 3, values((rows, 20), draw), draw, TIGHT)


def test_no_bias():
    layers = [nn.Dense(6, 9, bias=False), nn.ReLU(), nn.Dropout(0.5, rows_per_mask="batch")]
    net = nn.Sequential([*layers, nn.Dense(9, 4, bias=False)], rng=1, dtype=numpy.float64)
    assert_step_agrees(net, 1, values((5, 6)), 0, TIGHT)
    assert [parameter.name for parameter in net.parameters()] == ["dense0.weight", "dense1.weight"]
    assert net.layers[0].bias is None
    assert net.layers[0].grad_bias is None


class Double(nn.Layer):
    """Somebody's own layer: the chain hands it whole arrays."""

    def forward(self, x, training=False):
        self.seen = x
        return 2 * x

    def backward(self, grad, input_gradient=True):
        return 2 * grad if input_gradient else None


class DoubleUnits(Double):
    fused_as = "any units"


@pytest.mark.parametrize("kind", [Double, DoubleUnits])
@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
def test_a_layer_of_ones_own(place, kind):
    layers = [nn.Dense(6, 9), nn.ReLU(), nn.Dropout(0.5, rows_per_mask="batch"), nn.Dense(9, 4)]
    plain = nn.Sequential(layers, rng=1, dtype=numpy.float64)
    x, grad = values((5, 6)), values((5, 4), 1)
    expected = 2 * plain.forward(x, training=True)
    expected_x = 2 * plain.backward(grad, input_gradient=True)
    layers.insert(place, kind())
    net = nn.Sequential(layers, rng=1, dtype=numpy.float64)
    next(layer for layer in layers if isinstance(layer, nn.Dropout)).stream.position = 0
    numpy.testing.assert_allclose(net.forward(x, training=True), expected, rtol=1e-12)
    numpy.testing.assert_allclose(net.backward(grad, input_gradient=True), expected_x, rtol=1e-12)
    stream = fastdrop.MaskStream(1).spawn(1)[0]
    kept = stream.draw((5, 9), rate=0.5, rows_per_mask="batch", at=0).count()
    inside = kept if kind is DoubleUnits else 9
    assert layers[place].seen.shape == (5, (6, inside, inside, 9, 4)[place])
    y = net.forward(x)
    assert not numpy.shares_memory(y, layers[place].seen)
    numpy.testing.assert_allclose(y, 2 * plain.forward(x), rtol=1e-12)


@pytest.mark.parametrize("rows_per_mask", [1, 4, "batch"])
def test_masks_depend_on_ordinal_and_number_of_the_forward_only(rows_per_mask):
    options = {"rows_per_mask": rows_per_mask}
    net = network("ad", nn.ReLU, **options)
    other = network("tad", nn.ReLU, **options)  # another activation changes no mask
    streams = fastdrop.MaskStream(3).spawn(2)
    for one in (net, other):
        own = [layer.stream for layer in one.layers if isinstance(layer, nn.Dropout)]
        assert own == streams
        one.forward(values((ROWS, 20)))  # test time draws nothing
        one.forward(values((ROWS, 20)), training=True)
        one.forward(values((3, 20)), training=True)
        assert [stream.position for stream in own] == [2, 2]


def test_thread_counts_agree(each_thread_count):
    net = network("ad", nn.ReLU, rows_per_mask="batch")
    assert_step_agrees(net, 3, values((ROWS, 20)), 0, TIGHT)


@pytest.mark.parametrize("rows_per_mask", [1, 4, "batch"])
def test_dropped_infinities_do_not_spread(rows_per_mask):
    """Weights of a unit dropped in every row are not even read."""
    net = network("ad", nn.ReLU, rows_per_mask=rows_per_mask, seed=3)
    x = values((4, 20))
    kept = Reference(net, 3)
    kept.forward(x, 0)
    used = (kept.inputs[2] != 0).any(axis=0)
    unused = int(numpy.flatnonzero(~used)[0])
    if rows_per_mask == "batch":
        net.layers[0].weight[:, unused] = numpy.inf
        net.layers[3].weight[unused] = numpy.nan
    else:
        net.layers[0].weight[:, unused] = numpy.nan
    assert numpy.isfinite(net.forward(x, training=True)).all()
