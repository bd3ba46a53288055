"""Masked products for the tests: kinds of masks, operands, and what has to come out."""

import functools

import numpy
from conftest import values
from rounding import assert_close, sum_error

from fastdrop import Mask, MaskStream, masked_matmul, masked_matmul_backward, reference

METHODS = ("auto", "compact", "skip", "dense")
DTYPES = (numpy.float32, numpy.float64)
GROUP = 7

# Masks by kind, each made for an array of some shape with at least two axes.
MASKS = {
    "none": lambda stream, shape: None,
    "per sample": lambda stream, shape: stream.draw(shape, rate=0.5),
    "few": lambda stream, shape: stream.draw(shape, keep_prob=0.05),
    "units": lambda stream, shape: stream.draw(shape, rate=0.5, rows_per_mask="batch"),
    "exact units": lambda stream, shape: stream.draw(
        shape, rate=0.3, rows_per_mask="batch", exact_count=True
    ),
    "groups": lambda stream, shape: stream.draw(shape, rate=0.5, rows_per_mask=GROUP),
    "one group": lambda stream, shape: stream.draw(shape, rate=0.5, rows_per_mask=10**6),
    "samples": lambda stream, shape: stream.draw(shape, rate=0.5, shared_axes=-1),
    "groups of samples": lambda stream, shape: stream.draw(
        shape, rate=0.5, shared_axes=-1, rows_per_mask=GROUP
    ),
    "vector": lambda stream, shape: Mask.from_array(
        stream.draw(shape[-1:], rate=0.5).to_array(), keep_prob=0.5
    ),
    "one bit": lambda stream, shape: Mask.from_array([[True]], keep_prob=0.25),
    "everything": lambda stream, shape: stream.draw(shape, rate=0),
    "nothing": lambda stream, shape: stream.draw(shape, rate=1),
    "nothing of units": lambda stream, shape: stream.draw(shape, rate=1, rows_per_mask="batch"),
}
# Masks that are the same for all rows, which go with any other mask when units are gathered.
SAME_FOR_ALL_ROWS = ("none", "units", "exact units", "one group", "vector", "nothing of units")
# Every kind on either side, but not with every other; for what is slow.
SOME_PAIRS = [(kind, kind) for kind in MASKS]
SOME_PAIRS += [*zip(MASKS, [*list(MASKS)[3:], *list(MASKS)[:3]], strict=True)]


def make_mask(kind, shape, seed=0, scale=None):
    """A mask of a kind, with its own scale or another."""
    mask = MASKS[kind](MaskStream(seed), shape)
    return mask if mask is None or scale is None else mask.with_scale(scale)


def operands(x_shape, units_out, dtype, seed=0, zeros=0.3):
    """Arrays x, w, bias and grad_y, read-only; a share of x and grad_y is 0."""
    shapes = (x_shape, (x_shape[-1], units_out), (units_out,), (*x_shape[:-1], units_out))
    arrays = [values(shape, dtype, seed + number) for number, shape in enumerate(shapes)]
    generator = numpy.random.default_rng(seed)
    for array in (arrays[0], arrays[3]):
        array[generator.random(array.shape) < zeros] = 0
    for array in arrays:
        array.flags.writeable = False
    return arrays


def magnitudes(mask):
    """A mask with the magnitude of its scale."""
    return None if mask is None else mask.with_scale(abs(mask.scale))


class Expected:
    """What a product or its gradients have to be, and how far rounding may take them off.

    A term of a sum of n products is rounded n times in the sum, once when each of the two scales
    is rounded to the dtype, once when it is multiplied by, and once when the bias is added, in
    whatever order: n + 5 times at most. Where the sum is made in parts, each part's roundings are
    fewer by those of the additions that the parts take.
    """

    def __init__(self, x, w, mask_in=None, mask_out=None, bias=None):
        wide = functools.partial(numpy.asarray, dtype=float)
        self._dtype = x.dtype
        self._operands = (wide(x), wide(w))
        self._masks = {"mask_in": mask_in, "mask_out": mask_out}
        self._bound = {name: magnitudes(mask) for name, mask in self._masks.items()}
        self._bias = None if bias is None else wide(bias)

    @functools.cached_property
    def forward(self):
        x, w = self._operands
        bias = {"bias": self._bias}, {"bias": None if self._bias is None else abs(self._bias)}
        expected = reference.masked_matmul(x, w, **self._masks, **bias[0])
        bound = reference.masked_matmul(abs(x), abs(w), **self._bound, **bias[1])
        return expected, sum_error(bound, w.shape[0] + 5, self._dtype)

    def backward(self, grad_y):
        x, w = self._operands
        grad_y = numpy.asarray(grad_y, dtype=float)
        expected = reference.masked_matmul_backward(grad_y, x, w, **self._masks)
        bound = reference.masked_matmul_backward(abs(grad_y), abs(x), abs(w), **self._bound)
        rows = x.size // max(x.shape[-1], 1)
        lengths = (w.shape[1], rows, rows)
        errors = [
            sum_error(magnitude, length + 5, self._dtype)
            for magnitude, length in zip(bound, lengths, strict=True)
        ]
        return list(zip(expected, errors, strict=True))

    def check(self, y, label=""):
        """Require that a product is right, and positive zero where it is dropped."""
        expected, error = self.forward
        assert y.dtype == self._dtype, label
        assert_close(y, expected, error, label)
        check_dropped(y, self._masks["mask_out"], label)

    def check_backward(self, gradients, grad_y, label=""):
        """Require that gradients are right, and positive zero where x was dropped."""
        names = ("grad_x", "grad_w", "grad_bias")
        pairs = self.backward(grad_y)
        for gradient, (expected, error), name in zip(gradients, pairs, names, strict=True):
            assert gradient.dtype == self._dtype, f"{label} {name}"
            assert_close(gradient, expected, error, f"{label} {name}")
        check_dropped(gradients[0], self._masks["mask_in"], label)


def check_dropped(array, mask, label=""):
    """Require +0.0 where a mask drops."""
    if mask is not None:
        dropped = array[~kept(mask, array.shape)]
        assert not dropped.any(), label
        assert not numpy.signbit(dropped).any(), label


def kept(mask, shape):
    """Which elements of an array of some shape a mask keeps, all written out."""
    return reference.public._written_out(mask, shape)[0]


def fitting_methods(kind_in, kind_out):
    """The methods that must take a pair of masks of these kinds."""
    if kind_in == kind_out or {kind_in, kind_out} & set(SAME_FOR_ALL_ROWS):
        return METHODS
    return tuple(method for method in METHODS if method != "compact")


def product(arrays, masks, method, **options):
    """`masked_matmul` of operands, with their bias, and a pair of masks."""
    x, w, bias, _ = arrays
    return masked_matmul(
        x, w, mask_in=masks[0], mask_out=masks[1], bias=bias, method=method, **options
    )


def gradients(arrays, masks, method, **options):
    """`masked_matmul_backward` of operands and a pair of masks."""
    x, w, _, grad_y = arrays
    return masked_matmul_backward(
        grad_y, x, w, mask_in=masks[0], mask_out=masks[1], method=method, **options
    )
