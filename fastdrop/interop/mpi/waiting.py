"""How ranks wait for each other: with a timeout, and with an ear for what others tell meanwhile.

Every operation is a non-blocking one that is tested until it is done. Between two tests a rank
reads the messages of others: that one of them has failed, that one has come to the end of its
program, or that one asks who is still there.
"""

import os
import time

from mpi4py import MPI

from fastdrop.interop.mpi.leaving import watch

__all__ = ["RankError", "Waiting", "notify_world"]

# Tests in a row before a rank looks at the clock and offers its processor to others.
SPINS = 200
# Seconds between two looks at what other ranks tell.
LISTEN_EVERY = 0.02
# A rank that asks who is there waits for answers for this share of its timeout.
GRACE = 0.25
LONGEST_GRACE = 5.0
# Seconds for a message to another rank to leave this one.
SENDING = 1.0

FAILED, ENDED, ASKS, ANSWERS = range(4)  # what a message is about

_yield_processor = getattr(os, "sched_yield", lambda: time.sleep(0))

# What ranks of the world told as they ended by an error, by their number there.
_notices = {}


class RankError(RuntimeError):
    """Another rank failed, was lost, or differs from this one; the message names it."""


def _tag():
    """The tag of all messages here: the largest, which programs hardly use on their own."""
    return MPI.COMM_WORLD.Get_attr(MPI.TAG_UB)


def _send(comm, ranks, message):
    sending = [comm.isend(message, dest=rank, tag=_tag()) for rank in ranks]
    end = time.monotonic() + SENDING
    while not MPI.Request.Testall(sending) and time.monotonic() < end:
        _yield_processor()


def _received(comm):
    """Yield the messages that have come: the rank that sent it, and what it says."""
    tag, status = _tag(), MPI.Status()
    while comm.Iprobe(MPI.ANY_SOURCE, tag, status):
        source = status.Get_source()
        yield source, comm.recv(source=source, tag=tag)


def notify_world(error):
    """Tell all ranks of the world that this program ends by an error, whomever they wait for."""
    world = MPI.COMM_WORLD
    others = [rank for rank in range(world.Get_size()) if rank != world.Get_rank()]
    _send(world, others, (FAILED, _said(error)))


def _said(error):
    """A line with the class and the message of an error."""
    name, text = type(error).__name__, str(error)
    return f"{name}: {text}" if text else name


class Waiting:
    """The processes of a communicator, as far as they wait for each other.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm

    Attributes
    ----------
    comm, control : mpi4py.MPI.Intracomm
        For operations, and for messages; `comm` itself until `meet` has made them.
    rank, size : int
    timeout : float
        Seconds to wait for other ranks.
    doing : str
        What this rank is about, for messages.
    begun : int
        Operations that this rank has begun, of those that all ranks take part in.
    broken : str or None
        The error that left the ranks out of step: nothing goes on then.
    agreed : BaseException or None
        The last error that was raised on all ranks alike.
    requests : list of mpi4py.MPI.Request
        Operations under way, whose buffers must stay.
    """

    def __init__(self, comm):
        self.comm = self.control = comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.timeout = 0.0
        self.doing = ""
        self.begun = 0
        self.broken = self.agreed = None
        self.requests = []
        self._ended = {}  # what ranks that have come to the end of their programs had begun
        group, world = comm.Get_group(), MPI.COMM_WORLD.Get_group()
        self._in_world = dict(
            zip(group.Translate_ranks(None, world), range(self.size), strict=True)
        )
        self._leaving = None

    def meet(self, doing):
        """Make the communicators of their own, together with all other ranks.

        They are duplicates, so that no message of the caller's meets theirs.

        Raises
        ------
        RankError
            If another rank has failed, or does not come within the timeout.
        """
        if self.size > 1:
            watch(self)
        self.doing = doing
        try:
            for name in ("control", "comm"):
                made, request = self.comm.Idup()
                self.begin_request(request)
                self.wait()
                setattr(self, name, made)
        except BaseException as error:
            self.fail(error)
            raise

    def begin_request(self, request):
        """Keep a request of an operation that all ranks take part in, for `wait`."""
        self.begun += 1
        self.requests.append(request)

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
                self._look_for_ended()
                next_look = now + LISTEN_EVERY
            if now > deadline:
                self._ask_who_is_there()
            _yield_processor()
        self.requests.clear()

    def _listen(self):
        """Read what other ranks tell; returns what those that are there are doing, by rank."""
        there = {}
        if self.control != MPI.COMM_WORLD:
            for source, (_, text) in _received(MPI.COMM_WORLD):
                _notices[source] = text
        for source, (about, what) in _received(self.control):
            if about == FAILED:
                self._break(f"rank {source}: {what}")
            elif about == ENDED:
                self._ended[source] = what
                continue
            elif about == ASKS:
                self.tell([source], ANSWERS, self.doing)
            there[source] = what
        for number, text in _notices.items():
            if number in self._in_world:
                self._break(f"rank {self._in_world[number]}: {text}")
        return there

    def _look_for_ended(self):
        """Raise if a rank that has ended has not begun what this one waits for."""
        for rank, begun in self._ended.items():
            if begun < self.begun:
                self._break(
                    f"rank {rank} has come to the end of its program, and rank {self.rank} waits "
                    f"for it in {self.doing}"
                )

    def tell(self, ranks, about, what):
        """Send other ranks a message, which they read while they wait."""
        _send(self.control, ranks, (about, what))

    def _others(self):
        return [rank for rank in range(self.size) if rank != self.rank]

    def _ask_who_is_there(self):
        """Raise the error that names the ranks that do not answer, or what each one waits for."""
        self.tell(self._others(), ASKS, self.doing)
        there = {}
        end = time.monotonic() + min(GRACE * self.timeout, LONGEST_GRACE)
        while time.monotonic() < end and len(there) < self.size - 1:
            there |= self._listen()
            time.sleep(LISTEN_EVERY)
        lost = [f"rank {rank}" for rank in self._others() if rank not in there]
        waited = f"rank {self.rank} waited {self.timeout:g} s in {self.doing}"
        if lost:
            self._break(
                f"{waited}, and there is no answer from {', '.join(lost)}: lost, stopped, at the "
                "end of its program, or busy for longer than timeout"
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
            self.broken = _said(error)
            self.tell(self._others(), FAILED, self.broken)

    # --- The end of the program ------------------------------------------------------------------

    def begin_to_leave(self):
        """Let the others know, as soon as they come to it, that this program has ended."""
        self.doing = "the end of its program"
        self._leaving = self.control.Ibarrier()

    def has_left(self):
        """Whether all ranks have come to the end; answers those that ask meanwhile.

        Raises
        ------
        RankError
            If another rank has failed.
        """
        done = self._leaving.Test()
        self._listen()
        return done

    def tell_end(self):
        """Tell the other ranks what this one will have no part in."""
        self.tell(self._others(), ENDED, self.begun)
