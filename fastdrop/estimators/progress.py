"""What `verbose` shows of a fit."""

import importlib

__all__ = ["Progress"]


class Progress:
    """A bar over the epochs, with loss and validation score; lines where tqdm is not installed.

    Parameters
    ----------
    verbose : bool or int
        0: nothing. 1: a bar. 2 and more: a line for every epoch as well.
    epochs : int
        At most.
    """

    def __init__(self, verbose, epochs):
        self.verbose = int(verbose)
        self._bar = None
        if self.verbose:
            try:
                tqdm = importlib.import_module("tqdm")
            except ModuleNotFoundError:
                self.verbose += 1
            else:
                self._bar = tqdm.tqdm(total=epochs, unit="epoch")

    def epoch(self, number, loss, score):
        """Show that an epoch is done; `score` is None without validation."""
        if not self.verbose:
            return
        shown = {"loss": f"{loss:.6g}"}
        if score is not None:
            shown["validation score"] = f"{score:.6g}"
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update()
        if self.verbose > 1:
            self._line(f"Epoch {number}: " + ", ".join(f"{k} {v}" for k, v in shown.items()))

    def say(self, text):
        """Show a sentence."""
        if self.verbose:
            self._line(text)

    def _line(self, text):
        if self._bar is None:
            print(text)
        else:
            self._bar.write(text)

    def close(self):
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
