"""fastdrop.torch's functions: values, layouts, errors and warnings beside those of torch."""

import warnings

import numpy
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

import fastdrop  # noqa: E402
import fastdrop.torch as ft  # noqa: E402
from fastdrop import reference  # noqa: E402
from fastdrop.interop.torch.keys import torch_key  # noqa: E402

pytestmark = pytest.mark.torch

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NAMES = ("dropout", "alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout")
SHAPES = {"dropout1d": (8, 6, 5), "dropout3d": (4, 6, 2, 3, 2)}


def shape_for(name):
    return SHAPES.get(name, (4, 6, 5, 3))


def kept_by_reference(shape, p, seed, mask_shape=None):
    """The mask that the next call after `torch.manual_seed(seed)` draws, as booleans."""
    mask_shape = tuple(shape) if mask_shape is None else mask_shape
    torch.manual_seed(seed)
    key = torch_key()
    n = int(numpy.prod(mask_shape))
    bits = numpy.empty((n + 7) // 8, numpy.uint8)
    threshold = reference.bernoulli_threshold(1.0 - p)
    zeros = (0,) * len(mask_shape)
    words = key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF
    reference.draw_bernoulli(*words, 0, threshold, mask_shape, zeros, mask_shape, bits)
    kept = numpy.unpackbits(bits, count=n, bitorder="little").astype(bool).reshape(mask_shape)
    torch.manual_seed(seed)
    return torch.from_numpy(numpy.broadcast_to(kept, shape).copy())


def tensors(shape, dtype):
    """Tensors of one shape in many layouts."""
    x = torch.randn(shape, dtype=torch.float64).to(dtype)
    yield "contiguous", x
    yield "transposed", x.transpose(0, -1).contiguous().transpose(0, -1)
    yield "strided", torch.stack([x, x], -1)[..., 0]
    yield "expanded", x[:1].expand(shape)
    yield "of one value", torch.ones((), dtype=dtype).expand(shape)
    if len(shape) == 4:
        yield "channels last", x.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.999])
def test_values_are_those_of_the_reference_mask(dtype, p):
    for shape in [(), (1,), (7,), (3, 50), (4, 6, 5, 3), (30, 1000)]:
        for layout, x in tensors(shape, dtype) if len(shape) > 1 else [("", torch.ones(shape))]:
            kept = kept_by_reference(shape, p, 3)
            leaf = x.detach().requires_grad_()
            y = ft.dropout(leaf, p)
            scale = torch.tensor(1 / (1 - p), dtype=x.dtype)
            expected = torch.where(kept, x * scale, 0)
            assert torch.equal(y, expected), layout
            assert y.stride() == F.dropout(x, p).stride(), layout
            grad = torch.randn(shape, dtype=torch.float64).to(x.dtype)
            y.backward(grad)
            assert torch.equal(leaf.grad, torch.where(kept, grad * scale, 0)), layout


def test_a_gradient_of_any_layout():
    kept = kept_by_reference((6, 40), 0.5, 1)
    for transposed in (False, True):
        x = torch.randn(6, 40, requires_grad=True)
        torch.manual_seed(1)
        y = ft.dropout(x, 0.5)
        grad = torch.randn(40, 6).t() if transposed else torch.ones(()).expand(6, 40)
        y.backward(grad)
        assert torch.equal(x.grad, torch.where(kept, 2 * grad, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropped_values_are_zero_whatever_they_were(dtype):
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1.0], dtype=dtype)
    x = special.repeat(200)
    y = ft.dropout(x, 0.5)
    dropped = ~kept_by_reference(x.shape, 0.5, 0)
    torch.manual_seed(0)
    y = ft.dropout(x, 0.5)
    assert torch.equal(y[dropped], torch.zeros_like(y[dropped]))
    assert not torch.signbit(y[dropped]).any()
    assert y[~dropped].isnan().any()
    assert y[~dropped].isinf().any()


@pytest.mark.parametrize("name", NAMES)
def test_p_of_zero_and_one_and_no_training(name):
    ours = getattr(ft, name)
    x = torch.randn(shape_for(name), requires_grad=True)
    state = torch.get_rng_state()
    assert ours(x, 0.0, training=True) is x
    assert ours(x, 0, training=True) is x
    assert ours(x, 0.5, training=False) is x
    for p in (1, 1.0):
        y = ours(x, p, training=True)
        assert torch.equal(y, torch.zeros_like(y))
        (grad,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(grad, torch.zeros_like(grad))
    assert torch.equal(torch.get_rng_state(), state)


def test_tensors_without_axes_and_without_elements():
    torch.manual_seed(0)
    drawn = {ft.dropout(torch.tensor(3.0), 0.5).item() for _ in range(40)}
    assert drawn == {0.0, 6.0}
    for shape in [(0,), (3, 0), (0, 3)]:
        x = torch.ones(shape, requires_grad=True)
        y = ft.dropout(x, 0.5)
        assert y.shape == shape
        y.sum().backward()
        assert x.grad.shape == shape


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", [0.2, 0.7])
def test_distribution_is_that_of_torch(name, p):
    """Means and variances of many outputs, how many are dropped, and whether whole channels are."""
    shape = {"dropout1d": (400, 50, 4), "dropout3d": (400, 50, 1, 2, 2)}.get(name, (400, 50, 2, 2))
    x = torch.randn(shape)
    torch.manual_seed(5)
    ours = getattr(ft, name)(x, p, training=True)
    theirs = getattr(F, name)(x, p, training=True)
    share = abs(ours.mean() - theirs.mean()).item(), abs(ours.std() - theirs.std()).item()
    assert max(share) < 0.1
    flat = [(y == y.flatten().mode().values).reshape(*shape[:2], -1) for y in (ours, theirs)]
    assert abs(flat[0].float().mean() - flat[1].float().mean()) < 0.02
    whole = [same.all(-1) | ~same.any(-1) for same in flat]
    assert (
        bool(whole[0].all())
        == bool(whole[1].all())
        == ("1d" in name or "2d" in name or "3d" in name or "feature" in name)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["alpha_dropout", "feature_alpha_dropout"])
def test_alpha_dropout_formula(name, dtype):
    p, alpha = 0.3, 1.7580993408473766
    shape = (4, 60, 5)
    mask_shape = shape if name == "alpha_dropout" else (4, 60, 1)
    x = torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()
    kept = kept_by_reference(shape, p, 2, mask_shape)
    y = getattr(ft, name)(x, p, training=True)
    a = ((alpha**2 * p + 1) * (1 - p)) ** -0.5
    expected = torch.where(kept, a * x.double(), -alpha * a) + alpha * a * p
    tolerance = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 2e-6}.get(dtype, 1e-14)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=tolerance * 3)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(kept, a, 0.0).to(dtype))


@pytest.mark.parametrize(
    ("name", "shape", "mask_shape"),
    [
        ("dropout1d", (6, 5), (6, 1)),
        ("dropout1d", (4, 6, 5), (4, 6, 1)),
        ("dropout2d", (4, 6, 5, 3), (4, 6, 1, 1)),
        ("dropout2d", (4, 6, 5), (4, 6, 1)),
        ("dropout3d", (4, 6, 5, 3), (4, 1, 1, 1)),
        ("dropout3d", (4, 6, 2, 5, 3), (4, 6, 1, 1, 1)),
    ],
)
@pytest.mark.filterwarnings("ignore:dropout2d")
def test_whole_channels(name, shape, mask_shape):
    kept = kept_by_reference(shape, 0.5, 9, mask_shape)
    for layout, x in tensors(shape, torch.float32):
        torch.manual_seed(9)
        assert torch.equal(getattr(ft, name)(x, 0.5), torch.where(kept, 2 * x, 0)), layout


def outcome(function, *arguments, **further):
    """What a call raises and warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            function(*arguments, **further)
            error = None
        except Exception as raised:
            error = type(raised), str(raised).partition("\n")[0]
    return error, [(warning.category, str(warning.message)) for warning in caught]


@pytest.mark.parametrize("name", NAMES)
def test_errors_and_warnings_are_those_of_torch(name):
    ours, theirs = getattr(ft, name), getattr(F, name)
    whole = torch.randn(shape_for(name))
    for p in (-0.1, 1.5, float("nan"), float("inf"), "a", None):
        assert outcome(ours, whole, p, True) == outcome(theirs, whole, p, True)
        assert outcome(ours, whole, p, False) == outcome(theirs, whole, p, False)
    for dimensions in range(7):
        x = torch.randn((2,) * dimensions)
        for training in (True, False):
            assert outcome(ours, x, 0.5, training) == outcome(theirs, x, 0.5, training)
    for x in (torch.arange(24).reshape(2, 3, 4), torch.ones(2, 3, 4, dtype=torch.bool)):
        assert outcome(ours, x, 0.5, True) == outcome(theirs, x, 0.5, True)
    for make in (
        lambda: torch.ones(2, 3, 4, requires_grad=True),
        lambda: torch.ones(2, 3, 1).expand(2, 3, 4),
    ):
        expected = outcome(theirs, make(), 0.5, True, True)
        assert expected[0] is not None
        x = make()
        assert outcome(ours, x, 0.5, True, True) == expected
        assert (x == 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_in_place(name):
    ours = getattr(ft, name)
    for layout, x in tensors(shape_for(name), torch.float32):
        if layout in ("expanded", "of one value"):
            continue
        torch.manual_seed(4)
        expected = ours(x.clone(), 0.5, True)
        torch.manual_seed(4)
        version = x._version
        assert ours(x, 0.5, True, inplace=True) is x, layout
        assert x._version > version
        assert torch.equal(x, expected), layout


def test_in_place_is_seen_by_autograd():
    leaf = torch.ones(8, 50, requires_grad=True)
    x = leaf * 3
    y = ft.dropout(x, 0.5, inplace=True)
    assert y is x
    y.sum().backward()
    assert torch.equal(leaf.grad, y.detach())
    squared = leaf.exp()  # needs its result for the gradient
    ft.dropout(squared, 0.5, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squared.sum().backward()
    base = leaf * 1
    ft.dropout(base[2:4], 0.5, inplace=True)  # through a view
    leaf.grad = None
    base.sum().backward()
    assert torch.equal(leaf.grad, base.detach())


def test_memory_between_elements_is_left_alone():
    buffer = torch.full((20, 30), 7.0)
    ft.dropout(buffer[::2, 1::3], 0.5, inplace=True)
    assert (buffer[1::2] == 7).all()
    assert (buffer[:, ::3] == 7).all()
    assert (buffer[::2, 1::3] != 7).all()


def test_memory_that_begins_between_two_elements():
    raw = bytearray(4 * 101 + 1)
    x = torch.frombuffer(raw, dtype=torch.float32, offset=1, count=101)
    x.fill_(1.0)
    kept = kept_by_reference((101,), 0.5, 3)
    assert torch.equal(ft.dropout(x, 0.5), torch.where(kept, 2.0, 0.0))


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
    with pytest.raises(TypeError, match=r"rng must be .* got str"):
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
