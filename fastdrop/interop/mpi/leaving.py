"""How a rank leaves: interrupts wait for the end of a step, and nobody is left waiting at exit."""

import atexit
import signal
import sys
import threading
import time

from mpi4py import MPI

__all__ = ["Interrupts", "at_exit", "watch"]

# Seconds that other ranks have to say what they know before they are ended, and to come to the end
# of their programs before they are told that this one has.
LAST_WORDS = 0.5
# Seconds between two looks at whether they have come.
LOOK_EVERY = 0.01

_watched = []


def watch(ranks):
    """Let these ranks know how this process ends."""
    _watched.append(ranks)


def at_exit(notify_world):
    """Run what ranks that leave have to do at the end of the program.

    Parameters
    ----------
    notify_world : callable
        Tells an error to the ranks that have not met this one yet.
    """
    atexit.register(_leave, notify_world)


def _leave(notify_world):
    """Runs before mpi4py's own exit handler, which waits until all ranks have come to it.

    A rank that waits for a failed one has been told by a message; ranks that are out of step would
    wait for each other for ever, and end all of them.
    """
    if not MPI.Is_initialized() or MPI.Is_finalized():
        return
    error = getattr(sys, "last_value", None)  # the exception that ended the program, if one did
    if error is not None and not any(error is ranks.agreed for ranks in _watched):
        for ranks in _watched:
            ranks.fail(error)
        notify_world(error)
    for ranks in _watched:
        if ranks.broken is not None:
            sys.stdout.flush()
            print(
                f"fastdrop.mpi: rank {ranks.rank} ends all ranks: {ranks.broken}",
                file=sys.stderr,
                flush=True,
            )
            time.sleep(LAST_WORDS)
            ranks.comm.Abort(1)
    _wait_for_the_others()


def _wait_for_the_others():
    """As mpi4py's exit handler does, but with an answer for those that wait for this rank.

    Returns at once where another rank ends all of them by an error.
    """
    waiting = list(_watched)
    for ranks in waiting:
        ranks.begin_to_leave()
    tell_at = time.monotonic() + LAST_WORDS
    while waiting:
        try:
            waiting = [ranks for ranks in waiting if not ranks.has_left()]
        except RuntimeError:
            return
        if waiting and time.monotonic() > tell_at:
            for ranks in waiting:
                ranks.tell_end()
            tell_at = float("inf")
        if waiting:
            time.sleep(LOOK_EVERY)


class Interrupts:
    """Keeps SIGINT for the ranks to stop together; a second SIGINT interrupts at once.

    Where the program has a handler of its own, or the thread is not the main one, nothing changes.

    Attributes
    ----------
    pending : bool
        Whether there was a SIGINT that has not been told to anybody.
    """

    def __init__(self):
        self.pending = False
        self._before = None
        self._depth = 0

    def __enter__(self):
        self._depth += 1
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._keep)
        return self

    def _keep(self, number, frame):
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True

    def __exit__(self, *_):
        self._depth -= 1
        if self._depth == 0 and self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
