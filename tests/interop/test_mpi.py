"""fastdrop.mpi on 1 to 4 ranks: each test starts mpiexec, or reads what one start has printed."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fastdrop

pytest.importorskip("mpi4py.MPI", exc_type=(ImportError, RuntimeError))

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "mpi_train.py"
PROGRAMS = "".join(path.read_text() for path in sorted(HERE.glob("mpi_*.py")))
CASES = re.findall(r"^@case\ndef (\w+)", PROGRAMS, re.MULTILINE)
LIMIT = 120.0

pytestmark = pytest.mark.mpi


def mpiexec():
    """The mpiexec of the environment, or of the machine."""
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    return found or pytest.skip("there is no mpiexec")


def start(ranks, program, *arguments):
    """Run a program on some ranks; returns its exit code, and what it printed."""
    command = [mpiexec(), "-n", str(ranks), sys.executable, str(HERE / program)]
    # The fastdrop that this process has, wherever it is installed.
    paths = filter(None, [str(Path(fastdrop.__file__).parents[1]), os.environ.get("PYTHONPATH")])
    environment = {
        "PYTHONPATH": os.pathsep.join(paths),
        "FASTDROP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        env=os.environ | environment,
    )
    return done.returncode, done.stdout


@functools.cache
def outcomes(ranks):
    """What became of every case, from one start."""
    _, printed = start(ranks, "mpi_cases.py")
    lines = re.findall(r'^\{"case".*\}$', printed, re.MULTILINE)
    return {line["case"]: line for line in map(json.loads, lines)}, printed[-4000:]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_cases(ranks, case):
    found, printed = outcomes(ranks)
    assert case in found, f"not reached:\n{printed}"
    assert found[case]["error"] is None, found[case]["error"]


def test_a_failing_case_is_noticed():
    code, printed = start(2, "mpi_cases.py", "no_such_case")
    assert code != 0
    assert '"KeyError' not in printed
    assert "KeyError: 'no_such_case'" in printed


# --- Ranks that leave ----------------------------------------------------------------------------


def leave(scenario):
    begin = time.monotonic()
    code, printed = start(3, "mpi_leaving.py", scenario)
    return code, printed, time.monotonic() - begin


STOPPED = ["stopped in backward", "stopped in preparation", "exits in preparation"]


@pytest.mark.parametrize("scenario", STOPPED)
def test_a_rank_that_does_not_come_is_named(scenario):
    code, printed, seconds = leave(scenario)
    assert code != 0
    assert seconds < 30
    when, what = (" after 3 steps", "step 3")
    if "preparation" in scenario:
        when, what = (" before", "DataParallel")
    expected = (
        rf"rank ([02]){when}: rank \1 waited 1.5 s in {what}, and there is no answer from rank 1:"
    )
    assert re.search(expected, printed), printed
    assert re.search("fastdrop.mpi: rank [02] ends all ranks", printed), printed
    if when != " before":
        assert re.search("rank [02] again: the ranks are out of step", printed), printed


@pytest.mark.parametrize("scenario", ["killed in backward", "killed in preparation"])
def test_a_killed_rank_ends_all(scenario):
    code, printed, seconds = leave(scenario)
    assert code != 0
    assert seconds < 30
    assert "ends after" not in printed


TOLD = ["raises in backward", "raises in between", "raises in preparation"]


@pytest.mark.parametrize("scenario", TOLD)
def test_an_error_on_one_rank_is_told_to_all(scenario):
    code, printed, seconds = leave(scenario)
    assert code != 0
    assert seconds < 30
    when = "before" if "preparation" in scenario else "after 3 steps"
    for rank in (0, 2):
        assert f"rank {rank} {when}: rank 1: LookupError: nothing on the shelf" in printed


def test_ranks_that_wait_for_nobody_go_on():
    code, printed, _ = leave("alone, raises in preparation")
    assert code != 0
    assert printed.count("ends after 6 steps") == 2, printed


def test_the_end_of_a_program_is_told_to_those_that_wait():
    code, printed, _ = leave("exits in between")
    assert code != 0
    assert "rank 1 has come to the end of its program, and rank 0 waits for it in step 3" in printed
    assert "no answer" not in printed


def test_a_rank_whose_work_takes_longer_is_waited_for_at_the_end():
    code, printed, seconds = leave("slow in the end")
    assert code == 0, printed
    assert seconds > 2
    assert printed.count("ends after 6 steps") == 3


def test_an_interrupt_stops_all_ranks_after_the_same_step():
    code, printed, _ = leave("interrupted in backward")
    assert code == 0
    for rank in range(3):
        assert re.search(f"rank {rank} stops after [45] steps: rank 1 was interrupted", printed)
    assert len(set(re.findall("stops after ([45])", printed))) == 1
    assert printed.count("equal") == 3
    assert "different" not in printed


def test_an_interrupt_ends_a_fit_on_all_ranks_after_the_same_step():
    code, printed, _ = leave("interrupted in fit")
    assert code == 0, printed
    assert len(re.findall("fitted in [34] steps, 0 epochs: equal", printed)) == 3, printed
    assert printed.count("UserWarning: Training interrupted by user") == 1, printed


@pytest.mark.parametrize("scenario", ["slow in between", "slow in preparation"])
def test_a_slow_rank_is_waited_for(scenario):
    code, printed, _ = leave(scenario)
    assert code == 0
    assert printed.count("ends after 6 steps") == 3


def test_ranks_in_different_calls_are_told():
    code, printed, _ = leave("other call")
    assert code != 0
    assert printed.count("steps: rank 1 is in save, rank 0 is in step 3") == 3


# --- Other numbers of ranks ----------------------------------------------------------------------


def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    losses = {}
    for ranks, stop in ((4, 4), (2, 8), (1, 12)):
        code, printed = start(ranks, "mpi_resume.py", str(tmp_path / "net.npz"), str(stop))
        assert code == 0, printed
        losses |= dict(re.findall(r"^step (\d+): (\S+)$", printed, re.MULTILINE))
    code, printed = start(3, "mpi_resume.py", str(tmp_path / "other.npz"), "12")
    assert code == 0, printed
    expected = dict(re.findall(r"^step (\d+): (\S+)$", printed, re.MULTILINE))
    assert losses.keys() == expected.keys() == {str(step) for step in range(12)}
    for step, loss in expected.items():
        assert float(losses[step]) == pytest.approx(float(loss), rel=1e-9)


def test_the_example_trains():
    code, printed = start(2, str(EXAMPLE))
    assert code == 0, printed
    right = re.search(r"([\d.]+)% of 256 new rows are right; ([\d.]+) MB sent", printed)
    assert float(right[1]) > 90
    assert float(right[2]) > 1
    losses = [float(loss) for loss in re.findall(r"step \d+: loss ([\d.]+) on 2 ranks", printed)]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
