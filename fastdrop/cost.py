"""Which method a masked product takes: a model of what each would cost.

The choice depends on shapes, masks, densities and the instruction set only, never on a timing at
run time: the same call takes the same path, and gives the same bits, in every run. Costs are in
nanoseconds of one thread; only their ratios matter, and both our kernels and NumPy's BLAS gain
from more threads alike.
"""

from fastdrop._backend import kernels

__all__ = ["cheapest", "compact_cost", "dense_cost", "skip_cost"]

# Measured by bench/bench_matmul.py in float32 on one core of a Zen 4 server; float64 moves twice
# the bytes for each element and counts twice.
#
#   dense    a multiply-add in NumPy's BLAS, large matrices
#   skip     a multiply-add of the zero-skipping kernel
#   shared   the same where rows share their list (rows_per_mask)
#   pack     an element of w packed into a panel, once per 512 rows of x
#   lists    an element of x looked at for the lists
#   finish   an element of the result: tile, scale, bias, mask
#   gather   an element of w or x gathered, or of a result scattered
#   element  an element of x, or of the result, passed over by apply_mask
COSTS = {
    #            dense   skip    shared  pack   lists  finish gather element
    "avx512": (0.0215, 0.0225, 0.0205, 0.16, 0.20, 0.30, 0.12, 0.12),
    "avx2": (0.0215, 0.0250, 0.0230, 0.16, 0.45, 0.30, 0.20, 0.12),
    # The BLAS uses what the machine has, whatever level our kernels are held to.
    "baseline": (0.0215, 0.1000, 0.0900, 0.25, 0.80, 0.50, 0.80, 0.25),
    "numpy": (0.0215, 1.0000, 1.0000, 0.00, 1.00, 1.00, 1.00, 1.00),  # the twins: rather dense
    "neon": (0.0430, 0.0600, 0.0550, 0.25, 0.80, 0.50, 0.80, 0.25),
}
# What a call costs before it does anything: Python and NumPy's own checks.
CALL_SKIP = 300.0
CALL_DENSE = 2500.0
CALL_COMPACT = 9000.0
# BLAS on few rows works below its peak: as if there were this many rows more.
BLAS_EXTRA_ROWS = 6
PACKED_ROWS = 512


def _costs(dtype):
    """The table's row for the instruction set in use, and the weight of the dtype."""
    return COSTS[kernels.isa_used()], dtype.itemsize / 4


def dense_cost(rows, depth, columns, dtype):
    """Apply the masks, multiply everything."""
    (dense, *_, element), weight = _costs(dtype)
    products = (rows + BLAS_EXTRA_ROWS) * depth * columns
    return weight * (products * dense + (rows * (depth + columns)) * element) + CALL_DENSE


def skip_cost(rows, depth, columns, dtype, density, shared):
    """Multiply the stored elements of x, a share `density` of them, by packed panels of w."""
    (_, skip, grouped, pack, lists, finish, _, _), weight = _costs(dtype)
    product = (grouped if shared else skip) * density
    passes = -(-rows // PACKED_ROWS)
    per_row = rows * (depth * columns * product + depth * lists + columns * finish)
    return weight * (per_row + passes * depth * columns * pack) + CALL_SKIP


def compact_cost(rows, depth, columns, dtype, active_depth, active_columns, groups):
    """Gather the active part of each group of rows, multiply it, scatter."""
    (dense, *_, gather, _), weight = _costs(dtype)
    group_rows = -(-rows // max(groups, 1))
    products = (group_rows + BLAS_EXTRA_ROWS) * active_depth * active_columns * dense
    moved = active_depth * columns + group_rows * (depth + columns)
    return groups * (weight * (products + moved * gather) + CALL_COMPACT)


def cheapest(**costs):
    """The name of the smallest cost; the first of equal ones."""
    return min(costs, key=costs.get)
