"""How near the machine's limits each kernel comes: ``python -m bench roofline``.

A kernel can be no faster than its memory traffic at the speed of the memory, and than its
multiply-adds at the speed of the multipliers. Both limits are measured here, in the same process
and in turn with the kernels: the first as `numpy.copyto` of arrays of the kernel's size, the second
as a dense product of NumPy's. A kernel that streams its result can be faster than such a copy, and
more than 1 of the limit. Drawing a mask has a limit of its own, the generator's work, which this
does not count.
"""

import argparse
import shlex
import statistics
import sys
import time

import numpy

import fastdrop

from . import environment, store
from .controls import Controls

__all__ = ["main", "rows", "table"]

SEED = 1
SHAPE = (128, 1024, 1024)  # batch, units in, units out


def _normal(*shape):
    return numpy.random.default_rng(SEED).standard_normal(shape, dtype=numpy.float32)


class _Kernel:
    """A call, the bytes it has to move, and the multiply-adds it has to make."""

    def __init__(self, name, run, *, moved=0, multiply_adds=0):
        self.name, self.run = name, run
        self.moved, self.multiply_adds = moved, multiply_adds
        self.times = []


def _elementwise(size):
    """Return the kernels that are limited by memory, and those that say how fast that is."""
    x, out = _normal(size), numpy.zeros(size, numpy.float32)
    stream = fastdrop.MaskStream(SEED)
    mask = stream.draw(size, rate=0.5)
    label = f"2^{size.bit_length() - 1}"
    bits = (size + 7) // 8
    limits = [_Kernel("np.copyto", lambda: numpy.copyto(out, x), moved=2 * x.nbytes)]

    def forward(rate):
        return lambda: fastdrop.dropout(x, rate, rng=stream, out=out)

    kernels = [
        _Kernel(f"dropout, rate {rate}, {label}", forward(rate), moved=2 * x.nbytes + bits)
        for rate in (0.5, 0.2)
    ]
    kernels.append(
        _Kernel(
            f"backward, {label}",
            lambda: fastdrop.dropout_backward(x, mask, out=out),
            moved=2 * x.nbytes + bits,
        )
    )
    return limits, kernels


def _products():
    """Return the kernels that are limited by the multipliers, and a product that is, too."""
    rows, depth, columns = SHAPE
    x, w, y = _normal(rows, depth), _normal(depth, columns), _normal(rows, columns)
    square = _normal(1024, 1024)
    result = numpy.empty_like(square)
    stream = fastdrop.MaskStream(SEED)
    traffic = x.nbytes + w.nbytes + y.nbytes
    limits = [
        _Kernel(
            "np.matmul", lambda: numpy.matmul(square, square, out=result), multiply_adds=1024**3
        )
    ]
    units_in = stream.draw(x.shape, rate=0.5, rows_per_mask="batch")
    units_out = stream.draw(y.shape, rate=0.5, rows_per_mask="batch")
    kept = units_in.count() * units_out.count()
    kernels = [
        _Kernel(
            "masked_matmul, half the units on both sides",
            lambda: fastdrop.masked_matmul(x, w, mask_in=units_in, mask_out=units_out),
            moved=traffic,
            multiply_adds=rows * kept,
        ),
        _Kernel(
            "its gradients",
            lambda: fastdrop.masked_matmul_backward(y, x, w, mask_in=units_in, mask_out=units_out),
            moved=traffic + x.nbytes + w.nbytes,
            multiply_adds=2 * rows * kept,
        ),
    ]

    def product(mask):
        return lambda: fastdrop.masked_matmul(x, w, mask_in=mask)

    for keep in (0.5, 0.25, 0.1):
        mask = stream.draw(x.shape, keep_prob=keep)
        kernels.append(
            _Kernel(
                f"masked_matmul, per sample, {keep} kept",
                product(mask),
                moved=traffic,
                multiply_adds=mask.count() * columns,
            )
        )
    return limits, kernels


def _measure(members, seconds):
    """Time all members in turn, after a warm-up, for at least five rounds."""
    for one in members:
        one.run()
    began = time.perf_counter()
    rounds = 0
    while rounds < 5 or time.perf_counter() - began < seconds:
        for one in members:
            calls = 1
            begin = time.perf_counter()
            one.run()
            taken = time.perf_counter() - begin
            if taken < 1e-3:  # again, many times: one call would be mostly the clock
                calls = int(2e-3 / max(taken, 1e-7)) + 1
                begin = time.perf_counter()
                for _ in range(calls):
                    one.run()
                taken = time.perf_counter() - begin
            one.times.append(taken / calls)
        rounds += 1


def rows(sizes=(1 << 16, 1 << 20, 1 << 24, 1 << 26), seconds=5.0):
    """Measure, and return one dict per kernel and limit.

    Parameters
    ----------
    sizes : sequence of int
        Elements of the arrays of dropout and its gradient.
    seconds : float
        Time to spend on each size, and on the products.

    Returns
    -------
    list of dict
        ``kernel``, ``seconds`` (median), ``gigabytes_per_second``, ``multiply_adds_per_second``
        and ``attained``: the time that the slower of the two limits allows, divided by the
        kernel's; 1 for what the limit was measured with.
    """
    found = []
    groups = [_products(), *(_elementwise(size) for size in sizes)]
    throughput = bandwidth = None
    for limits, kernels in groups:
        _measure([*limits, *kernels], seconds)
        (limit,) = limits
        typical = statistics.median(limit.times)
        if limit.multiply_adds:
            throughput = limit.multiply_adds / typical
        else:
            bandwidth = limit.moved / typical
        for one in [*limits, *kernels]:
            taken = statistics.median(one.times)
            allowed = one.multiply_adds / throughput
            if not limit.multiply_adds:
                allowed = max(allowed, one.moved / bandwidth)
            found.append(
                {
                    "kernel": one.name,
                    "seconds": taken,
                    "gigabytes_per_second": one.moved / taken / 1e9,
                    "multiply_adds_per_second": one.multiply_adds / taken,
                    "attained": allowed / taken,
                }
            )
    return found


def table(found):
    """Return the rows of `rows` as a Markdown table."""
    lines = [
        "| kernel | time | GB/s | 10^9 multiply-adds/s | of the limit |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        moved = f"{row['gigabytes_per_second']:.1f}" if row["gigabytes_per_second"] else ""
        products = row["multiply_adds_per_second"] / 1e9
        lines.append(
            f"| {row['kernel']} | {row['seconds'] * 1e3:.3g} ms | {moved} "
            f"| {f'{products:.1f}' if products else ''} | {row['attained']:.2f} |"
        )
    return "\n".join(lines)


def main(arguments=None) -> int:
    """Measure, print the table, and add the figures to a file if one is named."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m bench roofline", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of all (default: 1)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each group (default: 5)")
    parser.add_argument("--json", metavar="FILE", help="add the figures to this file of results")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"argument --threads: must be 1 or more, got {options.threads}")
    facts = environment.describe()
    print(*environment.lines(facts), sep="\n")
    with Controls() as controls:
        controls.refresh()
        controls.apply(options.threads)
        found = rows(seconds=options.seconds)
    print(table(found))
    if options.json:
        shown = ["FILE" if argument == options.json else argument for argument in arguments]
        command = f"python -m bench roofline {shlex.join(shown)}"
        run = environment.provenance(command) | {"threads": options.threads, "rows": found}
        store.add_roofline(options.json, run, facts)
    return 0
