"""numba: loops compiled for this machine, over as many threads as fastdrop has."""

import functools
import itertools

import numpy

from .. import verify
from ..cases import Contender, needs

__all__ = ["hashed_loop", "loop"]


@functools.cache
def _compiled_loop():
    import numba

    @numba.njit(parallel=True)
    def dropout_loop(x, out, kept, rate, scale):
        for i in numba.prange(x.size):
            # numba compiles its own generator into the loop; there is no call per number.
            keep = numpy.random.random() >= rate  # noqa: NPY002
            kept[i] = keep
            out[i] = x[i] * scale if keep else numpy.float32(0)

    return dropout_loop


@functools.cache
def _compiled_hash():
    import numba

    @numba.njit(parallel=True)
    def dropout_loop(x, out, kept, key, threshold, scale):
        for i in numba.prange(x.size):
            # The finaliser of MurmurHash3, of the element's number: LLVM makes vectors of it.
            # numba computes with 64 bits, if it is not told after every operation.
            bits = numpy.uint32(numpy.uint32(i) ^ key)
            bits = numpy.uint32((bits ^ (bits >> 16)) * numpy.uint32(0x85EBCA6B))
            bits = numpy.uint32((bits ^ (bits >> 13)) * numpy.uint32(0xC2B2AE35))
            bits = numpy.uint32(bits ^ (bits >> 16))
            keep = bits >= threshold
            kept[i] = keep
            out[i] = x[i] * scale if keep else numpy.float32(0)

    return dropout_loop


@needs("numba", "numba loop")
def loop(x, rate, out):
    """One loop over the elements, with numba's own generator, that keeps a byte mask."""
    dropout_loop = _compiled_loop()
    flat_x, flat_out = x.reshape(-1), out.reshape(-1)
    scale = numpy.float32(1 / (1 - rate))

    def run():
        kept = numpy.empty(x.size, bool)
        dropout_loop(flat_x, flat_out, kept, rate, scale)
        return out

    return _contender("numba loop", run, x, rate)


@needs("numba", "numba loop, hashed")
def hashed_loop(x, rate, out):
    """The same with a hash of the element's number in the place of a generator."""
    dropout_loop = _compiled_hash()
    flat_x, flat_out = x.reshape(-1), out.reshape(-1)
    scale = numpy.float32(1 / (1 - rate))
    threshold = numpy.uint32(round(rate * 2**32))
    calls = itertools.count(1)

    def run():
        kept = numpy.empty(x.size, bool)
        key = numpy.uint32(next(calls) * 0x9E3779B9 & 0xFFFFFFFF)
        dropout_loop(flat_x, flat_out, kept, key, threshold, scale)
        return out

    note = "a 32-bit hash of the element's number, which is no tested generator"
    return _contender("numba loop, hashed", run, x, rate, note)


def _contender(name, run, x, rate, note=""):
    return Contender(
        name,
        run,
        check=lambda result: verify.check_rival(result, x, 1 - rate),
        calls="bench.rivals.numba.dropout_loop",
        note=note,
    )
