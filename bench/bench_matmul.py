"""Masked matrix products: unit masks, groups, per-sample masks, and every shape and density.

A size is (rows of x, units in, units out). A step is the forward product, both gradients and that
of the bias, which only fastdrop is asked for. Every contender makes new arrays in a step, and
writes to an array that is there in a forward product.
"""

import functools
import math

import numpy

import fastdrop

from .cases import SEED, Bar, Case, Contender
from .rivals import numpy_products as products
from .rivals import scipy, torch
from .work.matmul import Work

__all__ = ["CASES", "arrays", "own_step"]

STEP = (128, 1024, 1024)
SMALL_BATCH = (32, 1024, 1024)
SMALL = (64, 256, 256)
WIDE = (512, 3072, 1536)
DENSITIES = (0.05, 0.25, 0.5, 0.9, 1)
EVERY_SHAPE = ((1, 16, 16), (8, 64, 64), SMALL, STEP, WIDE, (4096, 4096, 4096))
USUAL_SHAPES = ((8, 64, 64), SMALL, STEP)
FEW_ROWS = ((2, 512, 512), (4, 512, 512), (8, 256, 512), (4, 1024, 1024), (7, 1239, 2094))
# Cases of sizes in between, and their multiply-adds at most: a second or two a case.
BETWEEN = 48
MOST_BETWEEN = 1 << 29

DENSE = "np.matmul"
GATHER = "NumPy gather"
MASKED = ("np.matmul, apply_mask", "np.matmul, float mask")


def arrays(size, zeros=0.0):
    """Return x, w and grad_y of a size; a share of x and grad_y is zero."""
    rows, units_in, units_out = size
    generator = numpy.random.default_rng(SEED)
    shapes = (rows, units_in), (units_in, units_out), (rows, units_out)
    x, w, grad_y = (generator.standard_normal(shape, dtype=numpy.float32) for shape in shapes)
    for array in (x, grad_y):
        array[array == 0] = 1
        some = generator.permutation(array.size)[: round(zeros * array.size)]
        array.flat[some] = 0
    return x, w, grad_y


def _own_forward(work, out, name="fastdrop", isa=None):
    """Return fastdrop's contender for the forward product of some work."""
    x, w = work.x, work.w
    options = {"mask_in": work.mask_in, "skip_zeros": work.skip_zeros}
    return Contender(
        name,
        run=lambda: fastdrop.masked_matmul(x, w, out=out, **options),
        check=work.check_forward,
        calls="fastdrop.masked_matmul",
        isa=isa,
    )


def own_step(work, name="fastdrop"):
    """Return fastdrop's contender for a step of some work."""
    x, w, grad_y = work.x, work.w, work.grad_y
    options = {"mask_in": work.mask_in, "mask_out": work.mask_out, "skip_zeros": work.skip_zeros}

    # What the rivals have, too: results in the same arrays at every step.
    y = numpy.empty_like(grad_y)
    gradients = numpy.empty_like(x), numpy.empty_like(w), numpy.empty_like(w[0])

    def run():
        fastdrop.masked_matmul(x, w, out=y, **options)
        return y, *fastdrop.masked_matmul_backward(grad_y, x, w, out=gradients, **options)

    return Contender(name, run, work.check_step, calls="fastdrop.masked_matmul_backward")


# --- Unit masks, for all rows or for groups of them --------------------------------------------


def _shared_step(size, *, keep_prob, rows_per_mask):
    x, w, grad_y = arrays(size)
    stream = fastdrop.MaskStream(SEED)
    options = {"keep_prob": keep_prob, "rows_per_mask": rows_per_mask, "exact_count": True}
    masks = [stream.draw(array.shape, **options) for array in (x, grad_y)]
    work = Work(x, w, grad_y, *masks)
    return [
        own_step(work),
        products.dense_step(work, DENSE),
        products.gather_step(work, GATHER),
        products.float_mask_step(work),
        torch.step(work, 1 - keep_prob),
    ]


def _shared_cases():
    gather = Bar(GATHER, times_faster=1.2)
    limits = [
        ("unit-step/0.5", STEP, "batch", [(3.5, 1), (3.0, 2)]),
        ("unit-step/0.8", STEP, "batch", [(1.45, None)]),
        ("unit-step/0.5", SMALL_BATCH, "batch", [(3.0, None)]),
        ("unit-step/0.5", SMALL, "batch", [(1.8, None)]),
        ("groups-of-32-step/0.5", STEP, 32, [(2.4, 1), (1.9, 2)]),
        ("groups-of-8-step/0.5", STEP, 8, [(1.5, None)]),
    ]
    for work, size, rows_per_mask, dense in limits:
        keep_prob = float(work.partition("/")[2])
        bars = [Bar(DENSE, times_faster=times, threads=threads) for times, threads in dense]
        yield Case(
            work,
            size,
            functools.partial(_shared_step, keep_prob=keep_prob, rows_per_mask=rows_per_mask),
            calls="fastdrop.masked_matmul_backward",
            bars=[*bars, gather],
        )


# --- Per-sample masks, behind zeros that were there before -------------------------------------


def _sparse_work(size, density):
    """Return work of which a share `density` is not zero: half is dropped, the rest was zero."""
    x, w, grad_y = arrays(size, zeros=1 - 2 * density)
    stream = fastdrop.MaskStream(SEED)
    masks = [stream.draw(array.shape, rate=0.5) for array in (x, grad_y)]
    return Work(x, w, grad_y, *masks, skip_zeros=True)


def _sparse_forward(size, *, density):
    work = _sparse_work(size, density)
    out = numpy.empty((size[0], size[2]), numpy.float32)
    return [
        _own_forward(work, out),
        _own_forward(work, out, "fastdrop, AVX2 forced", "avx2"),
        products.dense_forward(work, out, DENSE),
        products.apply_mask_forward(work, out, MASKED[0]),
        products.float_mask_forward(work, out, MASKED[1]),
        scipy.forward(work),
        torch.forward(work, 0.5),
    ]


def _sparse_step(size, *, density):
    work = _sparse_work(size, density)
    return [
        own_step(work),
        products.dense_step(work, DENSE),
        products.float_mask_step(work),
        scipy.step(work),
        torch.step(work, 0.5),
    ]


def _sparse_cases():
    for size in (STEP, WIDE):
        for density, times in ((0.5, 1.3), (0.25, 1.9), (0.1, 3.5)):
            bars = [Bar(DENSE, times_faster=times)]
            if density == 0.25:
                forced = {"contender": "fastdrop, AVX2 forced", "isa": "avx2"}
                bars.append(Bar(DENSE, times_faster=1.2, **forced))
            yield Case(
                f"sparse-forward/{density}",
                size,
                functools.partial(_sparse_forward, density=density),
                calls="fastdrop.masked_matmul",
                bars=bars,
                usual_threads=None if size == STEP else (1,),
            )
        yield Case(
            "sparse-step/0.25",
            size,
            functools.partial(_sparse_step, density=0.25),
            calls="fastdrop.masked_matmul_backward",
            bars=[Bar(DENSE, times_faster=1.7)],
            usual_threads=None if size == STEP else (1,),
        )


# --- Never slower than dense -------------------------------------------------------------------


def _any(size, *, density, kind):
    x, w, grad_y = arrays(size)
    options = {"rows_per_mask": "batch", "exact_count": True} if kind == "unit" else {}
    mask = fastdrop.MaskStream(SEED).draw(x.shape, keep_prob=density, **options)
    work = Work(x, w, grad_y, mask)
    out = numpy.empty((size[0], size[2]), numpy.float32)
    return [
        _own_forward(work, out),
        products.apply_mask_forward(work, out, MASKED[0]),
        products.float_mask_forward(work, out, MASKED[1]),
        products.dense_forward(work, out, DENSE),
    ]


def _never_slower(work, size, kind, density, extended=True):
    return Case(
        f"{work}/{density:g}",
        size,
        functools.partial(_any, density=density, kind=kind),
        calls="fastdrop.masked_matmul",
        bars=[Bar(MASKED, times_faster=0.90)],
        usual_threads=(1,),
        extended=extended,
    )


def _between(count):
    """Return sizes between those, kinds and densities, drawn at random, the same in every run."""
    generator = numpy.random.default_rng(SEED)
    drawn = []
    while len(drawn) < count:
        size = tuple(int(n) for n in 2 ** generator.uniform((0, 4, 4), (10, 12, 12)))
        if generator.random() < 0.3:
            size = tuple(1 << (n.bit_length() - 1) for n in size)
        kind = str(generator.choice(("unit", "sample")))
        density = float(generator.choice((0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 1)))
        if math.prod(size) < MOST_BETWEEN:
            drawn.append((size, kind, density))
    return drawn


def _any_cases():
    for size in EVERY_SHAPE:
        for kind in ("unit", "sample"):
            for density in DENSITIES:
                extended = size not in USUAL_SHAPES or density not in (0.05, 0.5, 0.9)
                yield _never_slower(f"any-{kind}", size, kind, density, extended)
    for size in FEW_ROWS:
        yield _never_slower("few-rows", size, "sample", 0.9)
    for size, kind, density in _between(BETWEEN):
        yield _never_slower(f"between-{kind}", size, kind, density)


CASES = [*_shared_cases(), *_sparse_cases(), *_any_cases()]
