"""Threads, processes, signals: every draw is given once, and nobody is left waiting."""

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import numpy
import pytest
import threadpoolctl

import fastdrop
from fastdrop import MaskStream, _kernels, nn, optim
from fastdrop.interop.threadpoolctl import register

POSIX = pytest.mark.skipif(os.name == "nt", reason="needs POSIX processes and signals")


def together(work, threads):
    """Call ``work(number)`` in as many threads at once; returns the results in order."""
    barrier = threading.Barrier(threads)

    def at_once(number):
        barrier.wait()
        return work(number)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return list(pool.map(at_once, range(threads)))


@pytest.fixture
def switching():
    """Let Python change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_every_draw_of_a_stream_is_given_once(switching, restore_threads):
    """By all that draws from a stream: draw, dropout in both of its paths, a layer."""
    fastdrop.set_num_threads(2)
    stream = MaskStream(0)
    layer = nn.Dropout(0.5, rows_per_mask=2)
    layer.stream = stream
    x = numpy.ones((4, 70), numpy.float32)

    def work(number):
        found = []
        for _ in range(50):
            found.append(stream.draw((280,), rate=0.5))
            found.append(fastdrop.dropout(x, 0.5, rng=stream)[1])
            found.append(fastdrop.dropout(x, 0.5, rng=stream, rows_per_mask=4)[1])
            own = nn.Dropout(0.5, exact_count=True)
            own.stream = stream
            own.draw((4, 70))
        return found

    masks = [mask for found in together(work, 6) for mask in found]
    assert stream.position == 6 * 50 * 4
    by_shape = {}
    for mask in masks:
        by_shape.setdefault(mask.shape, set()).add(mask.bits.tobytes())
    assert {shape: len(bits) for shape, bits in by_shape.items()} == {
        (280,): 300, (4, 70): 300, (1, 70): 300,
    }  # fmt: skip


def test_spawning_from_threads_gives_every_child_once(switching):
    stream = MaskStream(0)
    children = [child for found in together(lambda _: stream.spawn(20), 6) for child in found]
    assert len({child._seed_sequence.spawn_key for child in children}) == 120


def trained(seed, steps=4):
    """The weights of a network after some steps."""
    layers = [nn.Dense(30, 64), nn.ReLU(), nn.Dropout(0.5, rows_per_mask=8), nn.Dense(64, 4)]
    net = nn.Sequential(layers, rng=seed)
    opt = optim.Adam(net)
    loss = nn.SoftmaxCrossEntropy()
    x = numpy.random.default_rng(seed).standard_normal((32, 30)).astype(numpy.float32)
    for _ in range(steps):
        _, grad = loss(net.forward(x, training=True), numpy.arange(32) % 4)
        net.backward(grad)
        opt.step()
    return b"".join(parameter.value.tobytes() for parameter in net.parameters())


def test_networks_in_threads_do_not_disturb_each_other(restore_threads):
    fastdrop.set_num_threads(3)
    expected = [trained(seed) for seed in range(6)]
    for _ in range(3):
        assert together(trained, 6) == expected


def test_kernels_in_threads_give_what_they_give_alone(restore_threads):
    """All of them want the pool; one has it at a time, the others work for themselves."""
    fastdrop.set_num_threads(4)
    x = numpy.random.default_rng(0).standard_normal((1000, 600)).astype(numpy.float32)
    w = numpy.random.default_rng(1).standard_normal((600, 50)).astype(numpy.float32)

    def work(number):
        y, mask = fastdrop.dropout(x, 0.5, rng=number % 3)
        exact = MaskStream(number % 3).draw((400, 500), rate=0.3, exact_count=True)
        product = fastdrop.masked_matmul(x, w, mask_in=mask, method="skip")
        return y.tobytes(), mask.bits.tobytes(), exact.bits.tobytes(), product.tobytes()

    alone = [work(number) for number in range(3)]
    for _ in range(3):
        assert together(work, 6) == alone * 2


# --- Processes -------------------------------------------------------------------------------


def draw_and_train(stream):
    """What a worker process does: draws from the stream it was sent, and uses all kernels."""
    fastdrop.set_num_threads(2)
    mask = stream.draw((3_000_000,), rate=0.3)
    unseeded = fastdrop.dropout(numpy.ones(999), 0.5)[1]
    return mask.bits.tobytes(), unseeded.bits.tobytes(), trained(1)


@POSIX
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_started_after_use(method, restore_threads):
    fastdrop.set_num_threads(2)
    stream = MaskStream(0)
    drawn = stream.draw((3_000_000,), rate=0.3)
    first = fastdrop.dropout(numpy.ones(999), 0.5)[1].bits.tobytes()
    context = multiprocessing.get_context(method)
    children = stream.spawn(2)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        results = list(pool.map(draw_and_train, [MaskStream(0), *children], timeout=120))
    assert results[0][0] == drawn.bits.tobytes()
    assert len({mask for mask, _, _ in results}) == 3
    unseeded = [first, *(bits for _, bits, _ in results)]
    assert len(set(unseeded)) == 4
    assert {weights for _, _, weights in results} == {trained(1)}


@POSIX
def test_a_fork_while_another_thread_is_in_a_kernel(restore_threads):
    """The child has none of the parent's threads, and may find the pool in the midst of a job."""
    fastdrop.set_num_threads(2)
    x = numpy.ones(4_000_000, numpy.float32)
    expected = fastdrop.dropout(x, 0.3, rng=1)[1]
    stop = threading.Event()

    def busy():
        out = numpy.empty_like(x)
        while not stop.is_set():
            fastdrop.dropout(x, 0.3, rng=1, out=out)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                signal.alarm(60)  # a child that hangs fails the test
                same = fastdrop.dropout(x, 0.3, rng=1)[1] == expected
                os._exit(0 if same and trained(1, 1) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_joblib(backend):
    joblib = pytest.importorskip("joblib")
    children = MaskStream(0).spawn(4)
    expected = [child.draw((5000,), rate=0.3, at=0) for child in children]
    jobs = (joblib.delayed(MaskStream.draw)(child, (5000,), rate=0.3) for child in children)
    assert joblib.Parallel(2, backend=backend)(jobs) == expected


def test_workers_of_loky_have_their_share_of_the_threads():
    joblib = pytest.importorskip("joblib")
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        found = joblib.Parallel(2)(joblib.delayed(number_of_threads)() for _ in range(2))
    assert found == [1, 1]


def number_of_threads():
    import fastdrop

    return fastdrop.get_num_threads()


# --- Limits ----------------------------------------------------------------------------------


@pytest.mark.skipif(not _kernels.build_info()["threads"], reason="a build without threads")
def test_threadpoolctl_finds_and_limits_fastdrop(restore_threads):
    register()
    register()  # once is enough
    fastdrop.set_num_threads(3)
    (info,) = [each for each in threadpoolctl.threadpool_info() if each["user_api"] == "fastdrop"]
    assert info["num_threads"] == 3
    assert info["version"] == fastdrop.__version__
    with threadpoolctl.threadpool_limits(1):
        assert fastdrop.get_num_threads() == 1
        with threadpoolctl.threadpool_limits(2, user_api="fastdrop"):
            assert fastdrop.get_num_threads() == 2
    assert fastdrop.get_num_threads() == 3
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert fastdrop.get_num_threads() == 3


CORES = """
import os, time
import numpy, fastdrop

def tasks():
    return set(map(int, os.listdir("/proc/self/task")))

def settled(worker, expected):
    until = time.monotonic() + 20
    while os.sched_getaffinity(worker) != expected and time.monotonic() < until:
        time.sleep(0.01)
    return os.sched_getaffinity(worker)

def call():
    fastdrop.dropout(x, 0.3, rng=1)

cores = os.sched_getaffinity(0)
x = numpy.ones(4_000_000, numpy.float32)
fastdrop.set_num_threads(2)
before = tasks()
call()
(worker,) = tasks() - before
for core in sorted(cores)[:2] * 2:  # a sleeping worker, and a caller that has moved
    os.sched_setaffinity(0, {core})
    call()
    expected = cores - {core}
    found = settled(worker, expected)
    assert found == expected, (core, found, expected)
mine = {core}
os.sched_setaffinity(worker, mine)  # somebody else's decision stays
for core in sorted(cores)[:2]:
    os.sched_setaffinity(0, {core})
    call()
    time.sleep(0.2)
    assert os.sched_getaffinity(worker) == mine, os.sched_getaffinity(worker)
"""


@pytest.mark.skipif(not _kernels.build_info()["threads"], reason="a build without threads")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer has threads of its own")
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores to choose from",
)
def test_workers_sleep_apart_from_their_caller():
    """Woken on its core they would wait for it until the job is done."""
    subprocess.run([sys.executable, "-c", CORES], check=True, timeout=100)


THREADS = """
import os, sys
import numpy, fastdrop, threadpoolctl
from fastdrop.interop.threadpoolctl import register

def kernel_threads():
    x = numpy.ones(4_000_000, numpy.float32)
    fastdrop.dropout(x, 0.3, rng=1)
    return len(os.listdir("/proc/self/task"))

register()
fastdrop.set_num_threads(4)
before = len(os.listdir("/proc/self/task"))
with threadpoolctl.threadpool_limits(1, user_api="fastdrop"):
    limited = kernel_threads() - before
print(limited, kernel_threads() - before)
"""


@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer has threads of its own")
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
def test_a_limit_holds_for_the_threads_themselves():
    code = [sys.executable, "-c", THREADS]
    done = subprocess.run(code, capture_output=True, text=True, timeout=60, check=True)
    threads = 3 if fastdrop.show_config(mode="dicts")["threads"]["built_in"] else 0
    assert done.stdout.split() == ["0", str(threads)]


# --- Signals ---------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


@pytest.fixture
def alarm():
    """A function that has an exception raised after some seconds, wherever the program is then."""

    def raise_it(number, frame):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, raise_it)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@POSIX
def test_a_signal_during_a_long_kernel(alarm, restore_threads):
    """The kernel ends its work first: inputs are whole, `out` is the old or the new array.

    The stream has given its draw away or has not; the next one is what its number says.
    """
    fastdrop.set_num_threads(2)
    x = numpy.ones(2_000_000, numpy.float32)
    expected, mask = fastdrop.dropout(x, 0.3, rng=1)
    interrupted, delay = 0, 0.01
    while interrupted < 8:  # a shorter delay after every call that was faster
        out = numpy.full_like(x, 7)
        stream = MaskStream(1)
        try:
            alarm(delay)
            fastdrop.dropout(x, 0.3, rng=stream, out=out)
            alarm(0)
            delay *= 0.8
        except Interrupted:
            interrupted += 1
        assert (x == 1).all()
        assert stream.position in (0, 1)
        numpy.testing.assert_array_equal(out, numpy.full_like(x, 7) if out[0] == 7 else expected)
        assert stream.draw(x.shape, rate=0.3, at=0) == mask


@POSIX
def test_a_signal_during_training(alarm):
    """A step that was interrupted may be half done; a checkpoint of before brings it back."""
    expected = trained(1, 8)
    layers = [nn.Dense(30, 64), nn.ReLU(), nn.Dropout(0.5, rows_per_mask=8), nn.Dense(64, 4)]
    net = nn.Sequential(layers, rng=1)
    opt = optim.Adam(net)
    loss = nn.SoftmaxCrossEntropy()
    x = numpy.random.default_rng(1).standard_normal((32, 30)).astype(numpy.float32)
    step = interrupted = 0
    while step < 8:
        state = net.state_dict(), opt.state_dict()
        try:
            alarm(2e-4 + 5e-5 * (interrupted % 40))
            _, grad = loss(net.forward(x, training=True), numpy.arange(32) % 4)
            net.backward(grad)
            opt.step()
            alarm(0)
        except Interrupted:
            interrupted += 1
            net.load_state_dict(state[0])
            opt.load_state_dict(state[1])
        else:
            step += 1
        if interrupted == 30:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
    assert b"".join(parameter.value.tobytes() for parameter in net.parameters()) == expected
