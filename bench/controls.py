"""Threads and instruction set of everybody who takes part, set to the same and put back after."""

import contextlib
import os
import sys

__all__ = ["Controls", "available_cpus"]


def available_cpus() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Controls:
    """Set the number of threads and the instruction set, of what is imported by then.

    Used as a context manager, it puts back what it found. What it knows: fastdrop, the BLAS
    libraries (through threadpoolctl), torch and numba. Others, as JAX, have as many threads as
    there are processors; they are bound to as few processors as they shall have threads.

    Parameters
    ----------
    isa : str, optional
        Instruction set to force upon fastdrop; its own choice if not given.
    """

    def __init__(self, isa=None):
        self.isa = isa
        self._found = {}
        self._set = {}
        self._blas = None
        self._bound = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bind(None)
        self.refresh()
        for name, value in self._found.items():
            self._actions()[name][1](value)
        return False

    def refresh(self):
        """Look again for what is imported, and remember how it was set at first."""
        self._blas = _blas_controller()
        self._set = {}
        for name, (get, _) in self._actions().items():
            if name not in self._found:
                self._found[name] = get()

    def apply(self, threads, isa=None, bound=False):
        """Set the number of threads of all, and fastdrop's instruction set.

        Parameters
        ----------
        threads : int
        isa : str, optional
        bound : bool
            Whether to bind the process to so many processors.

        Raises
        ------
        ValueError
            If the machine or the backend does not have the instruction set, or if the system does
            not bind processes to processors.
        """
        self.bind(threads if bound and threads < available_cpus() + self._taken else None)
        for name, (_, set_value) in self._actions().items():
            value = threads
            if name == "isa":
                value = isa or self.isa or self._found["isa"]
            if self._set.get(name) != value:
                set_value(value)
                self._set[name] = value

    def bind(self, processors):
        """Bind all threads of this process to so many processors; None gives all back.

        Raises
        ------
        ValueError
            If the system does not bind processes to processors.
        """
        if processors == (self._bound and len(self._bound[1])):
            return
        if self._bound is not None:
            _set_affinity(self._bound[0])
            self._bound = None
        if processors is not None:
            if not hasattr(os, "sched_setaffinity"):
                raise ValueError("this system does not bind processes to processors")
            usual = os.sched_getaffinity(0)
            few = set(sorted(usual)[:processors])
            _set_affinity(few)
            self._bound = usual, few

    @property
    def _taken(self):
        """How many processors this process may not use because it is bound."""
        return 0 if self._bound is None else len(self._bound[0]) - len(self._bound[1])

    def _actions(self):
        """Return name: (get, set) of what is there to be controlled."""
        actions = {}
        if self._blas is not None and self._blas.lib_controllers:
            actions["blas"] = (self._blas_threads, self._limit_blas)
        if "torch" in sys.modules:
            torch = sys.modules["torch"]
            actions["torch"] = (torch.get_num_threads, torch.set_num_threads)
        if "numba" in sys.modules:
            numba = sys.modules["numba"]
            most = numba.config.NUMBA_NUM_THREADS
            actions["numba"] = (
                numba.get_num_threads,
                lambda threads: numba.set_num_threads(min(threads, most)),
            )
        if "fastdrop" in sys.modules:
            fastdrop = sys.modules["fastdrop"]
            actions["fastdrop"] = (fastdrop.get_num_threads, fastdrop.set_num_threads)
            actions["isa"] = (used_isa, _select_isa)
        return actions

    def _blas_threads(self):
        return max(library.num_threads for library in self._blas.lib_controllers)

    def _limit_blas(self, threads):
        for library in self._blas.lib_controllers:
            library.set_num_threads(threads)


def _set_affinity(processors):
    """Bind every thread of this process; those that begin later inherit it."""
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), processors)


def _blas_controller():
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


def used_isa():
    """Return the instruction set that fastdrop uses now, None where its backend has no choice."""
    from fastdrop._backend import kernels

    if not hasattr(kernels, "select_isa"):
        return None
    return kernels.build_info()["isa_used"]


def _select_isa(name):
    from fastdrop._backend import kernels

    if name is None:
        return
    if not hasattr(kernels, "select_isa"):
        raise ValueError(
            f"this backend of fastdrop has no instruction sets to choose, got {name!r}"
        )
    kernels.select_isa(name)
