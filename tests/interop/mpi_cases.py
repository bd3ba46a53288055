"""Runs cases of fastdrop.mpi on every rank; `test_mpi.py` starts it with mpiexec.

Usage: mpiexec -n N python mpi_cases.py [CASE...]; rank 0 prints one JSON line for every case.
"""

import json
import sys
import traceback

import mpi_fits  # noqa: F401
import mpi_refusals  # noqa: F401
import mpi_training  # noqa: F401
from mpi_common import CASES, COMM, RANK


def main():
    for name in sys.argv[1:] or CASES:
        try:
            CASES[name]()
        except BaseException:
            # The others may wait for this rank for ever.
            error = {"case": name, "rank": RANK, "error": traceback.format_exc()}
            print(f"\n{json.dumps(error)}", flush=True)  # not in the line of another rank
            COMM.Abort(1)
        COMM.Barrier()
        if RANK == 0:
            print(json.dumps({"case": name, "rank": 0, "error": None}), flush=True)


if __name__ == "__main__":
    main()
