"""fastdrop.torch beside the rest of torch: autograd, checkpoints, transforms, compilers."""

import gc

import pytest

torch = pytest.importorskip("torch")
from torch.library import opcheck  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import fastdrop  # noqa: E402
import fastdrop.torch as ft  # noqa: E402

pytestmark = pytest.mark.torch
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
FORMS = {
    "dropout": ({}, (5, 7)),
    "by rows": ({"rows_per_mask": 2}, (5, 7)),
    "batchwise": ({"rows_per_mask": "batch"}, (5, 7)),
    "exact count": ({"exact_count": True}, (5, 7)),
}


def seeded(function, seed=1):
    def call(*arguments):
        torch.manual_seed(seed)
        return function(*arguments)

    return call


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_all_orders_and_modes(form):
    further, shape = FORMS[form]
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    function = seeded(lambda x: ft.dropout(x, 0.3, **further))
    every = {"check_forward_ad": True, "check_batched_grad": True}
    assert torch.autograd.gradcheck(function, x, **every)
    assert torch.autograd.gradgradcheck(function, x, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(seeded(lambda x: ft.dropout(x.exp(), 0.3, **further)), x)


@pytest.mark.parametrize("name", ["alpha_dropout", "dropout2d", "feature_alpha_dropout"])
def test_gradients_of_the_other_functions(name):
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    function = seeded(lambda x: getattr(ft, name)(x, 0.4, training=True))
    assert torch.autograd.gradcheck(function, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, x)


def saved_bytes(make):
    """Bytes that autograd saves for the backward pass."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: sizes.append(x.nbytes) or x, lambda x: x
    ):
        make()
    return sum(sizes)


def test_the_packed_mask_is_all_that_is_saved():
    x = torch.randn(64, 1024, requires_grad=True)
    ours = saved_bytes(lambda: ft.dropout(x))
    assert ours == x.numel() // 8
    assert saved_bytes(lambda: ft.dropout(x, rows_per_mask=32)) == 2 * 1024 // 8
    assert saved_bytes(lambda: ft.dropout2d(x.reshape(4, 16, 32, 32))) == 4 * 16 // 8
    assert ours * 8 <= saved_bytes(lambda: torch.nn.functional.dropout(x))


def test_nothing_is_kept_alive():
    def live():
        gc.collect()
        return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    x = torch.randn(100, requires_grad=True)
    ft.dropout(x).sum().backward()
    before = live()
    for _ in range(5):
        ft.dropout(x * 2).sum().backward()
    assert live() <= before + 1


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_repeat_the_mask(reentrant):
    """What a wrapper of one's own gets silently wrong."""
    x = torch.randn(6, 100, requires_grad=True)
    layers = torch.nn.Sequential(torch.nn.Linear(100, 100), ft.Dropout(0.5), torch.nn.Tanh())
    results = []
    for call in (layers, lambda x: checkpoint(layers, x, use_reentrant=reentrant)):
        torch.manual_seed(3)
        y = ft.dropout(call(ft.dropout(x, 0.2)), 0.2)
        gradients = torch.autograd.grad if not reentrant else None
        if gradients:
            results.append([y, *gradients(y.square().sum(), [x, *layers.parameters()])])
        else:
            x.grad = None
            layers.zero_grad()
            y.square().sum().backward()
            results.append([y, x.grad, *(parameter.grad for parameter in layers.parameters())])
    for plain, checkpointed in zip(*results, strict=True):
        assert torch.equal(plain, checkpointed)


def test_a_stream_in_a_checkpoint_is_an_error_or_repeats():
    x = torch.ones(50, requires_grad=True)
    stream = fastdrop.MaskStream(0)
    drop = ft.Dropout(0.5, rng=stream)

    def layer(x):
        return drop(x * x).exp()

    for reentrant in (False, True):
        y = checkpoint(layer, x, use_reentrant=reentrant)
        with pytest.raises(RuntimeError, match="repeat_masks"):
            y.sum().backward()
    position = stream.position
    for _ in range(2):
        y = checkpoint(layer, x, use_reentrant=False, context_fn=ft.repeat_masks(stream))
        drop(x)
        x.grad = None
        y.sum().backward()
        expected = torch.where(y > 1, 4 * y.detach(), 0.0)
        torch.testing.assert_close(x.grad, expected)
    assert stream.position == position + 4
    with pytest.raises(TypeError, match=r"streams must be fastdrop\.MaskStream, got int"):
        ft.repeat_masks(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "layout", [(), ([], 2), ([], 0), ([], 1, True), ([1],), ([], 1, False, True), ([0], 1, True)]
)
def test_opcheck(dtype, layout):
    x = torch.randn(6, 33, dtype=torch.float64).to(dtype).requires_grad_()
    opcheck(torch.ops.fastdrop.dropout.default, (x, 0.3, *layout))
    y, bits = torch.ops.fastdrop.dropout(x, 0.3, *layout)
    assert y.is_contiguous()
    opcheck(torch.ops.fastdrop.dropout_backward.default, (x, bits, 0.3, *layout))


def test_opcheck_of_a_given_key_and_of_odd_layouts():
    x = torch.randn(4, 5, 6, 3).permute(0, 3, 1, 2).requires_grad_()
    opcheck(torch.ops.fastdrop.dropout.default, (x, 0.3, [], 1, False, False, -5, 7))
    opcheck(torch.ops.fastdrop.dropout.default, (torch.ones(()), 0.3))
    opcheck(torch.ops.fastdrop.dropout.default, (torch.ones(0, 3), 0.3))
    for p in (0.0, 1.0):
        y, _ = torch.ops.fastdrop.dropout(x, p)
        assert torch.equal(y, x * (1 - p))
        assert y.data_ptr() != x.data_ptr()


ONES = torch.ones(40)
BITS = torch.full((5,), 255, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((ONES, 2.0), ValueError, r"p must be in \[0, 1\], got 2.0"),
        ((ONES, float("nan")), ValueError, r"p must be in \[0, 1\], got nan"),
        ((ONES.to("meta"), -1.0), ValueError, r"p must be in \[0, 1\], got -1.0"),
        ((ONES.int(), 0.5), TypeError, "x must be of float16, .* got torch.int32"),
        ((ONES, 0.5, [1]), ValueError, "shared_axes must be axes of 1 dim"),
        ((ONES, 0.5, [], -1), ValueError, "rows_per_mask must be at least 1"),
        ((ONES, 0.5, [0], 1, True), ValueError, "exact_count needs an axis"),
        ((ONES, 0.5, [], 1, False, False, 3, -1), ValueError, r"draw must be in \[0, 2\*\*56\)"),
        ((ONES, 0.5, [], 1, False, False, 3, 1 << 56), ValueError, "draw must be in"),
        ((ONES.to_sparse(), 0.5), NotImplementedError, "SparseCPU"),
    ],
)
def test_the_operator_checks_its_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        torch.ops.fastdrop.dropout(*arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((ONES, BITS, 2.0), ValueError, r"p must be in \[0, 1\], got 2.0"),
        ((ONES.int(), BITS, 0.5), TypeError, "grad must be of float16, .* got torch.int32"),
        ((torch.ones(4000), BITS, 0.5), ValueError, "bits must be 500 bytes.* got 5"),
        ((ONES, BITS[:0], 0.5), ValueError, "bits must be 5 bytes.* got 0"),
        ((torch.ones(7, 40), BITS, 0.5, [], 2), ValueError, "bits must be 20 bytes.* got 5"),
        ((ONES, BITS.float(), 0.5), TypeError, "bits must be a tensor of uint8"),
        ((ONES, BITS[None], 0.5), TypeError, "uint8 with one axis, .* 2 axes"),
        ((ONES, BITS.to("meta"), 0.5), ValueError, "bits must be on cpu, .* got meta"),
    ],
)
def test_the_operator_of_the_gradient_checks_its_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        torch.ops.fastdrop.dropout_backward(*arguments)


def test_bits_with_gaps_in_memory():
    bits = torch.tensor([1, 0, 2, 0, 4, 0, 8, 0, 16, 0], dtype=torch.uint8)[::2]
    y = torch.ops.fastdrop.dropout_backward(ONES, bits, 0.5)
    assert y.nonzero().flatten().tolist() == [0, 9, 18, 27, 36]


def test_negative_axes_and_tensors_that_stand_for_others():
    x = torch.ones(6, 5, 4)
    y, bits = torch.ops.fastdrop.dropout(x, 0.5, [-1])
    assert (y == y[..., :1]).all()
    assert bits.shape == torch.ops.fastdrop.dropout(x.to("meta"), 0.5, [-1])[1].shape


def test_the_operator_and_the_short_way_agree():
    x = torch.randn(5, 40)
    torch.manual_seed(0)
    expected = ft.dropout(x, 0.3, rows_per_mask=2)
    torch.manual_seed(0)
    y, _ = torch.ops.fastdrop.dropout(x, 0.3, [], 2)
    assert torch.equal(y, expected)


def test_functional_gradients():
    def loss(x):
        return (ft.dropout(x, 0.5) * x).sum()

    x = torch.ones(64)
    gradient = torch.func.grad(loss)(x)
    assert set(gradient.tolist()) == {0.0, 4.0}
    values, tangents = torch.func.jvp(ft.dropout, (x,), (x,))
    assert torch.equal(values, tangents)
    jacobian = torch.func.jacrev(ft.dropout)(x)
    assert torch.equal(jacobian, torch.diag(jacobian.diagonal()))
    assert set(jacobian.diagonal().tolist()) == {0.0, 2.0}
    second = torch.func.grad(lambda x: torch.func.grad(lambda x: loss(x).square())(x).sum())(x)
    assert (second != 0).any()


@pytest.mark.parametrize("further", [{}, {"rows_per_mask": "batch"}, {"rows_per_mask": 2}])
def test_vmap(further):
    x = torch.ones(6, 5, 33)

    def drop(x):
        return ft.dropout(x, 0.5, **further)

    def gradient(x):
        return torch.func.grad(lambda x: (drop(x) * x).sum())(x)

    for in_dim in (0, 1, 2):
        moved = x.movedim(0, in_dim)
        for function in (drop, gradient):
            same = torch.func.vmap(function, in_dim, randomness="same")(moved)
            assert (same == same[0]).all()
            different = torch.func.vmap(function, in_dim, randomness="different")(moved)
            assert not any(torch.equal(different[0], other) for other in different[1:])
            assert len(different.unique()) == len(same.unique()) == 2
        with pytest.raises(RuntimeError, match="randomness"):
            torch.func.vmap(drop, in_dim)(moved)
    # A tensor that all samples share, and vmap within vmap.
    shared = torch.ones(40)
    for randomness in ("same", "different"):
        y = torch.func.vmap(lambda i: ft.dropout(shared) + i, randomness=randomness)(torch.zeros(4))
        assert (randomness == "same") == all(torch.equal(y[0], other) for other in y)
    inner = torch.func.vmap(drop, randomness="different")
    y = torch.func.vmap(inner, randomness="different")(torch.ones(2, 3, 4, 40))
    assert len({tuple(sample.flatten().tolist()) for sample in y.reshape(6, -1)}) == 6


@pytest.mark.parametrize("randomness", ["error", "same", "different"])
def test_vmap_where_nothing_is_random(randomness):
    """p of 0 and 1 need no randomness, as with torch; neither do no samples, if it is allowed."""
    x = torch.ones(3, 4)
    for p in (0.0, 1.0):
        drop = torch.func.vmap(lambda x, p=p: ft.dropout(x, p) * 1, randomness=randomness)
        state = torch.get_rng_state()
        assert torch.equal(drop(x), x * (1 - p))
        assert torch.equal(torch.get_rng_state(), state)
        assert drop(x[:0]).shape == (0, 4)
    if randomness != "error":
        for further in ({}, {"rows_per_mask": 2}, {"exact_count": True}):

            def gradient(x, further=further):
                return torch.func.grad(lambda x: ft.dropout(x, **further).sum())(x)

            assert torch.func.vmap(gradient, randomness=randomness)(x[:0]).shape == (0, 4)


def test_forward_mode_in_place():
    with torch.autograd.forward_ad.dual_level():
        for function in (ft.dropout, torch.nn.functional.dropout):
            x = torch.autograd.forward_ad.make_dual(torch.ones(50), torch.full((50,), 3.0))
            y = function(x, 0.5, True, True)
            assert y is x
            primal, tangent = torch.autograd.forward_ad.unpack_dual(x)
            assert set(primal.tolist()) == {0.0, 2.0}
            assert torch.equal(tangent, 3 * primal)


def test_vmap_and_streams():
    stream = fastdrop.MaskStream(0)
    x = torch.ones(3, 40)
    drop = torch.func.vmap(lambda x: ft.dropout(x, rng=stream), randomness="same")
    mask = fastdrop.MaskStream(0).draw((40,), rate=0.5).to_array()
    assert torch.equal(drop(x), (2.0 * torch.from_numpy(mask)).expand(3, 40))
    with pytest.raises(RuntimeError, match=r'rng: .* randomness="same"'):
        torch.func.vmap(lambda x: ft.dropout(x, rng=stream), randomness="different")(x)


def test_compile_without_a_graph_break():
    """The same masks as in eager mode, new ones in every call, the right gradients."""
    model = torch.nn.Sequential(torch.nn.Linear(16, 16), ft.Dropout(0.5), torch.nn.ReLU())
    x = torch.randn(8, 16, requires_grad=True)

    def function(x):
        return torch.nn.functional.dropout(model(x), 0.2)

    with ft.patched():
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        results = []
        for call in (function, compiled):
            torch.manual_seed(0)
            y = call(x)
            results.append([y, *torch.autograd.grad(y.sum(), [x, *model.parameters()])])
        for eager, other in zip(*results, strict=True):
            torch.testing.assert_close(eager, other)
        assert not torch.equal(compiled(x), compiled(x))
    model.eval()
    assert torch.equal(torch.compile(model[1], backend="aot_eager")(x), x)


def test_compiled_in_place_and_checkpointed():
    def function(x):
        y = x * 2
        ft.dropout(y, 0.5, inplace=True)
        return checkpoint(lambda y: ft.dropout(y.sin(), 0.5).cos(), y, use_reentrant=False)

    x = torch.randn(300, requires_grad=True)
    results = []
    for call in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(0)
        y = call(x)
        results.append([y, *torch.autograd.grad(y.sum(), x)])
    for eager, other in zip(*results, strict=True):
        torch.testing.assert_close(eager, other)


def test_compiled_with_a_stream():
    """A stream moves between two graphs; where there must not be two, that is said."""
    stream = fastdrop.MaskStream(0)
    compiled = torch.compile(lambda x: ft.dropout(x * 2, rng=stream) + 1, backend="eager")
    x = torch.ones(40)
    first, second = compiled(x), compiled(x)
    assert stream.position == 2
    assert not torch.equal(first, second)
    mask = fastdrop.MaskStream(0).draw((40,), rate=0.5).to_array()
    assert torch.equal(first, 4.0 * torch.from_numpy(mask) + 1)
    whole = torch.compile(lambda x: ft.dropout(x, rng=stream), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match=r"_between_graphs|cannot be part of a compiled"):
        whole(x)


class Model(torch.nn.Module):
    def __init__(self, **further):
        super().__init__()
        self.drop = ft.Dropout(0.5, **further)

    def forward(self, x):
        return self.drop(x) * 3


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    rows = torch.export.Dim("rows", min=2, max=100)
    shapes = {"x": {0: rows}}
    exported = torch.export.export(
        Model(), (torch.ones(4, 33),), dynamic_shapes=shapes, strict=strict
    )
    assert "fastdrop.dropout" in str(exported.graph)
    run = exported.module()
    torch.manual_seed(1)
    y = run(torch.ones(7, 33))
    torch.manual_seed(1)
    assert torch.equal(y, Model()(torch.ones(7, 33)))
    assert not torch.equal(run(torch.ones(7, 33)), y)


@pytest.mark.parametrize("rng", [0, torch.Generator()])
def test_export_with_a_stream_is_an_error(rng):
    model = Model(rng=rng)
    with pytest.raises(RuntimeError, match=r"rng: .* cannot be traced or exported"):
        torch.export.export(model, (torch.ones(4, 33),), strict=False)
    with pytest.raises(Exception, match=r"_between_graphs|cannot be part of a compiled"):
        torch.export.export(model, (torch.ones(4, 33),), strict=True)


def test_tracing():
    traced = torch.jit.trace(Model(), torch.ones(4, 33), check_trace=False)
    assert not torch.equal(traced(torch.ones(4, 33)), traced(torch.ones(4, 33)))
    graph = torch.fx.symbolic_trace(Model())
    assert "dropout" in graph.code
    torch.manual_seed(0)
    y = graph(torch.ones(4, 33))
    torch.manual_seed(0)
    assert torch.equal(y, Model()(torch.ones(4, 33)))
    with pytest.raises(RuntimeError, match="rng: MaskStream cannot be traced or exported"):
        torch.jit.trace(Model(rng=0), torch.ones(4, 33), check_trace=False)
