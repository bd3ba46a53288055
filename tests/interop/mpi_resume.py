"""Trains until a step, from where a file says; `test_mpi.py` starts it with mpiexec.

Usage: mpiexec -n N python mpi_resume.py FILE STOP
"""

import os
import sys

import numpy
from mpi_common import RANK, data, network, parts

from fastdrop import mpi, nn, optim

path, stop = sys.argv[1], int(sys.argv[2])
net = network({"rows_per_mask": 3})
opt = optim.Adam(net, 0.01)
parallel = mpi.DataParallel(net, opt, timeout=30)
if os.path.exists(path):
    parallel.load(path)
while opt.steps < stop:
    step = opt.steps
    x, y = data(31, step)
    cuts = parts(31)
    mine = slice(cuts[RANK], cuts[RANK + 1])
    value = parallel.step(x[mine], y[mine], nn.SoftmaxCrossEntropy())
    if RANK == 0:
        print(f"step {step}: {float(numpy.float64(value))!r}", flush=True)
parallel.save(path)
