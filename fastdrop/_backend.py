"""Which kernels run: the compiled ones, or their NumPy references where the environment asks.

``FASTDROP_BACKEND`` is ``c`` (default) or ``numpy``; ``FASTDROP_ISA`` names the best instruction
set the compiled kernels may use. Nothing falls back: what was asked for and cannot be had is an
error at import.
"""

import os
import sys
from types import ModuleType
from typing import Any

__all__ = ["kernels"]

NUMPY_HINT = "; FASTDROP_BACKEND=numpy does without them, slowly"


def _import_compiled() -> ModuleType:
    """The compiled module, or an ImportError of one line that says what to do."""
    folder = os.path.dirname(__file__)  # pathlib would take longer to import than all of this
    try:
        import fastdrop._kernels as compiled
    except ImportError as error:
        reason = str(error)
        missing = isinstance(error, ModuleNotFoundError) and error.name == "fastdrop._kernels"
    else:
        return compiled
    # Raised here and not above, so that no second traceback is printed.
    if missing and os.path.exists(os.path.join(folder, "_kernels.pyx")):
        raise ImportError(
            f"fastdrop is not built in its source folder {os.path.dirname(folder)}: run "
            "`python -m pip install -e .` there, or start Python in another folder to use an "
            "installed fastdrop" + NUMPY_HINT
        )
    if missing:
        raise ImportError(
            f"fastdrop in {folder} has no compiled kernels for this Python, "
            f"{sys.version.split()[0]} on {sys.platform}: install it again with this Python's pip"
            + NUMPY_HINT
        )
    raise ImportError(
        f"fastdrop's compiled kernels in {folder} could not be loaded: {reason}" + NUMPY_HINT
    )


def _compiled() -> ModuleType:
    _kernels = _import_compiled()
    available = _kernels.build_info()["isa_available"]
    asked = os.environ.get("FASTDROP_ISA", "").strip()
    if asked and asked not in available:
        raise ImportError(
            f"FASTDROP_ISA must be one of {', '.join(available)} on this machine, got {asked!r}"
        )
    _kernels.select_isa(asked or available[-1])
    return _kernels


def _load() -> ModuleType:
    backend = os.environ.get("FASTDROP_BACKEND", "").strip() or "c"
    if backend == "c":
        return _compiled()
    if backend == "numpy":
        from fastdrop import reference

        return reference
    raise ImportError(f"FASTDROP_BACKEND must be 'c' or 'numpy', got {backend!r}")


kernels: Any = _load()
