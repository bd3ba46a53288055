"""Train on a file that need not fit in memory: dask reads it, fastdrop learns block by block.

A file of 537 MB is made in a temporary folder and memory-mapped. The fit reads it twice, with two
blocks of 8 MB in memory at a time; predictions and their deviations are lazy arrays. The last line
tells the process's largest size. It needs the extras dask and sklearn. Run it with

    python examples/larger_than_memory.py
"""

import re
import resource
import sys
import tempfile
from pathlib import Path

import dask
import dask.array as da
import numpy as np

import fastdrop
import fastdrop.dask

ROWS, FEATURES, BLOCK = 1 << 20, 128, 1 << 14


def write(path):
    """Write noisy rows, a block at a time, and return what is to be learnt from them."""
    rng = np.random.default_rng(0)
    target = np.empty(ROWS, np.float32)
    with open(path, "wb") as file:
        for first in range(0, ROWS, BLOCK):
            rows = rng.standard_normal((BLOCK, FEATURES), np.float32)
            rows.tofile(file)
            target[first : first + BLOCK] = np.tanh(rows[:, 0] + rows[:, 1]) + np.abs(rows[:, 2])
    return target + 0.1 * rng.standard_normal(ROWS, np.float32)


def peak():
    """Largest size of this process so far, in MB."""
    if sys.platform == "linux":  # getrusage would count the process that started this one, too
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        y = write(path)
        print(f"{path.stat().st_size / 1e6:.0f} MB in a file of {ROWS} rows")
        file = np.memmap(path, np.float32, "r", shape=(ROWS, FEATURES))
        X = fastdrop.dask.from_memmap(file, chunks=(BLOCK, FEATURES))
        train, test = slice(0, ROWS - 2 * BLOCK), slice(ROWS - 2 * BLOCK, None)

        model = fastdrop.MLPRegressor(
            hidden_layer_sizes=64, dropout=0.1, batch_size=512, random_state=0
        )
        fastdrop.dask.fit(model, X[train], y[train], epochs=2)
        for epoch, loss in enumerate(model.loss_curve_, 1):
            print(f"epoch {epoch}: loss {loss:.3f}")

        values, std = fastdrop.dask.predict(
            model, X[test], return_std=True, n_samples=20, random_state=0
        )
        target = da.from_array(y[test], chunks=BLOCK)
        error = ((values - target) ** 2).mean() ** 0.5
        error, spread, deviation = dask.compute(error, std.mean(), target.std())
        print(f"error on held-out rows {error:.2f}, of a deviation of {deviation:.2f}")
        print(f"mean deviation of the model {spread:.2f}")

        # Dropout of the whole file: one mask, of which every block draws its part.
        dropped, mask = fastdrop.dask.dropout(X, rate=0.5, rng=0)
        print(f"share of zeros {(dropped == 0).mean().compute():.4f}, mask: {mask}")
        print(f"the process never took more than {peak():.0f} MB")


if __name__ == "__main__":
    main()
