"""Rows of a batch in several places: each part gets its window of the whole batch's masks."""

import itertools

import numpy
import pytest
from nn_cases import randomise, values

from fastdrop import nn

WIDTHS = (5, 19, 13, 3)
CUTS = [(0, 12), (0, 7, 12), (0, 0, 12), (0, 3, 3, 8, 12, 12), tuple(range(13))]
OPTIONS = [
    {"rows_per_mask": "batch"},
    {"rows_per_mask": 1},
    {"rows_per_mask": 4},
    {"rows_per_mask": 5},
    {"rows_per_mask": 100},
    {"rows_per_mask": "batch", "exact_count": True},
    {"rows_per_mask": 1, "exact_count": True},
    {"rows_per_mask": 3, "exact_count": True},
    {"shared_axes": (0,)},
    {"shared_axes": (1,)},
    {"shared_axes": (-1,), "exact_count": True},
    {"rows_per_mask": 1, "scale_at": "test"},
]


def network(rate, first, second, seed=3):
    layers = [
        nn.Dropout(rate / 2, **first),
        nn.Dense(*WIDTHS[:2]),
        nn.ReLU(),
        nn.Dropout(rate, **first),
        nn.Dense(*WIDTHS[1:3]),
        nn.Tanh(),
        nn.Dropout(rate, **second),
        nn.Dense(*WIDTHS[2:]),
    ]
    net = nn.Sequential(layers, rng=seed, dtype=numpy.float64)
    randomise(net)
    return net


def units(parameter):
    return [
        None if part is None else part[0].tobytes() for part in (parameter.rows, parameter.columns)
    ]


@pytest.mark.parametrize("first", OPTIONS, ids=str)
@pytest.mark.parametrize(
    ("rate", "dimensions", "cuts"),
    [(0.5, 2, cuts) for cuts in CUTS]
    + [(0.9, 2, CUTS[3]), (0.5, 3, CUTS[3]), (0.9, 3, CUTS[4]), (0.0, 2, CUTS[1])],
    ids=str,
)
def test_parts_of_a_batch_add_up_to_the_whole(first, rate, dimensions, cuts):
    x = values((cuts[-1], *[4] * (dimensions - 2), WIDTHS[0]))
    second = OPTIONS[0] if rate == 0.5 else first
    whole, part = network(rate, first, second), network(rate, first, second)
    for draw in range(2):
        y = whole.forward(x, training=True)
        grad = values(y.shape, 7)
        whole.backward(grad)
        sums = [0.0 for _ in part.parameters()]
        for start, stop in itertools.pairwise(cuts):
            for layer in part.layers:
                if isinstance(layer, nn.Dropout):
                    layer.stream.position = draw
            given = part.forward(x[start:stop], training=True, rows=(start, cuts[-1]))
            numpy.testing.assert_allclose(given, y[start:stop], rtol=1e-12, atol=1e-12)
            part.backward(grad[start:stop])
            for place, (mine, other) in enumerate(
                zip(part.parameters(), whole.parameters(), strict=True)
            ):
                assert units(mine) == units(other)
                assert (mine.compact, mine.grad.shape) == (other.compact, other.grad.shape)
                sums[place] = sums[place] + mine.full_grad()
        for total, other in zip(sums, whole.parameters(), strict=True):
            numpy.testing.assert_allclose(total, other.full_grad(), rtol=1e-11, atol=1e-11)
    assert part.state_dict()["dropout0.stream"] == whole.state_dict()["dropout0.stream"]


def test_exact_counts_along_the_batch_are_those_of_the_whole():
    """All other axes shared: k of the batch's rows are kept, not k of each part's."""
    options = {"shared_axes": (1,), "exact_count": True}
    net = nn.Sequential([nn.Dropout(0.5, **options)], rng=0, dtype=numpy.float64)
    parts = []
    for start in (0, 3, 9):
        net.layers[0].stream.position = 0
        stop = {0: 3, 3: 9, 9: 11}[start]
        parts.append(net.forward(numpy.ones((stop - start, 4)), training=True, rows=(start, 11)))
    net.layers[0].stream.position = 0
    whole = net.forward(numpy.ones((11, 4)), training=True)
    numpy.testing.assert_array_equal(numpy.concatenate(parts), whole)
    assert numpy.count_nonzero(whole[:, 0]) == 6
    assert whole.max() == 11 / 6


@pytest.mark.parametrize("rows_per_mask", ["batch", 1, 32])
def test_no_rows_of_a_batch_for_a_large_network(rows_per_mask):
    """Whose products are planned by a model of their cost."""
    layers = [nn.Dense(784, 1024), nn.ReLU(), nn.Dropout(0.5, rows_per_mask=rows_per_mask)]
    net = nn.Sequential([*layers, nn.Dense(1024, 10)], rng=0, skip_zeros=True)
    for rows in (0, 5, 0):
        x = numpy.ones((rows, 784), numpy.float32)
        y = net.forward(x, training=True, rows=(64 - rows, 64))
        assert y.shape == (rows, 10)
        net.backward(numpy.zeros_like(y))
        assert all(not parameter.grad.any() for parameter in net.parameters())


def test_rows_hold_for_one_forward_only():
    net = network(0.5, OPTIONS[1], OPTIONS[1])
    other = network(0.5, OPTIONS[1], OPTIONS[1])
    x = values((4, WIDTHS[0]))
    net.forward(x, training=True, rows=(5, 20))
    other.forward(x, training=True)
    numpy.testing.assert_array_equal(net.forward(x, training=True), other.forward(x, training=True))


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (3, TypeError),
        ((1, 2, 3), TypeError),
        ((0, 4.0), TypeError),
        ((True, 9), TypeError),
        ((-1, 9), ValueError),
        ((6, 9), ValueError),
    ],
)
def test_rows_that_cannot_be(rows, error):
    net = network(0.5, OPTIONS[1], OPTIONS[1])
    with pytest.raises(error, match="rows"):
        net.forward(values((4, WIDTHS[0])), training=True, rows=rows)
    assert net.layers[0].stream.position == 0


class Scale(nn.Layer):
    """A layer of a user's own, with a parameter."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter("scale", numpy.ones(19, numpy.float32))

    def parameters(self):
        return [self.weight]

    def forward(self, x, training=False):
        self.x = x
        return x * self.weight.value

    def backward(self, grad, input_gradient=True):
        self.weight.grad = (self.x * grad).sum(axis=0)
        return grad * self.weight.value


def test_gradients_are_announced_when_they_are_there():
    net = nn.Sequential([nn.Dense(5, 19), nn.ReLU(), Scale(), nn.Dropout(0.5), nn.Dense(19, 3)])
    net.backward(net.forward(numpy.ones((4, 5)), training=True))
    expected = [parameter.grad.copy() for parameter in net.parameters()]
    seen = {}
    for layer in net.layers:
        if isinstance(layer, nn.Dropout):
            layer.stream.position = 0

    def ready(parameter):
        seen[parameter.name] = parameter.grad.copy()
        assert len(seen) == 5 or not all(name in seen for name in ("dense0.weight", "dense0.bias"))

    net.backward(net.forward(numpy.ones((4, 5)), training=True), ready=ready)
    order = ["dense1.weight", "dense1.bias", "scale", "dense0.weight", "dense0.bias"]
    assert [name.removeprefix("scale0.") for name in seen] == order
    for parameter, grad in zip(net.parameters(), expected, strict=True):
        numpy.testing.assert_allclose(seen[parameter.name], grad, rtol=1e-5)


class OwnForward(nn.Dropout):
    """No part of a fused block."""

    def forward(self, x, training=False):
        return super().forward(x, training)


class OwnElementwise(nn.Elementwise):
    def function(self, x):
        return x * x

    def derivative(self, x, y):
        return 2 * x


KINDS = {
    "gaussian": ((10, 3, 5), lambda: nn.GaussianDropout(0.3)),
    "uniform": ((10, 3, 5), lambda: nn.UniformDropout(0.3)),
    "noise": ((10, 3, 5), lambda: nn.GaussianNoise(0.5)),
    "alpha": ((10, 3, 5), lambda: nn.AlphaDropout(0.4)),
    "feature-alpha": ((10, 7, 5), lambda: nn.FeatureAlphaDropout(0.4)),
    "channels-1": ((10, 7, 5), lambda: nn.Dropout1d(0.4)),
    "channels-1-flat": ((10, 5), lambda: nn.Dropout1d(0.4)),
    "channels-2": ((10, 7, 3, 2), lambda: nn.Dropout2d(0.4, exact_count=True)),
    "channels-3": ((10, 2, 2, 2, 7), lambda: nn.Dropout3d(0.4, data_format="channels_last")),
    "channels-at-test": ((10, 7, 5), lambda: nn.Dropout1d(0.4, scale_at="test")),
    "blocks-1": ((10, 3, 12), lambda: nn.DropBlock1d(0.3, 3)),
    "blocks-2": ((10, 2, 7, 6), lambda: nn.DropBlock2d(0.3, 3, normalise="example")),
    "blocks-3": ((10, 2, 4, 3, 5), lambda: nn.DropBlock3d(0.3, 2, normalise="none")),
    "depth": ((10, 3), lambda: nn.StochasticDepth(0.5)),
    "depth-of-a-batch": ((10, 3), lambda: nn.StochasticDepth(0.5, "batch")),
    "variational": ((10, 4, 7), lambda: nn.VariationalDropout(0.5, exact_count=True)),
    "variational-first": ((10, 4, 7), lambda: nn.VariationalDropout(0.5, time_axis=0)),
    "attention": ((10, 4, 4), lambda: nn.SoftmaxDropout(0.4, causal=True)),
    "concrete": ((10, 3, 5), lambda: nn.ConcreteDropout(0.3)),
    "standout": ((10, 5), lambda: nn.StandoutDropout(0.5, 0.2)),
    "standout-own": ((10, 5), lambda: nn.StandoutDropout(activation=OwnElementwise())),
    "unfused": ((10, 3, 5), lambda: OwnForward(0.4)),
    "unfused-groups": ((10, 3, 5), lambda: OwnForward(0.4, rows_per_mask=4, exact_count=True)),
    "unfused-at-test": ((10, 5), lambda: OwnForward(0.4, rows_per_mask="batch", scale_at="test")),
}


@pytest.mark.parametrize("cuts", [(0, 4, 10), (0, 1, 1, 7, 10)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_unfused_layers_draw_their_part_of_a_batch(kind, cuts):
    shape, make = KINDS[kind]
    x = values(shape, dtype=numpy.float32)
    whole, parts = (nn.Sequential([make()], rng=4) for _ in range(2))
    layer = parts.layers[0]
    for draw in range(2):
        expected = whole.forward(x, training=True)
        grad = whole.backward(x, input_gradient=True)
        for first, last in itertools.pairwise(cuts):
            layer.stream.position = draw
            part = parts.forward(x[first:last], training=True, rows=(first, cuts[-1]))
            numpy.testing.assert_array_equal(part, expected[first:last])
            assert layer.stream.position == draw + 1
            numpy.testing.assert_array_equal(
                parts.backward(x[first:last], input_gradient=True), grad[first:last]
            )
    layer.stream.position = 0
    whole.layers[0].stream.position = 0
    alone = layer.forward(x, training=True)  # nothing of the rows stays
    numpy.testing.assert_array_equal(alone, whole.forward(x, training=True))


def test_all_kinds_are_there():
    """A new kind of layer that draws has to say how it draws for a part of a batch."""
    tested = {type(make()) for _, make in KINDS.values()}
    kinds = {kind for kind in vars(nn).values() if isinstance(kind, type)}
    drawing = {kind for kind in kinds if getattr(kind, "draws_masks", False) is True}
    # Of Dropout see above; an Embedding drops words; no network holds a BiasDropoutResidual.
    assert drawing - tested == {nn.Dropout, nn.Embedding, nn.BiasDropoutResidual}


@pytest.mark.parametrize("total", [33, 100])
def test_blocks_are_scaled_by_all_that_a_large_batch_keeps(total):
    x = numpy.ones((total, 2, 9), numpy.float32)
    whole, part = (nn.Sequential([nn.DropBlock1d(0.4, 2)], rng=1) for _ in range(2))
    y = whole.forward(x, training=True)
    assert abs(y.mean() - 1) < 1e-6
    given = part.forward(x[20:27], training=True, rows=(20, total))
    numpy.testing.assert_array_equal(given, y[20:27])


@pytest.mark.parametrize("kind", ["channels-2", "blocks-2", "alpha", "attention"])
def test_a_part_that_does_not_fit_takes_no_draw(kind):
    layer = KINDS[kind][1]()
    net = nn.Sequential([layer], rng=4)
    layer._set_keep_prob(0.5)
    wrong = numpy.ones((4, 3), numpy.float32)
    if kind in ("alpha", "attention"):
        wrong = numpy.full((4, 3), "x")
    with pytest.raises((ValueError, TypeError), match="x must"):
        net.forward(wrong, training=True, rows=(0, 8))
    assert layer.stream.position == 0
