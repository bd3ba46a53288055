"""Which kernels run: the compiled ones, or their NumPy twins where the environment asks for them.

``FASTDROP_BACKEND`` is ``c`` (default) or ``numpy``; ``FASTDROP_ISA`` names the best instruction
set the compiled kernels may use. Nothing falls back: what was asked for and cannot be had is an
error at import.
"""

import os

__all__ = ["kernels"]


def _compiled():
    try:
        from fastdrop import _kernels
    except ImportError as error:
        raise ImportError(
            "fastdrop's compiled kernels could not be loaded: install the package with "
            "`pip install .` from its source directory (a C compiler is needed), or set "
            f"FASTDROP_BACKEND=numpy to run its slow NumPy twins; the cause: {error}"
        ) from error
    available = _kernels.build_info()["isa_available"]
    asked = os.environ.get("FASTDROP_ISA", "").strip()
    if asked and asked not in available:
        raise ImportError(
            f"FASTDROP_ISA must be one of {', '.join(available)} on this machine, got {asked!r}"
        )
    _kernels.select_isa(asked or available[-1])
    return _kernels


def _load():
    backend = os.environ.get("FASTDROP_BACKEND", "").strip() or "c"
    if backend == "c":
        return _compiled()
    if backend == "numpy":
        from fastdrop import reference

        return reference
    raise ImportError(f"FASTDROP_BACKEND must be 'c' or 'numpy', got {backend!r}")


kernels = _load()
