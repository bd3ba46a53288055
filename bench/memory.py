"""How much memory a call takes beyond what it returns: ``python -m bench.memory WORK SIZE``.

A process of its own runs the work once, after a first call on few elements, and prints three
numbers: the bytes of what was returned, and beyond them the peak of what Python and NumPy
allocated (tracemalloc) and the peak growth of the process (which also sees C's allocations).
"""

import contextlib
import gc
import json
import pathlib
import subprocess
import sys
import tracemalloc

import numpy

__all__ = ["ROOT", "WORKS", "measure", "status", "tells_resident"]

# Elements of the first call, which loads code, starts threads and makes workspaces.
FIRST = 1 << 16

UNITS = 1024

# Where a new process has to start so that it imports this bench and this fastdrop.
ROOT = pathlib.Path(__file__).parent.parent


def _input(n):
    """Return an array of n elements, in rows of `UNITS` where that is possible."""
    shape = (n // UNITS, UNITS) if n % UNITS == 0 else (n,)
    return numpy.ones(shape, numpy.float32)


def forward_out(n):
    """Dropout into an existing array; returned: the mask."""
    import fastdrop

    x, stream = _input(n), fastdrop.MaskStream(0)
    out = numpy.ones_like(x)
    return lambda: fastdrop.dropout(x, 0.2, rng=stream, out=out)[1]


def forward(n):
    """Dropout into a new array; returned: the array and the mask."""
    import fastdrop

    x, stream = _input(n), fastdrop.MaskStream(0)
    return lambda: fastdrop.dropout(x, 0.2, rng=stream)


def exact_count(n):
    """Dropout with an exact count per row into an existing array; returned: the mask."""
    import fastdrop

    x, stream = _input(n), fastdrop.MaskStream(0)
    out = numpy.ones_like(x)
    return lambda: fastdrop.dropout(x, 0.2, rng=stream, exact_count=True, out=out)[1]


def backward_out(n):
    """The gradient into an existing array; returned: nothing new."""
    import fastdrop

    grad, mask = _input(n), fastdrop.MaskStream(0).draw(_input(n).shape, rate=0.2)
    out = numpy.ones_like(grad)
    return lambda: (fastdrop.dropout_backward(grad, mask, out=out), None)[1]


def strided(n):
    """Dropout of a transposed view into an existing one; returned: the mask."""
    import fastdrop

    x, stream = _input(n).T, fastdrop.MaskStream(0)
    out = numpy.ones_like(x)
    return lambda: fastdrop.dropout(x, 0.2, rng=stream, out=out)[1]


def numpy_expression(n):
    """The usual NumPy expression into an existing array, whose temporaries have to be seen."""
    x, generator = _input(n), numpy.random.default_rng(0)
    out = numpy.ones_like(x)

    def run():
        kept = generator.random(x.shape, dtype=numpy.float32) >= 0.2
        numpy.multiply(x, kept, out=out)
        numpy.multiply(out, 1.25, out=out)

    return run


WORKS = {
    work.__name__: work
    for work in (forward_out, forward, exact_count, backward_out, strided, numpy_expression)
}


def measure(work, n):
    """Run ``python -m bench.memory`` for a work and a size, and return what it printed.

    Parameters
    ----------
    work : str
        A key of `WORKS`.
    n : int
        Number of elements.

    Returns
    -------
    dict
        ``returned``, ``traced`` and ``resident``, in bytes; ``resident`` is None where the
        system does not tell.
    """
    command = [sys.executable, "-m", f"{__package__}.memory", work, str(n)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def tells_resident():
    """Whether this system tells the peak of a process's resident size."""
    return status("VmHWM") is not None


def _nbytes(result):
    """Return the bytes of arrays and masks, alone or in a tuple."""
    if result is None:
        return 0
    return sum(_nbytes(one) for one in result) if isinstance(result, tuple) else result.nbytes


def status(field):
    """Return a size from Linux's description of this process, in bytes; None elsewhere."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


def _reset_peak():
    """Set the peak of the resident size back to the present size, where Linux allows it."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def main(work, n):
    """Measure one work in this process and print the three numbers as JSON."""
    make = WORKS[work]
    make(min(n, FIRST))()
    run = make(n)
    gc.collect()

    _reset_peak()
    before = status("VmHWM")
    result = run()
    after = status("VmHWM")
    returned = _nbytes(result)
    del result

    tracemalloc.start()
    tracemalloc.reset_peak()
    began = tracemalloc.get_traced_memory()[0]
    result = run()  # held until the peak is read, as its bytes are subtracted from it
    traced = tracemalloc.get_traced_memory()[1] - began
    tracemalloc.stop()
    del result
    print(
        json.dumps(
            {
                "returned": returned,
                "traced": traced - returned,
                "resident": None if before is None else after - before - returned,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
