"""The NumPy reference of every kernel: what the compiled module has to compute, said in NumPy.

This is an independent implementation of the mask stream, version 1
(``docs/design/mask-stream.md``), of dropout and of the masked matrix products. The tests compare
the compiled kernels with it, bit for bit where nothing is summed, and ``FASTDROP_BACKEND=numpy``
runs the whole package on it. It is written to be read and checked, not to be fast, and imports
nothing but NumPy and the standard library.

Three kinds of functions are here: the stream's arithmetic (`philox4x32`, `digits`, `uniforms`,
...), the names and signatures of the compiled module (`draw_bernoulli`, `apply_mask`,
`matmul`, ...), and what the public products mean (`masked_matmul`, `masked_matmul_backward`).
Arguments that recur:

key : (int, int), or key0, key1 : int
    The key words of the stream, below 2**32.
draw : int
    Number of the draw, below 2**56.
threshold : int
    ``keep_prob * 2**64``, in [0, 2**64], both ends included; see `bernoulli_threshold`.
elements : array_like of int, shape (n,)
    C-order element indices in the mask's own shape, in any order.
shape, starts, stops : tuple of int
    The mask's own shape, and a window in it: zeros and `shape` for the whole mask.
bits : numpy.ndarray of uint8, 1-d, C-contiguous
    The packed bits of n elements in C order, element ``i`` at bit ``i & 7`` of byte ``i >> 3``.
    The first ``ceil(n / 8)`` bytes count; unused bits of the last are zero.

An argument out of its range or `bits` too short is a ValueError.

References
----------
.. [1] J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
   1, 2, 3", SC'11, section 3.3.
.. [2] N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
   JMLR 15 (2014), sections 4 and 10.
.. [3] B. Graham, J. Reizenstein, L. Robinson, "Efficient batchwise dropout training using
   submatrices", arXiv 1502.02478 (2015).
"""

from fastdrop.reference.backend import (
    build_info,
    get_num_threads,
    isa_used,
    set_num_threads,
    stop_threads,
)
from fastdrop.reference.bfloat16 import bfloat16_of, float32_of
from fastdrop.reference.dropout import (
    apply_mask,
    apply_mask_at,
    dropout_at,
    dropout_forward,
    dropout_fresh,
    rectify,
)
from fastdrop.reference.dropouts import (
    apply_affine,
    drop_blocks,
    residual_backward,
    residual_forward,
    softmax_backward,
    softmax_forward,
)
from fastdrop.reference.noise import (
    NORMAL,
    UNIFORM,
    apply_noise,
    draw_noise,
    noise_words,
    normals,
    uniform_noise,
)
from fastdrop.reference.products import (
    Product,
    gather,
    masked_sums,
    matmul,
    plain_operands,
    plan,
    scatter,
    surely_apart,
)
from fastdrop.reference.public import masked_matmul, masked_matmul_backward
from fastdrop.reference.stream import (
    DIGITS,
    ROUNDS,
    bernoulli_threshold,
    digits,
    draw_bernoulli,
    draw_bernoulli_rows,
    draw_exact_count,
    exact_keep_count,
    kept_bernoulli,
    philox4x32,
    uniforms,
)
from fastdrop.reference.updates import Update, correction_table, update

__all__ = [
    "DIGITS",
    "NORMAL",
    "ROUNDS",
    "UNIFORM",
    "Product",
    "Update",
    "apply_affine",
    "apply_mask",
    "apply_mask_at",
    "apply_noise",
    "bernoulli_threshold",
    "bfloat16_of",
    "build_info",
    "correction_table",
    "digits",
    "draw_bernoulli",
    "draw_bernoulli_rows",
    "draw_exact_count",
    "draw_noise",
    "drop_blocks",
    "dropout_at",
    "dropout_forward",
    "dropout_fresh",
    "exact_keep_count",
    "float32_of",
    "gather",
    "get_num_threads",
    "isa_used",
    "kept_bernoulli",
    "masked_matmul",
    "masked_matmul_backward",
    "masked_sums",
    "matmul",
    "noise_words",
    "normals",
    "philox4x32",
    "plain_operands",
    "plan",
    "rectify",
    "residual_backward",
    "residual_forward",
    "scatter",
    "set_num_threads",
    "softmax_backward",
    "softmax_forward",
    "stop_threads",
    "surely_apart",
    "uniform_noise",
    "uniforms",
    "update",
]
