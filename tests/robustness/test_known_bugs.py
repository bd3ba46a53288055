"""The bugs that others shipped, each as a test by name."""

import subprocess
import sys
import warnings

import numpy
import pytest
from conftest import assert_identical, selected

import fastdrop
from fastdrop import Mask, MaskStream, nn

X = numpy.ones((60, 70), numpy.float32)


def batchwise_net():
    """A network whose hidden units are on before dropout, whatever the input."""
    layers = [nn.Dense(20, 200), nn.ReLU(), nn.Dropout(0.5, rows_per_mask="batch")]
    net = nn.Sequential([*layers, nn.Dense(200, 3)], rng=0)
    net.layers[0].bias = numpy.full(200, 100)
    return net


class Hidden:
    """A layer of units that are all on, and dropout: shows what was kept."""

    def __init__(self, rate, rows_per_mask):
        layers = [nn.Dense(20, 200), nn.ReLU(), nn.Dropout(rate, rows_per_mask=rows_per_mask)]
        self.net = nn.Sequential(layers, rng=0)
        self.net.layers[0].bias = numpy.full(200, 100)

    def kept(self, rows):
        """Which units each of the rows of the next batch keeps."""
        return self.net.forward(numpy.ones((rows, 20)), training=True) != 0


def test_few_distinct_masks():
    """MXNet's dropout once had only 4096 different masks."""
    stream = MaskStream(0)
    draws = {stream.draw((64,), rate=0.5).bits.tobytes() for _ in range(20_000)}
    seeds = {MaskStream(seed).draw((64,), rate=0.5).bits.tobytes() for seed in range(20_000)}
    assert len(draws) == 20_000
    assert len(seeds) == 20_000
    rows = MaskStream(1).draw((20_000, 64), rate=0.5).bits.reshape(20_000, 8)
    assert len(numpy.unique(rows, axis=0)) == 20_000


@pytest.mark.parametrize("rate", [0.5, 0.3])
def test_seeding_by_thread_id(restore_threads, rate):
    """nGraph seeded each thread by its number, so that parts of a mask repeated each other."""
    masks = []
    for threads in (1, 4):
        fastdrop.set_num_threads(threads)
        masks.append(MaskStream(0).draw((1 << 22,), rate=rate))
    assert masks[0] == masks[1]
    words = masks[0].bits.view(numpy.uint64)
    assert len(numpy.unique(words)) == words.size
    y, mask = fastdrop.dropout(numpy.ones(1 << 22, numpy.float32), rate, rng=0)
    assert mask == masks[0]
    numpy.testing.assert_array_equal(y != 0, mask.to_array())


UNSEEDED = """
import fastdrop, numpy
from fastdrop import nn
x = numpy.ones((8, 64), numpy.float32)
found = [fastdrop.dropout(x, 0.5)[1], fastdrop.MaskStream().draw(x.shape, rate=0.5)]
layer = nn.Dropout(0.5)
found.append(fastdrop.Mask.from_array(layer.forward(x, training=True)))
net = nn.Sequential([nn.Dropout(0.5)])
found.append(fastdrop.Mask.from_array(net.forward(x, training=True)))
print(*(mask.bits.tobytes().hex() for mask in found))
"""


def test_the_same_seed_always():
    """Paddle's dropout was seeded alike in every run."""
    code = [sys.executable, "-c", UNSEEDED]
    runs = [
        subprocess.run(code, capture_output=True, text=True, check=True, timeout=60)
        for _ in range(2)
    ]
    masks = [mask for run in runs for mask in run.stdout.split()]
    assert len(set(masks)) == len(masks) == 8


@pytest.mark.parametrize("dtype", [numpy.float16, numpy.float32, numpy.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"exact_count": True},
        {"rows_per_mask": 8},
        {"rows_per_mask": "batch"},
        {"shared_axes": 1},
        {"scale_at": "test"},
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", ["C", "F", "out", "in place"])
def test_a_mask_that_is_all_ones_or_all_zeros(dtype, options, layout):
    """MXNet's mask output held ones only, or zeros only, on some paths."""
    x = numpy.asarray(X, dtype, order="F" if layout == "F" else "C").copy(order="K")
    out = {"out": numpy.full_like(x, 7), "in place": x}.get(layout)
    y, mask = fastdrop.dropout(x, 0.5, rng=3, out=out, **options)
    kept = mask.to_array()
    assert 0.3 < kept.mean() < 0.7
    rows = options.get("rows_per_mask", 1)
    if isinstance(rows, int):
        kept = numpy.repeat(kept, rows, axis=0)[: len(x)]
    numpy.testing.assert_array_equal(y != 0, numpy.broadcast_to(kept, x.shape))


def test_dropout_left_on_outside_training():
    """thinc's dropout stayed on after training."""
    net = batchwise_net()
    x = numpy.random.default_rng(0).standard_normal((16, 20))
    before = net.forward(x)
    for _ in range(3):
        assert (net.forward(x, training=True) != before).any()
        position = net.layers[2].stream.position
        assert_identical(net.forward(x), before)
        assert net.layers[2].stream.position == position
    dense = numpy.maximum(x @ net.layers[0].weight + net.layers[0].bias, 0)
    expected = dense @ net.layers[3].weight + net.layers[3].bias
    numpy.testing.assert_allclose(before, expected, rtol=1e-4, atol=1e-5)
    y, mask = fastdrop.dropout(X, 0.5, training=False)
    assert y is X
    assert mask is None


def test_dropout_left_on_in_an_estimator():
    pytest.importorskip("sklearn")
    x = numpy.random.default_rng(0).standard_normal((60, 5)).astype(numpy.float32)
    model = fastdrop.MLPRegressor(hidden_layer_sizes=(40,), dropout=0.5, max_iter=3, random_state=0)
    with warnings.catch_warnings(action="ignore"):  # three passes are not many
        model.fit(x, x[:, 0])
    first = model.predict(x)
    numpy.testing.assert_array_equal(model.predict(x), first)
    hidden = numpy.maximum(x @ model.coefs_[0] + model.intercepts_[0], 0)
    expected = (hidden @ model.coefs_[1] + model.intercepts_[1])[:, 0]
    numpy.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows_per_mask", [1, 4, "batch"])
def test_backward_without_the_mask(rows_per_mask):
    """thinc's backward pass let the gradient through where the forward pass had dropped."""
    grad = numpy.random.default_rng(0).standard_normal(X.shape).astype(numpy.float32)
    y, mask = fastdrop.dropout(X, 0.5, rng=1, rows_per_mask=rows_per_mask)
    assert_identical(fastdrop.dropout_backward(grad, mask), selected(grad, y != 0, 2))
    layer = nn.Dropout(0.5, rows_per_mask=rows_per_mask)
    y = layer.forward(X, training=True)
    assert_identical(layer.backward(grad), selected(grad, y != 0, 2))
    net = nn.Sequential([nn.Dropout(0.5, rows_per_mask=rows_per_mask)], rng=0)
    y = net.forward(X, training=True)
    assert_identical(net.backward(grad, input_gradient=True), selected(grad, y != 0, 2))


def test_backward_without_the_mask_of_weights():
    net = batchwise_net()
    net.forward(numpy.ones((8, 20)), training=True)
    net.backward(numpy.ones((8, 3)))
    into, out_of = net.layers[0].grad_weight, net.layers[3].grad_weight
    dropped = ~out_of.any(axis=1)
    assert 60 < dropped.sum() < 140
    assert not into[:, dropped].any()
    assert not net.layers[0].grad_bias[dropped].any()
    assert into[:, ~dropped].any(axis=0).all()


@pytest.mark.parametrize("rows_per_mask", [1, 4, "batch"])
def test_a_mask_that_is_recomputed_differently_in_backward(rows_per_mask):
    """It is kept, not drawn again: other draws in between, other threads change nothing."""
    stream = MaskStream(0)
    layer = nn.Dropout(0.3, rows_per_mask=rows_per_mask)
    layer.stream = stream
    y = layer.forward(X, training=True)
    for _ in range(3):
        stream.draw((9,), rate=0.5)
    position = stream.position
    first = layer.backward(X)
    assert stream.position == position
    assert_identical(first, y)  # of ones and ones
    assert_identical(layer.backward(X), first)
    layer.forward(X)  # a validation pass between forward and backward
    assert_identical(layer.backward(X), first)
    net = nn.Sequential([nn.Dropout(0.3, rows_per_mask=rows_per_mask)], rng=0)
    y = net.forward(X, training=True)
    fastdrop.dropout(X, 0.5)
    assert_identical(net.backward(X, input_gradient=True), y)


@pytest.mark.parametrize("rows_per_mask", [1, 4])
def test_the_last_short_batch_changes_the_masks(rows_per_mask):
    """baal's masks of an epoch depended on how the data was cut into batches."""
    masks = []
    for sizes in ((32, 32, 32), (32, 10, 32)):
        hidden = Hidden(0.5, rows_per_mask)
        masks.append([hidden.kept(rows) for rows in sizes])
    numpy.testing.assert_array_equal(masks[0][0], masks[1][0])
    numpy.testing.assert_array_equal(masks[0][1][:10], masks[1][1])
    numpy.testing.assert_array_equal(masks[0][2], masks[1][2])


def test_the_batch_size_changes_the_units_of_a_shared_mask():
    units = [Hidden(0.5, "batch").kept(rows)[0] for rows in (1, 7, 32)]
    numpy.testing.assert_array_equal(units[0], units[1])
    numpy.testing.assert_array_equal(units[0], units[2])


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.9, 1.0])
def test_keep_and_drop_confused(rate):
    """A rate is the probability to drop, everywhere; kept values grow by what that leaves."""
    n = 200 * 200
    within = 6 * (rate * (1 - rate) / n) ** 0.5
    ones = numpy.ones((200, 200), numpy.float64)
    y, mask = fastdrop.dropout(ones, rate, rng=0)
    layer, by_keep = nn.Dropout(rate), nn.Dropout(keep_prob=1 - rate)
    layer.stream, by_keep.stream = MaskStream(1), MaskStream(1)
    outputs = [
        y,
        fastdrop.dropout(ones, keep_prob=1 - rate, rng=0)[0],
        layer.forward(ones, training=True),
        by_keep.forward(ones, training=True),
        nn.Sequential([nn.Dropout(rate)], rng=2, dtype=float).forward(ones, training=True),
        fastdrop.apply_mask(ones, MaskStream(5).draw(ones.shape, rate=rate)),
    ]
    for output in outputs:
        assert abs((output == 0).mean() - rate) <= within
        numpy.testing.assert_allclose(output[output != 0], 1 / (1 - rate) if rate < 1 else 0)
    assert mask.keep_prob == 1 - rate
    assert layer.rate == pytest.approx(rate)
    assert Mask.from_array([True, False], keep_prob=0.25).scale == 4
    assert abs(Hidden(rate, 1).kept(200).mean() - (1 - rate)) <= within
