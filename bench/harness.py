"""Interleaved timing: every round times each contender once, in a rotated order.

Machines drift, and shared ones more: times taken minutes apart do not compare. So all contenders
of a case are timed within each round, a round's ratios are formed from that round's times, and
what is reported is the median of the ratios over the rounds, with their quartiles.
"""

import dataclasses
import gc
import itertools
import math
import time

try:
    import resource
except ImportError:  # Windows
    resource = None

from .cases import Contender, Skipped
from .controls import used_isa
from .measured import Result
from .verify import WrongResult

__all__ = ["Settings", "run_case"]

# A contender is called untimed for this long, and so often, before each timing, so that caches
# hold its own data and its threads are awake, as in the loop that a user's calls stand in. Once is
# not enough: a last-level cache may keep only what was asked for several times, and Intel's was
# seen to take four calls.
PRIMING = 2e-3
PRIMING_CALLS = 4
# A call that takes longer than this is timed without: it sees little of what was there before.
PRIMED_BELOW = 10e-3


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much effort a run takes.

    Parameters
    ----------
    rounds, fewest_rounds : int
        Rounds per case, and how many there are at least when the time is up.
    rounds_of_bytes : int
        Rounds of a case measured in bytes, which jitter less than times.
    seconds : float
        Time for each contender of a case, beyond whose sum no further round is begun.
    timing : float
        Seconds that one timing takes at least; calls are repeated to reach it.
    warm_up : int
        Rounds that are thrown away.
    pause : float
        Seconds between contenders that use several threads. The idle threads of the previous
        contender's pool spin for a while (OpenBLAS: 0.1 s) and would take a core from the next one.
    largest : int, optional
        Cases of more elements are reduced to this many.
    patient : bool
        Whether contenders take part that are compiled for many seconds, or run for seconds.
    """

    rounds: int = 25
    fewest_rounds: int = 6
    rounds_of_bytes: int = 3
    seconds: float = 0.5
    timing: float = 5e-4
    warm_up: int = 1
    pause: float = 0.12
    largest: int | None = None
    patient: bool = True

    @classmethod
    def quick(cls) -> "Settings":
        """Return settings for a first look: fewer rounds, and nothing larger than 2^20."""
        return cls(
            rounds=7,
            fewest_rounds=3,
            rounds_of_bytes=1,
            seconds=0.1,
            timing=2e-4,
            largest=1 << 20,
            patient=False,
        )


def run_case(case, threads, settings, controls):
    """Verify a case's contenders, and time them.

    Parameters
    ----------
    case : Case
    threads : int
    settings : Settings
    controls : controls.Controls

    Returns
    -------
    Result

    Raises
    ------
    verify.WrongResult
        If a contender computes something else; nothing is timed then.
    ValueError
        If two contenders have one name, or a bar names somebody who does not take part.
    KeyboardInterrupt
        If the user stops the run before the first round is complete; later, the result holds the
        rounds until then.
    """
    controls.bind(None)
    made = list(case.build(case.size))
    controls.refresh()
    skipped = [one for one in made if isinstance(one, Skipped)]
    contenders = [one for one in made if isinstance(one, Contender)]
    _check_names(case, made)
    runnable, isa = [], {}
    for contender in contenders:
        if (contender.compiles or contender.slow) and not settings.patient:
            wait = "to be compiled" if contender.compiles else "to end"
            skipped.append(Skipped(contender.name, f"quick runs do not wait for it {wait}"))
            continue
        try:
            _prepare(contender, threads, controls)
        except ValueError as error:
            if contender.isa is None and not contender.bound:
                raise
            skipped.append(Skipped(contender.name, str(error)))
            continue
        if contender.compiles and (reason := _compiled(contender)):
            skipped.append(Skipped(contender.name, reason))
            continue
        runnable.append(contender)
        isa[contender.name] = used_isa() if contender.calls.startswith("fastdrop") else None
        _verify(case, contender)

    result = Result(
        case=case,
        threads=threads,
        samples={contender.name: [] for contender in runnable},
        repetitions={contender.name: 1 for contender in runnable},
        # Without what they hold on to: results are kept until the end, and arrays are large.
        contenders={
            contender.name: dataclasses.replace(contender, run=_gone, check=_gone)
            for contender in runnable
        },
        isa=isa,
        skipped=skipped,
    )
    if case.unit == "bytes":
        settings = dataclasses.replace(settings, rounds=settings.rounds_of_bytes, warm_up=0)
        measure = _count
    else:
        measure = _Timer(threads, settings, result.repetitions)
    if runnable:
        before = _preemptions()
        _run_rounds(result, runnable, settings, controls, measure)
        result.preempted = None if before is None else _preemptions() - before
    return result


def _preemptions():
    """How often this thread lost its processor; of all threads, where the system tells no more."""
    if resource is None:
        return None
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nivcsw


def _run_rounds(result, contenders, settings, controls, measure):
    collecting = gc.isenabled()
    gc.disable()
    try:
        began = None
        seconds = settings.seconds * len(contenders)
        for number in range(-settings.warm_up, settings.rounds):
            if number == 0:
                began = time.perf_counter()
            late = number >= settings.fewest_rounds
            if late and time.perf_counter() - began > seconds:
                break
            samples = {}
            for contender in _rotated(contenders, number):
                _prepare(contender, result.threads, controls)
                samples[contender.name] = measure(contender)
            if number >= 0:
                for name, sample in samples.items():
                    result.samples[name].append(sample)
            # Between the rounds, so that no contender pays for another's garbage.
            gc.collect(0)
    except KeyboardInterrupt:
        if not result.rounds:
            raise
        result.interrupted = True
        complete = min(len(samples) for samples in result.samples.values())
        for samples in result.samples.values():
            del samples[complete:]
    finally:
        if collecting:
            gc.enable()


def _rotated(contenders, number):
    """Return the order of a round: it begins one further each time, and runs to and fro."""
    first = number % len(contenders)
    order = contenders[first:] + contenders[:first]
    return order if number % 2 == 0 else order[::-1]


def _prepare(contender, threads, controls):
    controls.apply(contender.threads or threads, contender.isa, contender.bound)


def _compiled(contender):
    """Run a contender that compiles itself once; return why it cannot, as without a compiler."""
    try:
        contender.run()
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line]
        return f"it is not compiled: {lines[0] if lines else type(error).__name__}"
    return None


def _check_names(case, made):
    names = [one.name for one in made]
    if len(set(names)) != len(names):
        raise ValueError(f"{case.name}: two contenders have the same name")
    for bar in case.bars:
        for name in (bar.contender, *bar.rivals):
            if name not in names:
                raise ValueError(f"{case.name}: a bar names {name!r}, who does not take part")


def _verify(case, contender):
    try:
        contender.check(contender.run())
    except WrongResult as error:
        raise WrongResult(f"{case.name}: {contender.name} is wrong: {error}") from error


def _gone(*_):
    raise RuntimeError("the case is over, and its data are gone")


def _count(contender):
    return float(contender.run())


class _Timer:
    """Time a contender's call, repeated often enough for the clock."""

    def __init__(self, threads, settings, repetitions):
        self._settings = settings
        self._pause = settings.pause if threads > 1 else 0.0
        self._repetitions = repetitions
        self._priming = {}

    def __call__(self, contender):
        if contender.name not in self._priming:
            taken = self._calibrate(contender)
            if not self._priming[contender.name]:
                return taken  # a long call, timed just now
        if self._pause:
            time.sleep(self._pause)
        _seconds(contender.run, self._priming[contender.name])
        return _seconds(contender.run, self._repetitions[contender.name])

    def _calibrate(self, contender):
        """Choose the number of calls per timing, from ever longer trials; return the last one's."""
        repetitions, target = 1, self._settings.timing
        taken = _seconds(contender.run, 1)
        while taken * repetitions < target:
            # At most ten times more at a time: a first short trial says little.
            wanted = math.ceil(target / max(taken, 1e-9))
            repetitions = min(max(wanted, repetitions + 1), 10 * repetitions)
            taken = _seconds(contender.run, repetitions)
        self._repetitions[contender.name] = repetitions
        calls = max(math.ceil(PRIMING / taken) if taken > 0 else 1, PRIMING_CALLS)
        self._priming[contender.name] = calls if taken < PRIMED_BELOW else 0
        return taken


def _seconds(run, repetitions):
    """Return the seconds per call of `repetitions` calls; of none 0."""
    begin = time.perf_counter()
    for _ in itertools.repeat(None, repetitions):
        run()
    return (time.perf_counter() - begin) / max(repetitions, 1)
