"""Every case of every bench family at a tiny size: does it do what its name says?

The audit runs in a process of its own, since some rivals start thread pools of theirs when they
are imported, which the other tests should not have to live with.
"""

import concurrent.futures
import contextlib
import dataclasses
import importlib
import math
import multiprocessing
import os
import types
import unittest.mock

import numpy
import pytest

from bench import bench_noise, bench_package, cases, verify
from bench.__main__ import reduce
from bench.controls import Controls
from bench.harness import Settings, run_case

SIZE = 1 << 10
FAMILIES = cases.families()
# Models in PyTorch keep their sizes in a quick run, but would be too slow here.
LARGEST_AXIS_OF_A_MODEL = 64
# How often a run calls the function that its case is about, if not once.
CALLS = {"torch/perceptron": 2}


def small(case):
    """A case of models made small."""
    if case.family != "torch" or not isinstance(case.size, tuple):
        return case
    size = tuple(min(axis, LARGEST_AXIS_OF_A_MODEL) for axis in case.size)
    return dataclasses.replace(case, size=size, bars=())


CASES = {
    case.name: case
    for family in FAMILIES.values()
    for case in map(small, reduce(family, SIZE))
    if case.work != "fit-peak"  # over gigabytes
}
EFFORT = Settings(
    rounds=1, fewest_rounds=1, rounds_of_bytes=1, timing=1e-6, warm_up=0, pause=0, seconds=0
)


# --- In the process of its own -----------------------------------------------------------------


def resolve(dotted):
    """Return the owner of a dotted name and the last part, or None if it is nobody's attribute."""
    parts = dotted.split(".")
    for length in range(len(parts) - 1, 0, -1):
        with contextlib.suppress(ImportError):
            owner = importlib.import_module(".".join(parts[:length]))
            for part in parts[length:-1]:
                owner = getattr(owner, part, None)
            return (owner, parts[-1]) if hasattr(owner, parts[-1]) else None
    return None


def recorded_calls(contender):
    """Run a contender once; return the arguments its function got, None if it cannot be watched."""
    place = resolve(contender.calls)
    if place is None:
        return None
    owner, name = place
    original, calls = getattr(owner, name), []

    def recorder(*args, **kwargs):
        calls.append((args, kwargs))
        return original(*args, **kwargs)

    try:
        patch = unittest.mock.patch.object(owner, name, recorder)
        patch.start()
    except TypeError:  # a method of a type written in C
        return None
    try:
        contender.run()
    finally:
        patch.stop()
    return calls


def corrupted(result):
    """Return a copy of a contender's result that is wrong."""
    if isinstance(result, tuple | list):
        return type(result)([corrupted(result[0]), *result[1:]])
    if isinstance(result, float | int):
        return float("nan")
    if isinstance(result, str):
        return "neither True nor False"
    if isinstance(result, numpy.ndarray):
        wrong = result.copy()
        if wrong.dtype == bool:
            wrong[...] = True
        else:
            wrong.flat[-1] += 1
        return wrong
    if hasattr(result, "bits"):
        bits = result.bits.copy()
        bits[0] ^= 1
        return types.SimpleNamespace(shape=result.shape, bits=bits)
    if hasattr(result, "new_tensor"):  # PyTorch's
        wrong = result.detach().clone()
        wrong.view(-1)[-1] = float("nan")
        return wrong
    return types.SimpleNamespace(numpy=lambda: corrupted(result.numpy()))


def without_compilers():
    """What is compiled is the compiler's, and takes a minute."""
    os.environ["TORCH_COMPILE_DISABLE"] = "1"


def audit(name):
    """Return what is wrong with a case, as a list of sentences."""
    # What is compiled is not what is audited, and takes long: torch shall call it as it is.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    bench_package.OTHERS.clear()  # importing them takes seconds each
    case = CASES[name]
    problems = []
    for contender in case.build(case.size):
        if isinstance(contender, cases.Skipped):
            continue
        label = f"{name}, {contender.name}"
        calls = recorded_calls(contender)
        code = contender.run.__code__
        named = contender.calls.rpartition(".")[2] in code.co_names + code.co_freevars
        if not named and (calls is None or case.family != "torch"):  # whose modules call functions
            problems.append(f"{label}: does not mention {contender.calls}")
        if calls == []:
            problems.append(f"{label}: does not call {contender.calls}")
        if contender.name.startswith("fastdrop"):
            if contender.calls != case.calls:
                problems.append(f"{label}: calls {contender.calls}, not {case.calls}")
            times = CALLS.get("/".join(name.split("/")[:2]), 1)
            if not calls or len(calls) != times:
                problems.append(f"{label}: {contender.calls} is not called {times} times: {calls}")
            elif case.family in EXPECTED:
                problems += [
                    f"{label}: {what} is {got!r}, not {expected!r}"
                    for what, got, expected in EXPECTED[case.family](case, contender, *calls[0])
                    if got != expected
                ]
        result = contender.run()
        contender.check(result)
        try:
            contender.check(corrupted(result))
        except verify.WrongResult:
            continue
        problems.append(f"{label}: a wrong result passes")
    with Controls() as controls:
        threads = (case.threads or (1,))[0]
        result = run_case(case, threads, EFFORT, controls)
    if result.own != "fastdrop" and not result.own.startswith("fastdrop, "):
        problems.append(f"{name}: fastdrop is not the first contender")
    if result.rounds != 1:
        problems.append(f"{name}: {result.rounds} rounds")
    return problems


# --- What the names of the cases promise, as (what, got, expected) -----------------------------

OPTIONS = {
    "unit-mask": {"rows_per_mask": "batch"},
    "group-mask": {"rows_per_mask": 32},
    "channel-mask": {"shared_axes": (2, 3)},
    "exact-count": {"exact_count": True},
}


def dropout_arguments(case, contender, args, kwargs):
    """Compare the arguments of fastdrop's call with a name such as ``forward-out/0.5/2^10``."""
    kind, _, rate = case.work.partition("/")
    x = args[0]
    yield "the size", x.size, case.size
    dtype = kind.removeprefix("forward-out-") if kind.startswith("forward-out-") else "float32"
    yield "the dtype", str(x.dtype), dtype
    yield "whether there is out=", kwargs.get("out") is not None, kind not in NEW_ARRAY
    if kind in ("backward", "apply"):
        yield "the rate", round(1 - args[1].keep_prob, 9), float(rate)
        return
    yield "the rate", args[1], 0.5 if kind == "small-call" else float(rate)
    options = {name: value for name, value in kwargs.items() if name not in ("rng", "out")}
    yield "the kind of mask", options, OPTIONS.get(kind, {})
    if kind == "small-call":
        yield "whether there is a stream", kwargs["rng"] is not None, rate == "rng-stream"


NEW_ARRAY = ("forward", "small-call")


def mask_arguments(case, contender, args, kwargs):
    yield "the size", numpy.prod(args[1]), case.size
    yield "the rate", kwargs["rate"], float(case.work.partition("/")[2])


def package_arguments(case, contender, args, kwargs):
    if case.work == "import":
        yield "whether it is imported", ", fastdrop;" in args[0][2], True


def noise_arguments(case, contender, args, kwargs):
    """Compare the arguments with a name such as ``normal/2^20``."""
    yield "the size", args[0].size, case.size
    yield "whether there is out=", kwargs["out"] is not None, True
    if case.work != "backward":
        yield "the rate", args[1], bench_noise.RATE


def scaling_arguments(case, contender, args, kwargs):
    """Compare the arguments with a name such as ``size/2^10`` or ``units/0.5/128x64x64``."""
    kind, _, rate = case.work.partition("/")
    if kind in ("size", "isa"):
        yield "the size", args[0].size, case.size
        yield "the rate", f"rate {args[1]}" in contender.name, True
        yield "whether there is out=", kwargs["out"] is None, "new array" in contender.name
        return
    _, x, w = args
    yield "the size", (*x.shape, w.shape[1]), case.size
    rows = {"fastdrop, batchwise": "batch", "fastdrop, 32 rows": 32}.get(contender.name, 1)
    for mask in (kwargs["mask_in"], kwargs["mask_out"]):
        yield "the rate", round(1 - mask.keep_prob, 9), float(rate)
        yield "the rows that share a mask", mask.rows_per_mask, rows


def matmul_arguments(case, contender, args, kwargs):
    """Compare the arguments with a name such as ``sparse-forward/0.25/128x1024x1024``."""
    kind, _, share = case.work.partition("/")
    *grad_y, x, w = args
    yield "the size", (*x.shape, w.shape[1]), case.size
    yield "whether it goes back", len(grad_y) == 1, kind.endswith("-step")
    yield "whether the method is chosen for it", "method" in kwargs, False
    masks = [kwargs["mask_in"], kwargs.get("mask_out")]
    yield "how many masks there are", masks.count(None), 0 if grad_y else 1
    for mask, array in zip(masks, (x, *grad_y), strict=False):
        rows, shape = SHARED_ROWS.get(kind, (1, array.shape))
        groups = 1 if rows == "batch" else -(-len(array) // rows)
        yield "the rows that share a mask", mask.rows_per_mask, rows
        yield "the shape of the mask", mask.shape, shape or (groups, array.shape[1])
        sparse = kind.startswith("sparse")
        yield "the share that is kept", round(mask.keep_prob, 9), 0.5 if sparse else float(share)
        found = numpy.count_nonzero(array) / array.size
        yield "the share that is not zero", round(found, 3), 2 * float(share) if sparse else 1.0
        yield "whether zeros may be skipped", kwargs.get("skip_zeros", False), sparse


SHARED_ROWS = {
    "unit-step": ("batch", None),
    "any-unit": ("batch", None),
    "between-unit": ("batch", None),
    "groups-of-32-step": (32, None),
    "groups-of-8-step": (8, None),
}


def step_arguments(case, contender, args, kwargs):
    """Compare the network with a name such as ``SGD/0.5/128x784x1024x1024x10``."""
    kind, rate = case.work.split("/")
    if kind == "rates":
        kind, rate = rate, contender.name.removeprefix("fastdrop, rate ")
    else:
        kinds = {"fastdrop": "batchwise", "fastdrop, 32 rows": "groups-of-32"}
        kind = kinds.get(contender.name, contender.name.removeprefix("fastdrop, "))
    layers = args[0].layers
    dense = [layer for layer in layers if hasattr(layer, "units_in")]
    units = (*(layer.units_in for layer in dense), dense[-1].units_out)
    yield "the units", units, tuple(case.size[1:])
    dropouts = [layer for layer in layers if getattr(layer, "rows_per_mask", None) is not None]
    yield "the dropout layers", len(dropouts), 0 if kind == "no dropout" else len(dense) - 1
    rows_per_mask = {"batchwise": "batch", "groups-of-32": 32, "per-sample": 1}.get(kind)
    for layer in dropouts:
        yield "the rows per mask", layer.rows_per_mask, rows_per_mask
        yield "the rate", round(layer.rate, 9), float(rate)


def update_arguments(case, contender, args, kwargs):
    """Compare the optimiser with a name such as ``adam/0.5/1024x1024``."""
    rule, rate = case.work.split("/")
    weight = args[0].parameters[0]
    yield "the size", weight.value.shape, case.size
    yield "the dtype", str(weight.value.dtype), "float32"
    left = [round((1 - float(rate)) * n + 1e-6) for n in case.size]
    yield "the size of the gradient", weight.grad.shape, tuple(left)
    for units, n, active in zip((weight.rows, weight.columns), case.size, left, strict=True):
        if float(rate):
            kept = numpy.unpackbits(units[0], count=n, bitorder="little")
            yield "the number of active units", int(kept.sum()), active
        else:
            yield "whether units are masked", units, None
    memory = 1 if rule == "sgd-momentum" else 2
    arrays = [array for array in args[0].state_dict().values() if numpy.ndim(array) == 2]
    yield "what is remembered of a weight", len(arrays), memory


def estimators_arguments(case, contender, args, kwargs):
    """Compare the model with a name such as ``fit/digits/0.5/4000x784x1024x1024x10``."""
    model, x = args[:2]
    work, *_, rate = case.work.split("/")
    layers = (len(x), x.shape[1], *model.hidden_layer_sizes)
    yield "the size", layers, case.size[:-1]
    yield "the rate", model.dropout, float(rate)
    yield "the dtype", str(x.dtype), "float32"
    if work == "fit":
        _, data, _ = case.work.split("/")
        if float(rate):
            rows_per_mask = {"fastdrop": "batch", "fastdrop, 32 rows": 32}.get(contender.name, 1)
            yield "the rows per mask", model.rows_per_mask, rows_per_mask
        yield "whether there are zeros", bool((x == 0).any()), data == "digits"


def torch_arguments(case, contender, args, kwargs):
    """Compare a call with a name such as ``float32/0.1/2^20`` or ``perceptron/32/128x784x10``."""
    kind, *rest = case.work.split("/")
    if kind in ("float32", "bfloat16"):
        x, p = args
        yield "the dtype", str(x.dtype), f"torch.{kind}"
        yield "the size", x.numel(), case.size
        yield "the rate", p, float(rest[0])
    elif kind == "perceptron":
        layer, x = args
        yield "the size", (*x.shape, layer.out_features), case.size[:3]
        yield "the rate", layer.rate, 0.5
        yield "the rows per mask", str(layer.rows_per_mask), rest[0]


def family_arguments(case, contender, args, kwargs):
    """Compare the arguments with a name such as ``channels last/0.2/2^10``."""
    kind, _, rate = case.work.partition("/")
    x = args[0]
    if kind == "dropconnect":
        yield "the size", (*x.shape, args[1].shape[1]), case.size
        drawn = args[2] if len(args) > 2 else 1 - kwargs["mask"].keep_prob
        yield "the rate", drawn, float(rate)
        return
    images = kind.startswith("channels") or kind == "blocks"
    size = case.size if isinstance(case.size, int) else math.prod(case.size)
    yield "the size", x.size, 16**3 if images else size
    yield "the rate", args[3] if kind == "residual" else args[1], float(rate)
    if kind.startswith("channels"):
        yield "the format", kwargs["data_format"], kind.replace(" ", "_")


EXPECTED = {
    "family": family_arguments,
    "estimators": estimators_arguments,
    "dropout": dropout_arguments,
    "mask": mask_arguments,
    "noise": noise_arguments,
    "package": package_arguments,
    "scaling": scaling_arguments,
    "update": update_arguments,
    "matmul": matmul_arguments,
    "step": step_arguments,
    "torch": torch_arguments,
}


# --- The tests ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def auditor():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, without_compilers) as executor:
        yield executor


@pytest.mark.parametrize("name", CASES)
def test_a_case_does_what_its_name_says(auditor, name):
    assert auditor.submit(audit, name).result() == []


def test_names_are_unique():
    names = [case.name for family in FAMILIES.values() for case in family]
    assert len(set(names)) == len(names)


def test_every_family_says_what_its_names_promise():
    # Those of dask compare graphs, and those of MPI are processes of their own: there is no call.
    assert set(EXPECTED) == set(FAMILIES) - {"dask", "mpi"}
