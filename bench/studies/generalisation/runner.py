"""Runs of the study, each done once: asked for in lists, done by several processes, stored."""

import dataclasses
import functools

from ...controls import Controls
from .data import load_digits, stratified
from .measuring import train
from .store import spec_of
from .training import Settings

__all__ = ["Request", "Runner", "split_of"]


@dataclasses.dataclass(frozen=True)
class Request:
    """A run and what it is run on.

    Parameters
    ----------
    settings : Settings
    held_out : str
        "validation": a fifth of the training examples is kept from the network, which is measured
        on it. "test": all of them train it, and it is measured on the test examples.
    examples : int
        Training examples, a fifth of which may be held out; fewer than there are in all are drawn
        by the run's seed, the same for every arm.
    """

    settings: Settings
    held_out: str
    examples: int

    @property
    def spec(self):
        """What the store knows the run by."""
        return spec_of(self.settings, held_out=self.held_out, examples=self.examples)


class Runner:
    """Gets results from the store, and from training where it has none.

    Parameters
    ----------
    store : Store
    workers : int
        Processes; each computes on one thread.
    load : callable, optional
        Returns the `Digits`; one that other processes can import if there are several.
    """

    def __init__(self, store, workers=1, load=load_digits):
        self._store, self._workers, self.load = store, workers, load

    def results(self, requests, label):
        """Return the results of these runs, in their order.

        Parameters
        ----------
        requests : iterable of Request
        label : str
            For the progress bar.

        Returns
        -------
        list of dict
            The fields of `Outcome`.
        """
        tasks = {}
        for request in requests:
            tasks[request] = (request.spec, _execute, (self.load, request))
        return self.done(list(tasks.values()), label, [request.spec for request in requests])

    def done(self, tasks, label, wanted=None):
        """Have tasks done whose spec the store does not know.

        Parameters
        ----------
        tasks : list of tuple
            Spec, function, arguments; the function returns what JSON can hold.
        label : str
            For the progress bar.
        wanted : list of dict, optional
            Specs in the order of the results; those of the tasks unless given.

        Returns
        -------
        list
        """
        import joblib
        from tqdm import tqdm

        open_tasks = [task for task in tasks if self._store.get(task[0]) is None]
        with tqdm(total=len(tasks), initial=len(tasks) - len(open_tasks), desc=label) as bar:
            parallel = joblib.Parallel(
                n_jobs=self._workers, batch_size=1, return_as="generator_unordered"
            )
            for spec, result in parallel(joblib.delayed(_alone)(*task) for task in open_tasks):
                self._store.add(spec, result)
                bar.update()
        return [self._store.get(spec) for spec in wanted or [task[0] for task in tasks]]


def _alone(spec, function, arguments):
    """Do one task on one thread."""
    with Controls() as controls:
        controls.refresh()
        controls.apply(threads=1)
        return spec, function(*arguments)


@functools.cache
def _digits(load):
    return load()


def split_of(load, settings, held_out, examples):
    """Return the examples that a run trains on, and those it is measured on.

    Parameters
    ----------
    load : callable
        Returns the `Digits`.
    settings : Settings
    held_out, examples
        As for `Request`.

    Returns
    -------
    training, held_out : Examples
    """
    digits = _digits(load)
    training = digits.training
    if examples < len(training):
        _, training = stratified(training, examples, settings.seed)
    if held_out == "validation":
        return stratified(training, len(training) // 5, settings.seed)
    if held_out == "test":
        return training, digits.test
    raise ValueError(f"held_out must be validation or test, got {held_out!r}")


def _execute(load, request):
    """Train and measure what a request asks for."""
    training, held_out = split_of(load, request.settings, request.held_out, request.examples)
    curve = request.held_out == "validation"
    return dataclasses.asdict(train(request.settings, training, held_out, curve=curve))
