"""fastdrop's threads under threadpoolctl's limits.

threadpoolctl finds the libraries that it knows among those that are loaded. `register` makes it
know fastdrop's kernels, under the API name ``"fastdrop"``; from then on its limits hold for them as
they do for BLAS and OpenMP. Importing the estimators does it as well. Importing this module is an
ImportError with a threadpoolctl before 3.3, which cannot be told of others.
"""

import threadpoolctl

import fastdrop.config

__all__ = ["FastdropController", "register"]

if not hasattr(threadpoolctl, "register"):
    raise ImportError(
        f"threadpoolctl must be 3.3 or newer to control fastdrop, got {threadpoolctl.__version__}"
    )


class FastdropController(threadpoolctl.LibController):
    """What threadpoolctl does with fastdrop's compiled module."""

    user_api = "fastdrop"
    internal_api = "fastdrop"
    filename_prefixes = ("_kernels.",)  # other packages may have such a module, but no such symbol
    check_symbols = ("fastdrop_get_num_threads",)

    def get_num_threads(self) -> int:
        """The largest number of threads a kernel may use."""
        return fastdrop.config.get_num_threads()

    def set_num_threads(self, num_threads: int) -> None:
        """Set it, for the whole process."""
        fastdrop.config.set_num_threads(num_threads)

    def get_version(self) -> str:
        """fastdrop's version."""
        return fastdrop.config.__version__


_registered: list[type] = []


def register() -> None:
    """Make threadpoolctl know fastdrop; a second call changes nothing.

    Examples
    --------
    >>> import fastdrop, threadpoolctl
    >>> from fastdrop.interop.threadpoolctl import register
    >>> register()
    >>> with threadpoolctl.threadpool_limits(1):
    ...     fastdrop.get_num_threads()
    1
    """
    if not _registered:
        threadpoolctl.register(FastdropController)
        _registered.append(FastdropController)
