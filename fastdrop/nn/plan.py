"""Which method the products of a fused chain take, from the cost model alone.

For one batch size the model is asked once, at the numbers of active units to be expected; what
changes from step to step is the share of non-zeros, and the plan keeps the share at which skipping
them ceases to pay.
"""

from fastdrop._backend import kernels
from fastdrop.cost import compact_cost, dense_cost, gradient_cost, skip_cost

__all__ = ["Choice", "choose", "choose_gradient"]

# A BLAS's threads go on looking for work after a product (OpenBLAS's for 2**26 ticks of the clock,
# without yielding), so that the kernels behind it have the caller's core only. A chain of kernels
# on several threads therefore multiplies by the BLAS only where that is faster by this factor.
BLAS_ADVANTAGE = 2.0


class Choice:
    """How to multiply x by w.

    Attributes
    ----------
    share : float
        Skip zeros where x has a smaller share of non-zeros.
    otherwise : {"dense", "plain", "shared", "compact"}
        What to do elsewhere: multiply everything, in the BLAS or in the compact kernel; skip what
        groups of rows share; or gather what each group keeps.
    """

    __slots__ = ("otherwise", "share")

    def __init__(self, share, otherwise):
        self.share = share
        self.otherwise = otherwise


def choose(rows, depth, columns, dtype, shared=None, groups=None, standing=False):
    """Plan a product of (rows, depth) and (depth, columns).

    Parameters
    ----------
    rows, depth, columns : int
    dtype : numpy.dtype
    shared : float, optional
        Share of x that a mask with groups of at least four rows keeps.
    groups : tuple, optional
        (share of x kept, share of columns kept, rows per group) where every group has its own
        units.
    standing : bool, optional
        Whether it is the transposed weights that are multiplied by.

    Returns
    -------
    Choice

    Examples
    --------
    >>> import numpy
    >>> choose(128, 512, 10, numpy.dtype(numpy.float32)).otherwise in ("dense", "plain")
    True
    """
    costs = {
        "dense": _in_a_chain(dense_cost(rows, depth, columns, dtype)),
        "plain": compact_cost(rows, depth, columns, dtype, 1.0, 1.0, max(rows, 1)),
    }
    if shared is not None:
        costs["shared"] = skip_cost(rows, depth, columns, dtype, shared, True)
    if groups is not None:
        costs["compact"] = compact_cost(rows, depth, columns, dtype, *groups)
    return _choice(costs, rows, depth, columns, dtype, standing)


def choose_gradient(rows, depth, columns, dtype, groups=None):
    """Plan the gradient of weights (depth, columns), from a batch of `rows`.

    Parameters
    ----------
    rows, depth, columns : int
    dtype : numpy.dtype
    groups : tuple, optional
        As for `choose`.

    Returns
    -------
    Choice
        Its `share` is about the input of the layer.

    Examples
    --------
    >>> import numpy
    >>> choose_gradient(128, 1024, 1024, numpy.dtype(numpy.float32)).otherwise in ("dense", "plain")
    True
    """
    costs = {
        "dense": _in_a_chain(dense_cost(depth, rows, columns, dtype)),
        "plain": gradient_cost(rows, depth, columns, dtype, 1.0, 1.0, max(rows, 1)),
    }
    if groups is not None:
        costs["compact"] = gradient_cost(rows, depth, columns, dtype, *groups)
    return _choice(costs, depth, rows, columns, dtype)


def _in_a_chain(cost):
    return cost if kernels.get_num_threads() == 1 else cost * BLAS_ADVANTAGE


def _choice(costs, rows, depth, columns, dtype, standing=False):
    """The cheapest, and the share of non-zeros below which skipping is cheaper still."""
    otherwise = min(costs, key=costs.get)
    fixed = skip_cost(rows, depth, columns, dtype, 0.0, False, standing)
    per_share = skip_cost(rows, depth, columns, dtype, 1.0, False, standing) - fixed
    share = (costs[otherwise] - fixed) / per_share if per_share > 0 else 0.0
    return Choice(share, otherwise)
