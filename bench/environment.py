"""What a measurement depends on: machine, instruction set, BLAS, versions, variables, load."""

import datetime
import functools
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys

from .controls import available_cpus

__all__ = ["describe", "lines", "provenance", "torch_generator", "warnings"]

# Files whose changes may change what is measured.
MEASURED = (":/src", ":/fastdrop", ":/bench/*.py", ":/bench/rivals", ":/bench/work", ":/setup.py")
# Distributions whose version is told where they are installed.
PACKAGES = ("numpy", "scipy", "scikit-learn", "numba", "torch", "jax", "keras", "thinc", "dask")


def describe() -> dict:
    """Return what a measurement here depends on, ready for JSON."""
    return {
        "fastdrop": _fastdrop(),
        "cpu": _cpu_model(),
        "cpus": available_cpus(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "blas": _blas(),
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("FASTDROP_", "OPENBLAS_", "OMP_", "MKL_", "GOMP_"))
        },
    }


def provenance(command: str) -> dict:
    """Return when, from which commit and by which command a run was made, ready for JSON.

    Without a git checkout the commit is None. `changed` says whether tracked files of the package,
    its sources or the benchmarks differed from the commit.
    """
    commit = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *MEASURED)
    return {
        "date": datetime.date.today().isoformat(),
        "command": command,
        "commit": commit,
        "changed": bool(changed),
    }


def _git(*arguments):
    command = ["git", "-C", str(pathlib.Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def lines(facts: dict) -> list[str]:
    """Return the description as lines for a terminal."""
    fastdrop = facts["fastdrop"]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    load = "" if facts["load"] is None else f", load {facts['load']:.1f}"
    blas = "; ".join(
        f"{one['library']} {one['version']}, {one['kernels'] or 'unknown'} kernels"
        for one in facts["blas"]
    )
    return [
        f"fastdrop  {fastdrop['version']}, backend {fastdrop['backend']}, "
        f"{fastdrop['isa_used']} of {', '.join(fastdrop['isa_available'])}, "
        f"threads {'yes' if fastdrop['threads'] else 'no'}, {fastdrop['compiler']}",
        f"CPU       {facts['cpu']}, {facts['cpus']} usable{load}",
        f"BLAS      {blas or 'unknown: threadpoolctl is not installed'}",
        f"versions  Python {facts['python']}, {packages}",
    ]


def warnings(facts: dict) -> list[str]:
    """Return what makes these measurements not comparable with the bars."""
    found = []
    openblas = [name for name in facts["variables"] if name.startswith("OPENBLAS_")]
    if openblas:
        found.append(
            f"{', '.join(openblas)} set: NumPy's BLAS is not at its best choice of kernels and "
            "threads, so every ratio to a dense product is another one"
        )
    if not facts["blas"]:
        found.append("threadpoolctl is not installed: the threads of BLAS are not controlled")
    if facts["load"] is not None and facts["load"] > 0.5:
        found.append(f"the load is {facts['load']:.1f}: others use this machine")
    return found


@functools.cache
def torch_generator() -> str:
    """Say how torch draws Bernoulli numbers here: one after the other, or with MKL's generator.

    Some builds seed MKL's vectorised generator with a single number of torch's own on Intel's
    processors. So torch is asked: after draws of different lengths its generator stands at
    different places if every element took a number of it, and at the same place otherwise. The
    wheels of torch 2.13 take one for each, on Intel's processors, too.
    """
    import torch

    def next_number(length):
        generator = torch.Generator().manual_seed(0)
        torch.empty(length).bernoulli_(0.5, generator=generator)
        return torch.randint(2**31, (1,), generator=generator).item()

    if next_number(1000) == next_number(2000):
        return "MKL's vectorised generator"
    return "its serial generator, one number for each element, on one thread"


def _fastdrop():
    import fastdrop
    from fastdrop._backend import kernels

    info = kernels.build_info()
    return {
        "version": fastdrop.__version__,
        "backend": info["backend"],
        "isa_used": info["isa_used"],
        "isa_available": list(info["isa_available"]),
        "threads": info["threads"],
        "compiler": info["compiler"],
    }


def _blas():
    """Return NumPy's BLAS as threadpoolctl sees it."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return []
    return [
        {
            "library": library["internal_api"],
            "version": library["version"],
            "kernels": library.get("architecture"),
        }
        for library in ThreadpoolController().info()
        if library["user_api"] == "blas"
    ]


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_intel() -> bool:
    """Whether the processor is one of Intel's, whose last-level cache belongs to the socket."""
    return "intel" in _cpu_field("vendor_id").lower()


def _cpu_model():
    return _cpu_field("model name") or platform.processor() or platform.machine()


def _cpu_field(name):
    """Return a field of Linux's description of the processor, "" where there is none."""
    source = pathlib.Path("/proc/cpuinfo")
    if sys.platform.startswith("linux") and source.exists():
        for line in source.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""
