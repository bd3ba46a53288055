"""fastdrop.dask on a cluster that loses workers and spills, and in processes with little memory."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
from conftest import assert_identical, values

import fastdrop

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")
import fastdrop.dask  # noqa: E402

pytestmark = pytest.mark.dask

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 400 << 20  # bytes of a worker


@pytest.fixture(scope="module")
def client():
    """Two workers, each a process with little memory, on the loopback address."""
    settings = {
        "distributed.worker.memory.target": 0.3,  # of results, beyond which they are spilled
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.admin.large-graph-warning-threshold": "100MB",
        "distributed.scheduler.allowed-failures": 10,
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit=LIMIT,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        distributed.Client(cluster, timeout=60) as client,
    ):
        yield client


def slowly(block):
    """Something to be in the middle of."""
    time.sleep(0.1)
    return block


def test_a_cluster_computes_the_bits_of_the_whole_array(client):
    x = values((200, 65))
    for options in ({}, {"rows_per_mask": 7}, {"exact_count": True}):
        y, mask = fastdrop.dask.dropout(da.from_array(x, chunks=(30, 40)), 0.4, rng=2, **options)
        expected, drawn = fastdrop.dropout(x, 0.4, rng=2, **options)
        assert_identical(y.compute(), expected)
        assert_identical(y.persist().compute(), expected)
        numpy.testing.assert_array_equal(mask.to_array(chunks=33).compute(), drawn.to_array())


def test_a_worker_killed_in_the_middle(client):
    x = values((400, 65))
    y, _ = fastdrop.dask.dropout(da.from_array(x, chunks=(10, 65)).map_blocks(slowly), 0.4, rng=2)
    future = client.compute(y)
    time.sleep(0.8)  # of four seconds' work for one worker, two for both
    pids = [worker["pid"] for worker in client.run(lambda: {"pid": os.getpid()}).values()]
    os.kill(pids[0], signal.SIGKILL)
    assert not future.done()
    assert_identical(future.result(timeout=60), fastdrop.dropout(x, 0.4, rng=2)[0])
    client.wait_for_workers(2, timeout=60)
    assert pids[0] not in client.run(os.getpid).values()


def test_tasks_that_fail_and_are_tried_again(client, tmp_path):
    def fail_once(block, block_info):
        marker = tmp_path / "-".join(map(str, block_info[0]["chunk-location"]))
        if not marker.exists():
            marker.touch()
            raise OSError("a disk is not there for a moment")
        return block

    x = values((60, 65))
    lazy = da.from_array(x, chunks=(20, 40)).map_blocks(fail_once, dtype=x.dtype, meta=x[:0])
    y, _ = fastdrop.dask.dropout(lazy, 0.4, rng=2)
    assert_identical(
        client.compute(y, retries=1).result(timeout=60), fastdrop.dropout(x, 0.4, rng=2)[0]
    )
    assert len(list(tmp_path.iterdir())) == 6


def test_spilled_blocks(client):
    """Results of 256 MB where 240 MB may stay in memory; what was spilled comes back as it was."""
    x = da.ones((1 << 14, 1 << 12), chunks=(1 << 11, 1 << 12), dtype="f4")
    y, mask = fastdrop.dask.dropout(x, 0.4, rng=2)
    y = y.persist()
    distributed.wait(y, timeout=60)
    spilled = client.run(lambda dask_worker: len(dask_worker.data.slow))
    assert sum(spilled.values()) > 0
    for rows in (slice(0, 3), slice(5000, 5003), slice(-3, None)):
        kept = mask.compute((slice(*rows.indices(1 << 14)), slice(None))).to_array()
        assert_identical(y[rows].compute(), kept * numpy.float32(mask.scale))


def test_an_array_larger_than_the_memory_of_all_workers(client):
    shape = (1 << 14, 1 << 14)  # 1 GiB
    x = da.ones(shape, chunks=(1 << 10, 1 << 14), dtype="f4")
    y, mask = fastdrop.dask.dropout(x, 0.5, rng=2)
    assert y.nbytes > 2 * LIMIT
    assert y.sum(dtype="f8").compute() == 2 * mask.compute().count()


def test_a_fit_and_predictions(client):
    pytest.importorskip("sklearn")
    x = values((600, 6))
    labels = x[:, 0] > x[:, 1]
    lazy = da.from_array(x, chunks=(200, 6))
    model = fastdrop.MLPClassifier((16,), dropout=0.2, random_state=0)
    fastdrop.dask.fit(model, lazy, da.from_array(labels, chunks=150), epochs=2)
    alone = fastdrop.MLPClassifier((16,), dropout=0.2, random_state=0)
    with dask.config.set(scheduler="synchronous"):
        fastdrop.dask.fit(alone, lazy, labels, epochs=2)
    assert all(map(numpy.array_equal, model.coefs_, alone.coefs_))
    numpy.testing.assert_array_equal(fastdrop.dask.predict(model, lazy).compute(), model.predict(x))
    samples = fastdrop.dask.predict_samples(model, lazy, 5, random_state=1)
    numpy.testing.assert_allclose(
        samples.compute(), model.predict_samples(x, 5, random_state=1), atol=1e-6
    )


# 1.5 GiB in a file (a hole: it takes no place on the disk), and 700 MiB of addresses to read it.
CODE = """
import resource, sys
import numpy, dask.array as da, fastdrop, fastdrop.dask
import sklearn.neural_network, fastdrop.estimators

rows, features = 3 << 17, 1024
mapped = numpy.memmap(sys.argv[1], numpy.float32, "r", shape=(rows, features))
X = fastdrop.dask.from_memmap(mapped, chunks=(1 << 12, features))
del mapped
fastdrop.dropout(numpy.ones(1 << 22, "f4"), 0.5)  # threads are there
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (700 << 20), now + (700 << 20)))
try:
    numpy.empty(X.shape, X.dtype)
except MemoryError:
    print("too large for memory")
if sys.argv[2] == "dropout":
    y, mask = fastdrop.dask.dropout(X + numpy.float32(1), 0.5, rng=0)
    print(y.sum(dtype="f8").compute() == 2 * mask.compute().count())
else:
    y = numpy.arange(rows) % 2
    model = fastdrop.MLPClassifier((4,), dropout=0.5, batch_size=4096, random_state=0)
    fastdrop.dask.fit(model, X, y)
    predicted = fastdrop.dask.predict(model, X)
    print(model.t_ == rows and predicted.sum().compute() in (0, rows))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's limits")
@pytest.mark.parametrize("work", ["dropout", "fit"])
def test_more_data_than_the_process_may_have_memory(tmp_path, work):
    pytest.importorskip("sklearn")
    path = tmp_path / "x"
    with open(path, "wb") as file:
        file.truncate((3 << 17) * 1024 * 4)
    try:
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(path), work],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=ROOT,
            env={**os.environ, "MALLOC_ARENA_MAX": "2"},
        )
    finally:
        path.unlink()
    assert done.stdout.splitlines() == ["too large for memory", "True"], done.stderr
