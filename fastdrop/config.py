"""What this installation can do, and how many threads it uses.

The number of threads a process may use is smaller than the machine's number of cores more often
than not: batch systems and containers restrict it by an affinity mask or a cgroup quota, and
threads beyond that only take turns. `default_num_threads` reads both.
"""

import math
import numbers
import os
import platform
from collections.abc import Iterator, Mapping
from typing import Any, Literal, overload

import numpy

from fastdrop._backend import kernels
from fastdrop._version import __version__

__all__ = [
    "default_num_threads",
    "get_num_threads",
    "set_num_threads",
    "show_config",
    "stop_threads",
]

# The kernels' own limit: a typing error should not ask the system for a million threads.
MAX_THREADS = 4096
# Whether somebody has said how many threads there shall be.
_chosen = bool(os.environ.get("FASTDROP_NUM_THREADS", "").strip())


def get_num_threads() -> int:
    """Return the largest number of threads a kernel may use.

    Returns
    -------
    int
        At least 1. Always 1 in a build without threads and with ``FASTDROP_BACKEND=numpy``.
        Small arrays are handled by fewer threads, whatever this number.

    See Also
    --------
    set_num_threads : change it.

    Examples
    --------
    >>> import fastdrop
    >>> fastdrop.get_num_threads() >= 1
    True
    """
    return int(kernels.get_num_threads())


def set_num_threads(n: int) -> None:
    """Set the largest number of threads a kernel may use, for the whole process.

    Masks, `dropout` and `masked_matmul` are the same bits on any number of threads; network steps,
    and fits of the estimators, may round differently on one thread and on several. NumPy's BLAS has
    its own number of threads, which this function leaves alone.

    Parameters
    ----------
    n : int
        From 1 to 4096. A build without threads accepts it and goes on with one.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is out of range.

    See Also
    --------
    get_num_threads : read it back.

    Examples
    --------
    >>> import fastdrop
    >>> before = fastdrop.get_num_threads()
    >>> fastdrop.set_num_threads(1)
    >>> fastdrop.get_num_threads()
    1
    >>> fastdrop.set_num_threads(before)
    """
    if not isinstance(n, numbers.Integral):  # arrays have __index__, too, whatever they hold
        raise TypeError(f"n must be an int, got {type(n).__name__}")
    kernels.set_num_threads(n)
    global _chosen
    _chosen = True


def follow_num_threads(n: int) -> None:
    """Set the number without the user's having chosen it: a default, or a framework's number."""
    kernels.set_num_threads(n)


def threads_chosen() -> bool:
    """Whether the number of threads was set, by `set_num_threads` or the environment."""
    return _chosen


def stop_threads() -> None:
    """End the threads of fastdrop's pool, and return when they are gone.

    A call that is using them ends first. The next kernel that wants threads makes new ones, which
    takes some 50 microseconds for each. A fork ends them by itself where no other thread is in a
    kernel, so that Python 3.12 and later do not warn of a fork with threads on their account; this
    function is for the rest: before a checkpoint of the process, a sandbox, a leak check.

    See Also
    --------
    set_num_threads : how many there may be.

    Examples
    --------
    >>> import fastdrop
    >>> fastdrop.stop_threads()
    """
    kernels.stop_threads()


def default_num_threads(environ: Mapping[str, str] | None = None, root: str = "/") -> int:
    """Return the number of threads to start with.

    ``FASTDROP_NUM_THREADS`` decides where it is set. Otherwise it is the smallest of the number
    of cores in the process's affinity mask, the cgroup's CPU quota rounded up (version 1 and 2,
    all levels above the process included) and the first number of ``OMP_NUM_THREADS``.

    Parameters
    ----------
    environ : mapping of str to str, optional
        The environment; ``os.environ`` unless given.
    root : str, optional
        Where the file system with ``proc`` and ``sys`` begins; for tests.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ValueError
        If ``FASTDROP_NUM_THREADS`` is not an integer from 1 to 4096.

    Examples
    --------
    >>> from fastdrop.config import default_num_threads
    >>> default_num_threads({"FASTDROP_NUM_THREADS": "3"})
    3
    """
    environ = os.environ if environ is None else environ
    asked = environ.get("FASTDROP_NUM_THREADS", "").strip()
    if asked:
        if not (asked.isascii() and asked.isdigit() and 1 <= int(asked) <= MAX_THREADS):
            raise ValueError(
                f"FASTDROP_NUM_THREADS must be an integer from 1 to {MAX_THREADS}, got {asked!r}"
            )
        return int(asked)
    limits = [_affinity(), _quota(root)]
    # OpenMP allows one number per nesting level, "4,2"; ours is the outermost. What else the
    # variable may hold is not ours to judge.
    openmp = environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if openmp.isascii() and openmp.isdigit() and int(openmp) >= 1:
        limits.append(int(openmp))
    return max(1, min(limit for limit in limits if limit is not None))


def _affinity() -> int:
    """Number of cores the process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(root: str) -> int | None:
    """CPU quota of the process's cgroup, in whole cores rounded up, or None without one."""
    lines = _read(os.path.join(root, "proc/self/cgroup")).splitlines()
    mount = os.path.join(root, "sys/fs/cgroup")
    found: list[float | None] = []
    for line in lines:
        # "0::/path" is version 2; "4:cpu,cpuacct:/path" names version 1's controllers.
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for base in (mount, os.path.join(mount, "unified")):
                found += [_quota_v2(directory) for directory in _upwards(base, path)]
        elif "cpu" in controllers.split(","):
            for base in {os.path.join(mount, "cpu"), os.path.join(mount, controllers)}:
                found += [_quota_v1(directory) for directory in _upwards(base, path)]
    cores = [quota for quota in found if quota is not None]
    return max(1, math.ceil(min(cores))) if cores else None


def _upwards(mount: str, path: str) -> Iterator[str]:
    """The group's directory and all above it, up to the mount.

    A container may see the path of its group on the host while its mount shows the group itself
    as the root: then only the last directory exists, and it is the right one.
    """
    parts = [part for part in path.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        yield os.path.join(mount, *parts[:length])


def _quota_v2(directory: str) -> float | None:
    quota, _, period = _read(os.path.join(directory, "cpu.max")).partition(" ")
    return _cores(quota, period)


def _quota_v1(directory: str) -> float | None:
    quota = _read(os.path.join(directory, "cpu.cfs_quota_us"))
    return _cores(quota, _read(os.path.join(directory, "cpu.cfs_period_us"))) if quota else None


def _cores(quota: str, period: str) -> float | None:
    """Quota over period, both in microseconds; None for "max", -1 and what is no number."""
    try:
        time, each = int(quota), int(period)
    except ValueError:
        return None
    return time / each if time > 0 and each > 0 else None


def _read(path: str) -> str:
    """Text of a small file, empty where there is none to read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


@overload
def show_config(mode: None = None) -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, dict[str, Any]]: ...
def show_config(mode: str | None = None) -> dict[str, dict[str, Any]] | None:
    """Print the features of this installation and those in use, or return them.

    Parameters
    ----------
    mode : None or "dicts", optional
        ``None`` prints; ``"dicts"`` returns a dictionary of dictionaries and prints nothing.

    Returns
    -------
    dict or None
        With ``mode="dicts"``: ``"fastdrop"`` (version, backend, compiler), ``"isa"`` (available,
        used), ``"threads"`` (number, built_in), ``"python"`` (version, platform) and ``"numpy"``
        (version, blas: name, version, configuration, kernel, threads). The BLAS's configuration is
        that of its build; kernel and threads are those in use, as far as threadpoolctl is installed
        and can tell, else None.

    Raises
    ------
    ValueError
        If `mode` is something else.

    Examples
    --------
    >>> import fastdrop
    >>> sorted(fastdrop.show_config(mode="dicts"))
    ['fastdrop', 'isa', 'numpy', 'python', 'threads']
    """
    if mode not in (None, "dicts"):
        raise ValueError(f'mode must be None or "dicts", got {mode!r}')
    config = _collect()
    if mode == "dicts":
        return config
    print(_text(config))
    return None


def _collect() -> dict[str, dict[str, Any]]:
    build = kernels.build_info()
    blas = numpy.show_config("dicts").get("Build Dependencies", {}).get("blas", {})
    return {
        "fastdrop": {
            "version": __version__,
            "backend": build["backend"],
            "compiler": build["compiler"],
        },
        "isa": {"available": list(build["isa_available"]), "used": build["isa_used"]},
        "threads": {"number": kernels.get_num_threads(), "built_in": build["threads"]},
        "python": {"version": platform.python_version(), "platform": platform.platform()},
        "numpy": {
            "version": numpy.__version__,
            "blas": {
                "name": blas.get("name", "unknown"),
                "version": blas.get("version", "unknown"),
                "configuration": blas.get("openblas configuration", ""),
                **_blas_in_use(),
            },
        },
    }


def _blas_in_use() -> dict[str, Any]:
    """The kernels that NumPy's BLAS chose for this processor, and its number of threads."""
    try:
        import threadpoolctl
    except ImportError:
        return {"kernel": None, "threads": None}
    found = [one for one in threadpoolctl.threadpool_info() if one.get("user_api") == "blas"]
    # Other packages, such as SciPy, bring a BLAS of their own.
    first = next((one for one in found if "numpy" in one.get("filepath", "")), None)
    blas: dict[str, Any] = first or next(iter(found), {})
    return {"kernel": blas.get("architecture"), "threads": blas.get("num_threads")}


def _blas_text(blas: Mapping[str, Any]) -> dict[str, str]:
    """The lines about NumPy's BLAS: version, kernels, threads and build."""
    known = [f"{blas['name']} {blas['version']}"]
    if blas["kernel"]:
        known.append(f"kernels in use: {blas['kernel']}")
    if blas["threads"]:
        known.append(f"threads: {blas['threads']}")
    if len(known) == 1:
        known.append("install threadpoolctl to see its kernels and threads")
    lines = {"NumPy's BLAS": ", ".join(known)}
    if blas["configuration"]:
        lines[""] = f"built as: {blas['configuration']}"
    lines[" "] = "its threads: OMP_NUM_THREADS or threadpoolctl, not FASTDROP_NUM_THREADS"
    return lines


def _text(config: Mapping[str, Any]) -> str:
    backend = config["fastdrop"]["backend"]
    number = config["threads"]["number"]
    if backend == "numpy":
        threads = f"{number} (the NumPy backend does not use threads)"
    elif config["threads"]["built_in"]:
        threads = str(number)
    else:
        threads = f"{number} (this build is single-threaded)"
    lines = {
        "backend": backend,
        "instruction set": f"{config['isa']['used']}, of {', '.join(config['isa']['available'])}",
        "threads": threads,
        "compiler": config["fastdrop"]["compiler"],
        "Python": f"{config['python']['version']}, {config['python']['platform']}",
        "NumPy": config["numpy"]["version"],
        **_blas_text(config["numpy"]["blas"]),
    }
    width = max(map(len, lines))
    body = [f"  {name:{width}}  {value}" for name, value in lines.items()]
    return "\n".join([f"fastdrop {config['fastdrop']['version']}", *body])
