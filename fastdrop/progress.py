"""What `verbose` shows of long work: a bar, or lines where there is no terminal."""

import importlib
import sys
from typing import Any, Literal

__all__ = ["Progress"]


class Progress:
    """A bar over epochs or blocks, with loss and validation score; lines without a terminal.

    Parameters
    ----------
    verbose : bool or int
        0: nothing. 1: a bar, or a line for every unit where stderr is a file or tqdm is not
        installed. 2 and more: bar and lines.
    total : int
        Units, at most.
    dtype : numpy.dtype
        What is computed in; it is said first.
    unit : {"epoch", "block"}, optional
    """

    def __init__(
        self,
        verbose: bool | int,
        total: int,
        dtype: Any,
        unit: Literal["epoch", "block"] = "epoch",
    ) -> None:
        self._name = "Iteration" if unit == "epoch" else unit.capitalize()
        self._lines = verbose > 1
        self._verbose = bool(verbose)
        self._bar: Any = None
        if not verbose:
            return
        tqdm = _tqdm() if _can_draw(sys.stderr) else None
        if tqdm is None:
            self._lines = True
        else:
            self._bar = tqdm.tqdm(total=total, unit=unit, desc=str(dtype))
        if self._lines:
            self._line(f"Computing in {dtype}, at most {total} {self._name.lower()}s")

    def done(self, number: int, loss: float, score: float | None = None) -> None:
        """Show that a unit is done; `score` is None without validation."""
        if not self._verbose:
            return
        if self._bar is not None:
            shown = {"loss": f"{loss:.6g}"}
            if score is not None:
                shown["validation score"] = f"{score:.6g}"
            # Drawn by `update` or, the last time, by `close`: once for each state.
            self._bar.set_postfix(shown, refresh=False)
            if number < self._bar.total:
                self._bar.update()
            else:
                self._bar.n = number
        if self._lines:
            more = "" if score is None else f", validation score = {score:.6f}"
            self._line(f"{self._name} {number}, loss = {loss:.8f}{more}")

    def say(self, text: str) -> None:
        """Show a sentence."""
        if self._verbose:
            self._line(text)

    def _line(self, text: str) -> None:
        if self._bar is None:
            print(text)
        else:
            self._bar.write(text)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _can_draw(stream: Any) -> bool:
    """Whether a bar can be drawn again and again: on a terminal, and in a notebook."""
    if stream is None:
        return False
    return bool(stream.isatty()) or type(stream).__module__.startswith("ipykernel")


def _tqdm() -> Any:
    try:
        return importlib.import_module("tqdm")
    except ModuleNotFoundError:
        return None
