"""Gradients summed over the ranks while the backward pass of earlier layers goes on."""

import numpy
from mpi4py import MPI

from fastdrop._backend import kernels
from fastdrop.parameters import operands

__all__ = ["GradientSums"]

# Gradients of fewer bytes than this wait for each other and travel together.
SMALL = 1 << 16


class GradientSums:
    """The sums over all ranks of the gradients of one backward pass.

    Parameters
    ----------
    ranks : Ranks
    """

    def __init__(self, ranks):
        self._ranks = ranks
        self._small = {}

    def add(self, parameter):
        """Begin to sum a parameter's gradient, which becomes the sum; for `backward(ready=)`.

        Only what is active travels, in the order in which all ranks have it.
        """
        if self._ranks.size == 1 or parameter.grad is None:
            return
        make_compact(parameter)
        if parameter.grad.nbytes < SMALL:
            self._small.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        else:
            self._sum(parameter.grad)
        MPI.Request.Testall(self._ranks.requests)  # lets those under way go on

    def _sum(self, array):
        self._ranks.sent += array.nbytes
        self._ranks.begin_request(self._ranks.comm.Iallreduce(MPI.IN_PLACE, array))

    def finish(self):
        """Wait until all gradients are sums."""
        together = []
        for grads in self._small.values():
            together.append(numpy.concatenate([grad.reshape(-1) for grad in grads]))
            self._sum(together[-1])
        self._ranks.wait()
        for grads, sums in zip(self._small.values(), together, strict=True):
            first = 0
            for grad in grads:
                grad[...] = sums[first : first + grad.size].reshape(grad.shape)
                first += grad.size
        self._small.clear()


def make_compact(parameter):
    """Let a gradient hold active rows and columns only, in one piece that can be written to."""
    grad = parameter.grad
    if parameter.compact or (parameter.rows is None and parameter.columns is None):
        if not grad.flags.carray:
            parameter.grad = numpy.array(grad, order="C")
        return
    _, full, _, *units = operands(parameter)
    shape = [
        extent if part is None else int(_ones(*part, extent))
        for part, extent in zip(units, full.shape, strict=True)
    ]
    part = numpy.empty(shape, full.dtype)
    kernels.gather(full, *units, part)
    parameter.grad = part if grad.ndim == 2 else part[0]
    parameter.compact = True


def _ones(units, first, count):
    """Number of ones among `count` packed bits from bit `first` on."""
    return numpy.unpackbits(units, count=first + count, bitorder="little")[first:].sum()
