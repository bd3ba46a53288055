"""Finished runs in a file of JSON lines: what makes the study resumable."""

import dataclasses
import json
import os
import pathlib

from .training import Settings

__all__ = ["Store", "spec_of"]

_DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(Settings)
    if field.default is not dataclasses.MISSING
}


def spec_of(settings, **where):
    """Return what a run is known by: settings that are not the defaults, and what it was run on.

    Parameters
    ----------
    settings : Settings
    **where
        What else decides the result, ready for JSON: the number of examples, the part held out.

    Returns
    -------
    dict

    Examples
    --------
    >>> from bench.studies.generalisation.store import spec_of
    >>> from bench.studies.generalisation.training import Settings
    >>> spec_of(Settings("none", (64,), 0.1, epochs=5), examples=300, held_out="test")
    {'arm': 'none', 'hidden': [64], 'learning_rate': 0.1, 'epochs': 5, 'examples': 300, \
'held_out': 'test'}
    """
    spec = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(settings).items()
        if name not in _DEFAULTS or value != _DEFAULTS[name]
    }
    return {**spec, **where}


class Store:
    """Results by spec, each written to the file the moment it is there.

    A line that a crash tore is dropped when the file is opened again; where a spec has several
    lines, the last one counts.

    Parameters
    ----------
    path : str or pathlib.Path
        Made with the first result, with its folder.

    Raises
    ------
    ValueError
        If a line in the middle of the file is none of ours.

    Examples
    --------
    >>> import tempfile
    >>> from bench.studies.generalisation.store import Store
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Store(f"{folder}/runs.jsonl").add({"seed": 1}, {"error": 4.25})
    ...     Store(f"{folder}/runs.jsonl").get({"seed": 1})
    {'error': 4.25}
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self._results = {}
        if self.path.exists():
            self._read()

    def _read(self):
        data = self.path.read_bytes()
        whole, separator, torn = data.rpartition(b"\n")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                record = json.loads(line)
                self._results[_key(record["spec"])] = record["result"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{self.path}, line {number} is no result of the study") from error
        if torn:
            os.truncate(self.path, len(whole) + len(separator))

    def __len__(self):
        return len(self._results)

    def get(self, spec):
        """Return the result of a spec, or None."""
        return self._results.get(_key(spec))

    def add(self, spec, result):
        """Keep a result, and have it on the disk before returning."""
        line = json.dumps({"spec": spec, "result": _rounded(result)}, separators=(",", ":"))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # As it will be read again, so that a resumed study has the same numbers.
        self._results[_key(spec)] = json.loads(line)["result"]


def _key(spec):
    return json.dumps(spec, sort_keys=True)


def _rounded(value):
    """Numbers to six digits: enough for per cents of thousands and for seconds."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
