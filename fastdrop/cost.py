"""Which method a masked product takes: a model of what each would cost.

The choice depends on shapes, masks, densities and the instruction set only, never on a timing at
run time: the same call takes the same path, and gives the same bits, in every run. Costs are in
nanoseconds of one thread; only their ratios matter, and both our kernels and NumPy's BLAS gain
from more threads alike.
"""

from typing import NamedTuple

from fastdrop._backend import kernels

__all__ = [
    "compact_cost",
    "dense_cost",
    "direct_cost",
    "gradient_cost",
    "masks_cost",
    "skip_cost",
]


class Costs(NamedTuple):
    """Nanoseconds, float32, one core; float64 moves twice the bytes and counts twice."""

    dense: float  # a multiply-add in NumPy's BLAS, the largest matrices
    skip: float  # a multiply-add of the zero-skipping kernel
    shared: float  # the same where rows share their list
    compact: float  # the same of the compact kernel
    sums: float  # loading and storing a row's sums, per element of depth and column
    pack: float  # an element of w packed into a panel
    gather: float  # an element of w looked at, and packed if it is active
    lists: float  # an element of x looked at for the lists, or packed
    finish: float  # an element of the result: tile, scale, bias, mask
    element: float  # an element passed over by apply_mask


# Measured in float32 on one core of a Zen 4 server, by bench/bench_matmul.py and loops like it; the
# ratio of `skip` and `compact` to `dense` on one of an Intel server. The BLAS uses what the machine
# has, whatever level our kernels are held to.
COSTS = {
    "avx512": Costs(0.0179, 0.0215, 0.0205, 0.0176, 0.0012, 0.125, 0.20, 0.20, 0.30, 0.12),
    "avx2": Costs(0.0179, 0.0210, 0.0225, 0.0205, 0.0012, 0.125, 0.45, 0.30, 0.30, 0.12),
    "baseline": Costs(0.0179, 0.1000, 0.0900, 0.0570, 0.0040, 0.25, 1.20, 0.80, 0.50, 0.25),
    "neon": Costs(0.0430, 0.0600, 0.0550, 0.0550, 0.0030, 0.25, 1.20, 0.80, 0.50, 0.25),
    # The twins.
    "numpy": Costs(0.0179, 1.0000, 1.0000, 1.0000, 0.0000, 0.16, 1.00, 1.00, 1.00, 1.00),
}
# What a call costs before it does anything.
CALL_SKIP = 600.0
CALL_COMPACT = 500.0
CALL_DENSE = 2500.0
# And a group of rows with units of its own.
GROUP = 100.0
# What a BLAS spends besides multiply-adds: an element of the result, and one of w, which it reads
# and packs, from a cache of its core or from behind it.
BLAS_RESULT = 0.5
BLAS_READ = 0.44
BLAS_READ_CACHED = 0.07
CACHED_BYTES = 1 << 20
# Rows of x that one packing of w serves.
PACKED_ROWS = 512
# On one row of x the BLAS reads w once, at the speed of the memory behind the L2 cache.
ROW_READ = 0.062
# Up to FEW_ROWS rows, a stored element's row of w is not packed, if it lies in one piece.
FEW_ROWS = 4
STREAMED = 0.066
# An element of w packed for one row of x, which leaves no work to hide the way from the memory.
UNHIDDEN_READ = 0.30
# Rows of x that are multiplied together.
GROUP_ROWS = 8
# Sums of several groups go to a row of a gradient together: this part of finishing each alone.
SPREAD = 0.6
# Sums over columns that do not fill a vector cost as if they did.
VECTOR_COLUMNS = 16


def _panels(columns):
    """Columns, filled up to whole vectors, as the kernels multiply them."""
    return -(-columns // VECTOR_COLUMNS) * VECTOR_COLUMNS


def dense_cost(rows, depth, columns, dtype):
    """Apply the masks, multiply everything."""
    c = COSTS[kernels.isa_used()]
    weights = depth * columns
    cached = weights * dtype.itemsize <= CACHED_BYTES
    if rows == 1:
        products = weights * ROW_READ
    else:
        read = weights * (BLAS_READ_CACHED if cached else BLAS_READ)
        products = rows * (weights * c.dense + columns * BLAS_RESULT) + read
    return dtype.itemsize / 4 * products + masks_cost(rows, depth, columns, dtype) + CALL_DENSE


def masks_cost(rows, depth, columns, dtype):
    """Apply the masks on both sides, or look at the result for infinities."""
    elements = rows * (depth + columns)
    return dtype.itemsize / 4 * elements * COSTS[kernels.isa_used()].element


def direct_cost(rows, depth, columns, dtype):
    """Pack x, masked, and multiply everything; groups of its rows are filled up.

    One row or two wait for w, which comes from the L2 cache, as long as so many would.
    """
    c = COSTS[kernels.isa_used()]
    filled = 2 + 2 * rows if rows <= 2 else -(-rows // GROUP_ROWS) * GROUP_ROWS
    products = filled * depth * _panels(columns) * c.compact
    return dtype.itemsize / 4 * (products + rows * (depth + columns) * c.element) + CALL_COMPACT


def skip_cost(rows, depth, columns, dtype, density, shared, standing=False):
    """Multiply the stored elements of x, a share `density` of them, by w.

    Where rows share lists, or there are more than a few, by packed panels of it; also where w is
    `standing`: its columns lie in one piece each.
    """
    c = COSTS[kernels.isa_used()]
    if rows <= FEW_ROWS and not shared and not standing:
        elements = rows * (density * depth * columns * STREAMED + depth * c.lists)
        return dtype.itemsize / 4 * (elements + rows * columns * c.finish) + CALL_SKIP
    product = (c.shared if shared else c.skip) * density + c.sums
    passes = -(-rows // PACKED_ROWS)
    per_row = depth * _panels(columns) * product + depth * c.lists + columns * c.finish
    pack = passes * depth * columns * c.pack
    return dtype.itemsize / 4 * (rows * per_row + pack) + CALL_SKIP


def compact_cost(rows, depth, columns, dtype, kept_in, kept_out, group):
    """Pack and multiply the active part of each group of rows, scatter."""
    c = COSTS[kernels.isa_used()]
    groups = -(-rows // group)
    passes = groups * -(-group // PACKED_ROWS)
    products = depth * kept_in * (_panels(columns * kept_out) * c.compact)
    sums = depth * kept_in * columns * kept_out * c.sums
    per_row = products + sums + depth * c.lists + columns * c.finish
    look = c.gather if kept_out < 1 else c.pack
    if group == 1:
        look = max(look, UNHIDDEN_READ)  # nothing to do while w comes from the memory
    pack = passes * depth * kept_in * columns * look
    return dtype.itemsize / 4 * (rows * per_row + pack) + CALL_COMPACT + groups * GROUP


def gradient_cost(rows, depth, columns, dtype, kept_in, kept_out, group):
    """The gradient of the weights (depth, columns), from groups of the batch's rows."""
    c = COSTS[kernels.isa_used()]
    groups = -(-rows // group)
    active = depth * kept_in * columns * kept_out
    moved = groups * depth * kept_in * columns * c.finish * SPREAD + depth * columns * 0.05
    products = active * (rows * c.compact + groups * group * c.sums)
    packed = rows * (depth * kept_in * c.lists * 2 + columns * c.gather)
    return dtype.itemsize / 4 * (products + moved + packed) + CALL_COMPACT + groups * GROUP
