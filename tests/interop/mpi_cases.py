"""What the tests of fastdrop.mpi run on every rank; `test_mpi.py` starts it with mpiexec.

Usage: mpiexec -n N python mpi_cases.py CASE...; rank 0 prints one JSON line for every case.
"""

import itertools
import json
import sys
import tempfile
import traceback
from pathlib import Path

import numpy
import pytest
from mpi4py import MPI

from fastdrop import MaskStream, load, mpi, nn, optim, save

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
TIMEOUT = 30.0
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


# --- Networks, and the same training on one process ----------------------------------------------


def network(dropout, dtype=numpy.float64, seed=0, widths=(6, 40, 33, 3)):
    layers = []
    for units_in, units_out in itertools.pairwise(widths[:-1]):
        layers += [nn.Dense(units_in, units_out), nn.ReLU(), nn.Dropout(0.5, **dropout)]
    return nn.Sequential([*layers, nn.Dense(*widths[-2:])], rng=seed, dtype=dtype)


def data(rows, seed=0, width=6, classes=3):
    generator = numpy.random.default_rng(seed)
    return generator.standard_normal((rows, width)), generator.integers(0, classes, rows)


def parts(rows, uneven=False):
    """Where each rank's rows begin, and the end; unevenly: with ranks that have none."""
    if not uneven:
        return [rows * rank // SIZE for rank in range(SIZE + 1)]
    cuts = sorted(numpy.random.default_rng(rows).integers(0, rows + 1, SIZE - 1).tolist())
    cuts = [0, *cuts, rows]
    if SIZE > 2:
        cuts[2] = cuts[1]
    return cuts


def alone(net, opt, batches, loss=None):
    """Train without ranks; returns the losses."""
    loss = loss or nn.SoftmaxCrossEntropy()
    values = []
    for x, y, *weights in batches:
        value, grad = loss(net.forward(x, training=True), y, *weights)
        net.backward(grad)
        opt.step()
        values.append(value)
    return values


def together(parallel, batches, uneven=False, loss=None):
    loss = loss or nn.SoftmaxCrossEntropy()
    values = []
    for batch in batches:
        cuts = parts(len(batch[0]), uneven)
        mine = slice(cuts[RANK], cuts[RANK + 1])
        x, y, *weights = (part[mine] for part in batch)
        values.append(parallel.step(x, y, loss, *weights))
    return values


def weights_of(net):
    return numpy.concatenate([p.value.ravel() for p in net.parameters()])


def same_everywhere(array):
    """Whether all ranks have the same bits."""
    return len(set(COMM.allgather(numpy.ascontiguousarray(array).tobytes()))) == 1


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


DROPOUTS = [
    {"rows_per_mask": "batch"},
    {"rows_per_mask": 1},
    {"rows_per_mask": 4},
    {"rows_per_mask": 5, "exact_count": True},
    {"rows_per_mask": "batch", "scale_at": "test"},
]
OPTIMISERS = {
    "sgd": lambda net: optim.SGD(net, 0.1, momentum=0.9, max_norm=2.0),
    "adam": lambda net: optim.Adam(net, 0.01),
    "adamw": lambda net: optim.AdamW(net, lambda step: 0.01 / (1 + step)),
}


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


# --- Errors on all ranks -------------------------------------------------------------------------


def assert_all_raise(kind, words, call):
    """All ranks get an error of one class with all these words in it."""
    try:
        call()
    except Exception as error:
        found = (type(error).__name__, str(error))
    else:
        found = ("nothing", "")
    for name, text in COMM.allgather(found):
        assert name == kind.__name__, found
        assert [word for word in words if word not in text] == [], found


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
    rank = f"rank {bad}"
    checks = [
        (ValueError, [rank, "(batch, ..., 6)", "(0, 5)"], step(on_bad(x[:, :5], x))),
        (TypeError, [rank, "real numbers"], step(on_bad(x.astype(str), x))),
        (TypeError, [rank, "real numbers"], step(on_bad(x.astype(complex), x))),
        (ValueError, [rank, "y_rows", "expected 4"], step(y=on_bad(y[:3], y))),
        (ValueError, [rank, "x_rows", "()"], step(on_bad(numpy.float64(1), x))),
        (ValueError, [rank, "[0, 3)", "7"], step(y=on_bad(y + 5, y))),
        (TypeError, [rank, "class numbers"], step(y=on_bad(y + 0.5, y))),
        (FloatingPointError, [rank, "nan"], step(on_bad(nan, x))),
        (mpi.RankError, [rank, "LookupError", "x"], step(loss=on_bad(lambda *_: {}["x"], loss))),
        (ValueError, ["sample_weight", "sum", "0"], step(weights=numpy.zeros(4))),
        (ValueError, [rank, "at least 0"], step(weights=on_bad(-numpy.ones(4), numpy.ones(4)))),
        (ValueError, ["at least", "none"], step(x[:0], y[:0])),
    ]
    if SIZE > 1:
        checks += [
            (ValueError, [rank, "sample_weight"], step(weights=on_bad(numpy.ones(4), None))),
            (ValueError, [rank, "rank 0"], step(on_bad(x[:, None], x))),
        ]
    checks[8] = (KeyError, [rank, "x"], checks[8][2])
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
    words = [f"rank {SIZE - 1}", "LookupError", "a shelf"]
    assert_all_raise(mpi.RankError, words, lambda: parallel.step(x, y, loss))
    assert parallel.step(x[:2], y[:2], loss) > 0


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
    assert_all_raise(FileNotFoundError, ["rank 0", "missing"], lambda: parallel.save(missing))
    assert_all_raise(FileNotFoundError, ["rank 0", "missing"], lambda: parallel.load(missing))
    words = ["rank 0", "optimiser"]
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


def main():
    for name in sys.argv[1:] or CASES:
        try:
            CASES[name]()
        except BaseException:
            # The others may wait for this rank for ever.
            print(json.dumps({"case": name, "rank": RANK, "error": traceback.format_exc()}))
            sys.stdout.flush()
            COMM.Abort(1)
        COMM.Barrier()
        if RANK == 0:
            print(json.dumps({"case": name, "rank": 0, "error": None}), flush=True)


if __name__ == "__main__":
    main()
