"""SciPy's sparse matrices, made anew from the dropped array in every call."""

from ..cases import Contender, needs

__all__ = ["forward", "step"]


@needs("scipy", "SciPy CSR")
def forward(work):
    """Compress the dropped input to rows of non-zeros, multiply those."""
    from scipy import sparse

    x, w = work.dropped_x, work.w
    return Contender(
        "SciPy CSR",
        run=lambda: sparse.csr_matrix(x) @ w,
        check=work.check_forward,
        calls="scipy.sparse.csr_matrix",
        note="one thread",
    )


@needs("scipy", "SciPy CSR")
def step(work):
    """Compress the dropped input and gradient to rows of non-zeros, multiply those."""
    from scipy import sparse

    x, w, grad_y = work.dropped_x, work.w, work.dropped_grad
    factors_in, factors_out = work.factors_in, work.factors_out

    def run():
        a, g = sparse.csr_matrix(x), sparse.csr_matrix(grad_y)
        return (a @ w) * factors_out, (g @ w.T) * factors_in, a.T @ grad_y

    return Contender(
        "SciPy CSR", run, work.check_step, calls="scipy.sparse.csr_matrix", note="one thread"
    )
