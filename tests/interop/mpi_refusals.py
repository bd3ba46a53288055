"""Cases of `mpi_cases.py`: errors of one rank, on all of them."""

import numpy
import pytest
from mpi4py import MPI
from mpi_common import (
    COMM,
    DROPOUTS,
    RANK,
    SIZE,
    TIMEOUT,
    alone,
    assert_all_raise,
    case,
    data,
    network,
    weights_of,
)

from fastdrop import mpi, nn, optim

# --- Errors on all ranks -------------------------------------------------------------------------


class Broken(nn.Layer):
    """Fails in its forward pass on one rank, at training."""

    def forward(self, x, training=False):
        if training and RANK == SIZE - 1 and len(x) == 3:
            raise LookupError("a shelf")
        return x

    def backward(self, grad, input_gradient=True):
        return grad


@case
def errors_name_the_rank_and_change_nothing():
    bad = SIZE - 1
    x, y = data(4 * SIZE)
    mine = slice(4 * RANK, 4 * RANK + 4)
    x, y = x[mine], y[mine]
    loss = nn.SoftmaxCrossEntropy()
    net = network(DROPOUTS[1])
    parallel = mpi.DataParallel(net, optim.Adam(net, 0.01), COMM, timeout=TIMEOUT)
    parallel.step(x, y, loss)
    before = net.state_dict()

    def step(x=x, y=y, loss=loss, weights=None, opt=None):
        return lambda: parallel.step(x, y, loss, weights)

    def on_bad(value, otherwise):
        return value if bad == RANK else otherwise

    nan = x.copy()
    nan[1, 2] = numpy.nan

    def spoilt(change):
        """A loss of the user's own, wrong on one rank."""

        def wrong(prediction, *targets):
            value, grad = loss(prediction, *targets)
            return change(value, grad) if bad == RANK else (value, grad)

        return wrong

    def with_one(grad, value):
        grad[-1, 0] = value
        return grad

    rank = f"rank {bad}" if SIZE > 1 else ""
    losses = [
        (FloatingPointError, ["value of loss", "nan"], lambda v, g: (numpy.nan, g)),
        (FloatingPointError, ["value of loss", "-inf"], lambda v, g: (-numpy.inf, g)),
        (TypeError, ["value of loss", "None"], lambda v, g: (None, g)),
        (FloatingPointError, ["nan at (3, 0)"], lambda v, g: (v, with_one(g, numpy.nan))),
        (FloatingPointError, ["inf at (3, 0)"], lambda v, g: (v, with_one(g, numpy.inf))),
        (ValueError, ["gradient", "(4, 3)", "(3,)"], lambda v, g: (v, g[0])),
        (ValueError, ["gradient", "(4, 3)", "(3, 3)"], lambda v, g: (v, g[1:])),
        (TypeError, ["gradient", "real numbers"], lambda v, g: (v, g + 1j)),
        (TypeError, ["pair", "float"], lambda v, g: v),
        (TypeError, ["pair", "tuple of 3"], lambda v, g: (v, g, g)),
    ]  # fmt: skip
    checks = [(kind, [rank, *words], step(loss=spoilt(how))) for kind, words, how in losses]
    checks += [
        (ValueError, [rank, "(batch, ..., 6)", "(0, 5)"], step(on_bad(x[:, :5], x))),
        (TypeError, [rank, "real numbers"], step(on_bad(x.astype(str), x))),
        (TypeError, [rank, "real numbers"], step(on_bad(x.astype(complex), x))),
        (ValueError, [rank, "y_rows", "expected 4"], step(y=on_bad(y[:3], y))),
        (ValueError, [rank, "x_rows", "()"], step(on_bad(numpy.float64(1), x))),
        (ValueError, [rank, "[0, 3)", "7"], step(y=on_bad(y + 5, y))),
        (TypeError, [rank, "class numbers"], step(y=on_bad(y + 0.5, y))),
        (FloatingPointError, [rank, "nan"], step(on_bad(nan, x))),
        (KeyError, [rank, "x"], step(loss=on_bad(lambda *_: {}["x"], loss))),
        (ValueError, ["sample_weight", "sum", "0"], step(weights=numpy.zeros(4))),
        (ValueError, [rank, "at least 0"], step(weights=on_bad(-numpy.ones(4), numpy.ones(4)))),
        (ValueError, ["at least", "none"], step(x[:0], y[:0])),
    ]
    if SIZE > 1:
        checks += [
            (ValueError, [rank, "sample_weight"], step(weights=on_bad(numpy.ones(4), None))),
            (ValueError, [rank, "rank 0"], step(on_bad(x[:, None], x))),
        ]
    for number, (kind, words, call) in enumerate(checks):
        try:
            assert_all_raise(kind, words, call)
        except AssertionError as error:
            raise AssertionError(f"check {number}: {error}") from None
        for name, value in net.state_dict().items():
            if isinstance(value, numpy.ndarray):
                numpy.testing.assert_array_equal(value, before[name])
            else:
                assert value == before[name], name
    # The next step is the one that would have come.
    other = network(DROPOUTS[1])
    batch = tuple(numpy.concatenate(COMM.allgather(part)) for part in (x, y))
    alone(other, optim.Adam(other, 0.01), [batch] * 2)
    parallel.step(x, y, loss)
    numpy.testing.assert_allclose(weights_of(net), weights_of(other), atol=1e-10)


@case
def a_layer_that_fails_on_one_rank():
    net = nn.Sequential([nn.Dense(6, 5), Broken(), nn.Dense(5, 3)], rng=0)
    parallel = mpi.DataParallel(net, optim.SGD(net, 0.1), COMM, timeout=TIMEOUT)
    x, y = data(3)
    loss = nn.SoftmaxCrossEntropy()
    words = [f"rank {SIZE - 1}" if SIZE > 1 else "", "LookupError", "a shelf"]
    assert_all_raise(mpi.RankError, words, lambda: parallel.step(x, y, loss))
    assert parallel.step(x[:2], y[:2], loss) > 0


@case
def a_large_network_that_diverges():
    layers = [nn.Dense(784, 1024), nn.ReLU(), nn.Dropout(0.5, rows_per_mask="batch")]
    net = nn.Sequential([*layers, nn.Dense(1024, 10)], rng=0)
    parallel = mpi.DataParallel(net, optim.SGD(net, 0.1), COMM, timeout=TIMEOUT)
    x = numpy.full((2, 784), numpy.inf if RANK == SIZE - 1 else 1, numpy.float32)
    y, loss = numpy.zeros(2, int), nn.SoftmaxCrossEntropy()
    words = [f"rank {SIZE - 1}" if SIZE > 1 else "", "nan"]
    for _ in range(2):
        assert_all_raise(FloatingPointError, words, lambda: parallel.step(x, y, loss))
    assert parallel.step(numpy.ones_like(x), y, loss) > 0


@case
def ranks_that_differ_are_refused():
    bad, loss = SIZE - 1, nn.SoftmaxCrossEntropy()
    x, y = data(4)
    if SIZE == 1:
        return
    other = bad == RANK

    def make(net, opt=None):
        return lambda: mpi.DataParallel(net, opt or optim.SGD(net, 0.1), COMM, timeout=TIMEOUT)

    rank = f"rank {bad}"
    net = network(DROPOUTS[0])
    float32 = network(DROPOUTS[0], numpy.float32 if other else numpy.float64)
    wide = network(DROPOUTS[0], widths=(6, 41 if other else 40, 33, 3))
    checks = [
        (ValueError, [rank, "dense0.weight", "float32"], make(float32)),
        (ValueError, [rank, "41"], make(wide)),
        (
            ValueError,
            [rank, "dropout0", "batch"],
            make(network(DROPOUTS[1] if other else DROPOUTS[0])),
        ),
        (ValueError, [rank, "optimiser", "0.2"], make(net, optim.SGD(net, 0.2 if other else 0.1))),
        (ValueError, [rank, "Adam"], make(net, (optim.Adam if other else optim.AdamW)(net, 0.1))),
        (TypeError, [rank, "net", "int"], make(3 if other else net, optim.SGD(net, 0.1))),
        (TypeError, [rank, "opt", "str"], make(net, "x" if other else optim.SGD(net, 0.1))),
        (
            ValueError,
            [rank, "parameters of net", "dense0.weight"],
            make(net, optim.SGD(network(DROPOUTS[0]) if other else net, 0.1)),
        ),
    ]
    for kind, words, call in checks:
        assert_all_raise(kind, words, call)
    parallel = make(net)()
    if other:
        net.forward(x, training=True)
    words = [rank, "0 steps and 2 draws", "0 steps and 0 draws"]
    assert_all_raise(ValueError, words, lambda: parallel.step(x, y, loss))
    parallel = make(net)()  # takes over rank 0's state
    parallel.opt.learning_rate = 0.3 if other else 0.1
    words = [rank, "learning rate 0.3", "learning rate 0.1"]
    assert_all_raise(ValueError, words, lambda: parallel.step(x, y, loss))


@case
def arguments_of_the_constructor():
    net = network(DROPOUTS[0])
    opt = optim.SGD(net, 0.1)
    for comm in (3, MPI.COMM_NULL):
        with pytest.raises((TypeError, ValueError), match="comm"):
            mpi.DataParallel(net, opt, comm)
    for timeout in (0, -1, float("nan"), "x"):
        with pytest.raises((TypeError, ValueError), match="timeout"):
            mpi.DataParallel(net, opt, COMM, timeout=timeout)
