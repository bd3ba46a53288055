"""The ranks of a communicator: they agree on errors, and wait for each other with a timeout.

Every exchange is a non-blocking collective that is tested until it is done. Between two tests a
rank reads, on a second communicator, what others tell it: that one of them has failed, or that one
asks who is still there.
"""

import builtins
import os
import pickle
import time
import zlib

import numpy
from mpi4py import MPI

from fastdrop.arguments import real_number
from fastdrop.interop.mpi.leaving import watch

__all__ = ["RankError", "Ranks"]

# Tests in a row before a rank looks at the clock and offers its processor to others.
SPINS = 200
# Seconds between two looks at what other ranks tell.
LISTEN_EVERY = 0.02
# A rank that asks who is there waits for answers for this share of its timeout.
GRACE = 0.25
LONGEST_GRACE = 5.0
# Seconds for a message to another rank to leave this one.
SENDING = 1.0

# Numbers that every rank tells at the beginning of an operation.
ROUND = 16

FAILED, ASKS, ANSWERS = 1, 2, 3  # tags of messages

_yield_processor = getattr(os, "sched_yield", lambda: time.sleep(0))


class RankError(RuntimeError):
    """Another rank failed, was lost, or differs from this one; the message names it."""


class Ranks:
    """The processes of a communicator; made by `Ranks.of`.

    Attributes
    ----------
    rank, size : int
    timeout : float
        Seconds to wait for other ranks.
    sent : int
        Bytes that this rank has handed to collective operations.
    broken : str or None
        The error that left the ranks out of step: nothing goes on then.
    agreed : BaseException or None
        The last error that was raised on all ranks alike.
    requests : list of mpi4py.MPI.Request
        Operations under way, whose buffers must stay.
    warned : bool
        Of too many threads.
    """

    _key = None

    def __init__(self, comm):
        self.comm, self.control = comm.Dup(), comm.Dup()
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.timeout = 0.0
        self.sent = 0
        self.doing = ""
        self.broken = self.agreed = None
        self.requests = []
        self.warned = False

    @classmethod
    def of(cls, comm, timeout):
        """Return the ranks of a communicator, the same object every time; the first is collective.

        They have communicators of their own, duplicates, so that no message of the caller's meets
        theirs. MPI has some thousands of them only: that is why they are kept.

        Raises
        ------
        TypeError, ValueError
            If `comm` is no communicator, or `timeout` no number greater than 0.
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
            if ranks.size > 1:
                watch(ranks)
        ranks.timeout = number
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

    # --- Waiting -------------------------------------------------------------------------------

    def wait(self):
        """Wait until all requests are done.

        Raises
        ------
        RankError
            If another rank says that it failed, or does not come within the timeout.
        """
        spins, deadline, next_look = 0, None, 0.0
        while not MPI.Request.Testall(self.requests):
            spins += 1
            if spins < SPINS:
                continue
            now = time.monotonic()
            if deadline is None:
                deadline = now + self.timeout
            if now >= next_look:
                self._listen()
                next_look = now + LISTEN_EVERY
            if now > deadline:
                self._ask_who_is_there()
            _yield_processor()
        self.requests.clear()

    def _listen(self):
        """Read what other ranks tell; returns what those that are there are doing, by rank."""
        there = {}
        status = MPI.Status()
        while self.control.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            source, tag = status.Get_source(), status.Get_tag()
            text = self.control.recv(source=source, tag=tag)
            if tag == FAILED:
                self._break(f"rank {source}: {text}")
            if tag == ASKS:
                self._tell([source], ANSWERS, self.doing)
            there[source] = text
        return there

    def _tell(self, ranks, tag, text):
        sending = [self.control.isend(text, dest=rank, tag=tag) for rank in ranks]
        end = time.monotonic() + SENDING
        while not MPI.Request.Testall(sending) and time.monotonic() < end:
            _yield_processor()

    def _others(self):
        return [rank for rank in range(self.size) if rank != self.rank]

    def _ask_who_is_there(self):
        """Raise the error that names the ranks that do not answer, or what each one waits for."""
        self._tell(self._others(), ASKS, self.doing)
        there = {}
        end = time.monotonic() + min(GRACE * self.timeout, LONGEST_GRACE)
        while time.monotonic() < end and len(there) < self.size - 1:
            there |= self._listen()
            time.sleep(LISTEN_EVERY)
        lost = [f"rank {rank}" for rank in self._others() if rank not in there]
        waited = f"rank {self.rank} waited {self.timeout:g} s in {self.doing}"
        if lost:
            self._break(
                f"{waited}, and there is no answer from {', '.join(lost)}: lost, stopped, or busy "
                "for longer than timeout"
            )
        doing = ", ".join(f"rank {rank} in {what}" for rank, what in sorted(there.items()))
        self._break(f"{waited}, and the others are somewhere else: {doing}")

    def _break(self, message):
        self.broken = message
        raise RankError(message)

    def fail(self, error):
        """Tell all other ranks that this one cannot go on, so that their waits end with an error.

        Does nothing for an error that they know already.
        """
        if error is not self.agreed and self.broken is None and self.size > 1:
            self.broken = f"{type(error).__name__}: {error}"
            self._tell(self._others(), FAILED, self.broken)

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
        self.requests.append(self.comm.Iallgather(record, result))
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
            self.requests.append(self.comm.Ibcast(part, root=0))
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
            Of the class of the error where that is one of Python's own, else `RankError`. The
            message names the rank.
        """
        texts = self.gather_objects(None if error is None else (type(error).__name__, str(error)))
        rank = int(numpy.flatnonzero(failed)[0])
        name, text = texts[rank]
        kind = getattr(builtins, name, None)
        if name not in PASSED_ON:
            kind, text = RankError, f"{name}: {text}"
        self.refuse(f"rank {rank}: {text}", kind, error if rank == self.rank else None)

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
