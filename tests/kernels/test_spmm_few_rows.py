"""Products of a row or a few, which w is not packed for: strips of columns, blocks of k."""

import numpy
import pytest
from conftest import assert_identical
from matrices import DTYPES
from test_spmm import Call

from fastdrop import _kernels

COLUMNS = (1, 7, 8, 15, 16, 17, 33, 129, 511, 513, 1025, 4097)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
def test_shapes(each_isa, each_thread_count, rows, dtype):
    """Lists of every length around the four rows of w that are added together."""
    for number, columns in enumerate(COLUMNS):
        depth = (1, 3, 4, 5, 8, 63, 64, 65, 130, 9, 7, 77)[number]
        Call(
            (rows, depth, columns),
            dtype,
            density=(None, 0.5, 0.1, 1.0)[number % 4],
            skip_zeros=number % 3 == 2,
            with_bias=number % 2 == 0,
            out_density=(None, 0.5)[number % 2],
            scale=(1.0, 1 / 0.7)[number % 2],
        ).check(f"{rows} {depth} {columns}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3])
def test_k_of_many_blocks(each_isa, each_thread_count, rows, dtype):
    """Sums go on from block to block of k, and are finished once."""
    Call((rows, 4200, 40), dtype, density=0.5, with_bias=True, out_density=0.7, scale=2.0).check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_number_of_threads(each_isa, restore_threads, dtype):
    call = Call((2, 300, 5000), dtype, density=0.5)
    _kernels.set_num_threads(1)
    expected = call.run()
    for threads in (2, 3, 5):
        _kernels.set_num_threads(threads)
        assert_identical(call.run(), expected)


def test_what_is_dropped_is_not_read(each_isa):
    """NaN in the rows of w that only dropped elements would meet."""
    call = Call((1, 200, 70), numpy.float32, density=0.5)
    kept = call.kept("mask_a", (1, 200))[0]
    w = call.operands["b"].copy()
    w[~kept] = numpy.nan
    assert_identical(call.run(b=w), call.run())
