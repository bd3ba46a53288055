"""Warnings that point at the caller's line, however deep in the package their reason was found."""

import contextlib
import contextvars
import sys
import warnings
from collections.abc import Iterator
from types import FrameType

__all__ = ["warn_caller", "warned_before"]

# Packages whose frames are passed over: this one, scikit-learn, which wraps every `fit`, and what
# scikit-learn fits in parallel with.
_PASSED = {"fastdrop", "joblib", "sklearn"}

_silent = contextvars.ContextVar("silent", default=False)


@contextlib.contextmanager
def warned_before() -> Iterator[None]:
    """Let `warn_caller` be silent in a ``with`` block, in this thread alone.

    For work in parts, each of which would repeat what the caller has been warned of.
    """
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the first caller outside of this package.

    Parameters
    ----------
    message : str
    category : type, optional

    Examples
    --------
    >>> import warnings
    >>> from fastdrop.callers import warn_caller
    >>> with warnings.catch_warnings(record=True) as found:
    ...     warnings.simplefilter("always")
    ...     warn_caller("the rate is 1")
    >>> str(found[0].message)
    'the rate is 1'
    """
    if _silent.get():
        return
    level = 1
    frame: FrameType | None = sys._getframe(0)
    while frame is not None and _package(frame) in _PASSED:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
