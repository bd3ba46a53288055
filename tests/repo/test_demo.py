"""The demo, run as a user runs it: table, sentences, picture, Ctrl-C, missing packages."""

import os
import re
import signal
import subprocess
import sys

import pytest

from fastdrop import __main__

pytest.importorskip("sklearn", reason="the demo needs the extra 'demo'")
pytest.importorskip("tqdm", reason="the demo needs the extra 'demo'")

COMMAND = [sys.executable, "-m", "fastdrop", "demo"]
TINY = ["--hidden", "16", "--epochs", "3", "--seeds", "2"]
ROW = re.compile(
    r"^(no dropout|(?:per-sample|grouped|batchwise) [\d.]+) +([\d.]+) % +([\d.]+) %.*"
    r" +(-?[\d.]+) +[\d.]+ +(\d+)$"
)


def run(*arguments, environment=None):
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | (environment or {}),
    )


def rows(output):
    """The table's rows: name, training accuracy, test accuracy, gap, runs."""
    return [match.groups() for match in map(ROW.match, output.splitlines()) if match]


def names(rate):
    """What the table calls its four rows."""
    return ["no dropout", *(f"{kind} {rate:g}" for kind in ("per-sample", "grouped", "batchwise"))]


def test_table_and_sentences():
    done = run(*TINY)
    assert done.returncode == 0, done.stderr
    table = rows(done.stdout)
    assert [row[0] for row in table] == names(0.5)
    for _, training, test, gap, runs in table:
        assert 0 <= float(test) <= 100
        assert float(gap) == pytest.approx(float(training) - float(test), abs=0.11)
        assert runs == "2"
    table_end = done.stdout.index("Without dropout the network classifies")
    assert re.search(r"\n(Dropout avoided|Here dropout did not help)", done.stdout[table_end:])
    assert "epoch" in done.stderr  # the progress bar
    said = " ".join(done.stdout.split())
    assert "per-sample: a mask for each example; grouped: a mask for 10 examples" in said
    assert "+-: the standard deviation over the seeds" in said
    assert re.search(r"on one thread: batchwise took [\d.]+ of the time without dropout", said)


@pytest.mark.parametrize("columns", ["40", "70", "400"])
def test_text_is_as_wide_as_the_terminal(columns):
    done = run(*TINY, "--seeds", "1", environment={"COLUMNS": columns})
    text = done.stdout[done.stdout.index("per-sample: a mask") :]
    lines = [line for line in text.splitlines() if not line.startswith("    ")]
    widest = max(map(len, lines))
    assert 0.8 * min(int(columns), 100) < widest <= min(int(columns), 100)


def test_one_run_is_not_counted():
    done = run(*TINY, "--seeds", "1", "--epochs", "20")
    said = " ".join(done.stdout.split())
    assert "of 1 runs" not in said
    assert "+- std. dev." not in said
    assert "on test digits (in one run: --seeds 5 shows" in said or "did not help" in said


def test_it_ends_with_an_uncertain_prediction():
    done = run(*TINY, "--epochs", "30")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    text = done.stdout[done.stdout.index("MLPClassifier(dropout=0.5)") :]
    said, pictured, rest = text.split("\n\n")
    said = " ".join(said.split())
    unsure, sure = re.search(r"predictions (\d+) % are wrong, of the others (\d+) %", said).groups()
    assert int(unsure) > int(sure)
    digit = int(re.search(r"least sure of this (\d) ", said)[1])
    picture = [line.removeprefix("    ") for line in pictured.splitlines()]
    assert len(picture) == 8
    assert {len(line) for line in picture} == {16}
    assert any(shade in "".join(picture) for shade in "#%@")
    pattern = r"    a (\d) with probability (0\.\d\d) \+- (0\.\d\d)"
    said = [re.fullmatch(pattern, line).groups() for line in rest.splitlines()]
    assert len(said) == 3
    shares = [float(share) for _, share, _ in said]
    assert shares == sorted(shares, reverse=True)
    assert max(float(spread) for _, _, spread in said) > 0.05
    assert 0 <= digit <= 9


def test_the_same_seed_gives_the_same_table():
    first, second, other = (rows(run(*TINY, "--seed", seed).stdout) for seed in ("5", "5", "6"))
    assert first == second
    assert first != other


def test_options_reach_the_training():
    done = run("--hidden", "8", "--epochs", "1", "--seeds", "1", "--rate", "0.25")
    assert [row[0] for row in rows(done.stdout)] == names(0.25)
    assert [row[4] for row in rows(done.stdout)] == ["1"] * 4
    done = run("--hidden", "8", "--epochs", "1", "--seeds", "1", "--rate", "0")
    assert [row[0] for row in rows(done.stdout)] == ["no dropout"]
    assert "MLPClassifier" not in done.stdout
    assert done.returncode == 0


def test_plot(tmp_path):
    pytest.importorskip("matplotlib", reason="--plot needs the extra 'demo'")
    picture = tmp_path / "curves.png"
    done = run(*TINY, "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in done.stdout


@pytest.mark.parametrize("name", ["nowhere/curves.png", "curves.xyz"])
def test_plot_that_cannot_be_written_ends_before_the_training(tmp_path, name):
    pytest.importorskip("matplotlib", reason="--plot needs the extra 'demo'")
    done = run(*TINY, "--plot", str(tmp_path / name))
    assert done.returncode == 1
    assert "--plot" in done.stderr
    assert "epoch" not in done.stderr
    assert done.stdout == ""


def interrupt(after, arguments):
    """Start the demo, press Ctrl-C once `after` stands on the progress bar, return the result."""
    child = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell that runs the tests in the background makes children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    bar = b""
    while after not in bar:
        part = os.read(child.stderr.fileno(), 4096)
        assert part, bar.decode()
        bar += part
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=60)
    return child.returncode, output.decode(), (bar + errors).decode()


@pytest.mark.skipif(os.name == "nt", reason="signals work otherwise on Windows")
def test_interrupted_run_prints_the_table_so_far():
    code, output, errors = interrupt(b"seed 1,", ["--hidden", "64", "--seeds", "1000"])
    assert code == 130
    assert re.search(r"Interrupted after [1-9]\d* of 4000 networks", output)
    assert [row[0] for row in rows(output)] == names(0.5)
    assert "Traceback" not in errors


@pytest.mark.skipif(os.name == "nt", reason="signals work otherwise on Windows")
def test_interrupted_before_there_is_anything_to_compare():
    code, output, errors = interrupt(b"seed 0,", ["--hidden", "64", "--epochs", "100000"])
    assert code == 130
    assert "Interrupted after 0 of 20 networks" in output
    assert rows(output) == []
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--rate", "1", "must be in [0, 1), got 1"),
        ("--rate", "-0.5", "must be in [0, 1), got -0.5"),
        ("--rate", "nan", "must be in [0, 1), got nan"),
        ("--rate", "half", "invalid float value: 'half'"),
        ("--epochs", "0", "must be at least 1, got 0"),
        ("--hidden", "0", "must be at least 1, got 0"),
        ("--seeds", "0", "must be at least 1, got 0"),
        ("--seed", "-1", "must be at least 0, got -1"),
        ("--hidden", "many", "invalid int value: 'many'"),
    ],
)
def test_bad_options(option, value, message):
    done = run(option + "=" + value)
    assert done.returncode == 2
    assert f"argument {option}: {message}" in done.stderr


@pytest.mark.parametrize(
    ("module", "distribution"),
    [("sklearn", "scikit-learn"), ("tqdm", "tqdm"), ("matplotlib", "matplotlib")],
)
def test_missing_package_is_named_with_the_line_that_installs_it(module, distribution):
    # A None in sys.modules is what an import of a missing module looks like.
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from fastdrop.__main__ import main\n"
        "sys.exit(main(['demo', '--plot', 'curves.png']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert f"The demo needs {distribution}." in done.stderr
    assert "pip install -e '.[demo]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_installed_package_says_where_the_demo_is(monkeypatch, capsys):
    monkeypatch.setattr(__main__, "load_demo", lambda: None)
    assert __main__.main(["demo", "--epochs", "3"]) == 1
    assert "From a checkout, run\n    python -m pip install -e" in capsys.readouterr().err


def test_unknown_arguments_are_refused(capsys):
    with pytest.raises(SystemExit):
        __main__.main(["info", "--epochs", "3"])
    assert "unrecognized arguments: --epochs 3" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--version"], 0), ([], 2)])
def test_command_line(arguments, code):
    done = subprocess.run(
        [sys.executable, "-m", "fastdrop", *arguments], capture_output=True, text=True
    )
    assert done.returncode == code
    assert "fastdrop" in done.stdout + done.stderr
