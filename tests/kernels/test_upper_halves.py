"""No kernel leaves the upper halves of vector registers in use: see `IF_KNOWN` in setup.py."""

import numpy
import pytest
from conftest import values

import fastdrop
from fastdrop import _kernels, optim
from fastdrop.nn import Dense, Sequential

STREAM = fastdrop.MaskStream(0)


def drop(dtype):
    for n in (1, 15, 16, 64, 65, 100, 128, 5000):
        _, mask = fastdrop.dropout(numpy.ones(n, dtype), 0.5, rng=STREAM)
        yield f"dropout of {n}"
        fastdrop.apply_mask(numpy.ones(n, dtype), mask)
        yield f"apply_mask of {n}"
    STREAM.draw((3, 300), rate=0.3, exact_count=True)
    yield "exact count"
    fastdrop.apply_mask(numpy.ones((64, 6), dtype).T, STREAM.draw((6, 64), rate=0.5))
    yield "a transposed view"


def multiply(dtype):
    for shape in ((1, 64, 64), (3, 40, 33), (8, 64, 64), (40, 100, 70), (64, 256, 256)):
        rows, depth, columns = shape
        x, w = values((rows, depth), dtype), values((depth, columns), dtype, 1)
        grad = values((rows, columns), dtype, 2)
        for rows_per_mask in (1, 8, "batch"):
            masks = {
                name: STREAM.draw(array.shape, rate=0.5, rows_per_mask=rows_per_mask)
                for name, array in (("mask_in", x), ("mask_out", grad))
            }
            methods = ("auto", "skip", *(["compact"] if rows_per_mask != 1 else []))
            for method in methods:
                fastdrop.masked_matmul(x, w, method=method, **masks)
                yield f"{method} product {shape} {rows_per_mask}"
                fastdrop.masked_matmul_backward(grad, x, w, method=method, **masks)
                yield f"{method} gradients {shape} {rows_per_mask}"
    _kernels.rectify(x, None, 1.0, numpy.empty(x.size // 8 + 1, numpy.uint8))
    yield "rectify"


def update(dtype):
    for rule in (optim.SGD, optim.Adam):
        net = Sequential([Dense(70, 33)], rng=0, dtype=dtype)
        optimiser = rule(net, 0.1, max_norm=1.0)
        net.backward(net.forward(values((4, 70), dtype), training=True))
        optimiser.step()
        yield rule.__name__


@pytest.mark.parametrize("dtype", [numpy.float16, numpy.float32, numpy.float64])
@pytest.mark.parametrize("family", [drop, multiply, update])
def test_no_kernel_leaves_its_vectors_behind(each_isa, family, dtype):
    if dtype == numpy.float16 and family is not drop:
        pytest.skip("the others have no half precision")
    if _kernels.upper_halves_in_use() is None:
        pytest.skip("neither processor nor build allow to say")
    for call in family(dtype):
        assert not _kernels.upper_halves_in_use(), call
