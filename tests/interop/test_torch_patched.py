"""fastdrop.torch.patched: what it replaces, and that what was there comes back."""

import functools
import unittest.mock

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch_cases import outcome  # noqa: E402

import fastdrop.torch as ft  # noqa: E402

pytestmark = pytest.mark.torch
NAMES = [name for name in ft.__all__ if name in F.__dict__]
THEIRS = {name: getattr(F, name) for name in NAMES}


def is_ours(function=None):
    """Whether a dropout function, that of torch.nn.functional now, is fastdrop's: NaN becomes 0."""
    return not (function or F.dropout)(torch.full((200,), float("nan")), 0.5, True).isnan().all()


def are_theirs():
    return all(getattr(F, name) is theirs for name, theirs in THEIRS.items())


def test_patched():
    assert {"dropout", "dropout2d", "scaled_dot_product_attention"} <= set(NAMES)
    assert not is_ours()
    with ft.patched() as outer:
        assert is_ours()
        assert not any(getattr(F, name) is theirs for name, theirs in THEIRS.items())
        always = ft.patched()
        with ft.patched():
            pass
        assert is_ours()
        assert "on" in repr(outer)
        assert F.dropout.__name__ == "dropout"
    assert is_ours()
    always.close()
    always.close()
    assert are_theirs()


def test_torch_dropout():
    theirs = torch.dropout
    x = torch.full((200,), float("nan"))
    with ft.patched():
        assert is_ours(torch.dropout)
        assert torch.dropout(input=x, p=0.5, train=False) is x
        for arguments in [(x, 1.5, True), (x, "a", True), ([1.0], 0.5, True), (x, -1, False)]:
            assert outcome(torch.dropout, *arguments) == outcome(theirs, *arguments)
    assert torch.dropout is theirs


def test_a_function_of_somebody_elses_that_was_there_comes_back():
    def own(*args, **kwargs):
        return THEIRS["dropout"](*args, **kwargs)

    with unittest.mock.patch.object(F, "dropout", own):
        with ft.patched():
            assert is_ours()
        assert F.dropout is own
    assert are_theirs()


def test_a_wrapper_put_around_fastdrops_stays_and_wraps_torchs_at_the_end(monkeypatch):
    monkeypatch.setattr(F, "dropout", F.dropout)  # puts torch's back, however this test ends
    with ft.patched():
        inner = F.dropout

        @functools.wraps(inner)
        def wrapper(*args, **kwargs):
            return inner(*args, **kwargs)

        F.dropout = wrapper
        assert is_ours()
        with ft.patched():
            assert is_ours()
    assert F.dropout is wrapper
    assert not is_ours()
    with ft.patched():
        assert is_ours()
    assert F.dropout is wrapper


def test_fastdrops_put_back_too_late_is_torchs(monkeypatch):
    """As unittest.mock does if it began while `patched` was on and ends after it."""
    monkeypatch.setattr(F, "dropout", F.dropout)
    mock = unittest.mock.patch.object(F, "dropout", return_value="mock")
    patch = ft.patched()
    mock.start()
    patch.close()
    assert F.dropout(torch.ones(3)) == "mock"
    mock.stop()
    assert not is_ours()
    with ft.patched():
        assert is_ours()
    assert not is_ours()


def test_compiled_code_follows():
    compiled = torch.compile(lambda x: F.dropout(x * 1, 0.5), backend="eager")
    x = torch.full((200,), float("nan"))
    found = []
    for _ in range(2):
        found.append(not compiled(x).isnan().all())
        with ft.patched():
            found.append(not compiled(x).isnan().all())
    assert found == [False, True] * 2


def test_an_error_ends_it():
    with pytest.raises(KeyError), ft.patched():
        raise KeyError
    assert are_theirs()


def test_patched_decorates_and_begins_again():
    theirs = F.dropout

    @ft.patched()
    def inside():
        return F.dropout

    assert F.dropout is theirs
    assert inside() is not theirs
    assert F.dropout is theirs
    patch = ft.patched()
    patch.close()
    with patch:
        assert F.dropout is not theirs
    assert F.dropout is theirs
