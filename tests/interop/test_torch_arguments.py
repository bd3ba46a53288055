"""fastdrop.torch's functions: generators and streams, further arguments, threads, odd tensors."""

import numpy
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch_cases import DTYPES, kept_by_reference, outcome  # noqa: E402

import fastdrop  # noqa: E402
import fastdrop.torch as ft  # noqa: E402
from fastdrop import reference  # noqa: E402

pytestmark = pytest.mark.torch


def test_one_draw_of_the_generator_a_call():
    """manual_seed, fork_rng and get_rng_state repeat the mask, as with torch's."""
    x = torch.ones(1000)
    torch.manual_seed(1)
    first, second = ft.dropout(x), ft.dropout(x)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        assert torch.equal(ft.dropout(x), first)
    state = torch.get_rng_state()
    assert torch.equal(ft.dropout(x), first)
    torch.set_rng_state(state)
    torch.empty((), dtype=torch.int64).random_(-(2**63), None)
    assert torch.equal(ft.dropout(x), second)


def test_generators_and_streams():
    x = torch.ones(3, 70)
    state = torch.get_rng_state()
    own = [ft.dropout(x, rng=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*own)
    stream = fastdrop.MaskStream(0)
    mask = fastdrop.MaskStream(0).draw((3, 70), rate=0.5).to_array()
    assert torch.equal(ft.dropout(x, rng=stream), 2.0 * torch.from_numpy(mask))
    assert torch.equal(ft.dropout(x, rng=0), 2.0 * torch.from_numpy(mask))
    assert stream.position == 1
    ft.dropout(x, 0.0, rng=stream)
    ft.dropout(x, 1.0, rng=stream)
    assert stream.position == 3
    ft.dropout(x, training=False, rng=stream)
    assert stream.position == 3
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(TypeError, match="rng must be None, an int"):
        ft.dropout(x, rng="0")


@pytest.mark.parametrize("rows", [2, 3, 100, "batch"])
@pytest.mark.parametrize("exact", [False, True])
def test_rows_per_mask_and_exact_count(rows, exact):
    arguments = {"rows_per_mask": rows, "exact_count": exact}
    mask = fastdrop.MaskStream(3).draw((7, 40), rate=0.3, **arguments)
    x = numpy.random.default_rng(0).standard_normal((7, 40)).astype(numpy.float32)
    for dtype in DTYPES:
        tensor = torch.from_numpy(x).to(dtype).requires_grad_()
        y = ft.dropout(tensor, 0.3, rng=3, **arguments)
        expected = fastdrop.apply_mask(numpy.ones((7, 40)), mask)
        torch.testing.assert_close(
            y, torch.from_numpy(expected).to(dtype) * tensor, rtol=1e-2, atol=0
        )
        y.sum().backward()
        torch.testing.assert_close(tensor.grad, torch.from_numpy(expected).to(dtype))
    elsewhere = ft.dropout(torch.ones(7, 40, device="meta"), 0.3, rng=3, **arguments)
    assert (elsewhere.device.type, elsewhere.shape) == ("meta", (7, 40))


def test_exact_count_of_channels():
    y = ft.dropout2d(torch.ones(16, 10, 3, 3), 0.3, exact_count=True)
    assert ((y != 0).all(-1).all(-1).sum(1) == 7).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rows_per_mask": 0}, ValueError, "rows_per_mask must be at least 1, got 0"),
        ({"rows_per_mask": 1.5}, TypeError, "rows_per_mask must be an int, got 1.5"),
        ({"rows_per_mask": "all"}, ValueError, "rows_per_mask must be an int or 'batch'"),
    ],
)
def test_further_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        ft.dropout(torch.ones(2, 3), **arguments)
    with pytest.raises(error, match=message):
        ft.Dropout(**arguments)


def test_tensors_that_are_not_ours_go_to_torch():
    for x in (torch.ones(3, dtype=torch.complex64), torch.ones(3, 3).to_sparse()):
        assert outcome(ft.dropout, x) == outcome(F.dropout, x)
    assert ft.dropout(torch.ones(3, device="meta")).device.type == "meta"
    with pytest.raises(TypeError, match="dense tensor of floating-point numbers"):
        ft.dropout(torch.ones(3, dtype=torch.int32), rows_per_mask=2)

    class Own(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return func

    assert ft.dropout(torch.ones(3).as_subclass(Own)) is F.dropout


def test_a_negation_that_torch_has_put_off():
    """What the memory of such a tensor holds are the negated values."""
    x = torch.imag(torch.full((100,), 1j).conj())
    assert x.is_neg()
    assert set(ft.dropout(x).tolist()) == {0.0, -2.0}


def test_a_default_device_elsewhere():
    """What torch.set_default_device does must not move keys and bits."""
    with torch.device("meta"):
        y = ft.dropout(torch.ones(100, device="cpu", requires_grad=True))
        y.sum().backward()
    assert set(y.tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    kept = kept_by_reference((4, 33), 0.5, 0)
    with mode():
        x = torch.ones(4, 33)
        y = ft.dropout(x)
        assert torch.equal(y, torch.where(kept, 2.0, 0.0))
        assert not y.requires_grad
        assert ft.dropout(x, inplace=True) is x


def test_threads_follow_those_of_torch(monkeypatch, restore_threads):
    import fastdrop.config
    from fastdrop.interop.torch import threads

    before = torch.get_num_threads()
    monkeypatch.setattr(fastdrop.config, "_chosen", False)
    monkeypatch.setattr(threads, "_DEFAULT", 2)
    try:
        x = torch.ones(1 << 18)
        for number in (1, 2, 1):
            torch.set_num_threads(number)
            ft.dropout(x)
            assert fastdrop.get_num_threads() == number
        fastdrop.set_num_threads(2)
        ft.dropout(x)
        assert fastdrop.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_without_the_compiled_kernels(monkeypatch):
    from fastdrop.interop.torch import memory

    x = torch.randn(5, 60, dtype=torch.bfloat16, requires_grad=True)
    results = []
    for module in (memory.kernels, reference):
        monkeypatch.setattr(memory, "kernels", module)
        torch.manual_seed(2)
        y = ft.dropout(x, 0.3) + ft.dropout(x, 0.3, rows_per_mask=2)
        results += [y, torch.autograd.grad(y.sum(), x)[0]]
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])
