"""How far two orders of the same sum may be apart, from its length and the unit roundoff.

Summing n products in any order, with or without fused multiply-adds, rounds each product at most n
times, and a number that was rounded n times is off by a factor of 1 + theta with
``|theta| <= gamma_n = n u / (1 - n u)``, u being half of eps (N. J. Higham, "Accuracy and
Stability of Numerical Algorithms", 2nd edition, lemma 3.1 and section 4.2). So the sum is off by
at most gamma_n times the sum of the products' magnitudes; each further rounding on the way of a
product to the result (of a scale, by a scale, in adding a bias) adds one to n. What underflows is
not covered: the tests' numbers are around 1.
"""

import numpy


def gamma(n, dtype):
    """The bound on the relative error of a number that was rounded `n` times."""
    roundings = n * float(numpy.finfo(dtype).eps) / 2
    return roundings / (1 - roundings)


def sum_error(magnitude, n, dtype):
    """How far apart a sum in `dtype` and the same in float64 may be.

    `magnitude` is the sum of the products' magnitudes, computed in float64; `n` counts the
    roundings of a product on its way to the result. Both sums have an error, and so has the
    magnitude itself.
    """
    both = gamma(n, dtype) + gamma(n, numpy.float64)
    return both * magnitude / (1 - gamma(n, numpy.float64))


def assert_close(actual, expected, error, label=""):
    """Each number within its error; the worst offender is shown."""
    assert actual.shape == expected.shape, label
    excess = numpy.abs(actual.astype(numpy.float64) - expected) - error
    if not (excess <= 0).all():  # NaN is not
        worst = numpy.unravel_index(
            numpy.argmax(numpy.nan_to_num(excess, nan=numpy.inf)), excess.shape
        )
        raise AssertionError(
            f"{label}: {int((~(excess <= 0)).sum())} of {excess.size} beyond the bound, the worst "
            f"at {tuple(map(int, worst))}: {actual[worst]!r}, not {expected[worst]!r} "
            f"within {numpy.broadcast_to(error, excess.shape)[worst]:.3g}"
        )


def as_integers(array):
    return numpy.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def assert_same_bits(actual, expected, label=""):
    assert actual.dtype == expected.dtype
    numpy.testing.assert_array_equal(as_integers(actual), as_integers(expected), err_msg=label)
