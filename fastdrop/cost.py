"""Which method a masked product takes: a model of what each would cost.

The choice depends on shapes, masks, densities, the instruction set and the size of the L2 cache
only, never on a timing at run time: the same call takes the same path, and gives the same bits, in
every run. Costs are in nanoseconds of one thread; only their ratios matter, and both our kernels
and NumPy's BLAS gain from more threads alike.
"""

from typing import NamedTuple

from fastdrop._backend import kernels

__all__ = [
    "compact_cost",
    "dense_cost",
    "direct_cost",
    "gradient_cost",
    "plain_cost",
    "skip_cost",
]


class Costs(NamedTuple):
    """Nanoseconds, float32, one core; float64 moves twice the bytes and counts twice."""

    dense: float  # a multiply-add in NumPy's BLAS, large matrices
    skip: float  # a multiply-add of the zero-skipping kernel
    shared: float  # the same where rows share their list
    compact: float  # the same of the compact kernel
    pack: float  # an element of w packed into a panel
    gather: float  # an element of w looked at, and packed if it is active
    lists: float  # an element of x looked at for the lists
    finish: float  # an element of the result: tile, scale, bias, mask


# Measured in float32 on one core of an Intel server with AVX-512 (Emerald Rapids): 1,700
# products of random shapes and densities, each by every method, and a sum of terms fitted to them
# whose median error is 3 to 10 %. Where a machine has AVX2 only, its BLAS has no more. The lines of
# baseline and neon are older ones, scaled.
COSTS = {
    "avx512": Costs(0.0126, 0.0138, 0.0124, 0.0121, 0.14, 0.25, 0.44, 0.19),
    "avx2": Costs(0.0255, 0.0268, 0.0277, 0.0275, 0.17, 0.32, 0.64, 0.22),
    "baseline": Costs(0.0127, 0.0720, 0.0640, 0.0405, 0.20, 0.85, 0.90, 0.36),
    "neon": Costs(0.0305, 0.0430, 0.0390, 0.0390, 0.20, 0.85, 0.90, 0.36),
    # The NumPy references.
    "numpy": Costs(0.0127, 0.7200, 0.7200, 0.7200, 0.12, 0.72, 0.72, 0.72),
}
# Sums over columns that do not fill a vector cost as if they did, and columns that are not whole
# vectors have those of w lie on two lines of the cache.
VECTOR_COLUMNS = 16
# A multiplication of packed rows takes so many together.
GROUP_ROWS = 8

# What a call costs before it does anything.
CALL_DENSE = 1600.0
CALL_DIRECT = 210.0
CALL_SKIP = 380.0
CALL_COMPACT = 480.0
# And a group of rows with units of its own.
GROUP = 70.0
# A row of x: its list begun and its sums put in place; or packed.
SKIP_ROW = 23.0
PACKED_ROW = 6.0
# A row of a panel of the skipping product, whose depth and width are:
PANEL_ROW = 12.0
PANEL_DEPTH = 128
PANEL_COLUMNS = 80
# An element of the result that lies behind the L2 cache; half as much where it is written in order.
RESULT_FAR = 0.14
# An element of x packed, and masked on the way.
PACKED = 0.095
MASKED = 0.058
# Products by a w as it lies: a row of x; an element of it; of its result; and of that once more for
# every block of depth behind the first.
DIRECT_ROW = 2.5
DIRECT_ELEMENT = 0.055
DIRECT_RESULT = 0.05
DIRECT_AGAIN = 0.14
DIRECT_DEPTH = 160
# The end of a row of the result that fills no vector, unless the row is one tile.
EDGE = 3.5
TILE_COLUMNS = 32
# Loads of w take as long as half of the multiply-adds of eight rows, whose parts these are.
PER_ROW = 0.54
PER_GROUP = 3.7
# The L1 cache; the shares of the L2 cache at which a w begins to lie behind it, and all of it does.
FIRST_LEVEL_BYTES = 40_000
LEAVES_SECOND_LEVEL = 0.65
LEFT_SECOND_LEVEL = 1.3
# What an element of w costs more from behind the L2 cache: packed by the BLAS, by us; or read.
BLAS_FAR = 0.13
PACK_FAR = 0.10
READ_FAR = 0.09
# One row, in the BLAS and in our kernel: an element of w from the caches, one of x, one of y.
ROW_READ_BLAS = 0.060
ROW_READ = 0.053
ROW_UNIT_BLAS = 0.54
ROW_UNIT = 1.1
ROW_RESULT_BLAS = 0.15
# A BLAS spends more than multiply-adds: on elements of x, of the result, and of w, which it packs.
BLAS_X = 0.35
BLAS_RESULT = 0.148
BLAS_PACK = 0.21
# What others have to be better by for large products, as much as the model may be wrong: the BLAS
# is what they are compared with.
DOUBT = 0.94
# OpenBLAS does not pack for a product below SMALL_BLAS multiply-adds, but loads w anew for every
# four rows of x, then for two, and for one.
SMALL_BLAS = 1_000_000
SMALL_X = 0.19
SMALL_RESULT = 0.033
SMALL_PRODUCT = 0.0037
SMALL_LOAD = 0.036
SMALL_SPLIT = 0.004
SMALL_SECOND_LEVEL = 0.031
SMALL_FAR = 0.078
# Nor does it fill vectors for a few columns.
NARROW_ROW = 3.0
NARROW_X = 0.13
NARROW_PRODUCT = 0.03
# Rows of x that one packing of w serves.
PACKED_ROWS = 512
# Up to FEW_ROWS rows, a stored element's row of w is not packed, if it lies in one piece.
FEW_ROWS = 4
STREAMED = 0.05
STREAMED_SPLIT = 0.012
STREAMED_SECOND_LEVEL = 0.01
STREAMED_FAR = 0.02
STREAMED_ELEMENT = 0.55
# An element of a gradient: one group's part of it put in place, where several groups share a row;
# cleared or read; sums loaded and stored; an element of the batch's rows packed, or gathered.
GRADIENT_PUT = 0.13
GRADIENT_ELEMENT = 0.036
GRADIENT_SUMS = 0.0009
GRADIENT_PACKED = 0.28
GRADIENT_GATHERED = 0.14


def _panels(columns):
    """Columns, filled up to whole vectors, as the kernels multiply them."""
    return -(-columns // VECTOR_COLUMNS) * VECTOR_COLUMNS


def _filled(rows):
    """Rows, filled up to whole groups."""
    return -(-rows // GROUP_ROWS) * GROUP_ROWS


def _far(elements, dtype):
    """Share of a matrix that lies behind the L2 cache."""
    full = elements * dtype.itemsize / kernels.second_level_cache()
    share = (full - LEAVES_SECOND_LEVEL) / (LEFT_SECOND_LEVEL - LEAVES_SECOND_LEVEL)
    return min(max(share, 0.0), 1.0)


def dense_cost(rows, depth, columns, dtype):
    """Apply a mask, multiply everything in the BLAS, look for infinities."""
    weights = depth * columns
    far = _far(weights, dtype)
    result = RESULT_FAR / 2 * _far(rows * columns, dtype)
    if rows == 1:
        read = weights * (ROW_READ_BLAS + READ_FAR * far)
        cost = read + ROW_UNIT_BLAS * depth + ROW_RESULT_BLAS * columns
    elif rows * weights <= SMALL_BLAS:
        cost = _small_dense_cost(rows, depth, columns) + SMALL_FAR * weights * far
    else:
        products = -(-rows // 4) * 4 * depth * _panels(columns) * COSTS[kernels.isa_used()].dense
        packed = weights * (BLAS_PACK + BLAS_FAR * far) + BLAS_X * rows * depth
        cost = products + packed + rows * columns * (BLAS_RESULT + result)
        cost *= DOUBT
    return dtype.itemsize / 4 * cost + CALL_DENSE


def _small_dense_cost(rows, depth, columns):
    if columns < VECTOR_COLUMNS // 2:
        return rows * (depth * (NARROW_X + NARROW_PRODUCT * columns) + NARROW_ROW)
    passes = rows // 4 + (rows % 4).bit_count()
    split = SMALL_SPLIT if columns % VECTOR_COLUMNS else 0.0
    behind = SMALL_SECOND_LEVEL if depth * columns * 4 > FIRST_LEVEL_BYTES else 0.0
    loads = passes * (SMALL_LOAD + split) + behind + rows * SMALL_PRODUCT
    slower = COSTS[kernels.isa_used()].dense / COSTS["avx512"].dense
    products = depth * _panels(columns) * loads * slower
    return products + rows * (SMALL_X * depth + SMALL_RESULT * columns)


def direct_cost(rows, depth, columns, dtype):
    """Pack x, masked, and multiply everything by w as it lies there."""
    c = COSTS[kernels.isa_used()]
    weights = depth * _panels(columns)
    far = READ_FAR * _far(weights, dtype)
    if rows == 1:
        cost = weights * (ROW_READ + far) + ROW_UNIT * depth
    else:
        groups = -(-rows // GROUP_ROWS)
        products = (rows * PER_ROW + groups * PER_GROUP) * c.compact
        far *= -(-rows // PACKED_ROWS)
        cost = weights * (products + far) + rows * depth * DIRECT_ELEMENT
    again = -(-depth // DIRECT_DEPTH) - 1
    result = DIRECT_RESULT + again * DIRECT_AGAIN
    result += (1 + again) * RESULT_FAR * _far(rows * columns, dtype)
    row = DIRECT_ROW + result * _panels(columns)
    if columns % VECTOR_COLUMNS and (again or columns > TILE_COLUMNS):
        row += EDGE
    return dtype.itemsize / 4 * (cost + rows * row) + CALL_DIRECT


def skip_cost(rows, depth, columns, dtype, density, shared, standing=False):
    """Multiply the stored elements of x, a share `density` of them, by w.

    Where rows share lists, or there are more than a few, by packed panels of it; also where w is
    `standing`: its columns lie in one piece each.
    """
    c = COSTS[kernels.isa_used()]
    far = _far(depth * columns, dtype)
    if rows <= FEW_ROWS and not shared and not standing:
        split = STREAMED_SPLIT if columns % VECTOR_COLUMNS else 0.0
        if depth * columns * dtype.itemsize > FIRST_LEVEL_BYTES:
            split += STREAMED_SECOND_LEVEL / rows
        read = density * depth * _panels(columns) * (STREAMED + split)
        missed = density * depth * columns * far * (READ_FAR / 2 + STREAMED_FAR * rows)
        row = read + STREAMED_ELEMENT * depth + c.finish * 2 * _panels(columns)
        cost = rows * row + missed
        return dtype.itemsize / 4 * cost + CALL_SKIP
    panels = -(-depth // PANEL_DEPTH) * -(-columns // PANEL_COLUMNS)
    product = (c.shared if shared else c.skip) * density
    per_row = depth * _panels(columns) * product + depth * c.lists + SKIP_ROW + panels * PANEL_ROW
    result = RESULT_FAR * _far(rows * columns, dtype)
    per_row += columns * result / 2
    if shared:
        per_row += columns * (c.finish + result) - depth * c.lists / 2
    pack = -(-rows // PACKED_ROWS) * depth * columns * (c.pack + PACK_FAR * far)
    return dtype.itemsize / 4 * (rows * per_row + pack) + CALL_SKIP


def compact_cost(rows, depth, columns, dtype, kept_in, kept_out, group):
    """Pack and multiply the active part of each group of rows, scatter."""
    c = COSTS[kernels.isa_used()]
    groups = -(-rows // group)
    passes = groups * -(-group // PACKED_ROWS)
    filled = rows // group * _filled(group) + _filled(rows % group)
    products = filled * depth * kept_in * _panels(columns * kept_out) * c.compact
    result = c.finish + RESULT_FAR * _far(rows * columns, dtype)
    per_row = depth * PACKED + columns * result + PACKED_ROW
    if columns % VECTOR_COLUMNS:
        per_row += EDGE
    look = c.gather if kept_out < 1 else c.pack
    look += PACK_FAR * _far(depth * columns, dtype)
    pack = passes * depth * kept_in * columns * look
    cost = products + rows * per_row + pack + groups * GROUP
    return dtype.itemsize / 4 * cost + CALL_COMPACT


def plain_cost(rows, depth, columns, dtype):
    """The same of everything, x masked while it is packed; look for infinities."""
    masked = dtype.itemsize / 4 * rows * depth * MASKED
    return compact_cost(rows, depth, columns, dtype, 1.0, 1.0, max(rows, 1)) + masked


def gradient_cost(rows, depth, columns, dtype, kept_in, kept_out, group):
    """The gradient of the weights (depth, columns), from groups of the batch's rows."""
    c = COSTS[kernels.isa_used()]
    groups = -(-rows // group)
    active = depth * kept_in * columns * kept_out
    moved = depth * columns * (groups * kept_in * GRADIENT_PUT + GRADIENT_ELEMENT)
    products = active * (rows * c.compact + groups * group * GRADIENT_SUMS)
    packed = rows * (depth * kept_in * GRADIENT_PACKED + columns * GRADIENT_GATHERED)
    return dtype.itemsize / 4 * (products + moved + packed) + CALL_COMPACT + groups * GROUP
