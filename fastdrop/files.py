"""Files that appear whole or not at all, and what else a path may lead to.

A regular file is written beside its place and put there in one step. What is no regular file cannot
be replaced by one: a device, a pipe or a file object that the caller opened is written to as it is.
"""

import contextlib
import errno
import io
import os
import secrets
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO, TypeAlias

__all__ = ["PathOrFile", "called", "readable", "writable"]

# A path, or an object with the methods of a binary file that are needed.
PathOrFile: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes] | BinaryIO

# What a file system answers that cannot flush at all; other errors mean that data may be lost.
_CANNOT_FLUSH = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EROFS}
_START_OF_NAME = 40  # characters of the temporary file's name that come from the user's


def called(path: Any) -> str:
    """What messages call a file: its path, or the name or type of a file object."""
    if hasattr(path, "read") or hasattr(path, "write"):
        name = getattr(path, "name", None)
        return name if isinstance(name, str) else f"<{type(path).__name__}>"
    return _path(path)


@contextlib.contextmanager
def writable(path: Any) -> Iterator[Any]:
    """Give a binary file to write; what is written is at `path` when the block ends.

    Parameters
    ----------
    path : str, os.PathLike or binary file object
        A regular file is replaced when the block ends without an error. A symbolic link stays: its
        target is replaced. Devices, pipes and file objects are written to as they are; file objects
        stay open.

    Raises
    ------
    TypeError
        If `path` is none of these.
    OSError
        With the path as it was given.
    """
    if hasattr(path, "write"):
        if isinstance(path, io.TextIOBase):
            raise TypeError(f"the file {called(path)!r} is open for text, open it with mode 'wb'")
        yield path if hasattr(path, "seek") and hasattr(path, "read") else _Forwards(path)
        return
    path = _path(path)
    try:
        found = _stat(path)
        if found is None or stat.S_ISREG(found.st_mode):
            with _replacing(path, found) as file:
                yield file
        else:  # a directory is an error here
            with open(path, "wb") as file:
                yield _Forwards(file)
    except OSError as error:
        raise _of_path(error, path) from None


@contextlib.contextmanager
def readable(path: Any) -> Iterator[Any]:
    """Give a binary file that can be read at any place, of a path or a file object.

    What comes from a pipe or the like is read to its end first.
    """
    if hasattr(path, "read"):
        if isinstance(path, io.TextIOBase):
            raise TypeError(f"the file {called(path)!r} is open for text, open it with mode 'rb'")
        yield _seekable(path)
        return
    path = _path(path)
    with open(path, "rb") as file:
        yield _seekable(file)


class _Forwards(io.RawIOBase):
    """A file that is written from its beginning to its end: a device may say that it can seek."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file

    def writable(self) -> bool:
        """Whether it can be written."""
        return True

    def write(self, part: Any) -> int:
        """Write all of the bytes."""
        self._file.write(part)
        return memoryview(part).nbytes


def _path(path: Any) -> str:
    try:
        return os.fsdecode(path)
    except TypeError:
        raise TypeError(
            f"path must be a str, an os.PathLike or an open binary file, got {type(path).__name__}"
        ) from None


def _seekable(file: Any) -> Any:
    try:
        known = file.seekable()
    except AttributeError:
        known = hasattr(file, "seek")
    return file if known else io.BytesIO(file.read())


def _stat(path: str) -> os.stat_result | None:
    """Status of the target of a path, through links; None if there is none."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _replacing(path: str, found: os.stat_result | None) -> Iterator[BinaryIO]:
    """Give a file beside a path, and put it there when the block ends without an error."""
    place = os.path.realpath(path) if os.path.islink(path) else path
    directory, name = os.path.split(place)
    token = secrets.token_hex(4)
    temporary = os.path.join(directory, f".{name[:_START_OF_NAME]}.{token}.tmp")
    mode = 0o666 if found is None else stat.S_IMODE(found.st_mode) & 0o777

    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(temporary, flags, mode)  # the system takes off what the umask says
    except PermissionError as error:
        raise PermissionError(
            error.errno, "No permission to create a temporary file in its folder", path
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if found is not None:
                with contextlib.suppress(OSError):  # some file systems have no permissions
                    os.chmod(temporary, mode)
            _flush(file.fileno())
        os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _flush_directory(directory or ".")


def _flush(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise


def _flush_directory(directory: str) -> None:
    """Make the new name durable where the system can: the file itself is whole and there."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _of_path(error: OSError, path: str) -> OSError:
    """The same error with the path that the caller gave."""
    if error.errno is None:
        return error
    return type(error)(error.errno, error.strerror, path)
