"""Markdown tables from the results in ``bench/results``: what is measured is never typed.

A ratio in a table says how many times faster fastdrop is, with the 95 % interval of the median over
the rounds; less than 1 is slower. Of several rivals the fastest counts.
"""

# ruff: noqa: RUF001

import re

from . import page_tables
from .machines import NONE, listed, times
from .marks import markdown
from .page_tables import STEP, TORCH, TORCH_PLAIN
from .report import amount

__all__ = ["HEADLINES", "block", "known"]

TORCH_DROPOUT = ("torch F.dropout", "torch native_dropout", "torch F.dropout, compiled")


# --- The README's table ------------------------------------------------------------------------

# What is done; what stands beside it; the case, the rivals, the threads and fastdrop's contender.
HEADLINES = [
    ("draw, apply and keep the mask of 2^26 elements, rate 0.5", "`np.copyto`",
     "dropout/forward-out/0.5/2^26", "copyto", 1, "fastdrop"),
    ("the same, rate 0.2", "`np.copyto`",
     "dropout/forward-out/0.2/2^26", "copyto", 1, "fastdrop"),
    ("the same, 2^16 elements, rate 0.5", "`np.copyto`, in the cache",
     "dropout/forward-out/0.5/2^16", "copyto", 1, "fastdrop"),
    ("2^24 elements, rate 0.5", "NumPy expression",
     "dropout/forward-out/0.5/2^24", "NumPy expression", 1, "fastdrop"),
    ("the same", "torch, eager or compiled",
     "dropout/forward-out/0.5/2^24", TORCH_DROPOUT, 1, "fastdrop"),
    ("the same", "JAX, `jit`",
     "dropout/forward-out/0.5/2^24", "JAX, jit", 1, "fastdrop"),
    ("backward, 2^26", "NumPy with a byte mask",
     "dropout/backward/0.5/2^26", "NumPy byte mask", 1, "fastdrop"),
    ("mask bits alone, 2^24, rate 0.5", "`Generator.random(float32) < q`",
     "mask/bits/0.5/2^24", "NumPy random < q", 1, "fastdrop"),
    ("the same, rate 0.2", "the same",
     "mask/bits/0.2/2^24", "NumPy random < q", 1, "fastdrop"),
    ("`dropout(x, 0.5)` of 1024 elements", "NumPy expression",
     "dropout/small-call/rng-stream/2^10", "NumPy expression", 1, "fastdrop"),
    ("`masked_matmul`, (128×1024)·(1024×1024), a quarter of x not zero", "`np.matmul`",
     "matmul/sparse-forward/0.25/128x1024x1024", "np.matmul", 1, "fastdrop"),
    ("forward and both gradients of that shape, half the units on both sides", "`np.matmul`",
     "matmul/unit-step/0.5/128x1024x1024", "np.matmul", 1, "fastdrop"),
    ("a training step of 784-1024-1024-10, batch 128, one mask a batch, rate 0.5, two threads",
     "torch with dropout, eager or compiled", STEP, TORCH, 2, "fastdrop"),
    ("the same, a mask for 32 rows", "the same", STEP, TORCH, 2, "fastdrop, 32 rows"),
    ("the same, a mask for each example", "the same", STEP, TORCH, 2, "fastdrop, per-sample"),
    ("the same, one mask a batch", "torch without dropout", STEP, TORCH_PLAIN, 2, "fastdrop"),
    ("the same", "JAX with dropout, `jit`", STEP, "JAX, jit", 2, "fastdrop"),
    ("a fit of `MLPClassifier` with that network, an epoch of 4000 examples, one mask a batch",
     "scikit-learn without dropout",
     "estimators/fit/digits/0.5/4000x784x1024x1024x10", "scikit-learn", 1, "fastdrop"),
    ("20 Monte Carlo passes of that network over 1000 examples", "torch, eager",
     "estimators/samples/0.5/1000x784x1024x1024x10", ("torch", "torch, first layer once"), 1,
     "fastdrop"),
]  # fmt: skip


SHORT = [  # the first screen has room for six rows
    ("dropout of 2^24 elements, rate 0.5", "torch",
     "dropout/forward-out/0.5/2^24", TORCH_DROPOUT, 1, "fastdrop"),
    ("dropout of 2^26 elements, rate 0.5", "`np.copyto`",
     "dropout/forward-out/0.5/2^26", "copyto", 1, "fastdrop"),
    ("the same, rate 0.2", "`np.copyto`",
     "dropout/forward-out/0.2/2^26", "copyto", 1, "fastdrop"),
    ("products of a step, half the units kept on both sides", "`np.matmul` without dropout",
     "matmul/unit-step/0.5/128x1024x1024", "np.matmul", 1, "fastdrop"),
    ("training step of 784-1024-1024-10, one mask a batch, two threads", "torch with dropout",
     STEP, TORCH, 2, "fastdrop"),
    ("the same, a mask for each row", "torch with dropout",
     STEP, TORCH, 2, "fastdrop, per-sample"),
]  # fmt: skip


def _headline(machines):
    """Return the README's table."""
    return _compared(machines, SHORT)


def _main(machines):
    """Return the longer table of the benchmarks' page."""
    return _compared(machines, HEADLINES)


def _compared(machines, works):
    rows = [
        [work, beside, *(times(one.faster(name, rivals, threads, own)) for one in machines)]
        for work, beside, name, rivals, threads, own in works
    ]
    return markdown(["work", "beside it", *(one.label for one in machines)], rows)


# --- Machines, losses, bars --------------------------------------------------------------------


def _machines(machines):
    """Return the runs that results are left of; pieces of one run (``--resume``) make one row."""
    rows = {}
    for machine in machines:
        about = machine.document["machine"]
        for number, run in enumerate(machine.document["runs"]):
            packages = run["environment"]["packages"]
            commit = f"`{run['commit'][:8]}`" if run["commit"] else "unknown"
            changed = ", changed" if run["changed"] else ""
            isa = run["environment"]["fastdrop"]["isa_used"]
            blas = ", ".join(
                f"{one['library']} {one['version']} ({one['kernels']})"
                for one in run["environment"]["blas"]
            )
            row = (
                f"{machine.label}: {about['cpu']}, {about['cpus']} usable, {isa}",
                run["date"],
                f"{commit}{changed}",
                f"`{run['command']}`",
                f"Python {run['environment']['python']}, "
                + ", ".join(f"{name} {version}" for name, version in packages.items())
                + f", {blas}",
            )
            count = sum(one["run"] == number for one in machine.document["results"])
            rows[row] = rows.get(row, 0) + count
    made = [[*row[:-1], count, row[-1]] for row, count in rows.items()]
    return markdown(["machine", "date", "commit", "command", "results", "versions"], made)


def _sort_key(result):
    """Order by family and work, sizes as numbers."""
    numbers = re.split(r"(\d+)", result["name"])
    return [int(part) if part.isdigit() else part for part in numbers], result["threads"]


def _results(machines, family=None):
    for machine in machines:
        found = [one for one in machine.document["results"] if family in (None, one["family"])]
        for result in sorted(found, key=_sort_key):
            if result["family"] != "scaling" or family == "scaling":
                yield machine, result


def _losses(machines):
    rows = []
    for machine, result in _results(machines):
        if result["unit"] == "bytes":
            continue
        own = result["contenders"][0]["name"]
        for one in result["contenders"]:
            if not one["name"].startswith("fastdrop") and own in one["ratio"]:
                lower, median, upper, _ = one["ratio"][own]
                if lower > 1:
                    text = f"{median:.2f} ({lower:.2f} to {upper:.2f})"
                    row = [f"`{result['name']}`", result["threads"], one["name"], text]
                    rows.append([*row, machine.label])
    header = ["case", "threads", "beside", "times as long (95 % interval)", "machine"]
    return listed(machines, header, rows) if rows else "None."


def _bars(machines):
    rows = []
    for machine, result in _results(machines):
        for bar in result["bars"]:
            if bar["reason"] is None:
                measured = f"{bar['measured']:.3g}"
                if bar["rival"] is None or bar["bar"].startswith(f"<= {bar['rival']} + "):
                    measured = amount(bar["measured"], result["unit"])
                met = "met" if bar["met"] else "**missed**"
                row = [f"`{result['name']}`", result["threads"], bar["contender"], bar["bar"]]
                rows.append([*row, measured, met, machine.label])
    kept = sum(row[5] == "met" for row in rows)
    header = ["case", "threads", "whose", "bar", "measured", "", "machine"]
    return f"{kept} of {len(rows)} are met.\n\n{listed(machines, header, rows)}"


def _family(machines, family):
    """Return everything that was measured of a family."""
    rows = []
    for machine, result in _results(machines, family):
        own = result["contenders"][0]["name"]
        for one in result["contenders"]:
            ratio = one["ratio"].get(own)
            faster = NONE
            if ratio and result["unit"] != "bytes":
                lower, median, upper, _ = ratio
                faster = times((1 / upper, 1 / median, 1 / lower))
            first = one["name"] == own
            rows.append(
                [
                    f"`{result['name'].removeprefix(family + '/')}`" if first else "",
                    result["threads"] if first else "",
                    one["name"],
                    amount(one["median"], result["unit"]),
                    faster,
                    machine.label if first else "",
                ]
            )
    if not rows:
        return "Not measured yet."
    header = ["case", "threads", "contender", "median", "fastdrop is faster, times", "machine"]
    return listed(machines, header, rows)


def _skipped(machines):
    """Return who did not take part, and why."""
    rows = {}
    for machine, result in _results(machines):
        for one in result["skipped"]:
            rows.setdefault((one["name"], one["reason"], machine.label), []).append(result["name"])
    found = [[*key, len(names)] for key, names in sorted(rows.items())]
    return markdown(["contender", "reason", "machine", "cases"], found) if found else "Nobody."


FAMILIES = (
    "dropout", "family", "noise", "mask", "matmul", "update", "step", "estimators", "torch", "dask",
    "package",
)  # fmt: skip
BLOCKS = {
    "headline": _headline,
    "main": _main,
    "machines": _machines,
    "losses": _losses,
    "bars": _bars,
    "skipped": _skipped,
    **page_tables.BLOCKS,
}


def known():
    """Return the names of all blocks."""
    return [*BLOCKS, *(f"all-{family}" for family in FAMILIES)]


def block(name, machines):
    """Return what stands in a marked place.

    Raises
    ------
    ValueError
        If no block has this name.
    """
    if name in BLOCKS:
        return BLOCKS[name](machines)
    family = name.removeprefix("all-")
    if name != family and family in FAMILIES:
        return _family(machines, family)
    raise ValueError(f"no table is called {name!r}; there are {', '.join(known())}")
