"""Networks, data and comparisons for the programs that `test_mpi.py` starts with mpiexec."""

import itertools

import numpy
from mpi4py import MPI

from fastdrop import nn

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


DROPOUTS = [
    {"rows_per_mask": "batch"},
    {"rows_per_mask": 1},
    {"rows_per_mask": 4},
    {"rows_per_mask": 5, "exact_count": True},
    {"rows_per_mask": "batch", "scale_at": "test"},
]


def assert_all_raise(kind, words, call):
    """All ranks get an error of one class with all these words in it, or after a ^ at its start."""

    def has(text, word):
        return text.startswith(word[1:]) if word.startswith("^") else word in text

    try:
        call()
    except Exception as error:
        found = (type(error).__name__, str(error))
    else:
        found = ("nothing", "")
    for name, text in COMM.allgather(found):
        assert name == kind.__name__, found
        assert [word for word in words if not has(text, word)] == [], found
