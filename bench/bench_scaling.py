"""Time against size, units, batch and rate, for the pictures of ``docs/benchmarks/scaling.md``.

Every case is one place of a sweep; `pictures` joins them. They are run when they are named only:
``python -m bench scaling``. A product's size is (rows, units in, units out), and its step has the
forward product and all gradients.
"""

import functools

import numpy

import fastdrop

from .bench_dropout import normal, own_forward
from .bench_matmul import DENSE, arrays, own_step
from .cases import SEED, Case
from .rivals import numpy as plain
from .rivals import numpy_products as products
from .work.matmul import Work

__all__ = ["CASES"]

SIZES = tuple(1 << k for k in range(8, 29, 2))
# The expression takes seconds beyond, at the same time per element.
LARGEST_EXPRESSION = 1 << 24
# Threads share arrays of more than 65536 elements.
SHARED_FROM = 1 << 16
UNITS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
RATES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
ISAS = ("baseline", "avx2", "avx512")
KINDS = {"batchwise": "batch", "32 rows": 32, "per-sample": 1}


def _size(n):
    x = normal(n)
    out = numpy.zeros_like(x)
    made = [own_forward(x, rate, out, name=f"fastdrop, rate {rate}") for rate in (0.5, 0.2)]
    made += [own_forward(x, 0.5, None, name="fastdrop, rate 0.5, new array"), plain.copyto(x, out)]
    return made + ([plain.expression(x, 0.5, out)] if n <= LARGEST_EXPRESSION else [])


def _isa(n):
    x = normal(n)
    out = numpy.zeros_like(x)
    own = [
        own_forward(x, rate, out, name=f"fastdrop, {isa}, rate {rate}", isa=isa)
        for rate in (0.5, 0.2)
        for isa in ISAS
    ]
    return [*own, plain.copyto(x, out)]


def _step(size, *, rate):
    x, w, grad_y = arrays(size)
    made = []
    for kind, rows in KINDS.items():
        stream = fastdrop.MaskStream(SEED)
        masks = [stream.draw(one.shape, rate=rate, rows_per_mask=rows) for one in (x, grad_y)]
        work = Work(x, w, grad_y, *masks)
        made.append(own_step(work, f"fastdrop, {kind}"))
    return [*made, products.dense_step(work, DENSE)]


def _cases():
    for work, build, sizes in (("size", _size, SIZES), ("isa", _isa, SIZES[:-1])):
        for size in sizes:
            both = work == "size" and size >= SHARED_FROM
            yield Case(
                work,
                size,
                build,
                calls="fastdrop.dropout",
                usual_threads=(1, 2) if both else (1,),
                extended=True,
            )
    sweeps = (
        *(("units/0.5", (128, units, units)) for units in UNITS),
        *(("batch/0.5", (rows, 1024, 1024)) for rows in BATCHES),
        *((f"rate/{rate:g}", (128, 1024, 1024)) for rate in RATES),
    )
    for work, size in sweeps:
        yield Case(
            work,
            size,
            functools.partial(_step, rate=float(work.partition("/")[2])),
            calls="fastdrop.masked_matmul_backward",
            usual_threads=(1, 2),
            extended=True,
        )


CASES = list(_cases())
