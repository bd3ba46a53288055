"""Monte Carlo dropout without a random_state: the operating system decides, in every process."""

import os

import numpy
import pytest

pytest.importorskip("sklearn", reason="the estimators need the extra 'sklearn'")

from fastdrop import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def in_forked_children(function, children):
    """What a function returns in as many forked processes, bytes of one length."""
    found = []
    for _ in range(children):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writing, function())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            found.append(pipe.read())
        os.waitpid(child, 0)
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("kind", [MLPRegressor, MLPClassifier])
def test_forked_processes_do_not_repeat_masks(kind):
    """A server that loads the model before it forks: each worker samples for itself."""
    x = numpy.linspace(-1, 1, 40).reshape(-1, 1)
    model = kind(hidden_layer_sizes=(16,), dropout=0.5, max_iter=3, random_state=0)
    model.fit(x, (x.ravel() > 0).astype(int))
    model.predict_samples(x[:3], n_samples=2)  # the parent has sampled already

    def answer():
        return model.predict_samples(x[:3], n_samples=4).tobytes()

    found = in_forked_children(answer, 12)
    assert all(found)
    assert len(set(found)) == 12
    assert answer() not in found
    assert answer() != answer()


def test_numpys_global_state_decides_no_masks():
    x = numpy.linspace(-1, 1, 40).reshape(-1, 1)
    model = MLPRegressor(hidden_layer_sizes=(16,), dropout=0.5, max_iter=20, random_state=0)
    model.fit(x, x.ravel())
    found, left = [], []
    for _ in range(2):
        numpy.random.seed(0)  # noqa: NPY002
        found.append(model.predict_samples(x, n_samples=3).tobytes())
        left.append(numpy.random.random())  # noqa: NPY002
    assert found[0] != found[1]
    assert (
        left[0] == left[1] == numpy.random.RandomState(0).random()
    )  # and nothing is taken from it
    again = [model.predict_samples(x, n_samples=3, random_state=5).tobytes() for _ in range(2)]
    assert again[0] == again[1]
