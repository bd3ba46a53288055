"""Synchronous data-parallel training on the ranks of an MPI communicator.

Each rank holds rows of its own and a copy of the network. A mask is a pure function of seed, draw
and index, so every rank draws its part of the global batch's masks without a message; gradients are
summed over the active weights only.
"""

from fastdrop.interop import needs

with needs("mpi4py", "mpi", "fastdrop.mpi needs mpi4py"):
    import mpi4py  # noqa: F401

try:
    from mpi4py import MPI  # noqa: F401
except (ImportError, RuntimeError) as error:
    raise ImportError(
        f"fastdrop.mpi needs an MPI library, and mpi4py cannot use one ({error}). Where the "
        "machine has none, install it with\n    python -m pip install mpich"
    ) from error

from fastdrop.interop.mpi.estimators import fit
from fastdrop.interop.mpi.leaving import at_exit
from fastdrop.interop.mpi.parallel import DataParallel
from fastdrop.interop.mpi.waiting import RankError, notify_world

__all__ = ["DataParallel", "RankError", "fit"]

at_exit(notify_world)
