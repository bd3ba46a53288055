"""The command line in an ASCII terminal, a narrow window, and a pipe that closes early."""

import os
import subprocess
import sys

import pytest

from fastdrop import __main__, config

COMMANDS = [["info"], ["--help"], ["demo", "--help"], ["--version"]]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("columns", ["1", "20", "80"])
def test_ascii_and_narrow(arguments, columns):
    environ = os.environ | {
        "COLUMNS": columns, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0",
    }  # fmt: skip
    command = [sys.executable, "-m", "fastdrop", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    done.stdout.decode("ascii")
    assert b"fastdrop" in done.stdout


def test_what_ascii_lacks_is_escaped(capfd, monkeypatch):
    monkeypatch.setattr(config.platform, "platform", lambda: "Lïnux")
    with open(os.dup(1), "w", encoding="ascii") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert __main__.main(["info"]) == 0
    assert "L\\xefnux" in capfd.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="Windows has other pipes")
@pytest.mark.parametrize("arguments", COMMANDS[:3], ids=" ".join)
def test_a_pipe_that_closes_early(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "fastdrop", *arguments]
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode in (0, 141)  # argparse keeps an error of its own print to itself
    assert done.stderr == b""
