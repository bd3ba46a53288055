"""Types of the compiled kernels; ``fastdrop.reference`` says what each of them computes."""

from typing import Literal, Protocol, SupportsIndex, TypeAlias, TypedDict, final

import numpy
from numpy.typing import NDArray

_Bits: TypeAlias = NDArray[numpy.uint8]
_Values: TypeAlias = (
    NDArray[numpy.float16] | NDArray[numpy.float32] | NDArray[numpy.float64] | NDArray[numpy.uint16]
)
_Matrix: TypeAlias = NDArray[numpy.float32] | NDArray[numpy.float64]
_Shape: TypeAlias = tuple[int, ...]
_Objects: TypeAlias = tuple[object, ...]
_Units: TypeAlias = tuple[_Bits, int] | None
_Counts: TypeAlias = NDArray[numpy.int64]
_Method: TypeAlias = Literal["auto", "compact", "skip", "dense", "packed", "small"]

class _RowMask(Protocol):
    bits: _Bits
    rows_per_mask: int
    scale: float
    keep_prob: float | None

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
def gather(x: _Matrix, rows: _Units, columns: _Units, out: _Matrix) -> None: ...
def scatter(
    x: _Matrix,
    rows: _Units,
    columns: _Units,
    out: _Matrix,
    *,
    scale: float = 1.0,
    bias: _Matrix | None = None,
    bias_scale: float = 1.0,
    accumulate: bool = False,
) -> None: ...

@final
class Product:
    def __new__(
        cls,
        a: _Matrix,
        b: _Matrix,
        c: _Matrix,
        *,
        mask_a: _RowMask | None = None,
        mask_b: _RowMask | None = None,
        mask_c: _RowMask | None = None,
        bias: _Matrix | None = None,
        skip_zeros: bool = False,
        sum_rows: bool = False,
        fused: bool = False,
        columns_of_b: bool = False,
        nonzeros: float = -1.0,
        method: _Method = "auto",
    ) -> Product: ...
    @property
    def a(self) -> _Matrix: ...
    @property
    def b(self) -> _Matrix: ...
    @property
    def c(self) -> _Matrix: ...
    @property
    def bias(self) -> _Matrix | None: ...

def matmul(product: Product) -> int: ...
def plan(product: Product) -> _Method: ...
def plan_terms(product: Product, method: _Method) -> tuple[float, ...] | None: ...
def masked_sums(x: _Matrix, mask: _RowMask | None, out: _Matrix) -> None: ...
def surely_apart(results: _Objects, operands: _Objects) -> bool: ...
def plain_operands(x: object, w: object, out: object) -> bool: ...

@final
class Update:
    def __new__(
        cls,
        value: _Matrix,
        gradient: _Matrix,
        *,
        rows: _Units = None,
        columns: _Units = None,
        kept: NDArray[numpy.uint8] | None = None,
        compact: bool = False,
        learning_rate: float,
        first: _Matrix | None = None,
        second: _Matrix | None = None,
        top: _Matrix | None = None,
        row_counts: _Counts | None = None,
        column_counts: _Counts | None = None,
        steps: int = 0,
        table: NDArray[numpy.float64] | None = None,
        momentum: float = 0.0,
        nesterov: bool = False,
        beta1: float = 0.0,
        beta2: float = 0.0,
        epsilon: float = 0.0,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        max_norm: float = ...,
    ) -> Update: ...

def update(update: Update) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(n: SupportsIndex) -> None: ...
def stop_threads() -> None: ...
def select_isa(name: str) -> None: ...
def upper_halves_in_use() -> bool | None: ...
def assume_first_level_cache(size: SupportsIndex) -> None: ...
def assume_cache_of_core(size: SupportsIndex) -> None: ...
def isa_used() -> str: ...
def build_info() -> _BuildInfo: ...
