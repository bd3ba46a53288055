"""Types of the compiled kernels; ``fastdrop.reference`` says what each of them computes."""

from collections.abc import Callable
from typing import Literal, SupportsIndex, TypeAlias, TypedDict

import numpy
from numpy.typing import NDArray

_Bits: TypeAlias = NDArray[numpy.uint8]
_Values: TypeAlias = (
    NDArray[numpy.float16] | NDArray[numpy.float32] | NDArray[numpy.float64] | NDArray[numpy.uint16]
)
_Matrix: TypeAlias = NDArray[numpy.float32] | NDArray[numpy.float64]
_Shape: TypeAlias = tuple[int, ...]
_Objects: TypeAlias = tuple[object, ...]
_Chooser: TypeAlias = Callable[..., str]

class _BuildInfo(TypedDict):
    isa_available: tuple[str, ...]
    isa_used: str
    threads: bool
    compiler: str
    backend: Literal["c"]

__test__: dict[str, str]  # Cython's, for doctests

def draw_bernoulli(
    key0: int,
    key1: int,
    draw: int,
    threshold: int,
    shape: _Shape,
    starts: _Shape,
    stops: _Shape,
    bits: _Bits,
) -> None: ...
def draw_bernoulli_rows(
    key0: int, key1: int, draw: int, threshold: int, width: int, bits: _Bits
) -> None: ...
def draw_exact_count(
    key0: int,
    key1: int,
    draw: int,
    keep: int,
    shape: _Shape,
    starts: _Shape,
    stops: _Shape,
    bits: _Bits,
) -> None: ...
def draw_noise(
    key0: int,
    key1: int,
    draw: int,
    noise: int,
    shape: _Shape,
    starts: _Shape,
    stops: _Shape,
    out: NDArray[numpy.float32],
) -> None: ...
def apply_noise(
    x: _Values,
    key0: int,
    key1: int,
    draw: int,
    noise: int,
    scale: float,
    additive: bool,
    out: _Values,
) -> None: ...
def dropout_fresh(
    key0: int,
    key1: int,
    draw: int,
    x: _Values,
    threshold: int,
    scale: float,
    out: _Values | None,
) -> tuple[_Values, _Bits]: ...
def dropout_forward(
    x: _Values,
    key0: int,
    key1: int,
    draw: int,
    threshold: int,
    scale: float,
    bits: _Bits,
    out: _Values,
) -> None: ...
def apply_mask(
    x: _Values,
    bits: _Bits,
    mask_shape: _Shape,
    rows_per_mask: int,
    scale: float,
    out: _Values,
) -> None: ...
def apply_affine(
    x: _Values,
    bits: _Bits,
    mask_shape: _Shape,
    rows_per_mask: int,
    scale: float,
    shift: float,
    dropped: float,
    out: _Values,
) -> None: ...
def residual_forward(
    x: _Values,
    bias: _Values | None,
    residual: _Values,
    bits: _Bits | None,
    scale: float,
    out: _Values,
) -> None: ...
def residual_backward(
    grad: _Values,
    bits: _Bits | None,
    scale: float,
    out: _Values,
    sums: NDArray[numpy.float64],
) -> None: ...
def softmax_forward(
    x: _Matrix,
    attend: _Bits | None,
    attend_starts: NDArray[numpy.int64] | None,
    causal: int,
    bits: _Bits | None,
    scale: float,
    probabilities: _Matrix,
    out: _Matrix,
) -> None: ...
def softmax_backward(
    grad: _Matrix,
    probabilities: _Matrix,
    bits: _Bits | None,
    scale: float,
    out: _Matrix,
) -> None: ...
def drop_blocks(seeds: _Bits, maps: int, extent: _Shape, block: _Shape, bits: _Bits) -> int: ...
def dropout_at(
    x: int,
    dtype: int,
    n: int,
    key0: int,
    key1: int,
    draw: int,
    threshold: int,
    scale: float,
    bits: int,
    out: int,
) -> None: ...
def apply_mask_at(x: int, dtype: int, n: int, bits: int, scale: float, out: int) -> None: ...
def rectify(x: _Matrix, bits: _Bits | None, scale: float, gate: _Bits) -> int: ...
def gather(
    x: _Matrix,
    row_bits: _Bits | None,
    row_offset: int,
    column_bits: _Bits | None,
    column_offset: int,
    out: _Matrix,
) -> None: ...
def scatter(
    x: _Matrix,
    row_bits: _Bits | None,
    row_offset: int,
    column_bits: _Bits | None,
    column_offset: int,
    scale: float,
    bias: _Matrix | None,
    bias_scale: float,
    accumulate: bool,
    out: _Matrix,
) -> None: ...
def skip_matmul(
    x: _Matrix,
    transposed: bool,
    bits: _Bits | None,
    rows_per_mask: int,
    skip_zeros: bool,
    w: _Matrix,
    scale: float,
    bias: _Matrix | None,
    bias_scale: float,
    out_bits: _Bits | None,
    out_rows_per_mask: int,
    out: _Matrix,
    w_bits: _Bits | None = None,
    w_rows_per_mask: int = 1,
) -> int: ...
def compact_matmul(
    x: _Matrix,
    bits: _Bits | None,
    rows_per_mask: int,
    group: int,
    w: _Matrix,
    scale: float,
    bias: _Matrix | None,
    bias_scale: float,
    out_bits: _Bits | None,
    out_rows_per_mask: int,
    out: _Matrix,
) -> int: ...
def compact_gradient(
    x: _Matrix,
    bits: _Bits | None,
    rows_per_mask: int,
    group: int,
    grad: _Matrix,
    out_bits: _Bits | None,
    out_rows_per_mask: int,
    scale: float,
    out: _Matrix,
) -> int: ...
def masked_sums(
    x: _Matrix,
    bits: _Bits | None,
    rows_per_mask: int,
    scale: float,
    out: _Matrix,
) -> None: ...
def all_finite(x: _Matrix) -> bool: ...
def sampled_share(x: _Matrix, counted: int, shares: int) -> float: ...
def surely_apart(results: _Objects, operands: _Objects) -> bool: ...
def plain_matmul(
    x: _Matrix,
    bits: _Bits | None,
    rows_per_mask: int,
    w: _Matrix,
    scale: float,
    bias: _Matrix | None,
    bias_scale: float,
    out: _Matrix,
) -> bool: ...
def dense_matmul(
    x: _Matrix,
    transposed: bool,
    bits: _Bits,
    mask_shape: _Shape,
    rows_per_mask: int,
    scale: float,
    w: _Matrix,
    out: _Matrix,
) -> bool: ...
def second_level_cache() -> int: ...
def every_bit(bits: _Bits, n: int) -> bool: ...
def direct_matmul(
    x: _Matrix, bits: _Bits, rows_per_mask: int, w: _Matrix, scale: float, out: _Matrix
) -> bool: ...
def small_matmul(
    x: object,
    w: object,
    bits: _Bits,
    mask_shape: _Shape,
    rows_per_mask: int | Literal["batch"],
    scale: float,
    keep_prob: float | None,
    skip_zeros: bool,
    most: int,
    counted: int,
    shares: int,
    cheapest: _Chooser,
    out: object,
) -> _Matrix | None: ...
def get_num_threads() -> int: ...
def set_num_threads(n: SupportsIndex) -> None: ...
def stop_threads() -> None: ...
def select_isa(name: str) -> None: ...
def upper_halves_in_use() -> bool | None: ...
def assume_first_level_cache(size: SupportsIndex) -> None: ...
def assume_cache_of_core(size: SupportsIndex) -> None: ...
def isa_used() -> str: ...
def build_info() -> _BuildInfo: ...
def update_sgd(
    value: _Matrix,
    velocity: _Matrix | None,
    gradient: _Matrix,
    compact: bool,
    row_bits: _Bits | None,
    row_offset: int,
    column_bits: _Bits | None,
    column_offset: int,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    max_norm: float,
) -> None: ...
def update_adam(
    value: _Matrix,
    first: _Matrix,
    second: _Matrix,
    top: _Matrix | None,
    row_counts: NDArray[numpy.int64],
    column_counts: NDArray[numpy.int64],
    steps: int,
    table: NDArray[numpy.float64],
    gradient: _Matrix,
    compact: bool,
    row_bits: _Bits | None,
    row_offset: int,
    column_bits: _Bits | None,
    column_offset: int,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    decoupled: bool,
    max_norm: float,
) -> None: ...
