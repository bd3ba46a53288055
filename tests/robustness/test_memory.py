"""Without memory: MemoryError, inputs and weights whole, and the next call works.

An allocator that fails on demand (tests/faults/fail_malloc.c) fails once for every allocation that
a call makes, first of the kernels' own, then of large arrays by anybody.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastdrop

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")

CALLS = """
import ctypes, json, sys
import numpy, fastdrop
from fastdrop import MaskStream, nn, optim

fastdrop.set_num_threads(2)
generator = numpy.random.default_rng(0)
x = generator.standard_normal((64, 500)).astype(numpy.float32)
w = generator.standard_normal((500, 400)).astype(numpy.float32)
grad = generator.standard_normal((64, 400)).astype(numpy.float32)
stream = MaskStream(0)
element = stream.draw(x.shape, rate=0.5)
unit = stream.draw(x.shape, rate=0.5, rows_per_mask="batch")
loose = numpy.ones((500, 64), numpy.float32).T
stream.position = 0


def network(kind):
    layers = [nn.Dense(500, 300), nn.ReLU(), nn.Dropout(0.5, rows_per_mask=kind)]
    net = nn.Sequential([*layers, nn.Dense(300, 10)], rng=0)
    return net, optim.Adam(net)


def step(kind):
    net, opt = network(kind)
    before = {name: value.copy() for name, value in net.state_dict().items() if "dense" in name}
    try:
        y = net.forward(x, training=True)
        net.backward(y)
    except MemoryError:
        for name, value in before.items():
            assert (net.state_dict()[name] == value).all(), name
        raise
    counts = {name: value for name, value in opt.state_dict().items() if "count" in name}
    try:
        opt.step()
    except MemoryError:
        # Parameters are moved one after the other: each of them whole or not at all.
        for parameter, memory in zip(opt.parameters, opt._memory):
            moved = (parameter.value != before[parameter.name]).any()
            assert moved == (memory["updates"] == 1) == bool(memory["row_counts"].any())
            assert moved == bool(memory["column_counts"].any())
        raise
    return [parameter.value for parameter in net.parameters()]


CALLS = {
    "draw": lambda: stream.draw((3000, 300), rate=0.3),
    "exact count": lambda: stream.draw((3000, 300), rate=0.3, exact_count=True),
    "dropout": lambda: fastdrop.dropout(x, 0.3, rng=stream)[0],
    "dropout of rows": lambda: fastdrop.dropout(
        loose, 0.3, rng=stream, rows_per_mask=4)[0],
    "skip": lambda: fastdrop.masked_matmul(x, w, mask_in=element, method="skip"),
    "compact": lambda: fastdrop.masked_matmul(x, w, mask_in=unit, method="compact"),
    "dense": lambda: fastdrop.masked_matmul(x, w, mask_in=unit, method="dense"),
    "backward": lambda: fastdrop.masked_matmul_backward(
        grad, x, w, mask_in=unit, method="compact"),
    "backward of elements": lambda: fastdrop.masked_matmul_backward(
        grad, x, w, mask_in=element, method="skip"),
    "step": lambda: step(1),
    "step of groups": lambda: step(16),
    "step of units": lambda: step("batch"),
}
inputs = {name: globals()[name].tobytes() for name in ("x", "w", "grad", "loose")}


def check(name, before=None, after=None):
    # What a call returns, None without memory; `before` and `after` are called around it.
    stream.position, result = 0, None
    if before:
        before()
    try:
        result = CALLS[name]()
    except MemoryError:
        result = None
    if after:
        after()
    else:
        assert result is not None, name
    assert stream.position == (result is not None) * (name in DRAWS), name
    if isinstance(result, (list, tuple)):
        result = [array.tobytes() for array in result]
    elif isinstance(result, numpy.ndarray):
        result = result.tobytes()
    for array, bytes_ in inputs.items():
        assert globals()[array].tobytes() == bytes_, array
    assert element.bits.tobytes() == masks[0] and unit.bits.tobytes() == masks[1]
    return result


DRAWS = "draw", "exact count", "dropout", "dropout of rows"
masks = element.bits.tobytes(), unit.bits.tobytes()
"""

INJECT = (
    CALLS
    + """
from concurrent.futures import ThreadPoolExecutor

allocator = ctypes.CDLL(None)
allocator.fail_malloc_left.restype = ctypes.c_long
failures = {}
for of_ours, least in ((1, 0), (0, 1 << 16)):
    for name in CALLS:
        # A new thread has no work space yet: it asks for all of it again.
        with ThreadPoolExecutor(1) as pool:
            expected = pool.submit(check, name).result()
        for n in range(200):
            reached = []
            def arm():
                allocator.fail_malloc_arm(ctypes.c_long(n), of_ours, ctypes.c_size_t(least))
            def disarm():
                reached.append(allocator.fail_malloc_left() < 0)
                allocator.fail_malloc_arm(ctypes.c_long(-1), 0, ctypes.c_size_t(0))
            def attempt():
                result = check(name, arm, disarm)
                assert result is None or result == expected, (name, n)
                assert check(name) == expected, (name, n)
                return result is None
            with ThreadPoolExecutor(1) as pool:
                failed = pool.submit(attempt).result()
            if not reached[0]:
                break
            failures.setdefault(f"{name}, {'ours' if of_ours else 'large'}", []).append(failed)
print(json.dumps(failures))
"""
)

LIMIT = (
    CALLS
    + """
import os, resource
expected = {name: check(name) for name in CALLS}
big = numpy.zeros((1 << 14, 1 << 12), numpy.float32)  # 256 MB, of which nothing is touched
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 27), before[1]))
net = nn.Sequential([nn.Dense(8, 8), nn.Dropout(0.5)], rng=0)
wide = numpy.broadcast_to(numpy.float32(1), (1 << 24, 8))
for call in (
    lambda: stream.draw((1 << 34,), rate=0.3),
    lambda: stream.draw((1 << 40,), rate=0.3, exact_count=True, window=(slice(0, 8),)),
    lambda: fastdrop.dropout(big, 0.5, rng=stream),
    lambda: fastdrop.dropout(big.T, 0.5, rng=stream, exact_count=True),
    lambda: fastdrop.apply_mask(big, stream.draw((1 << 12,), rate=0.5, at=0)),
    lambda: fastdrop.masked_matmul(
        big, numpy.broadcast_to(numpy.float32(1), (1 << 12, 1 << 13)),
        mask_in=stream.draw((1 << 12,), rate=0.5, at=0)),
    lambda: net.forward(wide, training=True),
    lambda: nn.Dense(1 << 15, 1 << 15).weight,
    lambda: stream.draw((1 << 29,), rate=0.5, at=0).to_array(),
):
    stream.position = 0
    try:
        call()
    except MemoryError:
        assert stream.position == 0
    else:
        raise AssertionError("there was enough memory")
resource.setrlimit(resource.RLIMIT_AS, before)
assert not big[:: 1 << 10].any()
for name in CALLS:
    assert check(name) == expected[name], name
print("whole")
"""
)


def run(code, environ=None):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, **(environ or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@LINUX
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer has its own allocator")
def test_every_allocation_may_fail(tmp_path):
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if not compiler:
        pytest.skip("needs a C compiler")
    library = tmp_path / "fail_malloc.so"
    source = Path(__file__).parents[1] / "faults" / "fail_malloc.c"
    command = [compiler, "-O1", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True)
    failures = json.loads(run(INJECT, {"LD_PRELOAD": str(library)}))
    # The tests above are of no use if nothing fails: every kernel that has work space is there.
    ours = ["exact count", "skip", "compact", "backward", "backward of elements", "step"]
    for name in [f"{name}, ours" for name in ours] + ["dropout, large", "dense, large"]:
        assert all(failures[name]), name
    assert sum(map(len, failures.values())) > 40


@LINUX
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer reserves terabytes")
def test_a_limit_on_memory():
    if fastdrop.show_config(mode="dicts")["fastdrop"]["backend"] != "c":
        pytest.skip("the references need other memory")
    assert run(LIMIT) == "whole\n"
