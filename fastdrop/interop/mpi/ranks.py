"""The ranks of a communicator: exchanges, and errors on which all ranks agree."""

import builtins
import pickle
import zlib

import numpy
from mpi4py import MPI

from fastdrop.arguments import real_number
from fastdrop.interop.mpi.waiting import RankError, Waiting

__all__ = ["RankError", "Ranks"]

# Numbers that every rank tells at the beginning of an operation.
ROUND = 16


class Ranks(Waiting):
    """The processes of a communicator; made by `Ranks.of`.

    Attributes
    ----------
    sent : int
        Bytes that this rank has handed to collective operations.
    warned : bool
        Of too many threads.
    """

    _key = None

    def __init__(self, comm):
        super().__init__(comm)
        self.sent = 0
        self.warned = False

    @classmethod
    def of(cls, comm, timeout, doing):
        """Return the ranks of a communicator, the same object every time; the first is collective.

        They have communicators of their own. MPI has some thousands of them only: that is why they
        are kept.

        Parameters
        ----------
        comm : mpi4py.MPI.Intracomm or None
        timeout : float
        doing : str
            What this rank is about to do.

        Raises
        ------
        TypeError, ValueError
            If `comm` is no communicator, or `timeout` no number greater than 0.
        RankError
            If another rank has failed, or does not come within the timeout; if an earlier error
            left the ranks out of step.
        """
        comm = MPI.COMM_WORLD if comm is None else comm
        if not isinstance(comm, MPI.Intracomm):
            raise TypeError(f"comm must be an mpi4py.MPI.Intracomm, got {type(comm).__name__}")
        if comm == MPI.COMM_NULL:
            raise ValueError("comm must be a communicator, got MPI.COMM_NULL")
        number = real_number(timeout, "timeout")
        if not number > 0:
            raise ValueError(f"timeout must be greater than 0, got {timeout}")
        if cls._key is None:
            cls._key = MPI.Comm.Create_keyval()
        ranks = comm.Get_attr(cls._key)
        if ranks is None:
            ranks = cls(comm)
            comm.Set_attr(cls._key, ranks)
            ranks.timeout = number
            ranks.meet(doing)
        ranks.timeout = number
        ranks.begin(doing)
        return ranks

    def begin(self, doing):
        """Note what this rank is about to do.

        Raises
        ------
        RankError
            If an earlier error left the ranks out of step.
        """
        if self.broken is not None:
            raise RankError(f"the ranks are out of step since an earlier error: {self.broken}")
        self.doing = doing

    # --- Exchanges -----------------------------------------------------------------------------

    def gather(self, record):
        """Return the records of all ranks, shape (size, n).

        Parameters
        ----------
        record : numpy.ndarray, shape (n,)
            Of the same dtype and length on all ranks.
        """
        result = self.start_gather(record)
        self.wait()
        return result

    def start_gather(self, record):
        """As `gather`, which is not done before the next `wait`."""
        if self.size == 1:
            return record[None]
        result = numpy.empty((self.size, record.size), record.dtype)
        self.sent += record.nbytes
        self.begin_request(self.comm.Iallgather(record, result))
        return result

    def start_round(self, numbers):
        """Begin an operation that all ranks take part in; after `wait`, call `check_round`.

        Parameters
        ----------
        numbers : sequence of int
            What this rank tells, at most ``ROUND - 1`` numbers.

        Returns
        -------
        numpy.ndarray of int64, shape (size, ROUND)
            Of all ranks, from the second column on.
        """
        record = numpy.zeros(ROUND, numpy.int64)
        record[0] = zlib.crc32(self.doing.split()[0].encode())
        record[1 : 1 + len(numbers)] = numbers
        return self.start_gather(record)

    def check_round(self, records):
        """Refuse ranks that are in different operations; all rounds are of one length for that."""
        other = numpy.flatnonzero(records[:, 0] != records[0, 0])
        if other.size:
            doing = self.gather_objects(self.doing)
            rank = int(other[0])
            self.refuse(f"rank {rank} is in {doing[rank]}, rank 0 is in {doing[0]}", RankError)

    def gather_objects(self, value):
        """Return a list of every rank's object, which is pickled."""
        data = numpy.frombuffer(pickle.dumps(value), numpy.uint8)
        sizes = self.gather(numpy.array([data.size], numpy.int64))[:, 0]
        padded = numpy.zeros(sizes.max(), numpy.uint8)
        padded[: data.size] = data
        lines = zip(self.gather(padded), sizes, strict=True)
        return [pickle.loads(line[:size].tobytes()) for line, size in lines]

    def gather_rows(self, part, counts):
        """Return the rows of all ranks, rank 0's first.

        Parameters
        ----------
        part : numpy.ndarray, shape (counts[rank], n)
            This rank's.
        counts : numpy.ndarray of int, shape (size,)
        """
        padded = numpy.zeros((counts.max(), part.shape[1]), part.dtype)
        padded[: len(part)] = part
        parts = self.gather(padded.reshape(-1)).reshape(self.size, *padded.shape)
        return numpy.concatenate([rows[:n] for rows, n in zip(parts, counts, strict=True)])

    def broadcast(self, value):
        """Return rank 0's object on every rank; it is pickled, its arrays without a copy."""
        if self.size == 1:
            return value
        parts = []
        if self.rank == 0:
            data = pickle.dumps(value, protocol=5, buffer_callback=parts.append)
            parts = [numpy.frombuffer(part, numpy.uint8) for part in [data, *parts]]
        sizes = self.gather_objects([part.size for part in parts])[0]
        if self.rank != 0:
            parts = [numpy.empty(size, numpy.uint8) for size in sizes]
        for part in parts:
            self.sent += part.nbytes
            self.begin_request(self.comm.Ibcast(part, root=0))
            self.wait()
        return value if self.rank == 0 else pickle.loads(parts[0], buffers=parts[1:])

    # --- Errors that all ranks raise -----------------------------------------------------------

    def agree(self, error):
        """Return if no rank has an error; else raise one on all ranks.

        Parameters
        ----------
        error : Exception or None
            This rank's own.

        Raises
        ------
        Exception
            See `raise_first`.
        """
        records = self.start_round([error is not None])
        self.wait()
        self.check_round(records)
        failed = records[:, 1] != 0
        if failed.any():
            self.raise_first(failed, error)

    def raise_first(self, failed, error):
        """Raise the error of the first rank that failed, on all ranks.

        Parameters
        ----------
        failed : numpy.ndarray of bool, shape (size,)
            The same on all ranks.
        error : Exception or None
            This rank's own; the cause of what is raised there.

        Raises
        ------
        Exception
            Of the class of the error, or the first class above it, that is one of Python's own;
            else `RankError`. The message names the rank, unless all have the same.
        """
        told = None if error is None else ([c.__name__ for c in type(error).__mro__], str(error))
        everybody = self.gather_objects(told)
        rank = int(numpy.flatnonzero(failed)[0])
        names, text = everybody[rank]
        name = next((name for name in names if name in PASSED_ON), None)
        kind = RankError if name is None else getattr(builtins, name)
        if name is None:
            text = f"{names[0]}: {text}"
        if not all(one == everybody[rank] for one in everybody):
            text = f"rank {rank}: {text}"
        self.refuse(text, kind, None if told is None else error)

    def refuse(self, message, kind=ValueError, cause=None):
        """Raise an error that all ranks raise alike: they stay in step."""
        self.agreed = kind(message)
        raise self.agreed from cause


# Classes of Python's own errors that are made of a message.
PASSED_ON = {
    "ArithmeticError",
    "AttributeError",
    "FileNotFoundError",
    "FloatingPointError",
    "IndexError",
    "IsADirectoryError",
    "KeyError",
    "MemoryError",
    "NotImplementedError",
    "OSError",
    "OverflowError",
    "PermissionError",
    "RuntimeError",
    "TypeError",
    "ValueError",
    "ZeroDivisionError",
}
