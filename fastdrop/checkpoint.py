"""`save` and `load`: a network and its optimiser in one ``.npz`` file.

The file holds the arrays under their names, and one JSON text that says where they belong, with
the numbers and strings beside them. Nothing is pickled: reading a file runs no code of it.
"""

import errno
import json
import zipfile
from typing import Any

import numpy

from fastdrop.arguments import native
from fastdrop.files import PathOrFile, called, readable, writable
from fastdrop.types import Array

__all__ = ["load", "save"]

FORMAT = "fastdrop checkpoint"
VERSION = 1
HEADER = "checkpoint.json"
ARRAY = "__array__"


def save(path: PathOrFile, net: Any, opt: Any = None, *, extra: Any = None) -> None:
    """Write the state of a network, and of its optimiser, to an ``.npz`` file.

    The file appears whole or not at all: it is written beside its place, flushed to the disk, and
    then put there in one step. Where the path is a symbolic link, its target is replaced. A device
    or a pipe (``/dev/stdout``, a FIFO) is written to, as `numpy.savez` does.

    Parameters
    ----------
    path : str, os.PathLike or binary file object
        Of the file, which is replaced if it is there; used as it is, no ending is added. An open
        file (``open(path, "wb")``, ``io.BytesIO()``) is written to and stays open.
    net, opt : object
        With ``state_dict()``: of dicts, lists, arrays, numbers, strings and None. Estimators have
        none: pickle them.
    extra : optional
        What else belongs to them, made of the same: ``{"epoch": 3}``. `load` returns it; tuples
        come back as lists.

    Raises
    ------
    TypeError
        If `net` or `opt` has no ``state_dict()``, or something else is in a state.
    OSError
        If the file cannot be written; an earlier one of that name is still there.

    See Also
    --------
    load : reads it again.

    Examples
    --------
    >>> import os, tempfile, fastdrop
    >>> net = fastdrop.nn.Sequential([fastdrop.nn.Dense(2, 3)], rng=0)
    >>> other = fastdrop.nn.Sequential([fastdrop.nn.Dense(2, 3)], rng=1)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = os.path.join(directory, "net.npz")
    ...     fastdrop.save(path, net, extra={"epoch": 3})
    ...     fastdrop.load(path, other)
    {'epoch': 3}
    >>> bool((other.layers[0].weight == net.layers[0].weight).all())
    True
    """
    arrays: dict[str, Array] = {}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "net": _packed(_state_of(net, "net"), "net", arrays),
        "opt": None if opt is None else _packed(_state_of(opt, "opt"), "opt", arrays),
        "extra": _packed(extra, "extra", arrays),
    }
    arrays[HEADER] = numpy.frombuffer(json.dumps(header).encode(), numpy.uint8)
    with writable(path) as file:
        numpy.savez(file, allow_pickle=False, **arrays)


def load(path: PathOrFile, net: Any, opt: Any = None, *, strict: bool = False) -> Any:
    """Restore, in place, what `save` wrote; training then goes on bit for bit.

    Parameters
    ----------
    path : str, os.PathLike or binary file object
        What comes from a pipe is read to its end.
    net, opt : object
        Made as those that were saved; with ``state_dict()`` and ``load_state_dict(state)``.
        Without `opt`, the file's optimiser is left alone.
    strict : bool, optional
        Refuse a file of a network with other settings, such as another dropout rate or activation;
        otherwise there is a warning, and the settings of `net` hold.

    Returns
    -------
    object
        What was given to `save` as `extra`; None without it.

    Raises
    ------
    TypeError
        If `net` or `opt` has no ``state_dict()``.
    ValueError
        If the file is none of `save`, has no optimiser although `opt` is given, or does not fit:
        by name, what it has and what is expected. `net` and `opt` are as before then.
    OSError
        If the file cannot be read.

    Warns
    -----
    UserWarning
        If the network had other settings when it was saved.

    Examples
    --------
    See `save`.

    >>> import fastdrop
    >>> fastdrop.load("nowhere.npz", fastdrop.nn.Sequential([fastdrop.nn.Dense(2, 3)]))
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.npz'
    """
    _check_method(net, "net", "load_state_dict")
    if opt is not None:
        _check_method(opt, "opt", "load_state_dict")
    with readable(path) as file:
        name = called(path)
        header, arrays = _read(file, name)
    if opt is not None and header.get("opt") is None:
        raise ValueError(f"{name!r} holds no state of an optimiser: it was saved without one")
    *states, extra = (_unpacked(header.get(part), arrays, name) for part in ("net", "opt", "extra"))
    before = _state_of(net, "net")
    # Of a network, whose settings a file may differ in; other objects have no such word.
    _restore(name, net, states[0], **({"strict": True} if strict else {}))
    if opt is None:
        return extra
    try:
        _restore(name, opt, states[1])
    except BaseException:
        net.load_state_dict(before)
        raise
    return extra


def _check_method(target: object, name: str, method: str) -> None:
    if not callable(getattr(target, method, None)):
        kind = type(target).__name__
        advice = "; an estimator is saved by pickle or joblib" if hasattr(target, "fit") else ""
        raise TypeError(f"{name} must have {method}(), as nn.Sequential has, got {kind}{advice}")


def _state_of(target: Any, name: str) -> Any:
    _check_method(target, name, "state_dict")
    return target.state_dict()


def _restore(path: str, target: Any, state: object, **options: Any) -> None:
    if not isinstance(state, dict):
        raise ValueError(f"{path!r} is damaged: a state in it is {type(state).__name__}, no dict")
    try:
        target.load_state_dict(state, **options)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise ValueError(
            f"{path!r} does not fit this {type(target).__name__}: {message}"
        ) from error


def _read(file: Any, path: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays of a file that messages call `path`."""
    try:
        with numpy.load(file, allow_pickle=False) as archive:
            if any(m.compress_type != zipfile.ZIP_STORED for m in archive.zip.infolist()):
                raise ValueError("it has compressed parts, which save does not write")
            arrays = {name: native(archive[name]) for name in archive.files}
        header = json.loads(arrays.pop(HEADER).tobytes())
        known = header.get("format") == FORMAT and "net" in header
    except MemoryError:
        raise
    except Exception as error:  # whatever zipfile, numpy and json make of a damaged file
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # EINVAL: of an offset outside of the file
        raise ValueError(f"{path!r} is no file of fastdrop.save, or damaged: {error}") from error
    if not known:
        raise ValueError(f"{path!r} is no file of fastdrop.save")
    if header.get("version") != VERSION:
        raise ValueError(
            f"{path!r} has version {header.get('version')} of the format, this fastdrop reads "
            f"{VERSION}"
        )
    return header, arrays


def _packed(value: Any, name: str, arrays: dict[str, Array]) -> Any:
    """The value as JSON can say it; its arrays go to `arrays`, under names beginning with name."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{name}: keys of a state must be strings, got {list(value)}")
        for key in value:
            if "/" in key or "\0" in key or key == ARRAY or key.endswith(".npy"):
                raise ValueError(
                    f"{name}: a key must not hold '/' or a zero byte, end in '.npy' or be "
                    f"{ARRAY!r}, got {key!r}"
                )
        return {key: _packed(part, f"{name}/{key}", arrays) for key, part in value.items()}
    if isinstance(value, numpy.ndarray):
        if value.dtype.hasobject:
            raise TypeError(f"{name}: arrays of Python objects cannot be saved")
        arrays[name] = value
        return {ARRAY: name}
    if isinstance(value, list | tuple):
        return [_packed(part, f"{name}/{i}", arrays) for i, part in enumerate(value)]
    if isinstance(value, numpy.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: a state must not hold {type(value).__name__} objects")


def _unpacked(value: Any, arrays: dict[str, Array], path: str) -> Any:
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            if not isinstance(value[ARRAY], str) or value[ARRAY] not in arrays:
                raise ValueError(f"{path!r} is damaged: it lacks the array {value[ARRAY]!r}")
            return arrays[value[ARRAY]]
        return {key: _unpacked(part, arrays, path) for key, part in value.items()}
    if isinstance(value, list):
        return [_unpacked(part, arrays, path) for part in value]
    return value
