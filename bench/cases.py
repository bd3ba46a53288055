"""What a benchmark is: a case, its contenders, and the bars it has to meet."""

import dataclasses
import functools
import importlib
import math
import pathlib
import pkgutil
from collections.abc import Callable, Sequence

__all__ = ["RATES", "SEED", "Bar", "Case", "Contender", "Skipped", "families", "needs", "select"]

# Rates and seed that the families share.
RATES = (0.5, 0.2, 0.1)
SEED = 0


@dataclasses.dataclass(frozen=True)
class Bar:
    """A limit that a contender's time (or memory) has to keep.

    Exactly one of the three limits is given.

    Parameters
    ----------
    rival : str, tuple of str or None
        Whom the contender is compared with. Of several, the fastest that is installed. None
        compares with nobody: `at_most` is then a value in the case's unit.
    at_most : float, optional
        Largest allowed ratio contender / rival.
    times_faster : float, optional
        Smallest allowed ratio rival / contender.
    difference_at_most : float, optional
        Largest allowed difference contender - rival, in the case's unit.
    contender : str
        Whose bar it is.
    threads : int, optional
        The only number of threads at which the bar is judged.
    isa : str or None
        The instruction set for which the bar is stated, judged on no other. None: on every one.
    """

    rival: str | tuple[str, ...] | None = None
    at_most: float | None = None
    times_faster: float | None = None
    difference_at_most: float | None = None
    contender: str = "fastdrop"
    threads: int | None = None
    isa: str | None = "avx512"

    def __post_init__(self):
        limits = (self.at_most, self.times_faster, self.difference_at_most)
        if sum(limit is not None for limit in limits) != 1:
            raise ValueError(
                "a bar has exactly one of at_most, times_faster and difference_at_most"
            )
        if self.rival is None and self.at_most is None:
            raise ValueError("a bar without a rival has at_most, a value in the case's unit")

    @property
    def rivals(self) -> tuple[str, ...]:
        """The names of the rivals, none, one or several."""
        if self.rival is None:
            return ()
        return (self.rival,) if isinstance(self.rival, str) else tuple(self.rival)

    @property
    def limit(self) -> float:
        """The number the measured one is compared with."""
        limits = (self.at_most, self.times_faster, self.difference_at_most)
        return next(limit for limit in limits if limit is not None)

    def met_by(self, measured: float) -> bool:
        """Whether a measured ratio, difference or value keeps the limit."""
        return measured >= self.limit if self.times_faster is not None else measured <= self.limit


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way of doing the work of a case.

    Parameters
    ----------
    name : str
        How the table calls it; fastdrop's own are ``"fastdrop"`` or begin with ``"fastdrop, "``.
    run : callable
        Does the work once and returns its result. In a case measured in bytes it returns the
        number of bytes.
    check : callable
        Takes a result of `run` and raises `verify.WrongResult` if it is wrong. It is called
        before the timing, at once after the one `run` that it judges.
    calls : str
        Dotted name of the function that `run` calls and the benchmark is about, as in
        ``"fastdrop.dropout"``. A test holds `run` to it.
    threads : int, optional
        Number of threads, where it is not the run's.
    isa : str, optional
        Instruction set to force upon fastdrop, where it is not the run's.
    note : str
        What a reader of the numbers has to know about it.
    bound : bool
        Whether its threads can be limited only by binding the process to so many processors.
    compiles : bool
        Whether its first run takes many seconds to compile it; quick runs leave it out.
    slow : bool
        Whether every run takes seconds; quick runs leave it out.
    """

    name: str
    run: Callable[[], object]
    check: Callable[[object], None]
    calls: str
    threads: int | None = None
    isa: str | None = None
    note: str = ""
    bound: bool = False
    compiles: bool = False
    slow: bool = False


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A contender that cannot take part here, and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Case:
    """A piece of work at one size, timed for all its contenders in turn.

    Parameters
    ----------
    work : str
        What is done, the words separated by slashes: ``"forward-out/0.5"``.
    size : int or tuple of int
        Passed to `build`, and the end of the case's name.
    build : callable
        Makes the data for a size and returns the contenders, fastdrop's first. Nothing heavy is
        imported before it is called.
    calls : str
        Dotted name of the fastdrop function that the case is about.
    bars : sequence of Bar
    threads : tuple of int, optional
        The only numbers of threads at which the case is run.
    usual_threads : tuple of int, optional
        The numbers of threads of a run that chooses none; those of the command line if not given.
    unit : {"seconds", "bytes"}
        What is measured: the time `run` takes, or the number it returns.
    reducible : bool
        Whether a quick run may lower the size. A reduced case is named after its lower size and
        has no bars, since they are stated for the full one.
    extended : bool
        Whether it is left out of a run that names neither it nor ``--all``.
    slow : bool
        Whether it is left out of a quick run that does not name it.
    family : str
        Name of the module without ``bench_``, filled in by `families`.
    """

    work: str
    size: int | tuple[int, ...]
    build: Callable[[object], Sequence[Contender | Skipped]]
    calls: str
    bars: Sequence[Bar] = ()
    threads: tuple[int, ...] | None = None
    usual_threads: tuple[int, ...] | None = None
    unit: str = "seconds"
    reducible: bool = True
    extended: bool = False
    slow: bool = False
    family: str = ""

    @property
    def name(self) -> str:
        """Family, work and size: ``dropout/forward-out/0.5/2^26``."""
        return "/".join(filter(None, (self.family, self.work, label_size(self.size))))

    def reduced(self, largest: int) -> "Case":
        """Return the case with arrays of at most `largest` elements, without bars if that is less.

        The arrays of a product or a network are as large as two neighbouring axes.
        """
        if not self.reducible:
            return self
        if isinstance(self.size, tuple):
            per_axis = max(1, math.isqrt(largest))
            size = tuple(min(axis, per_axis) for axis in self.size)
        else:
            size = min(self.size, largest)
        return self if size == self.size else dataclasses.replace(self, size=size, bars=())


def label_size(size) -> str:
    """Return a size as text: ``2^20``, ``1000``, ``128x1024``, and nothing for size 0."""
    if isinstance(size, tuple):
        return "x".join(str(axis) for axis in size)
    if size >= 1024 and size & (size - 1) == 0:
        return f"2^{size.bit_length() - 1}"
    return str(size) if size else ""


def needs(module: str, name: str):
    """Decorate a function that returns a contender so that it returns `Skipped` without `module`.

    The contender is left out where the module is missing or cannot be imported.
    """

    def decorate(make):
        @functools.wraps(make)
        def make_if_installed(*args, **kwargs):
            try:
                importlib.import_module(module)
            except ImportError as error:
                missing = isinstance(error, ModuleNotFoundError) and error.name == module
                reason = "is not installed" if missing else f"cannot be imported: {error}"
                return Skipped(name, f"{module} {reason}")
            return make(*args, **kwargs)

        return make_if_installed

    return decorate


def families() -> dict[str, list[Case]]:
    """Return the cases of every ``bench_<family>.py`` beside this module."""
    found = {}
    for module in pkgutil.iter_modules([str(pathlib.Path(__file__).parent)]):
        if module.name.startswith("bench_"):
            family = module.name.removeprefix("bench_")
            cases = importlib.import_module(f"{__package__}.{module.name}").CASES
            found[family] = [dataclasses.replace(case, family=family) for case in cases]
    return found


def select(
    found: dict[str, list[Case]], names: Sequence[str], everything: bool = False
) -> list[Case]:
    """Return the cases chosen by family name or by a part of their own name, all without names.

    Extended cases are chosen by a part of their name, by that of a family which has no others, or
    with `everything`.

    Raises
    ------
    ValueError
        If a name chooses nothing.
    """
    cases = [case for several in found.values() for case in several]
    if not names:
        return [case for case in cases if everything or not case.extended]
    chosen = set()
    for name in names:
        if name in found and not found[name]:
            raise ValueError(f"{name} has no cases here: a package that it needs is not installed")
        of_family = found.get(name, [])
        some = [case for case in of_family if everything or not case.extended] or of_family
        hits = [case.name for case in some or cases if some or name in case.name]
        if not hits:
            raise ValueError(
                f"no family and no case is called {name!r}; the families are {', '.join(found)}"
            )
        chosen.update(hits)
    return [case for case in cases if case.name in chosen]
