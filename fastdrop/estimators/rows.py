"""Rows of dense and sparse data, some at a time."""

import numpy
from scipy import sparse

__all__ = ["Rows", "chunk_rows", "chunks", "evaluate"]

# Elements of the widest layer in one chunk: 4 MB of float32, and as many rows at least.
CHUNK = 1 << 20
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


def chunk_rows(network):
    """How many rows of data the layers of a network have room for at a time."""
    widest = max(max(parameter.value.shape) for parameter in network.parameters())
    return max(LEAST_ROWS, CHUNK // widest)


def chunks(network, x, chosen=None):
    """Yield rows of data, dense and no more at a time than the network's layers have room for.

    Parameters
    ----------
    network : nn.Sequential
        Its widest layer decides how many.
    x : numpy.ndarray or CSR matrix, or Rows where `chosen` is given, shape (n_samples, n_features)
    chosen : numpy.ndarray of int, shape (n,), optional
        Which rows of `Rows`; all by default.

    Yields
    ------
    slice
        Their places among all, or among the chosen.
    numpy.ndarray, shape (rows, n_features)
    """
    rows = chunk_rows(network)
    total = len(chosen) if chosen is not None else x.shape[0]
    for first in range(0, total, rows):
        places = slice(first, min(first + rows, total))
        if chosen is not None:
            yield places, x.take(chosen[places])
        else:
            part = x[places]
            yield places, part.toarray() if sparse.issparse(part) else part


def evaluate(network, x, chosen=None):
    """Return what a network says about rows of data at test time.

    Parameters
    ----------
    network, x, chosen
        As for `chunks`.

    Returns
    -------
    numpy.ndarray, shape (n, outputs)
        Raw scores, of the network's dtype.
    """
    outputs = network.parameters()[-1].value.shape[-1]
    total = len(chosen) if chosen is not None else x.shape[0]
    raw = numpy.empty((total, outputs), network.dtype)
    for places, part in chunks(network, x, chosen):
        raw[places] = network.forward(part)
    return raw
