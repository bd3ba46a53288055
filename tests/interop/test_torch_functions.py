"""fastdrop.torch's functions: values, layouts, errors and warnings beside those of torch."""

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch_cases import DTYPES, kept_by_reference, outcome, tensors  # noqa: E402

import fastdrop.torch as ft  # noqa: E402

pytestmark = pytest.mark.torch

NAMES = ("dropout", "alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout")
SHAPES = {"dropout1d": (8, 6, 5), "dropout3d": (4, 6, 2, 3, 2)}


def shape_for(name):
    return SHAPES.get(name, (4, 6, 5, 3))


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
def test_nothing_is_drawn_for_nothing(name):
    """Where torch's own takes no number from its generator."""
    x = torch.ones([0, *shape_for(name)[1:]])
    state = torch.get_rng_state()
    for function in (getattr(ft, name), getattr(F, name)):
        function(x, 0.5, True)
        assert torch.equal(torch.get_rng_state(), state)
    torch.ops.fastdrop.dropout(x, 0.5)
    torch.ops.fastdrop.dropout(torch.ones(3), 1.0)
    own = torch.Generator().manual_seed(3)
    ft.dropout(x, rng=own)
    ft.dropout(torch.ones(3), 1.0, rng=own)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(own.get_state(), torch.Generator().manual_seed(3).get_state())


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
    for x in ([1.0, 2.0], None, 3.0, "a"):
        assert outcome(ours, x, 0.5, True) == outcome(theirs, x, 0.5, True)
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
    expected = torch.where(kept, 2.0, 0.0)
    assert torch.equal(ft.dropout(x, 0.5), expected)
    torch.manual_seed(3)
    ft.dropout(x, 0.5, inplace=True)
    assert torch.equal(x, expected)
