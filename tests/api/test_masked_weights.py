"""Products of weights that have a mask of their own: DropConnect."""

import itertools

import numpy
import pytest
from product_calls import ProductCall
from rounding import assert_close
from test_products import DTYPES, random_mask

from fastdrop import _kernels, reference


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["packed", "dense"])
@pytest.mark.parametrize("columns_of_b", [False, True])
def test_masked_weights(each_isa, each_thread_count, dtype, method, columns_of_b):
    """B has a mask of its own, as it is stored or as its transpose is; so may A and C."""
    shapes = [(13, 70, 33), (1, 170, 16), (40, 33, 1), (9, 1, 48), (5, 40, 129), (64, 31, 64)]
    for number, (m, k, n) in enumerate([*shapes, (0, 5, 6), (5, 6, 0), (3, 0, 4)]):
        stored = (n, k) if columns_of_b else (k, n)
        masks = {"mask_b": random_mask(stored, (1, 3, 1000)[number % 3])}
        if number % 2:
            masks |= {"mask_a": random_mask((m, k), 1), "mask_c": random_mask((m, n), 2, 0.5)}
        call = ProductCall(
            (m, k, n), dtype, number, method=method, with_bias=bool(number % 2),
            transposed_b=columns_of_b, columns_of_b=columns_of_b, **masks,
        )  # fmt: skip
        call.check(f"{(m, k, n)}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["packed", "dense", "compact", "skip"])
def test_gradients_of_masked_weights(each_isa, each_thread_count, dtype, method):
    for k, m, n in [(13, 70, 33), (1, 160, 16), (40, 1, 5), (0, 5, 6), (170, 20, 30)]:
        masks = {"mask_a": random_mask((k, m), 1), "mask_c": random_mask((m, n), 1, 3.0)}
        call = ProductCall((m, k, n), dtype, method=method, sum_rows=True, **masks)
        call.check(f"{(k, m, n)}")
        call = ProductCall((m, k, n), dtype, method=method, sum_rows=True, mask_c=masks["mask_c"])
        call.check(f"{(k, m, n)} alone")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["packed", "dense"])
@pytest.mark.parametrize("columns_of_b", [False, True])
def test_a_dropped_weight_meets_infinity(each_isa, each_thread_count, dtype, method, columns_of_b):
    """A dropped weight and the element of x that it meets have no part in a sum."""
    m, k, n = 7, 20, 36
    mask = random_mask((n, k) if columns_of_b else (k, n), 1, 2.0)
    kept = mask.kept((n, k)).T if columns_of_b else mask.kept((k, n))
    options = {"columns_of_b": columns_of_b, "mask_b": mask, "method": method}
    call = ProductCall((m, k, n), dtype, transposed_b=columns_of_b, **options)
    a, b, _ = call.operands.values()
    b[~kept] = numpy.nan
    b[0, 0], a[3, 7], a[4, 0] = numpy.inf, -numpy.inf, numpy.nan
    for zeros in (False, True):
        a[5] = 0
        expected = numpy.zeros((m, n))
        wide = [numpy.where(kept, b.astype(float), 0), a.astype(float)]
        with numpy.errstate(invalid="ignore"):
            for i, j in itertools.product(range(m), range(n)):
                taken = kept[:, j] & ((a[i] != 0) | (not zeros))
                expected[i, j] = 2 * (wide[1][i, taken] @ wide[0][taken, j])
        call.options["skip_zeros"] = zeros
        result, finite = call.run(), numpy.isfinite(expected)
        numpy.testing.assert_array_equal(result[~finite], expected[~finite])
        assert_close(result[finite], expected[finite], call.error[finite], f"{zeros=}")


def test_masks_of_weights_are_refused_where_they_cannot_be():
    x, w, y = numpy.zeros((2, 3)), numpy.zeros((3, 4)), numpy.zeros((2, 4))
    mask = random_mask((3, 4), 1)
    for kernels in (_kernels, reference):
        with pytest.raises(ValueError, match="a fused product has no mask of weights"):
            kernels.Product(x, w, y, mask_b=mask, fused=True)
        with pytest.raises(ValueError, match="a fused product has no mask of weights"):
            kernels.Product(x.T, y, w, mask_c=mask, fused=True, sum_rows=True)
        for method in ("compact", "skip", "small"):
            with pytest.raises(ValueError, match=f"method '{method}' takes no mask of weights"):
                kernels.Product(x, w, y, mask_b=mask, method=method)
