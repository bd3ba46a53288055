"""What a backend tells about itself: threads and instruction sets, of which NumPy has no say."""

import operator
from typing import Any

__all__ = ["build_info", "get_num_threads", "isa_used", "set_num_threads", "stop_threads"]


def get_num_threads() -> int:
    """Return the number of threads of this backend: always 1."""
    return 1


def set_num_threads(n: Any) -> None:
    """Check that `n` is an int from 1 to 4096; the references run on one thread whatever it is."""
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n must be an int, got {type(n).__name__}")
    if not 1 <= operator.index(n) <= 4096:
        raise ValueError(f"n must be between 1 and 4096, got {n}")


def stop_threads() -> None:
    """Do nothing: there are no threads to end."""


def isa_used() -> str:
    """Return "numpy", where the compiled module names its instruction set."""
    return "numpy"


def build_info() -> dict[str, Any]:
    """Describe the backend, with the keys of the compiled module's function of this name.

    Examples
    --------
    >>> build_info()["backend"]
    'numpy'
    """
    return {
        "isa_available": ("numpy",),
        "isa_used": "numpy",
        "threads": False,
        "compiler": "none",
        "backend": "numpy",
    }
