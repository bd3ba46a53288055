"""What is multiplied, as the kernels report it."""

import itertools
import tracemalloc

import numpy
import pytest
from nn_cases import assert_step_agrees, values

from fastdrop import nn, optim
from fastdrop._backend import kernels

BATCH, SIZES = 64, (256, 512, 512, 16)


class Counter:
    """Counts multiply-adds while it is active."""

    def __init__(self, monkeypatch):
        self.total = 0
        self.methods = []
        matmul = kernels.matmul

        def counted(product):
            self.methods.append(kernels.plan(product))
            products = matmul(product)
            self.total += products
            return products

        monkeypatch.setattr(kernels, "matmul", counted)

    def take(self):
        total, self.total = self.total, 0
        return total


@pytest.fixture
def counter(monkeypatch):
    return Counter(monkeypatch)


def network(activation, dropout, sizes=SIZES):
    layers = []
    for inside, outside in itertools.pairwise(sizes[:-1]):
        layers += [nn.Dense(inside, outside), activation()]
        if dropout is not None:
            layers.append(nn.Dropout(**dropout))
    return nn.Sequential([*layers, nn.Dense(*sizes[-2:])], rng=0)


def step(net, x, counter):
    """Multiply-adds of a forward and of a backward pass."""
    y = net.forward(x, training=True)
    forward = counter.take()
    net.backward(y)
    return forward, counter.take()


def test_without_dropout_everything_is_multiplied(counter):
    net = network(nn.Tanh, None)
    a, b, c, d = SIZES
    forward, backward = step(net, values((BATCH, a), dtype=numpy.float32), counter)
    assert forward == BATCH * (a * b + b * c + c * d)
    assert backward == BATCH * (a * b + 2 * b * c + 2 * c * d)


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.75])
def test_batchwise_multiplies_active_units_on_both_sides_only(counter, rate):
    """Exactly: with half the units dropped, a quarter of the products between hidden layers."""
    dropout = {"rate": rate, "rows_per_mask": "batch", "exact_count": True}
    net = network(nn.Tanh, dropout)
    a, b, c, d = SIZES
    b, c = round(b * (1 - rate)), round(c * (1 - rate))
    for _ in range(2):
        forward, backward = step(net, values((BATCH, a), dtype=numpy.float32), counter)
        assert forward == BATCH * (a * b + b * c + c * d)
        assert backward == BATCH * (a * b + 2 * b * c + 2 * c * d)


@pytest.mark.parametrize("rows_per_mask", [1, 32])
def test_masks_of_rows_and_zeros_of_relu_are_skipped(counter, rows_per_mask):
    """Behind rate 0.5 and a ReLU a quarter of the elements is left, forward and backward.

    Dense remain the products of the network's input, which has no zeros, and those with 16 columns.
    """
    net = network(nn.ReLU, {"rate": 0.5, "rows_per_mask": rows_per_mask})
    a, b, c, d = SIZES
    forward, backward = step(net, values((BATCH, a), dtype=numpy.float32), counter)
    assert forward <= BATCH * (a * b + 0.3 * b * c + c * d)
    assert backward <= BATCH * (a * b + 2 * 0.3 * b * c + 2 * c * d)


def test_zeros_of_relu_are_skipped_without_dropout(counter):
    net = network(nn.ReLU, None)
    a, b, c, d = SIZES
    _, backward = step(net, values((BATCH, a), dtype=numpy.float32), counter)
    assert backward <= BATCH * (a * b + 2 * 0.6 * b * c + 2 * c * d)


@pytest.mark.parametrize("dropout", [None, {"rate": 0.5}, {"rate": 0.5, "rows_per_mask": "batch"}])
def test_several_threads_leave_the_blas_and_its_spinning_threads_alone(
    counter, restore_threads, dropout
):
    """What is multiplied is the same."""
    counts = []
    for threads in (1, 2):
        kernels.set_num_threads(threads)
        if kernels.get_num_threads() != threads:
            pytest.skip("built without threads")
        net = network(nn.Tanh, dropout)
        net.backward(net.forward(values((BATCH, SIZES[0]), dtype=numpy.float32), training=True))
        assert "dense" not in counter.methods or threads == 1
        counter.methods.clear()
        counts.append(counter.take())
    assert counts[0] == counts[1]


def test_no_product_for_the_gradient_of_the_input_unless_asked(counter):
    net = network(nn.Tanh, None)
    y = net.forward(values((BATCH, SIZES[0])), training=True)
    counter.take()
    net.backward(y)
    without = counter.take()
    net.backward(y, input_gradient=True)
    assert counter.take() - without == BATCH * SIZES[0] * SIZES[1]


def test_multiply_adds_fall_with_the_rate(counter):
    counts = []
    for rate in (0.0, 0.2, 0.5, 0.8):
        net = network(nn.ReLU, {"rate": rate, "rows_per_mask": "batch", "exact_count": True})
        counts.append(sum(step(net, values((BATCH, SIZES[0]), dtype=numpy.float32), counter)))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 1.1 * counts[1] > 1.2 * counts[2] > 1.4 * counts[3]


@pytest.mark.parametrize("rows_per_mask", [1, 32, "batch", None])
def test_no_large_array_is_allocated_once_it_runs(rows_per_mask):
    """The peak of a later step stays below one array of weight size, returned arrays included."""
    dropout = None if rows_per_mask is None else {"rate": 0.5, "rows_per_mask": rows_per_mask}
    net = network(nn.ReLU, dropout)
    x = values((BATCH, SIZES[0]), dtype=numpy.float32)
    loss = nn.SoftmaxCrossEntropy()
    opt = optim.Adam(net, max_norm=3)
    target = numpy.arange(BATCH) % SIZES[-1]

    def run():
        _, grad = loss(net.forward(x, training=True), target)
        net.backward(grad)
        opt.step()

    for _ in range(3):
        run()
    tracemalloc.start()
    try:
        for _ in range(5):
            run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    activation = BATCH * SIZES[1] * 4
    assert peak < activation < SIZES[1] * SIZES[2] * 4


def test_relu_that_stays_negative_costs_almost_nothing(counter):
    """The share of zeros is measured in every step, not assumed."""
    net = network(nn.ReLU, {"rate": 0.5})
    net.layers[0].bias = numpy.full(SIZES[1], -1e3)
    a, b, _, d = SIZES
    forward, _ = step(net, values((BATCH, a), dtype=numpy.float32), counter)
    assert forward <= BATCH * (a * b + SIZES[2] * d)


@pytest.mark.parametrize("rows_per_mask", [None, 1, "batch"])
def test_zeros_of_the_input_are_not_multiplied(counter, rows_per_mask):
    a, b = 256, 512
    x = values((BATCH, a), dtype=numpy.float32) * (values((BATCH, a), seed=1) > 1)
    stored = kept = numpy.count_nonzero(x)
    layers = [nn.Dense(a, b)]
    if rows_per_mask is not None:
        layers.insert(0, nn.Dropout(0.25, rows_per_mask=rows_per_mask))
        kept = 0.75 * stored
    net = nn.Sequential(layers, rng=0, skip_zeros=True)
    assert step(net, x, counter) == pytest.approx((kept * b, kept * b), rel=0.15)
    assert_step_agrees(net, 0, x, 1, 1e-4)
    counter.take()
    # What has no zeros is multiplied as without the option.
    dense = abs(values((BATCH, a), dtype=numpy.float32)) + 1
    whole = nn.Sequential([nn.Dense(a, b)], rng=0, skip_zeros=True)
    assert step(whole, dense, counter) == (BATCH * a * b, BATCH * a * b)
