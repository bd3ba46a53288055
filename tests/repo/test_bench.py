"""The benchmarks' harness, on contenders of known speed and a clock that they move themselves."""

import gc
import os

import numpy
import pytest
from bench_fakes import Clock, accept, case_of, worker

from bench import harness, report, verify
from bench.cases import Bar, Contender, Skipped
from bench.controls import Controls
from bench.harness import Settings, run_case
from bench.measured import Interval


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(harness, "time", clock)
    return clock


def run(case, threads=1, **effort):
    settings = Settings(**{"rounds": 6, "seconds": 1e9, **effort})
    with Controls() as controls:
        return run_case(case, threads, settings, controls)


# --- Timing ------------------------------------------------------------------------------------


def test_known_speeds_are_measured(clock):
    result = run(case_of(worker(clock, "fastdrop", 2e-5), worker(clock, "rival", 8e-5)))
    assert result.spread("fastdrop").median == pytest.approx(2e-5)
    assert result.interval("fastdrop", "rival").median == pytest.approx(0.25)
    assert result.interval("fastdrop", "fastdrop").median == pytest.approx(1)


def test_faster_work_is_measured_as_faster_on_the_real_clock():
    def work(name, n):
        array = numpy.ones(n)
        return Contender(name, lambda: array.sum() and "right", accept, calls="numpy.sum")

    result = run(case_of(work("fastdrop", 100), work("rival", 1_000_000)))
    assert result.interval("fastdrop", "rival").median < 1


@pytest.mark.parametrize("seconds", [3e-8, 1e-6, 7e-4, 0.02])
def test_calls_are_repeated_until_a_timing_is_long_enough(clock, seconds):
    result = run(case_of(worker(clock, "fastdrop", seconds)), timing=5e-4)
    repetitions = result.repetitions["fastdrop"]
    assert repetitions * seconds >= 5e-4 * (1 - 1e-9)
    assert repetitions == 1 or repetitions * seconds < 20 * 5e-4


def test_every_round_times_everybody_once_and_the_order_changes(clock):
    log = []
    names = ["fastdrop", "a", "b"]
    long = [worker(clock, name, 0.02, log=log) for name in names]
    result = run(case_of(*long), rounds=6, warm_up=0)
    assert {len(samples) for samples in result.samples.values()} == {6}
    timed = log[len(names) :]  # after the verification
    orders = [tuple(timed[i : i + 3]) for i in range(0, len(timed), 3)]
    assert all(sorted(order) == sorted(names) for order in orders)
    assert {order[0] for order in orders} == set(names)
    assert len(set(orders)) > 3


def test_time_runs_out_after_the_fewest_rounds(clock):
    result = run(case_of(worker(clock, "fastdrop", 1.0)), rounds=50, fewest_rounds=4, seconds=2)
    assert result.rounds == 4


def test_threads_of_one_contender_rest_before_the_next(clock):
    contender = worker(clock, "fastdrop", 1e-3)
    run(case_of(contender), threads=1)
    assert not clock.slept
    run(case_of(contender), threads=2, pause=0.004)
    assert set(clock.slept) == {0.004}


def test_garbage_collection_is_off_while_timing_and_on_again(clock):
    seen = []

    def look():
        seen.append(gc.isenabled())
        clock.now += 1.0
        return "right"

    run(case_of(Contender("fastdrop", look, accept, calls="fake.look")))
    assert not any(seen[1:])
    assert gc.isenabled()


def test_bytes_are_taken_as_returned():
    sizes = iter([100.0, 100.0, 300.0, 200.0])
    contender = Contender("fastdrop", lambda: next(sizes), lambda result: None, calls="fake.run")
    result = run(case_of(contender, unit="bytes"), rounds_of_bytes=3)
    assert result.samples["fastdrop"] == [100.0, 300.0, 200.0]


@pytest.mark.parametrize(
    ("values", "interval"),
    [
        ([3], (3, 3, 3, 0)),
        (range(5), (0, 2, 4, 0.9375)),
        (range(6), (0, 2.5, 5, 0.96875)),
        ([8, 1, 7, 2, 6, 3, 5, 4, 0], (1, 4, 7, 0.9609375)),
        (range(25), (7, 12, 17, 0.9567)),
    ],
)
def test_the_interval_of_a_median_is_that_of_the_sign_test(values, interval):
    found = Interval.of(values)
    assert (found.lower, found.median, found.upper) == interval[:3]
    assert found.level == pytest.approx(interval[3], abs=1e-4)


def test_intervals_cover_the_median_as_often_as_they_say():
    generator = numpy.random.default_rng(0)
    drawn = generator.exponential(size=(4000, 9))
    found = [Interval.of(values) for values in drawn]
    covered = numpy.mean([one.lower <= numpy.log(2) <= one.upper for one in found])
    assert covered == pytest.approx(found[0].level, abs=0.01)


def test_losses_are_told_as_plainly_as_wins(clock):
    faster, slower = worker(clock, "faster", 1e-3), worker(clock, "slower", 4e-3)
    result = run(case_of(worker(clock, "fastdrop", 2e-3), faster, slower))
    text = report.summary([result], [])
    assert "slower: task/1000, 1 thread: 2 times as long as faster (2 .. 2)" in text
    assert "slower (" not in text


# --- What cannot take part ---


def test_quick_runs_leave_out_what_compiles_long(clock):
    log = []
    compiled = worker(clock, "compiled", 1e-3, log=log, compiles=True)
    result = run(case_of(worker(clock, "fastdrop", 1e-3), compiled), patient=False)
    assert [one.name for one in result.skipped] == ["compiled"]
    assert log == []


def test_quick_runs_leave_out_what_takes_seconds(clock):
    slow = worker(clock, "slow", 2.0, slow=True)
    result = run(case_of(worker(clock, "fastdrop", 1e-3), slow), patient=False)
    (skipped,) = result.skipped
    assert skipped.reason == "quick runs do not wait for it to end"
    assert "slow" in run(case_of(worker(clock, "fastdrop", 1e-3), slow)).samples


def test_a_long_call_is_not_made_once_more_to_calibrate(clock):
    log = []
    run(case_of(worker(clock, "fastdrop", 1.0, log=log)), rounds=3, fewest_rounds=3)
    verified, warm_up, rounds = 1, 1, 3
    assert len(log) == verified + warm_up + rounds


def test_what_cannot_be_compiled_here_is_skipped(clock):
    def fails():
        raise RuntimeError("\nno compiler found")

    broken = Contender("compiled", fails, accept, calls="fake.run", compiles=True)
    result = run(case_of(worker(clock, "fastdrop", 1e-3), broken))
    assert [one.reason for one in result.skipped] == ["it is not compiled: no compiler found"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind")
def test_a_bound_contender_has_so_many_processors_and_gives_them_back():
    usual = os.sched_getaffinity(0)
    seen = {}

    def look(name):
        def run():
            seen[name] = len(os.sched_getaffinity(0))
            return "right"

        return run

    contenders = [
        Contender("fastdrop", look("fastdrop"), accept, calls="fake.look"),
        Contender("bound", look("bound"), accept, calls="fake.look", bound=True),
    ]
    run(case_of(*contenders), rounds=2, fewest_rounds=2)
    assert seen == {"fastdrop": len(usual), "bound": 1}
    assert os.sched_getaffinity(0) == usual


# --- Verification, interruption ----------------------------------------------------------------


def test_a_wrong_result_stops_the_case_before_anything_is_timed(clock):
    log = []
    wrong = worker(clock, "rival", 1e-3, log=log, result="left")
    with pytest.raises(verify.WrongResult, match="task/1000: rival is wrong: left is not right"):
        run(case_of(worker(clock, "fastdrop", 1e-3, log=log), wrong))
    assert log == ["fastdrop", "rival"]


def test_an_interrupted_case_keeps_its_complete_rounds(clock):
    calls = []

    def stops():
        calls.append(None)
        if len(calls) == 8:
            raise KeyboardInterrupt
        clock.now += 1.0
        return "right"

    rival = Contender("rival", stops, accept, calls="fake.stops")
    result = run(case_of(worker(clock, "fastdrop", 1.0), rival), rounds=50)
    assert result.interrupted
    assert {len(samples) for samples in result.samples.values()} == {result.rounds}
    assert 0 < result.rounds < 8
    assert "interrupted" in report.table(result)


def test_an_interruption_before_the_first_round_is_passed_on(clock):
    def stops():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(case_of(Contender("fastdrop", stops, accept, calls="fake.stops")))


def test_a_result_does_not_hold_on_to_the_data(clock):
    result = run(case_of(worker(clock, "fastdrop", 1e-3)))
    with pytest.raises(RuntimeError, match="data are gone"):
        result.contenders["fastdrop"].run()


def test_two_contenders_cannot_share_a_name(clock):
    with pytest.raises(ValueError, match="the same name"):
        run(case_of(worker(clock, "fastdrop", 1.0), worker(clock, "fastdrop", 1.0)))


def test_a_bar_must_name_somebody_who_takes_part(clock):
    with pytest.raises(ValueError, match="'nobody'"):
        run(case_of(worker(clock, "fastdrop", 1.0), bars=[Bar("nobody", at_most=1)]))


@pytest.mark.parametrize(("preempted", "told"), [(0, False), (1, False), (5, True), (None, False)])
def test_a_busy_machine_is_told(clock, preempted, told):
    result = run(case_of(worker(clock, "fastdrop", 1e-3)))
    result.preempted = preempted
    assert ("took a processor away 5 times" in report.table(result)) is told


# --- Bars --------------------------------------------------------------------------------------

RIVALS = {"slow": 8e-3, "slower": 16e-3}


@pytest.mark.parametrize(
    ("bar", "measured", "met"),
    [
        (Bar("slow", at_most=0.5, isa=None), 0.25, True),
        (Bar("slow", at_most=0.2, isa=None), 0.25, False),
        (Bar("slow", times_faster=3, isa=None), 4, True),
        (Bar("slow", times_faster=5, isa=None), 4, False),
        (Bar("slower", difference_at_most=-0.013, isa=None), -0.014, True),
        (Bar("slower", difference_at_most=-0.015, isa=None), -0.014, False),
        (Bar(at_most=3e-3, isa=None), 2e-3, True),
        (Bar(at_most=1e-3, isa=None), 2e-3, False),
        (Bar(("slower", "slow"), times_faster=5, isa=None), 4, False),
        (Bar(("slower", "missing"), times_faster=5, isa=None), 8, True),
        (Bar("slow", at_most=3, contender="slower", isa=None), 2, True),
    ],
)
def test_bars_are_judged(clock, bar, measured, met):
    rivals = [worker(clock, name, seconds) for name, seconds in RIVALS.items()]
    missing = Skipped("missing", "it is not installed")
    result = run(case_of(worker(clock, "fastdrop", 2e-3), *rivals, missing, bars=[bar]))
    (judged,) = result.judged()
    assert judged.measured == pytest.approx(measured)
    assert judged.met is met
    word = "met" if met else "MISSED"
    assert word in report.table(result)
    assert ("missed: task/1000" in report.summary([result], [])) is not met


def test_a_bar_for_another_instruction_set_or_a_missing_rival_is_not_judged(clock):
    missing = Skipped("missing", "it is not installed")
    bars = [Bar(at_most=1, isa="other"), Bar("missing", at_most=1, isa=None)]
    result = run(case_of(worker(clock, "fastdrop", 1e-3), missing, bars=bars))
    assert [judged.met for judged in result.judged()] == [None, None]
    text = report.table(result)
    assert "stated for other" in text
    assert "missing skipped" in text
    assert "skipped: missing: it is not installed" in text
    assert "0 of 0 bars met" in report.summary([result], [])


def test_a_bar_for_another_number_of_threads_is_left_out(clock):
    case = case_of(worker(clock, "fastdrop", 1e-3), bars=[Bar(at_most=1, isa=None, threads=2)])
    assert run(case, threads=1).judged() == []
    assert len(run(case, threads=2).judged()) == 1


@pytest.mark.parametrize(
    "limits", [{}, {"at_most": 1, "times_faster": 1}, {"rival": None, "times_faster": 2}]
)
def test_a_bar_has_one_limit(limits):
    with pytest.raises(ValueError, match="a bar"):
        Bar(**{"rival": "rival", **limits})


# --- Threads and instruction sets --------------------------------------------------------------


def test_everybody_gets_the_same_number_of_threads_and_it_is_put_back():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    import fastdrop

    def state():
        libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").info()
        return fastdrop.get_num_threads(), {library["num_threads"] for library in libraries}

    seen = {}

    def look(name):
        def run():
            seen[name] = state()
            return "right"

        return run

    before = state()
    contenders = [
        Contender("fastdrop", look("fastdrop"), accept, calls="fake.look"),
        Contender("alone", look("alone"), accept, calls="fake.look", threads=1),
    ]
    run(case_of(*contenders), threads=2, rounds=1, fewest_rounds=1)
    assert seen["alone"] == (1, {1})
    assert seen["fastdrop"] == (2, {2})
    assert state() == before


def test_a_contender_with_an_instruction_set_of_its_own():
    from fastdrop._backend import kernels

    used = kernels.build_info()["isa_used"]
    forced = kernels.build_info()["isa_available"][0]
    seen = []

    def look():
        seen.append(kernels.build_info()["isa_used"])
        return "right"

    contenders = [
        Contender("fastdrop", look, accept, calls="fake.look"),
        Contender("forced", look, accept, calls="fake.look", isa=forced),
        Contender("impossible", look, accept, calls="fake.look", isa="abacus"),
    ]
    result = run(case_of(*contenders), rounds=1, fewest_rounds=1)
    assert set(seen) == {used, forced}
    assert [one.name for one in result.skipped if one.name == "impossible"]
    assert kernels.build_info()["isa_used"] == used
