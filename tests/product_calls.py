"""Matrix products as the kernels take them, and what the reference makes of them in float64."""

from typing import NamedTuple

import numpy
from conftest import assert_identical
from matrices import Result, matrix
from rounding import assert_close, sum_error

from fastdrop import _kernels, reference

MASKS = ("mask_a", "mask_b", "mask_c")


class RowMask(NamedTuple):
    """A mask of a matrix's rows; without bits, its scale alone."""

    bits: numpy.ndarray | None = None
    rows_per_mask: int = 1
    scale: float = 1.0
    keep_prob: float | None = None

    def kept(self, shape):
        """Which elements of a matrix it keeps."""
        return reference.products.kept_elements(self.bits, shape, self.rows_per_mask)


class ProductCall:
    """A product of one shape (m, k, n), forced upon one method, and the reference's answer.

    `options` are those of `Product`; NaN lies around the operands, and what lies around the result
    is looked at afterwards. Scales are numbers of the dtype, and so are products of two of them.
    """

    def __init__(self, shape, dtype, seed=0, *, transposed_b=False, with_bias=False, **options):
        m, k, n = shape
        self.dtype, self.shape, self.options = dtype, (m, n), options
        self.sum_rows = options.get("sum_rows", False)
        a = matrix((m, k), dtype, seed, transposed=self.sum_rows)
        if options.get("skip_zeros"):
            a[numpy.random.default_rng(seed + 1000).random(a.shape) < 0.5] = 0
        b = matrix((k, n), dtype, seed + 1, transposed=transposed_b)
        bias = matrix((1, n), dtype, seed + 2)[0] if with_bias else None
        self.operands = {"a": a, "b": b, "bias": bias}
        # The reference's rounding hardly counts in float64; what it computes from magnitudes bounds
        # every partial sum: rounded for each of the sums over k, by the scale, and with the bias or
        # the sums of groups.
        self.expected, self.magnitude = numpy.zeros((2, m, n))
        self.count = self.compute_reference()
        self.error = sum_error(self.magnitude, k + 3, dtype)

    def compute_reference(self):
        """Fill `expected` and `magnitude`; return the number of multiply-adds."""
        count = self._wide(self.expected, lambda x: x)
        self._wide(self.magnitude, abs)
        return count

    def _wide(self, out, change):
        operands = {
            name: None if x is None else change(x.astype(float))
            for name, x in self.operands.items()
        }
        masks = {
            name: mask._replace(scale=change(mask.scale))
            for name, mask in self.options.items()
            if name in MASKS and mask is not None
        }
        a, b, bias = operands.values()
        options = self.options | masks
        return reference.matmul(reference.Product(a, b, out, bias=bias, **options))

    def kept(self, name, shape):
        """Which elements of a matrix one of the masks keeps."""
        return (self.options.get(name) or RowMask()).kept(shape)

    def run(self, **changed):
        """Run the kernel; return the result, compared with nothing."""
        a, b, bias = (self.operands | changed).values()
        contiguous = self.options["method"] == "small"  # takes no other matrices
        out = None if contiguous else Result(self.shape, self.dtype)
        c = numpy.full(self.shape, 7, self.dtype) if contiguous else out.matrix
        a, b = (numpy.ascontiguousarray(x) if contiguous else x for x in (a, b))
        product = _kernels.Product(a, b, c, bias=bias, **self.options)
        self.counted = _kernels.matmul(product)
        return c if contiguous else out.checked()

    def check(self, label=""):
        """Run the kernel and compare with the reference; return the result."""
        result = self.run()
        assert_close(result, self.expected, self.error, label)
        assert self.counted == self.count, label
        dropped = result[~self.kept("mask_c", self.shape)]
        assert_identical(dropped, numpy.zeros(dropped.shape, self.dtype))
        return result
