"""The benchmarks' command line: choice of cases, exit status, JSON, warnings."""

import dataclasses
import datetime
import json

import numpy
import pytest
from bench_fakes import Clock, accept, case_of, worker

from bench import __main__ as command
from bench import cases, environment, harness
from bench.cases import Bar, Case, Contender, Skipped


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(harness, "time", clock)
    return clock


# --- Choice of cases ---------------------------------------------------------------------------


def test_selection_by_family_and_by_part_of_a_name():
    def make(family, work):
        return Case(work, 1024, lambda size: [], calls="fake.run", family=family)

    found = {
        "dropout": [make("dropout", "forward"), make("dropout", "backward")],
        "step": [make("step", "dropout-net")],
    }

    def names(*chosen):
        return [case.name for case in cases.select(found, chosen)]

    assert names() == ["dropout/forward/2^10", "dropout/backward/2^10", "step/dropout-net/2^10"]
    assert names("dropout") == ["dropout/forward/2^10", "dropout/backward/2^10"]
    assert names("forward", "net") == ["dropout/forward/2^10", "step/dropout-net/2^10"]
    with pytest.raises(ValueError, match="'nothing'"):
        names("nothing")


@pytest.mark.parametrize(
    ("size", "largest", "label"),
    [
        (1 << 20, 1 << 12, "2^12"),
        (1000, 1 << 12, "1000"),
        ((128, 1024), 1 << 12, "64x64"),
        ((128, 1024, 1024), 1 << 20, "128x1024x1024"),
        ((8, 1024), 1 << 12, "8x64"),
    ],
)
def test_reduced_cases_are_named_after_their_size_and_have_no_bars(size, largest, label):
    case = Case("task", size, lambda size: [], calls="fake.run", bars=[Bar(at_most=1)])
    small = case.reduced(largest)
    assert small.name == f"task/{label}"
    assert bool(small.bars) is (small.size == size)


def test_a_reduced_case_that_exists_already_is_left_out():
    several = [Case("task", 1 << k, lambda size: [], calls="fake.run") for k in (10, 12, 14, 16)]
    assert [case.name for case in command.reduce(several, 1 << 12)] == ["task/2^10", "task/2^12"]
    assert [case.name for case in command.reduce(several[2:], 1 << 12)] == ["task/2^12"]


def test_a_missing_package_is_a_skipped_contender():
    @cases.needs("no_such_package", "rival")
    def make():
        raise AssertionError

    assert make() == Skipped("rival", "no_such_package is not installed")


# --- Command line ------------------------------------------------------------------------------


@pytest.fixture
def fake_families(monkeypatch, clock):
    """Let the command line run two fake cases, and return them."""
    good = worker(clock, "fastdrop", 1e-3), worker(clock, "rival", 2e-3)
    bad = worker(clock, "fastdrop", 1e-3, result="wrong")
    found = {
        "good": [case_of(*good, bars=[Bar("rival", at_most=0.1, isa=None)], family="good")],
        "bad": [case_of(bad, family="bad")],
    }
    monkeypatch.setattr(command, "families", lambda: found)
    return found


def test_the_command_prints_a_table_and_writes_json(fake_families, capsys, tmp_path):
    path = tmp_path / "results.json"
    assert command.main(["good", "--quick", "--threads", "1", "--json", str(path)]) == 0
    text = capsys.readouterr().out
    assert "good/task/1000" in text
    assert "<= 0.1 x rival: 0.5, MISSED" in text
    assert "0 of 1 bars met" in text
    document = json.loads(path.read_text())
    (result,) = document["results"]
    assert [contender["name"] for contender in result["contenders"]] == ["fastdrop", "rival"]
    assert result["contenders"][1]["ratio"]["fastdrop"][1] == pytest.approx(0.5)
    assert result["bars"][0]["met"] is False
    (made,) = document["runs"]
    assert made["environment"]["packages"]["numpy"] == numpy.__version__
    assert made["command"] == "python -m bench good --quick --threads 1 --json FILE"
    assert made["date"] == datetime.date.today().isoformat()


def names_in(path):
    return sorted(one["name"] for one in json.loads(path.read_text())["results"])


def test_later_runs_add_to_a_file_and_take_the_place_of_earlier_results(fake_families, tmp_path):
    path = tmp_path / "results.json"
    fake_families["bad"] = [case_of(*fake_families["good"][0].build(0), family="other")]
    arguments = ["--quick", "--threads", "1", "--json", str(path)]
    command.main(["good", *arguments])
    command.main(["bad", *arguments, "--append", "--label", "this machine"])
    assert names_in(path) == ["good/task/1000", "other/task/1000"]
    document = json.loads(path.read_text())
    assert document["machine"]["label"] == "this machine"
    assert [one["run"] for one in document["results"]] == [0, 1]
    command.main(["good", "bad", *arguments, "--append"])
    assert names_in(path) == ["good/task/1000", "other/task/1000"]
    assert len(json.loads(path.read_text())["runs"]) == 1
    command.main(["good", *arguments])
    assert names_in(path) == ["good/task/1000"]


def test_resume_measures_what_the_file_lacks(fake_families, tmp_path, capsys):
    path = tmp_path / "results.json"
    arguments = ["--quick", "--threads", "1", "--json", str(path)]
    command.main(["good", *arguments])
    capsys.readouterr()
    fake_families["bad"] = [case_of(*fake_families["good"][0].build(0), family="other")]
    command.main(["good", "bad", *arguments, "--resume"])
    text = capsys.readouterr().out
    assert "other/task/1000" in text
    assert "good/task/1000" not in text
    assert names_in(path) == ["good/task/1000", "other/task/1000"]


def test_a_run_in_pieces(fake_families, clock, tmp_path, capsys):
    path = tmp_path / "results.json"
    good = fake_families["good"][0].build(0)
    fake_families["good"] = [case_of(*good, family=name) for name in ("one", "two", "three")]
    arguments = ["good", "--quick", "--threads", "1", "--json", str(path), "--resume"]
    assert command.main([*arguments, "--stop-after", "0"]) == command.UNFINISHED
    assert "2 are left" in capsys.readouterr().out
    assert names_in(path) == ["one/task/1000"]
    assert command.main([*arguments, "--stop-after", "1e9"]) == 0
    assert "are left" not in capsys.readouterr().out
    assert names_in(path) == ["one/task/1000", "three/task/1000", "two/task/1000"]
    assert command.main([*arguments, "--stop-after", "0"]) == 0


def test_quick_runs_leave_out_slow_cases_that_are_not_named(fake_families, tmp_path):
    path = tmp_path / "results.json"
    (good,) = fake_families["good"]
    fake_families["bad"] = [dataclasses.replace(good, family="slow", slow=True)]
    arguments = ["--threads", "1", "--json", str(path)]
    command.main([*arguments, "--quick"])
    assert names_in(path) == ["good/task/1000"]
    command.main([*arguments, "--quick", "slow"])
    assert names_in(path) == ["slow/task/1000"]
    command.main(arguments)
    assert names_in(path) == ["good/task/1000", "slow/task/1000"]


def test_failures_are_kept_in_the_file(fake_families, tmp_path):
    path = tmp_path / "results.json"
    assert command.main(["bad", "--quick", "--threads", "1", "--json", str(path)]) == 1
    (failure,) = json.loads(path.read_text())["runs"][0]["failures"]
    assert "bad/task/1000: fastdrop is wrong" in failure


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "is no file of benchmark results in format 1"),
        (
            '{"format": 1, "machine": {"label": "x", "cpu": "abacus", "cpus": 3}, "results": []}',
            "is of abacus with 3 usable processors, this is",
        ),
    ],
)
def test_only_results_of_this_machine_are_added_to(
    fake_families, tmp_path, capsys, content, message
):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(SystemExit):
        command.main(["good", "--quick", "--json", str(path), "--append"])
    assert message in capsys.readouterr().err
    assert path.read_text() == content


def test_adding_needs_a_file(fake_families, capsys):
    with pytest.raises(SystemExit):
        command.main(["good", "--append"])
    assert "--append and --resume need --json FILE" in capsys.readouterr().err


def test_extended_cases_run_when_they_are_named_or_all():
    def make(work, extended=False, family="family"):
        return Case(work, 1, lambda size: [], "fake.run", extended=extended, family=family)

    only = [make("only", True, "other")]
    found = {"family": [make("usual"), make("rare", True)], "other": only}

    def names(*chosen, **options):
        return [case.work for case in cases.select(found, chosen, **options)]

    assert names() == ["usual"]
    assert names("family") == ["usual"]
    assert names("rare") == ["rare"]
    assert names("other") == ["only"]
    assert names(everything=True) == ["usual", "rare", "only"]
    assert names("family", everything=True) == ["usual", "rare"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["good"], 0), (["good", "--check"], 1), (["bad"], 1), (["good", "bad"], 1)],
)
def test_exit_status(fake_families, capsys, arguments, status):
    assert command.main([*arguments, "--quick", "--threads", "1"]) == status
    if "bad" in arguments:
        captured = capsys.readouterr()
        assert "WRONG RESULT, not timed: bad/task/1000: fastdrop is wrong" in captured.err
        assert "FAILED: WRONG RESULT" in captured.out


def test_list_names_cases_and_bars(fake_families, capsys):
    assert command.main(["--list"]) == 0
    text = capsys.readouterr().out
    assert text.split("\n")[:2] == ["good/task/1000", "    fastdrop <= 0.1 x rival"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["--threads", "0"],
        ["--threads", "many"],
        ["--seconds", "-1"],
        ["--seconds", "nan"],
        ["--isa", "abacus"],
    ],
)
def test_wrong_arguments_are_told(fake_families, capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


def test_ctrl_c_prints_what_there_is(fake_families, clock, monkeypatch, capsys):
    def stops():
        raise KeyboardInterrupt

    stopping = Contender("fastdrop", stops, accept, calls="fake.stops")
    fake_families["stop"] = [case_of(stopping, family="stop")]
    assert command.main(["good", "stop", "--quick", "--threads", "1"]) == 130
    text = capsys.readouterr().out
    assert "good/task/1000" in text
    assert "interrupted; so far:" in text
    assert "0 of 1 bars met" in text


def test_ctrl_c_leaves_what_there_is_in_the_file(fake_families, tmp_path):
    def stops():
        raise KeyboardInterrupt

    path = tmp_path / "results.json"
    stopping = Contender("fastdrop", stops, accept, calls="fake.stops")
    fake_families["stop"] = [case_of(stopping, family="stop")]
    arguments = ["good", "stop", "--quick", "--threads", "1", "--json", str(path)]
    assert command.main(arguments) == 130
    assert names_in(path) == ["good/task/1000"]


def test_variables_that_bind_openblas_are_warned_about(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    facts = environment.describe()
    assert any("OPENBLAS_CORETYPE" in warning for warning in environment.warnings(facts))
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    facts = environment.describe()
    assert not any("OPENBLAS" in warning for warning in environment.warnings(facts))
    assert all(environment.lines(facts))
