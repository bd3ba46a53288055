"""The pool's threads end when asked to, and before a fork; the next kernel makes new ones."""

import os
import subprocess
import sys
import threading
import time

import numpy
import pytest

import fastdrop
from fastdrop import _kernels

pytestmark = [
    pytest.mark.skipif(
        not os.path.isdir("/proc/self/task"), reason="threads are counted by Linux's /proc"
    ),
    pytest.mark.skipif(not _kernels.build_info()["threads"], reason="a build without threads"),
]

X = numpy.random.default_rng(0).standard_normal((400, 3000)).astype(numpy.float32)


def threads():
    """Threads of this process, those of NumPy's BLAS included."""
    return len(os.listdir("/proc/self/task"))


def threads_soon(expected):
    """The number of threads, once the system has done with those that ended."""
    for _ in range(200):
        if threads() == expected:
            break
        time.sleep(0.005)
    return threads()


@pytest.fixture
def three_threads(restore_threads):
    """A pool that may have two workers; gives how many threads there are without them."""
    fastdrop.set_num_threads(3)
    fastdrop.stop_threads()
    before = threads()
    yield before
    fastdrop.stop_threads()


def results():
    y, mask = fastdrop.dropout(X, 0.5, rng=1)
    return y.tobytes() + mask.bits.tobytes()


def test_stop_threads(three_threads):
    expected = results()
    for _ in range(5):
        assert threads() == three_threads + 2
        fastdrop.stop_threads()
        assert threads_soon(three_threads) == three_threads
        assert results() == expected
    fastdrop.stop_threads()
    fastdrop.stop_threads()  # none is there
    assert threads_soon(three_threads) == three_threads


def test_workers_that_sleep_end_as_well(three_threads):
    results()
    time.sleep(0.02)  # a worker looks for work for 0.1 ms
    fastdrop.stop_threads()
    assert threads_soon(three_threads) == three_threads


def test_from_many_threads_at_once(three_threads):
    expected = results()
    wrong = []

    def work():
        for _ in range(30):
            if results() != expected:
                wrong.append(1)
            fastdrop.stop_threads()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    fastdrop.stop_threads()
    assert threads_soon(three_threads) == three_threads


def test_a_fork_leaves_no_threads_of_ours(three_threads):
    expected = results()
    for _ in range(5):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if threads() == 1 and results() == expected and threads() == 3 else 2
            finally:
                os._exit(code)
        alone = threads()  # some BLAS libraries end their threads as well
        assert alone <= three_threads
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert results() == expected
        assert threads() == alone + 2


CODE = """
import os, sys, warnings
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
os.environ["FASTDROP_NUM_THREADS"] = "3"
import numpy, fastdrop
fastdrop.dropout(numpy.ones((400, 3000), numpy.float32), 0.5, rng=0)
warnings.simplefilter("error")
child = os.fork()
if child == 0:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_python_does_not_warn_of_a_fork_with_threads():
    """From 3.12 on it counts the threads; before, this shows that the fork works."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
