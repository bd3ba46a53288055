"""How a rank leaves: interrupts wait for the end of a step, and nobody is left waiting at exit."""

import atexit
import signal
import sys
import threading
import time

__all__ = ["Interrupts", "watch"]

# Seconds that other ranks have to say what they know before they are ended.
LAST_WORDS = 0.5

_watched = []


def watch(ranks):
    """Let the other ranks know when this process ends by an error."""
    if not _watched:
        atexit.register(_leave)
    _watched.append(ranks)


def _leave():
    """Runs before mpi4py's own exit handler, which waits until all ranks have come to it.

    A rank that waits for a failed one has been told by a message; ranks that are out of step would
    wait for each other for ever, and end all of them.
    """
    error = getattr(sys, "last_value", None)  # the exception that ended the program, if one did
    for ranks in _watched:
        if error is not None and error is not ranks.agreed:
            ranks.fail(error)
        if ranks.broken is not None:
            sys.stdout.flush()
            print(
                f"fastdrop.mpi: rank {ranks.rank} ends all ranks: {ranks.broken}",
                file=sys.stderr,
                flush=True,
            )
            time.sleep(LAST_WORDS)
            ranks.comm.Abort(1)


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
