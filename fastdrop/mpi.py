"""Training on several processes and machines with MPI: the door to `fastdrop.interop.mpi`."""

from fastdrop.interop.mpi import *  # noqa: F403
from fastdrop.interop.mpi import __all__ as __all__
