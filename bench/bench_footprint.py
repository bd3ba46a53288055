"""What fastdrop takes besides time: memory beyond the results, and time to import."""

import functools
import math
import os
import subprocess
import sys
import tempfile

from . import memory, verify
from .cases import Bar, Case, Contender, Skipped

__all__ = ["CASES"]

# Memory beyond the results that does not grow with them: workspaces, and for the resident size
# whole pages, the allocator's arenas and the threads' stacks.
TRACED_SLACK = 1 << 16
RESIDENT_SLACK = 1 << 21


def _memory(n, *, work, with_control):
    def contender(name, work, kind, at_least):
        if kind == "resident" and not memory.tells_resident():
            return Skipped(name, "this system does not tell the peak of a process's memory")

        def check(value):
            # Once the result is subtracted, a few pages less than nothing may be left.
            right = math.isfinite(value) and value >= at_least - RESIDENT_SLACK
            verify.require(right, f"{value} bytes are less than this work needs")

        return Contender(
            name, lambda: memory.measure(work, n)[kind], check, calls="bench.memory.measure"
        )

    made = [
        contender("fastdrop", work, "traced", 0),
        contender("fastdrop, resident", work, "resident", 0),
    ]
    if with_control:
        # It has temporaries, a float32 and a byte for each element, and they have to be seen.
        made += [
            contender("NumPy expression", "numpy_expression", "traced", 5 * n),
            contender("NumPy expression, resident", "numpy_expression", "resident", 5 * n),
        ]
    return made


def _import(size):
    def contender(name, code, printed):
        command = [sys.executable, "-c", f"import sys, {code}; print('fastdrop' in sys.modules)"]

        def run():
            done = subprocess.run(
                command,
                cwd=memory.ROOT,
                check=True,
                capture_output=True,
                text=True,
                env=environment,
            )
            return done.stdout

        def check(result):
            verify.require(result.strip() == printed, f"the process printed {result!r}")

        return Contender(name, run, check, calls="subprocess.run")

    # As an installed package: with its byte code on disk, whatever this environment says of that.
    cache = tempfile.TemporaryDirectory(prefix="fastdrop-bench-")
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    environment["PYTHONPYCACHEPREFIX"] = cache.name
    contender.cache = cache  # removed with the case

    return [
        contender("fastdrop", "numpy, fastdrop", "True"),
        contender("numpy", "numpy", "False"),
    ]


def _cases():
    for work in ("forward_out", "forward", "exact_count", "backward_out", "strided"):
        yield Case(
            f"memory/{work.replace('_', '-')}",
            1 << 24,
            functools.partial(_memory, work=work, with_control=work == "forward_out"),
            calls="bench.memory.measure",
            bars=[
                Bar(at_most=TRACED_SLACK, isa=None),
                Bar(at_most=RESIDENT_SLACK, contender="fastdrop, resident", isa=None),
            ],
            threads=(1,),
            unit="bytes",
        )
    yield Case(
        "import",
        0,
        _import,
        calls="subprocess.run",
        bars=[Bar("numpy", difference_at_most=15e-3, isa=None)],
        threads=(1,),
        reducible=False,
    )


CASES = list(_cases())
