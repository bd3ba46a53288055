"""fastdrop.dask: dropout of 2^26 elements in 16 chunks, and the memory of a fit over a large file.

The case's number of threads is that of dask's threaded scheduler. "fastdrop" lets its own pool have
as many, "fastdrop, one thread" leaves all threads to dask: every block is then one thread's work.
Without dask there are no cases.
"""

import functools
import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy

from . import verify
from .cases import SEED, Bar, Case, Contender

__all__ = ["CASES"]

# Where a new process has to start so that it imports this fastdrop.
ROOT = pathlib.Path(__file__).parent.parent
CHUNKS = 16
COPY = "map_blocks(numpy.copy)"
USUAL = "dask.array.random"

# A process of its own fits to a file of float32 and prints the peak of its resident size. The file
# is a hole, which takes no place on the disk; the system reads zeros.
FIT = """
import json, sys, tempfile
import numpy
import fastdrop, fastdrop.dask

rows, features = int(sys.argv[1]) // 4096, 1024
with tempfile.NamedTemporaryFile() as file:
    file.truncate(rows * features * 4)
    mapped = numpy.memmap(file.name, numpy.float32, "r", shape=(rows, features))
    X = fastdrop.dask.from_memmap(mapped, chunks=(8192, features))
    del mapped
    model = fastdrop.MLPClassifier(64, dropout=0.5, batch_size=512, random_state=0)
    fastdrop.dask.fit(model, X, numpy.arange(rows) % 10, classes=range(10))
    assert model.t_ == rows
with open("/proc/self/status") as file:  # the peak of the resident size, which Linux tells
    (peak,) = (line for line in file if line.startswith("VmHWM:"))
print(json.dumps(1024 * int(peak.split()[1])))
"""


def _own(x, rate, workers, threads=None):
    import dask
    import dask.array as da

    import fastdrop.dask

    lazy = da.from_array(x, chunks=-(-len(x) // CHUNKS))
    expected, _ = fastdrop.dropout(x, rate, rng=SEED)

    def run():
        y, _ = fastdrop.dask.dropout(lazy, rate, rng=SEED)
        return dask.persist(y, scheduler="threads", num_workers=workers)[0]

    name = "fastdrop" if threads is None else "fastdrop, one thread"
    return Contender(name, run, _equal(expected), calls="fastdrop.dask.dropout", threads=threads)


def _copy(x, workers):
    import dask
    import dask.array as da

    lazy = da.from_array(x, chunks=-(-len(x) // CHUNKS))

    def run():
        y = da.map_blocks(numpy.copy, lazy, dtype=x.dtype)
        return dask.persist(y, scheduler="threads", num_workers=workers)[0]

    return Contender(COPY, run, _equal(x), calls="dask.array.map_blocks")


def _usual(x, rate, workers):
    import dask
    import dask.array as da

    lazy = da.from_array(x, chunks=-(-len(x) // CHUNKS))
    scale = numpy.float32(1 / (1 - rate))

    def run():
        kept = da.random.default_rng(SEED).random(x.shape, dtype="f4", chunks=lazy.chunks) >= rate
        y = da.where(kept, lazy * scale, numpy.float32(0))
        return dask.persist(y, scheduler="threads", num_workers=workers)[0]

    def check(result):
        verify.check_rival(numpy.asarray(result), x, 1 - rate)

    return Contender(USUAL, run, check, calls="dask.array.random.default_rng")


def _equal(expected):
    def check(result):
        array = numpy.asarray(result)
        verify.require(
            array.dtype == expected.dtype and numpy.array_equal(array, expected),
            "the blocks together are not what the whole array gives",
        )

    return check


def _dropout(n, *, rate, workers):
    x = numpy.random.default_rng(SEED).standard_normal(n, dtype=numpy.float32)
    return [
        _own(x, rate, workers),
        *([_own(x, rate, workers, threads=1)] if workers > 1 else []),
        _copy(x, workers),
        _usual(x, rate, workers),
    ]


def _fit(size):
    def run():
        command = [sys.executable, "-c", FIT, str(size)]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def check(value):
        verify.require(value > 2**25, f"{value} bytes are less than Python and NumPy take")

    return [Contender("fastdrop", run, check, calls="subprocess.run")]


def _cases():
    for workers in (1, 2):
        for rate in (0.5, 0.2):
            yield Case(
                f"dropout/{rate:g}/{workers}-workers",
                1 << 26,
                functools.partial(_dropout, rate=rate, workers=workers),
                calls="fastdrop.dask.dropout",
                bars=[Bar(COPY, at_most=1.5), Bar(USUAL, times_faster=8)],
                threads=(workers,),
                extended=True,
            )
    yield Case(
        "fit-peak",
        1 << 32,
        _fit,
        calls="subprocess.run",
        bars=[Bar(at_most=600e6, isa=None)],
        threads=(2,),
        unit="bytes",
        reducible=False,
        extended=True,
    )


CASES = list(_cases()) if importlib.util.find_spec("dask") else []
