"""Ranks that are lost, fail or are interrupted in the middle of training; `test_mpi.py` starts it.

Usage: mpiexec -n 3 python mpi_leaving.py SCENARIO
"""

import os
import signal
import sys
import time

import numpy
from mpi4py import MPI

from fastdrop import MLPClassifier, mpi, nn, optim

LEAVER, STEP = 1, 3


class Layer(nn.Layer):
    """Does what a scenario wants, in the middle of a pass."""

    def __init__(self, parallel_step, scenario):
        super().__init__()
        self.step, self.scenario = parallel_step, scenario

    def forward(self, x, training=False):
        return x

    def backward(self, grad, input_gradient=True):
        if self.step() == (LEAVER, STEP):
            leave(self.scenario, "backward")
        return grad


def leave(scenario, where):
    if scenario == f"killed in {where}":
        os.kill(os.getpid(), signal.SIGKILL)
    if scenario == f"stopped in {where}":
        os.kill(os.getpid(), signal.SIGSTOP)
    if scenario == f"raises in {where}":
        raise LookupError("nothing on the shelf")
    if scenario == f"exits in {where}":
        sys.exit(0)
    if scenario == f"interrupted in {where}":
        os.kill(os.getpid(), signal.SIGINT)
    if scenario == f"slow in {where}":
        time.sleep(2.0)


def fit(scenario):
    """An estimator, interrupted in its third batch on one rank."""
    backward, calls = nn.Sequential.backward, []

    def leaving(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == STEP and MPI.COMM_WORLD.rank == LEAVER:
            leave(scenario, "fit")
        return backward(self, *args, **kwargs)

    nn.Sequential.backward = leaving
    x = numpy.random.default_rng(MPI.COMM_WORLD.rank).standard_normal((20, 4))
    model = MLPClassifier((8,), dropout=0.5, batch_size=12, max_iter=9, random_state=0)
    mpi.fit(model, x, x[:, 0] > 0, timeout=8.0)
    weights = {array.tobytes() for array in MPI.COMM_WORLD.allgather(model.coefs_[0])}
    same = "equal" if len(weights) == 1 else "different"
    print(f"fitted in {len(calls)} steps, {model.n_iter_} epochs: {same}", flush=True)


def main(scenario):
    if "in fit" in scenario:
        fit(scenario)
        return
    timeout = 8.0 if "slow" in scenario else 1.5
    if MPI.COMM_WORLD.rank == LEAVER:
        leave(scenario.removeprefix("alone, "), "preparation")
    try:
        train(scenario, timeout)
    except mpi.RankError as error:
        print(f"rank {MPI.COMM_WORLD.rank} before: {error}", flush=True)
        raise
    if MPI.COMM_WORLD.rank == LEAVER:
        leave(scenario, "the end")


def train(scenario, timeout):
    net = nn.Sequential(
        [
            nn.Dense(4, 200),
            nn.ReLU(),
            nn.Dropout(0.5),
            Layer(lambda: (parallel.rank, opt.steps), scenario),
            nn.Dense(200, 2),
        ],
        rng=0,
    )
    opt = optim.SGD(net, 0.1)
    comm = MPI.COMM_SELF if "alone" in scenario else None
    parallel = mpi.DataParallel(net, opt, comm, timeout=timeout)
    x, y = numpy.ones((4, 4)), numpy.zeros(4, int)
    try:
        while opt.steps < 6:
            if (parallel.rank, opt.steps) == (LEAVER, STEP):
                leave(scenario, "between")
            parallel.step(x, y, nn.SoftmaxCrossEntropy())
            if "other call" in scenario and opt.steps == STEP and parallel.rank == LEAVER:
                parallel.save("nowhere")
    except KeyboardInterrupt as interrupt:
        print(f"rank {parallel.rank} stops after {opt.steps} steps: {interrupt}", flush=True)
        sums = parallel._ranks.comm.allgather(sum(p.value.sum() for p in net.parameters()))
        print("equal" if len(set(sums)) == 1 else "different", flush=True)
    except mpi.RankError as error:
        print(f"rank {parallel.rank} after {opt.steps} steps: {error}", flush=True)
        try:
            parallel.step(x, y, nn.SoftmaxCrossEntropy())
        except mpi.RankError as again:
            print(f"rank {parallel.rank} again: {again}", flush=True)
        sys.exit(3)
    print(f"rank {parallel.rank} ends after {opt.steps} steps", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
