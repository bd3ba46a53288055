"""Fit the numbers of src/matmul/plan.c to products measured on this machine.

    python tools/fit_costs.py measure products.json     # 90 seconds; on a machine that is idle
    python tools/fit_costs.py fit products.json         # prints rows for the table COSTS

`measure` times products of random shapes, masks and densities by every method that can compute
them, on one thread, in turn for every instruction set of the machine. `fit` explains the times by
the terms that the plan knows of each product (`fd_plan_terms`), least squares of relative errors,
and says how far off the rows are: the error of a time, and what the choices lose on the whole.
Several files are fitted together. The rows go into the table by hand, with the processor's name.
"""

import argparse
import itertools
import json
import math
import os
import random
import sys
import time
from pathlib import Path
from types import SimpleNamespace

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # NumPy's BLAS reads it

import numpy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fastdrop import _kernels

METHODS = ("compact", "skip", "dense", "packed", "small")
# The terms of a row, in the order of `fd_plan_terms` behind the time of calls, which is known.
NAMES = ("gemm", "spmm", "pack", "scan", "store", "far")
MOST_PRODUCTS = 1 << 27


def random_product(generator):
    """Operands and masks of one product: its shape, density, and the rows that share a mask."""
    while True:
        m, k, n = (round(2 ** generator.uniform(*limits)) for limits in ((0, 9), (4, 11), (4, 11)))
        if m * k * n < MOST_PRODUCTS:
            break
    keep = generator.choice((0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0))
    rows = generator.choice((1, 1, 8, 32, m))
    summed = generator.random() < 0.25
    return {"shape": (m, k, n), "keep": keep, "rows": min(rows, m), "sum": summed}


def product_of(case):
    """A function of a method that makes the product of a case."""
    m, k, n = case["shape"]
    draw = numpy.random.default_rng(m * k + n)
    x, w, y = (
        draw.standard_normal(shape, dtype=numpy.float32) for shape in ((m, k), (k, n), (m, n))
    )

    def mask(width):
        kept = draw.random((math.ceil(m / case["rows"]), width)) < case["keep"]
        bits = numpy.packbits(kept, bitorder="little")
        options = {"rows_per_mask": case["rows"], "scale": 1.0, "keep_prob": case["keep"]}
        return SimpleNamespace(bits=bits, **options)

    masks = mask(k), mask(n) if case["rows"] > 1 else None

    def make(method):
        if case["sum"]:
            options = {"mask_a": masks[0], "mask_b": masks[1], "sum_rows": True}
            return _kernels.Product(x.T, y, w, method=method, **options)
        return _kernels.Product(x, w, y, mask_a=masks[0], mask_c=masks[1], method=method)

    return make


def seconds(product):
    """The median of some calls."""
    times = []
    _kernels.matmul(product)
    while len(times) < 5 or (sum(times) < 2e-3 and len(times) < 50):
        start = time.perf_counter()
        _kernels.matmul(product)
        times.append(time.perf_counter() - start)
    return float(numpy.median(times))


def measure(path, duration):
    """Time random products for some seconds, and write what was found."""
    generator, found = random.Random(path.name), []
    _kernels.set_num_threads(1)
    end = time.monotonic() + duration
    while time.monotonic() < end:
        case = random_product(generator)
        make = product_of(case)
        for isa in _kernels.build_info()["isa_available"]:
            _kernels.select_isa(isa)
            terms = {method: _kernels.plan_terms(make("auto"), method) for method in METHODS}
            times = {
                method: seconds(make(method)) * 1e9
                for method, possible in terms.items()
                if possible is not None
            }
            plan = _kernels.plan(make("auto"))
            found.append({"isa": isa, "case": case, "terms": terms, "times": times, "plan": plan})
    path.write_text(json.dumps(found))
    print(f"{len(found)} products")


def least_squares(terms, times):
    """Numbers from 0 on that explain times by terms, by relative error: multiplicative steps."""
    scaled = terms / times[:, None]
    row = numpy.full(terms.shape[1], 0.1)
    for _ in range(20_000):  # Lee and Seung's updates keep all numbers positive
        row *= scaled.sum(axis=0) / numpy.maximum(scaled.T @ (scaled @ row), 1e-30)
    return row


def fit(paths):
    """Print a row for every instruction set, and how good it is."""
    found = list(itertools.chain.from_iterable(json.loads(path.read_text()) for path in paths))
    for isa in dict.fromkeys(entry["isa"] for entry in found):
        entries = [entry for entry in found if entry["isa"] == isa]
        samples = [
            (method, entry["terms"][method], nanoseconds)
            for entry in entries
            for method, nanoseconds in entry["times"].items()
            if method != "dense" and nanoseconds > 1.2 * entry["terms"][method][0]
        ]
        terms = numpy.array([sample[1] for sample in samples])
        times = numpy.array([sample[2] for sample in samples])
        row = least_squares(terms[:, 1:], times - terms[:, 0])
        print(isa, ", ".join(f"{name} {value:.4g}" for name, value in zip(NAMES, row, strict=True)))
        error = numpy.log2((terms[:, 1:] @ row + terms[:, 0]) / times)
        for method in METHODS:
            own = error[[sample[0] == method for sample in samples]]
            if own.size:
                spread = f"bias {numpy.median(own):+.2f}, half within {numpy.median(abs(own)):.2f}"
                print(f"    {method:8s} {own.size:5d} products, {spread} (powers of two)")
        report_choices(entries)


def report_choices(entries):
    """What the plan's choices lost, and from how many multiply-adds a BLAS is faster."""
    lost = [entry["times"][entry["plan"]] / min(entry["times"].values()) for entry in entries]
    print(f"    choices take {numpy.mean(lost):.3f} times the least, at worst {max(lost):.2f}")
    both = [entry for entry in entries if {"dense", "packed"} <= entry["times"].keys()]
    for power in range(12, 27, 2):
        near = [
            entry["times"]["packed"] / entry["times"]["dense"]
            for entry in both
            if 1 << power <= math.prod(entry["case"]["shape"]) < 4 << power
        ]
        if near:
            print(f"    2^{power:2d} multiply-adds: packed / BLAS {numpy.median(near):.2f}")


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("measure", "fit"))
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=90.0, help="how long to measure")
    arguments = parser.parse_args()
    if arguments.command == "fit":
        fit(arguments.paths)
    else:
        measure(arguments.paths[0], arguments.seconds)


if __name__ == "__main__":
    main()
