"""Train one network on the rows of several processes, on one machine or on many.

Every rank makes (in real life: reads) rows of its own. Masks need no message, and the gradients of
dropped weights are not sent. Interrupt it, and start it again with another number of ranks: it goes
on where it was. One process needs no mpiexec.

    python -m pip install 'fastdrop-numpy[mpi]' mpich
    FASTDROP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 mpiexec -n 2 python examples/mpi_train.py
"""

import os
import sys
import tempfile

import numpy

from fastdrop import mpi, nn, optim

STEPS, BATCH, FEATURES, CLASSES = 300, 256, 64, 10
TRAINING, NEW = 1, 2  # seeds
CHECKPOINT = os.path.join(tempfile.gettempdir(), "fastdrop_mpi_train.npz")


def rows_of(seed, step, rank, size):
    """This rank's rows of a batch: noisy copies of ten patterns."""
    patterns = numpy.random.default_rng(0).standard_normal((CLASSES, FEATURES))
    generator = numpy.random.default_rng([seed, step])
    labels = generator.integers(0, CLASSES, BATCH)
    x = patterns[labels] + 2 * generator.standard_normal((BATCH, FEATURES))
    mine = slice(BATCH * rank // size, BATCH * (rank + 1) // size)
    return x[mine], labels[mine]


def main(steps):
    layers = []
    for units_in in (FEATURES, 256):
        layers += [nn.Dense(units_in, 256), nn.ReLU(), nn.Dropout(0.5, rows_per_mask="batch")]
    net = nn.Sequential([*layers, nn.Dense(256, CLASSES)], rng=0)
    opt = optim.SGD(net, learning_rate=0.02, momentum=0.9)
    loss = nn.SoftmaxCrossEntropy()

    parallel = mpi.DataParallel(net, opt)
    first = parallel.rank == 0
    try:
        parallel.load(CHECKPOINT)  # rank 0 reads it, so that all ranks have it or none
        if first:
            print(f"goes on after step {opt.steps}")
    except FileNotFoundError:
        pass
    try:
        while opt.steps < steps:
            mine = rows_of(TRAINING, opt.steps, parallel.rank, parallel.size)
            value = parallel.step(*mine, loss)
            if first and opt.steps % 100 == 0:
                print(f"step {opt.steps}: loss {value:.3f} on {parallel.size} ranks")
    except KeyboardInterrupt:  # on all ranks, after the same step
        parallel.save(CHECKPOINT)
        if first:
            print(f"stopped after step {opt.steps}; the same command goes on")
        return
    if first:
        x, labels = rows_of(NEW, 0, rank=0, size=1)
        right = (net.forward(x).argmax(axis=1) == labels).mean()
        print(f"{right:.1%} of {BATCH} new rows are right; {parallel.bytes_sent / 1e6:.1f} MB sent")
        if os.path.exists(CHECKPOINT):
            os.remove(CHECKPOINT)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else STEPS)
