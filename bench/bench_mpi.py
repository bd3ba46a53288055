"""Training steps on several MPI ranks: bytes sent, rows per second, and the constants of the model.

``python -m bench.bench_mpi`` starts itself with ``mpiexec`` on 1, 2 and 4 ranks of one thread each.
Timings of one rank and of all ranks alternate within each start. What it measures is kept by
``--json`` for ``python -m bench.mpi_scaling``, which puts it into ``docs/guide/scaling.md``.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy

# Steps on several processes are not timed by the harness, which works in one.
CASES = []

NETWORKS = {
    "784-1024-1024-10": (784, 1024, 1024, 10),
    "784-2048-2048-10": (784, 2048, 2048, 10),
    "64-256-256-10": (64, 256, 256, 10),
}
RATES = (0.0, 0.5, 0.8)
RANKS = (1, 2, 4)
BATCH = 256
ROUNDS, STEPS = 3, 6
SIZES = tuple(1 << power for power in range(3, 25, 3))  # bytes of a sum
MARK = "measured: "
BARS = [
    ("bytes per step at rate 0.5, against rate 0", "at most", 0.42),
    ("bytes per step at rate 0.8, against rate 0", "at most", 0.12),
    ("rows per second of two ranks, against one, rate 0.5", "at least", 1.5),
]


# --- On the ranks -------------------------------------------------------------------------------


def network(units, rate):
    """Return a network with batchwise masks, and its optimiser."""
    from fastdrop import nn, optim

    layers = []
    for units_in, units_out in itertools.pairwise(units[:-1]):
        layers += [nn.Dense(units_in, units_out), nn.ReLU()]
        layers.append(nn.Dropout(rate, rows_per_mask="batch"))
    net = nn.Sequential([*layers, nn.Dense(*units[-2:])], rng=0)
    return net, optim.SGD(net, learning_rate=1e-4, momentum=0.9)


def step_of(units, rate, comm, rows):
    """Return the object, and a function that makes one step on this rank's share of some rows."""
    from fastdrop import mpi, nn

    parallel = mpi.DataParallel(*network(units, rate), comm)
    share = rows // parallel.size
    x = numpy.random.default_rng(parallel.rank).random((share, units[0]), numpy.float32)
    y = numpy.arange(share) % units[-1]
    loss = nn.SoftmaxCrossEntropy()
    return parallel, lambda: parallel.step(x, y, loss)


def plain_step(units, rate, rows):
    """Return a function that makes one step without ranks."""
    from fastdrop import nn

    net, opt = network(units, rate)
    x = numpy.random.default_rng(0).random((rows, units[0]), numpy.float32)
    y = numpy.arange(rows) % units[-1]
    loss = nn.SoftmaxCrossEntropy()

    def step():
        _, grad = loss(net.forward(x, training=True), y)
        net.backward(grad)
        opt.step()

    return step


def seconds(step):
    begin = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - begin) / STEPS


def wait_idle(comm):
    """Wait for the other ranks without keeping a processor busy."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.001)


def measure_steps(comm, units, rate):
    """Seconds of a step on all ranks, and on rank 0 alone meanwhile, medians; bytes on average."""
    from mpi4py import MPI

    parallel, together = step_of(units, rate, comm, BATCH)
    alone = step_of(units, rate, MPI.COMM_SELF, BATCH)[1]
    plain = plain_step(units, rate, BATCH)
    times = {"together": [], "alone": [], "plain": []}
    sent, counted = parallel.bytes_sent, 0
    for number in range(ROUNDS + 1):
        if comm.rank == 0:
            for name, step in (("alone", alone), ("plain", plain)):
                times[name].append(seconds(step))
        wait_idle(comm)
        if number == 0:
            sent = parallel.bytes_sent
        times["together"].append(seconds(together))
        counted += STEPS
    result = {name: statistics.median(found[1:] or [0.0]) for name, found in times.items()}
    return result | {"bytes": (parallel.bytes_sent - sent) / counted}


def measure_compute(units, rate):
    """Seconds of a plain step by the rows of its batch."""
    found = {}
    for rows in (32, 128, 256):
        step = plain_step(units, rate, rows)
        seconds(step)
        found[rows] = statistics.median(seconds(step) for _ in range(3))
    return found


def measure_sums(comm):
    """Seconds of an Iallreduce by its bytes."""
    from mpi4py import MPI

    found = {}
    for size in SIZES:
        array, times = numpy.ones(max(size // 4, 1), numpy.float32), []
        for _ in range(30):
            comm.Barrier()
            begin = time.perf_counter()
            comm.Iallreduce(MPI.IN_PLACE, array).Wait()
            times.append(time.perf_counter() - begin)
            array[...] = 1
        found[size] = statistics.median(times)
    return found


def on_ranks():
    """Measure on the ranks there are; rank 0 prints it."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    found = {"ranks": comm.size, "steps": {}, "compute": {}, "sums": {}}
    for name, units in NETWORKS.items():
        for rate in RATES:
            key = f"{name} at {rate:g}"
            found["steps"][key] = measure_steps(comm, units, rate)
            if comm.size == 1:
                found["compute"][key] = measure_compute(units, rate)
    if comm.size > 1:
        found["sums"] = measure_sums(comm)
    if comm.rank == 0:
        print(MARK + json.dumps(found), flush=True)


# --- The command --------------------------------------------------------------------------------


def start(ranks):
    """Return what some ranks of one thread measure."""
    beside = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        raise SystemExit("bench.bench_mpi needs mpiexec: python -m pip install mpi4py mpich")
    one = dict.fromkeys(("FASTDROP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    program = [sys.executable, "-m", "bench.bench_mpi"]
    done = subprocess.run(
        [mpiexec, "-bind-to", "core", "-n", str(ranks), *program, "--on-ranks"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | one,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or len(lines) != 1:
        raise SystemExit(f"mpiexec -n {ranks} failed:\n{done.stdout}")
    return json.loads(lines[0].removeprefix(MARK))


def judged(found):
    """Return what the bars are about, measured."""
    name = next(iter(NETWORKS))
    two = {rate: found["2"]["steps"][f"{name} at {rate:g}"] for rate in RATES}
    return [
        two[0.5]["bytes"] / two[0.0]["bytes"],
        two[0.8]["bytes"] / two[0.0]["bytes"],
        two[0.5]["alone"] / two[0.5]["together"],
    ]


def show(found):
    """Print what was measured, and the bars."""
    for ranks, what in found.items():
        print(f"\n{ranks} ranks, global batch {BATCH}: ms of a step; rows per second against")
        print(f"{'':26}{'one rank':>9}{'all':>9}{'one rank':>10}{'plain loop':>11}{'MB sent':>9}")
        for key, step in what["steps"].items():
            print(
                f"{key:26}{1e3 * step['alone']:9.2f}{1e3 * step['together']:9.2f}"
                f"{step['alone'] / step['together']:10.2f}{step['plain'] / step['together']:11.2f}"
                f"{step['bytes'] / 1e6:9.3f}"
            )
    if "2" not in found:
        return
    print()
    for (what, kind, limit), value in zip(BARS, judged(found), strict=True):
        met = value <= limit if kind == "at most" else value >= limit
        print(f"{what}, {kind} {limit}: {value:.3f}, {'met' if met else 'MISSED'}")


def main():
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m bench.bench_mpi", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="keep what is measured in FILE, beside what "
                        "it holds of other numbers of ranks")  # fmt: skip
    parser.add_argument("--ranks", default="1,2,4", help="numbers of ranks (default: 1,2,4)")
    parser.add_argument("--on-ranks", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.on_ranks:
        on_ranks()
        return
    found = {ranks: start(int(ranks)) for ranks in options.ranks.split(",")}
    show(found)
    if options.json:
        path = Path(options.json)
        kept = json.loads(path.read_text()) if path.exists() else {}
        kept |= found
        path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
