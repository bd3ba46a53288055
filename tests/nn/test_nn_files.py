"""Where save writes: links, pipes, devices, file objects, and what a system may refuse."""

import errno
import io
import os
import re
import stat
import subprocess
import sys
import threading
import types

import numpy
import pytest

import fastdrop
from fastdrop import files, nn

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


def network(seed=0):
    return nn.Sequential([nn.Dense(5, 3), nn.ReLU(), nn.Dropout(0.5), nn.Dense(3, 2)], rng=seed)


NET = network()


def assert_holds(path, net=NET):
    """The file restores the network."""
    other = network(99)
    fastdrop.load(path, other)
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        numpy.testing.assert_array_equal(mine.value, theirs.value)


# --- Links -----------------------------------------------------------------------------------


@POSIX
def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "store").mkdir()
    target, link = tmp_path / "store" / "net.npz", tmp_path / "latest.npz"
    fastdrop.save(target, network(1))
    target.chmod(0o640)
    link.symlink_to(os.path.join("store", "net.npz"))  # relative to the link's folder
    fastdrop.save(link, NET)
    assert link.is_symlink()
    assert not target.is_symlink()
    assert_holds(target)
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["latest.npz", "store"]
    assert os.listdir(tmp_path / "store") == ["net.npz"]


@POSIX
def test_links_to_links_and_to_nothing(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "c")
    fastdrop.save(tmp_path / "a", NET)
    assert (tmp_path / "c").is_file()
    assert not (tmp_path / "c").is_symlink()
    assert_holds(tmp_path / "a")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="loop") as caught:
        fastdrop.save(tmp_path / "loop", NET)
    assert caught.value.errno == errno.ELOOP
    assert (tmp_path / "loop").is_symlink()


# --- What is no regular file -----------------------------------------------------------------


@POSIX
def test_a_fifo_is_written_to_and_read_from(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=fastdrop.save, args=(path, NET))
    writer.start()
    assert_holds(path)
    writer.join()
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


@POSIX
def test_a_device_stays_a_device():
    before = os.stat(os.devnull)
    fastdrop.save(os.devnull, NET)
    after = os.stat(os.devnull)
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a device that is full")
def test_a_full_device_is_an_error_that_names_it():
    with pytest.raises(OSError, match="/dev/full") as caught:
        fastdrop.save("/dev/full", NET)
    assert caught.value.errno == errno.ENOSPC
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="there is no /dev/stdout")
def test_standard_output_through_a_pipe_and_into_a_file(tmp_path):
    code = (
        "import fastdrop; from fastdrop import nn;"
        "fastdrop.save('/dev/stdout', nn.Sequential([nn.Dense(5, 3), nn.ReLU(), nn.Dropout(0.5),"
        " nn.Dense(3, 2)], rng=0))"
    )
    command = [sys.executable, "-c", code]
    piped = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    assert_holds(io.BytesIO(piped))
    path = tmp_path / "net.npz"
    with open(path, "wb") as file:
        subprocess.run(command, stdout=file, check=True)
    assert_holds(path)


def test_a_folder_is_an_error(tmp_path):
    with pytest.raises(OSError, match=re.escape(repr(str(tmp_path)))):
        fastdrop.save(tmp_path, NET)
    assert tmp_path.is_dir()


# --- File objects ----------------------------------------------------------------------------


def test_open_files(tmp_path):
    memory = io.BytesIO()
    fastdrop.save(memory, NET)
    assert not memory.closed
    memory.seek(0)
    assert_holds(memory)
    with open(tmp_path / "net.npz", "w+b") as file:
        fastdrop.save(file, NET)
        assert not file.closed
        file.seek(0)
        assert_holds(file)
    assert_holds(tmp_path / "net.npz")


def test_a_file_object_that_cannot_seek():
    class Pipe(io.RawIOBase):
        """A stream that is written or read once, forwards."""

        def __init__(self, data=b""):
            self.data = io.BytesIO(data)

        def writable(self):
            return True

        def readable(self):
            return True

        def write(self, part):
            return self.data.write(part)

        def read(self, size=-1):
            return self.data.read(size)

    pipe = Pipe()
    fastdrop.save(pipe, NET)
    assert_holds(Pipe(pipe.data.getvalue()))
    parts = []
    fastdrop.save(types.SimpleNamespace(write=lambda part: parts.append(bytes(part))), NET)
    assert_holds(io.BytesIO(b"".join(parts)))


@pytest.mark.parametrize("path", [3, None, 1.5, ["net.npz"], NET])
def test_what_is_no_path(path):
    for call in (fastdrop.save, fastdrop.load):
        with pytest.raises(TypeError, match=f"path must be .*, got {type(path).__name__}"):
            call(path, NET)


def test_text_files(tmp_path):
    with open(tmp_path / "text", "w+") as file:
        for call in (fastdrop.save, fastdrop.load):
            with pytest.raises(TypeError, match="text"):
                call(file, NET)
    with pytest.raises(TypeError, match="text"):
        fastdrop.save(io.StringIO(), NET)


def test_paths_of_bytes(tmp_path):
    path = os.fsencode(tmp_path / "net.npz")
    fastdrop.save(path, NET)
    assert_holds(path)


# --- What the system refuses -----------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 100, 241, 242, 250, 255])
@pytest.mark.parametrize("letter", ["a", "ä", "\N{GRINNING FACE}"])
def test_names_as_long_as_the_system_allows(tmp_path, length, letter):
    name = letter * (length // len(letter.encode()))
    name += "x" * (length - len(name.encode()))
    path = tmp_path / name
    try:
        path.touch()
    except OSError:
        pytest.skip("the file system has shorter names")
    path.unlink()
    fastdrop.save(path, NET)
    fastdrop.save(path, NET)
    assert os.listdir(tmp_path) == [name]
    assert_holds(path)


def test_a_name_that_is_too_long_is_named(tmp_path):
    path = tmp_path / ("a" * 300)
    with pytest.raises(OSError, match="a" * 300):
        fastdrop.save(path, NET)
    assert os.listdir(tmp_path) == []


def refusing(number):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return refuse


def test_where_chmod_is_not_permitted(tmp_path, monkeypatch):
    path = tmp_path / "net.npz"
    for _ in range(2):
        with monkeypatch.context() as patch:
            for name in ("chmod", "fchmod"):
                patch.setattr(os, name, refusing(errno.EPERM), raising=False)
            fastdrop.save(path, NET)
        assert_holds(path)
    assert os.listdir(tmp_path) == ["net.npz"]


@POSIX
@pytest.mark.parametrize("what", ["open", "fsync"])
def test_where_the_folder_cannot_be_flushed(tmp_path, monkeypatch, what):
    path = tmp_path / "net.npz"
    fastdrop.save(path, network(1))
    genuine = getattr(os, what)

    def of_folders(first, *args, **kwargs):
        if os.path.isdir(first) if what == "open" else stat.S_ISDIR(os.fstat(first).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return genuine(first, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, what, of_folders)
        fastdrop.save(path, NET)
    assert_holds(path)


@pytest.mark.parametrize(
    ("number", "saves"),
    [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False), (errno.ENOSPC, False)],
)
def test_a_file_system_that_cannot_flush_or_fails_to(tmp_path, monkeypatch, number, saves):
    path = tmp_path / "net.npz"
    fastdrop.save(path, network(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refusing(number))
        if saves:
            fastdrop.save(path, NET)
        else:
            with pytest.raises(OSError, match=re.escape(repr(str(path)))) as caught:
                fastdrop.save(path, NET)
            assert caught.value.errno == number
    assert_holds(path, NET if saves else network(1))
    assert os.listdir(tmp_path) == ["net.npz"]


def test_messages_name_the_path_that_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        fastdrop.save("nowhere/net.npz", NET)
    assert caught.value.filename == "nowhere/net.npz"
    assert "tmp" not in str(caught.value)
    for name, number, error in (
        ("open", errno.EACCES, PermissionError),
        ("replace", errno.EISDIR, IsADirectoryError),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refusing(number))
            with pytest.raises(error) as caught:
                fastdrop.save("net.npz", NET)
        assert caught.value.filename == "net.npz"
    assert os.listdir(tmp_path) == []


@POSIX
def test_the_umask_is_not_touched(tmp_path, monkeypatch):
    """It belongs to the process: files that other threads make meanwhile would get it."""

    def forbidden(mask):
        raise AssertionError("os.umask")

    with monkeypatch.context() as patch:
        patch.setattr(os, "umask", forbidden)
        fastdrop.save(tmp_path / "net.npz", NET)
    before = os.umask(0o027)
    try:
        fastdrop.save(tmp_path / "strict.npz", NET)
        fastdrop.save(tmp_path / "net.npz", NET)
    finally:
        os.umask(before)
    assert (tmp_path / "strict.npz").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "net.npz").stat().st_mode & 0o777 == 0o666 & ~before


# --- What is no network ----------------------------------------------------------------------


def test_an_estimator_is_told_to_be_pickled(tmp_path):
    model = fastdrop.MLPRegressor()
    for call in (fastdrop.save, fastdrop.load):
        with pytest.raises(TypeError, match=r"net must have .*got MLPRegressor; .* pickle"):
            call(tmp_path / "model", model)
        with pytest.raises(TypeError, match=r"opt must have .*got int"):
            call(tmp_path / "model", NET, 3)
    assert os.listdir(tmp_path) == []


def test_the_block_of_writable_may_fail(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def interrupted():
        with files.writable(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]
