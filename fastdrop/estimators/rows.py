"""Rows of dense and sparse data, some at a time."""

import numpy
from scipy import sparse

__all__ = ["Rows", "evaluate"]

# Elements of the widest layer in one evaluation: 16 MB of float32.
CHUNK = 1 << 22
LEAST_ROWS = 64


class Rows:
    """Rows of a matrix as C-contiguous arrays of one dtype; sparse ones become dense as taken.

    Parameters
    ----------
    x : numpy.ndarray or sparse matrix, shape (n_samples, n_features)
    dtype : numpy.dtype
    """

    def __init__(self, x, dtype):
        self.sparse = sparse.issparse(x)
        if self.sparse:
            self.x = x.tocsr().astype(dtype, copy=False)
        else:
            self.x = numpy.ascontiguousarray(x, dtype)
        self._taken = numpy.empty(0, dtype)

    def __len__(self):
        return self.x.shape[0]

    def take(self, rows):
        """Return these rows, in an array that the next call overwrites.

        Parameters
        ----------
        rows : numpy.ndarray of int, shape (n,)
        """
        shape = (len(rows), self.x.shape[1])
        size = shape[0] * shape[1]
        if self._taken.size < size:
            self._taken = numpy.empty(size, self._taken.dtype)
        taken = self._taken[:size].reshape(shape)
        if self.sparse:
            return self.x[rows].toarray(out=taken)
        return numpy.take(self.x, rows, axis=0, out=taken, mode="clip")

    def part(self, first, last):
        """Return the rows from `first` to before `last`."""
        part = self.x[first:last]
        return part.toarray() if self.sparse else part


def evaluate(network, x, chosen=None):
    """Return what a network says about rows of data at test time, in chunks.

    Parameters
    ----------
    network : nn.Sequential
    x : numpy.ndarray or sparse matrix, shape (n_samples, n_features); or Rows
    chosen : numpy.ndarray of int, shape (n,), optional
        Which rows, where `x` is `Rows`; all by default.

    Returns
    -------
    numpy.ndarray, shape (n, outputs)
        Raw scores, of the network's dtype.
    """
    widths = [parameter.value.shape for parameter in network.parameters()]
    widest = max(max(shape) for shape in widths)
    rows = max(LEAST_ROWS, CHUNK // widest)
    if isinstance(x, Rows):
        total = len(x) if chosen is None else len(chosen)
    else:
        total = x.shape[0]
        if sparse.issparse(x):
            x = x.tocsr()
    raw = numpy.empty((total, widths[-1][-1]), network.dtype)
    for first in range(0, total, rows):
        last = min(first + rows, total)
        if chosen is not None:
            part = x.take(chosen[first:last])
        elif isinstance(x, Rows):
            part = x.part(first, last)
        else:
            part = x[first:last]
            part = part.toarray() if sparse.issparse(part) else part
        raw[first:last] = network.forward(part)
    return raw
