"""fastdrop.dask.fit: errors and interrupts, and what a model is after them."""

import os
import signal
import threading
import time

import numpy
import pytest

import fastdrop

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
pytest.importorskip("sklearn")
from dask_common import LABELS, LAZY, ROWS, VALUES, X, classifier, regressor  # noqa: E402

import fastdrop.dask  # noqa: E402
from fastdrop.progress import Progress  # noqa: E402

pytestmark = pytest.mark.dask


def test_a_failing_block_is_named_and_the_model_is_as_it_was_before_it():
    def fail(block, block_info):
        if block_info[0]["chunk-location"][0] == 2:
            raise OSError("a disk is gone")
        return block

    model = classifier()
    with pytest.raises(OSError, match="a disk is gone") as caught:
        fastdrop.dask.fit(model, LAZY.map_blocks(fail, dtype=X.dtype), LABELS, shuffle_blocks=False)
    assert caught.value.__notes__ == ["in fastdrop.dask.fit, block 2 of the rows of X"]
    assert model.random_state == 0
    assert model.t_ == 500


def failing_from(number):
    """The rows, of which no more than so many blocks can be read."""
    count = iter(range(10**6))

    def fail(block):
        if next(count) >= number:
            raise OSError("a disk is gone")
        return block

    return LAZY.map_blocks(fail, dtype=X.dtype, meta=X[:0])


@pytest.mark.parametrize("kind", ["fitted", "unfitted", "warm start"])
@pytest.mark.parametrize("what", ["an error", "bad data", "an interrupt", "weights of 0"])
def test_a_model_that_learns_nothing_is_as_it_was(monkeypatch, kind, what):
    model = classifier(warm_start=kind == "warm start", max_iter=3)
    if kind != "unfitted":
        model.fit(X, LABELS)
    before, curve = dict(vars(model)), list(getattr(model, "loss_curve_", []))
    weights = [array.copy() for array in getattr(model, "coefs_", [])]
    lazy, options, error = LAZY, {"shuffle_blocks": False}, OSError
    if what == "an error":
        lazy = failing_from(0)
    elif what == "bad data":
        bad = X.copy()
        bad[3] = numpy.nan
        lazy, error = da.from_array(bad, chunks=LAZY.chunks), ValueError
    elif what == "weights of 0":
        options["sample_weight"], error = numpy.zeros(ROWS), ValueError
    else:

        def interrupted(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(type(model), "partial_fit", interrupted)
        error = KeyboardInterrupt
    with dask.config.set(scheduler="synchronous"), pytest.raises(error):
        fastdrop.dask.fit(model, lazy, LABELS, **options)
    spare = {"_spare"}  # of `partial_fit`, for the next one
    assert vars(model).keys() - spare == before.keys() - spare
    for name in before.keys() - spare:
        assert vars(model)[name] is before[name] or vars(model)[name] == before[name], name
    assert getattr(model, "loss_curve_", []) == curve
    if weights:
        assert all(map(numpy.array_equal, model.coefs_, weights))
        model.predict(X)


def test_after_an_error_a_fit_tells_of_whole_epochs():
    model = regressor()
    with dask.config.set(scheduler="synchronous"), pytest.raises(OSError, match="a disk is gone"):
        fastdrop.dask.fit(model, failing_from(7), VALUES, epochs=9, shuffle_blocks=False)
    assert (model.t_, model.n_iter_, len(model.loss_curve_)) == (2 * ROWS + 250, 2, 2)
    whole = fastdrop.dask.fit(regressor(), LAZY, VALUES, epochs=2, shuffle_blocks=False)
    assert model.loss_curve_ == whole.loss_curve_
    assert model.loss_ == model.loss_curve_[-1]


@pytest.mark.parametrize("where", ["a batch", "the end of the epoch"])
def test_an_interrupt_in_the_first_block(monkeypatch, where):
    kind, name, call = fastdrop.nn.Sequential, "forward", 2
    if where == "the end of the epoch":
        kind, name, call = Progress, "done", 0
    original, calls = getattr(kind, name), iter(range(100))

    def interrupted(self, *args, **kwargs):
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    model = classifier(batch_size=50)
    monkeypatch.setattr(kind, name, interrupted)
    with pytest.warns(UserWarning, match="The model keeps what it has learnt"):
        fastdrop.dask.fit(model, LAZY, LABELS, epochs=3, shuffle_blocks=False)
    monkeypatch.undo()
    assert (model.n_iter_, model.loss_curve_) == (0, [])
    assert model.t_ == (250 if where == "the end of the epoch" else 0)
    assert model.predict(X).shape == (ROWS,)


def interrupt_when(condition):
    """Send this process an interrupt as soon as a condition holds."""

    def wait():
        while not condition():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("where", ["training", "reading"])
def test_an_interrupt_keeps_the_model(where):
    model, begun = classifier(batch_size=1), threading.Event()

    def slow(block, block_info):
        if where == "reading" and block_info[0]["chunk-location"][0] == 2:
            begun.set()
            time.sleep(1)
        return block

    condition = begun.is_set if where == "reading" else lambda: getattr(model, "t_", 0) >= 500
    thread = interrupt_when(condition)
    lazy = LAZY.map_blocks(slow, dtype=X.dtype, meta=X[:0])
    with pytest.warns(UserWarning, match="The model keeps what it has learnt") as caught:
        fastdrop.dask.fit(model, lazy, LABELS, epochs=1000, shuffle_blocks=False)
    thread.join()
    told = [one for one in caught if "interrupted" in str(one.message)]
    assert len(told) == 1
    assert model.random_state == 0
    assert model.n_iter_ == len(model.loss_curve_) < 1000
    assert model.predict(X).shape == (ROWS,)


def test_an_interrupt_before_anything_is_learnt():
    begun = threading.Event()

    def slow(block):
        begun.set()
        time.sleep(1)
        return block

    model = classifier()
    thread = interrupt_when(begun.is_set)
    with pytest.raises(KeyboardInterrupt):
        fastdrop.dask.fit(model, LAZY.map_blocks(slow, dtype=X.dtype, meta=X[:0]), LABELS)
    thread.join()
    assert model.random_state == 0
