"""Cases of `mpi_cases.py`: training on several ranks is training on one."""

import tempfile
from pathlib import Path

import numpy
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
    parts,
    same_everywhere,
    together,
    weights_of,
)

from fastdrop import MaskStream, load, mpi, nn, optim, save

OPTIMISERS = {
    "sgd": lambda net: optim.SGD(net, 0.1, momentum=0.9, max_norm=2.0),
    "adam": lambda net: optim.Adam(net, 0.01),
    "adamw": lambda net: optim.AdamW(net, lambda step: 0.01 / (1 + step)),
}


def assert_trains_as_one(dropout, make_opt, batches, dtype, bound, uneven=False):
    net, other = network(dropout, dtype), network(dropout, dtype)
    parallel = mpi.DataParallel(net, make_opt(net), COMM, timeout=TIMEOUT)
    values = together(parallel, batches, uneven)
    expected = alone(other, make_opt(other), batches)
    numpy.testing.assert_allclose(values, expected, rtol=bound)
    numpy.testing.assert_allclose(weights_of(net), weights_of(other), rtol=bound, atol=bound)
    assert same_everywhere(weights_of(net))
    for layer, single in zip(net.layers, other.layers, strict=True):
        if isinstance(layer, nn.Dropout):
            assert layer.stream == single.stream


@case
def trains_the_same_network():
    batches = [data(rows, rows) for rows in (37, 37, 37, 5, 37, 1, 2, 40)]
    for dropout in DROPOUTS:
        for uneven in (False, True):
            name = "adam" if uneven else "sgd"
            assert_trains_as_one(dropout, OPTIMISERS[name], batches, numpy.float64, 1e-10, uneven)
    assert_trains_as_one(DROPOUTS[1], OPTIMISERS["adamw"], batches, numpy.float64, 1e-10)
    assert_trains_as_one(DROPOUTS[0], OPTIMISERS["sgd"], batches, numpy.float32, 2e-3)


@case
def one_gradient_is_within_the_stated_bound():
    """2 gamma of the sums of absolute terms, as docs/guide/scaling.md states it."""
    x, y = data(64)
    for dropout in DROPOUTS[:3]:
        net, exact = network(dropout, numpy.float32), network(dropout, numpy.float64)
        exact_weights = exact.state_dict()
        for name, value in net.state_dict().items():
            if isinstance(value, numpy.ndarray):
                exact_weights[name] = value.astype(numpy.float64)
        exact.load_state_dict(exact_weights)
        parallel = mpi.DataParallel(net, optim.SGD(net, 0.0), COMM, timeout=TIMEOUT)
        together(parallel, [(x, y)])
        _, grad = nn.SoftmaxCrossEntropy()(exact.forward(x, training=True), y)
        exact.backward(grad)
        for mine, theirs in zip(net.parameters(), exact.parameters(), strict=True):
            expected = theirs.full_grad()
            scale = numpy.abs(expected).max()
            numpy.testing.assert_allclose(mine.full_grad(), expected, atol=4e-6 * scale + 1e-8)


@case
def masks_are_those_of_the_batch():
    class Seen(nn.Layer):
        def forward(self, x, training=False):
            self.x = x.copy()
            return x

        def backward(self, grad, input_gradient=True):
            return grad

    for options in ({"rows_per_mask": "batch"}, {"rows_per_mask": 1}, {"rows_per_mask": 3}):
        seen = Seen()
        layers = [nn.Dropout(0.4, **options), seen, nn.Dense(50, 2)]
        net = nn.Sequential(layers, rng=7, dtype=numpy.float64)
        parallel = mpi.DataParallel(net, optim.SGD(net, 0.1), COMM, timeout=TIMEOUT)
        for draw, rows in enumerate((23, 23, 8)):
            together(parallel, [(numpy.ones((rows, 50)), numpy.zeros(rows, int))], draw == 1)
            mine = numpy.concatenate(COMM.allgather(seen.x)) != 0
            mask = MaskStream(7).spawn(1)[0].draw((rows, 50), rate=0.4, at=draw, **options)
            kept = mask.to_array()
            if options["rows_per_mask"] == 3:
                kept = numpy.repeat(kept, 3, axis=0)[:rows]
            numpy.testing.assert_array_equal(mine, numpy.broadcast_to(kept, mine.shape))


@case
def sequences_and_weights():
    generator = numpy.random.default_rng(2)
    x = generator.standard_normal((11, 5, 6))
    y = generator.standard_normal((11, 5, 3))
    weights = generator.random(11)
    weights[: parts(11)[1]] = 0  # rank 0's rows count for nothing
    for extra in ((), (weights,)):
        if SIZE == 1 and extra:
            continue
        for dropout in ({"rows_per_mask": 1}, {"shared_axes": (1,)}):
            net, other = network(dropout), network(dropout)
            loss = nn.MeanSquaredError()
            parallel = mpi.DataParallel(net, optim.SGD(net, 0.1), COMM, timeout=TIMEOUT)
            batches = [(x, y, *extra)] * 3
            values = together(parallel, batches, loss=loss)
            expected = alone(other, optim.SGD(other, 0.1), batches, loss)
            numpy.testing.assert_allclose(values, expected, rtol=1e-10)
            numpy.testing.assert_allclose(weights_of(net), weights_of(other), atol=1e-10)


@case
def state_is_that_of_rank_0():
    net = network(DROPOUTS[1], seed=RANK)
    opt = optim.Adam(net, 0.01)
    alone(net, opt, [data(9, RANK)] * (RANK + 1))
    first = COMM.bcast((net.state_dict(), opt.state_dict()))
    mpi.DataParallel(net, opt, COMM, timeout=TIMEOUT)
    for mine, theirs in zip((net.state_dict(), opt.state_dict()), first, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            if isinstance(value, numpy.ndarray):
                numpy.testing.assert_array_equal(value, theirs[name])
            else:
                assert value == theirs[name]


@case
def bytes_fall_with_the_rate():
    """Those of the issue's network, on average over masks."""
    sent = {}
    x = numpy.random.default_rng(0).random((8, 784), numpy.float32)
    for rate in (0.0, 0.5, 0.8):
        layers = []
        for units_in in (784, 1024):
            layers += [nn.Dense(units_in, 1024), nn.ReLU()]
            layers += [nn.Dropout(rate, rows_per_mask="batch")]
        net = nn.Sequential([*layers, nn.Dense(1024, 10)], rng=0)
        parallel = mpi.DataParallel(net, optim.SGD(net, 0.01), COMM, timeout=TIMEOUT)
        before = parallel.bytes_sent
        together(parallel, [(x, numpy.zeros(8, int))] * 10)
        sent[rate] = (parallel.bytes_sent - before) / 10
    if SIZE == 1:
        assert sent == {0.0: 0, 0.5: 0, 0.8: 0}
        return
    weights = 784 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 10 + 10
    assert 0 <= sent[0.0] - 4 * weights < 1000
    assert sent[0.5] <= 0.42 * sent[0.0]
    assert sent[0.8] <= 0.12 * sent[0.0]


# --- Files ---------------------------------------------------------------------------------------


@case
def checkpoints():
    directory = Path(COMM.bcast(tempfile.mkdtemp() if RANK == 0 else None))
    net = network(DROPOUTS[1])
    parallel = mpi.DataParallel(net, optim.Adam(net, 0.01), COMM, timeout=TIMEOUT)
    batches = [data(13, seed) for seed in range(6)]
    together(parallel, batches[:3])
    path = directory / "net.npz"
    parallel.save(path if RANK == 0 else "/nowhere/else")
    together(parallel, batches[3:])
    again = network(DROPOUTS[1], seed=RANK + 5)
    resumed = mpi.DataParallel(again, optim.Adam(again, 0.01), COMM, timeout=TIMEOUT)
    resumed.load(path if RANK == 0 else None)
    together(resumed, batches[3:])
    numpy.testing.assert_array_equal(weights_of(net), weights_of(again))
    if RANK == 0:  # the file is one of fastdrop.save
        single = network(DROPOUTS[1])
        load(path, single, optim.Adam(single, 0.01))
        save(directory / "other.npz", single)
    missing = directory / "missing" / "net.npz"
    rank = "rank 0" if SIZE > 1 else ""
    assert_all_raise(FileNotFoundError, [rank, "missing"], lambda: parallel.save(missing))
    assert_all_raise(FileNotFoundError, [rank, "missing"], lambda: parallel.load(missing))
    words = [rank, "optimiser"]
    other = directory / "other.npz"
    assert_all_raise(ValueError, words, lambda: parallel.load(other))
    together(parallel, batches[:1])


@case
def parts_of_the_world():
    """Two communicators side by side, and one of a single rank."""
    half = COMM.Split(RANK % 2)
    net, other = network(DROPOUTS[1]), network(DROPOUTS[1])
    x, y = data(8)
    parallel = mpi.DataParallel(net, optim.SGD(net, 0.1), half, timeout=TIMEOUT)
    mine = slice(8 * half.rank // half.size, 8 * (half.rank + 1) // half.size)
    for _ in range(3):
        parallel.step(x[mine], y[mine], nn.SoftmaxCrossEntropy())
    single = mpi.DataParallel(other, optim.SGD(other, 0.1), MPI.COMM_SELF, timeout=TIMEOUT)
    for _ in range(3):
        single.step(x, y, nn.SoftmaxCrossEntropy())
    numpy.testing.assert_allclose(weights_of(net), weights_of(other), atol=1e-10)
    assert "rank" in repr(parallel)


@case
def many_objects_on_one_communicator():
    """More than MPI has communicators of: they share one pair."""
    net = nn.Sequential([nn.Dense(6, 3)], rng=0)
    opt = optim.SGD(net, 0.1)
    for _ in range(2500 if SIZE == 1 else 50):
        mpi.DataParallel(net, opt, COMM, timeout=TIMEOUT)
