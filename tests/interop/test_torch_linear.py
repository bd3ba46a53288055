"""fastdrop.torch.LinearDropout: values and gradients, and what torch's tools ask of a layer."""

import copy
import io

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import fastdrop  # noqa: E402
import fastdrop.torch as ft  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("rows", [1, 3, 32, "batch"])
@pytest.mark.parametrize("activation", ["relu", None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_dropout_is_linear_relu_and_dropout(rows, activation, dtype):
    torch.manual_seed(0)
    layers = nn.Sequential(
        ft.LinearDropout(20, 64, 0.5, activation, rows_per_mask=rows, rng=1, dtype=dtype),
        ft.LinearDropout(64, 48, 0.3, activation, rows_per_mask=rows, rng=2, dtype=dtype),
    )
    streams = fastdrop.MaskStream(1), fastdrop.MaskStream(2)
    x = torch.randn(5, 8, 20, dtype=dtype, requires_grad=True)
    y = layers(x)
    expected = x.reshape(40, 20)
    for layer, stream in zip(layers, streams, strict=True):
        expected = F.linear(expected, layer.weight, layer.bias)
        expected = F.relu(expected) if activation else expected
        expected = ft.dropout(expected, layer.rate, rows_per_mask=rows, rng=stream)
    expected = expected.reshape(5, 8, 48)
    torch.testing.assert_close(y, expected)
    assert torch.equal(y == 0, expected == 0)
    grad = torch.randn(5, 8, 48, dtype=dtype)
    leaves = [x, *layers.parameters()]
    for own, other in zip(
        torch.autograd.grad(y, leaves, grad),
        torch.autograd.grad(expected, leaves, grad),
        strict=True,
    ):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


def test_linear_dropout_beside_torch():
    layer = ft.LinearDropout(6, 5, 0.5)
    plain = nn.Linear(6, 5)
    plain.load_state_dict(layer.state_dict())
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(3, 6)
    layer.eval()
    assert torch.equal(layer(x), F.relu(plain(x)))
    layer.train()
    assert set((layer(x) / F.relu(plain(x))).nan_to_num().round().flatten().tolist()) <= {0, 2}
    layer(x.bfloat16().float()[None]).sum().backward()
    assert layer.weight.grad.stride() == layer.weight.stride()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.manual_seed(0)
    first = compiled(x)
    torch.manual_seed(0)
    torch.testing.assert_close(layer(x), first)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(torch.ones(3, 7))


def test_a_tensor_changed_in_place_loses_its_mask():
    """Zeros that were filled in between two layers count again."""
    first = ft.LinearDropout(6, 50, 0.5)
    second = ft.LinearDropout(50, 5, 0.0, None)
    with torch.no_grad():
        y = first(torch.randn(3, 6)).add_(1)
        torch.testing.assert_close(second(y), F.linear(y, second.weight, second.bias))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rate": 1.5}, ValueError, r"rate must be in \[0, 1\], got 1.5"),
        ({"activation": "tanh"}, ValueError, 'activation must be "relu" or None, got'),
        ({"rows_per_mask": 0}, ValueError, "rows_per_mask must be at least 1, got 0"),
        ({"rng": "a"}, TypeError, "rng must be None, an int"),
    ],
)
def test_linear_dropout_checks_its_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ft.LinearDropout(3, 3, **arguments)


def layers(**further):
    torch.manual_seed(0)
    return nn.Sequential(
        ft.LinearDropout(20, 64, 0.5, **further), ft.LinearDropout(64, 5, 0.2, None, **further)
    )


@pytest.mark.parametrize("rows", [1, 3, "batch"])
def test_inference_mode(rows):
    """The masks of training where no gradient is wanted: samples of a Monte Carlo estimate."""
    model, x = layers(rows_per_mask=rows), torch.randn(9, 20)
    torch.manual_seed(1)
    expected = model(x)
    torch.manual_seed(1)
    with torch.inference_mode():
        y = model(x)
        torch.testing.assert_close(y, expected)
        changed = model[0](x).add_(1)
        torch.testing.assert_close(
            ft.LinearDropout(64, 64, 0.0, None, bias=False)(changed).abs().sum(1) > 0,
            torch.ones(9, dtype=torch.bool),
        )


def test_weights_are_contiguous_for_the_tools_of_torch(tmp_path):
    model, x = layers(), torch.randn(9, 20)
    for layer in model:
        assert layer.weight.is_contiguous()
        assert layer.weight.shape == (layer.out_features, layer.in_features)
    model(x).square().sum().backward()
    assert all(parameter.grad.is_contiguous() for parameter in model.parameters())
    vector = nn.utils.parameters_to_vector(model.parameters())
    nn.utils.vector_to_parameters(2 * vector, model.parameters())
    assert torch.equal(nn.utils.parameters_to_vector(model.parameters()), 2 * vector)
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(model.state_dict(), tmp_path / "model.safetensors")
    loaded = safetensors.load_file(tmp_path / "model.safetensors")
    assert torch.equal(loaded["0.weight"], model[0].weight)


def test_lbfgs():
    model, x = layers(), torch.randn(9, 20)
    optimiser = torch.optim.LBFGS(model.parameters(), 0.1)
    losses = []

    def closure():
        optimiser.zero_grad()
        torch.manual_seed(3)
        loss = model(x).square().mean()
        loss.backward()
        losses.append(loss.item())
        return loss

    optimiser.step(closure)
    assert losses[-1] < losses[0]


def test_the_stream_is_in_the_state_dict():
    model, x = layers(rng=3), torch.randn(9, 20)
    assert [name for name in model.state_dict() if "rng" in name] == ["0.rng_state", "1.rng_state"]
    model(x)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    expected = model(x)
    other = layers(rng=4)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), expected)
    with pytest.raises(RuntimeError, match=r"Missing key.*rng_state"):
        other.load_state_dict(layers().state_dict())


def test_results_can_be_saved_and_copied():
    """The mask that a result has is no part of it."""
    layer = layers()[0]
    with torch.no_grad():
        y = layer(torch.randn(9, 20))
    file = io.BytesIO()
    torch.save(y, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=True), y)
    assert torch.equal(copy.deepcopy(y), y)
    assert vars(y) == {}


def test_masks_of_results_do_not_pile_up():
    from fastdrop.interop.torch import linear

    model, x = layers(), torch.randn(9, 20)
    before = len(linear._masks)
    for _ in range(5):
        model(x).sum().backward()
    assert len(linear._masks) <= before + 1


def test_forward_mode_and_frozen_parameters():
    model, x = layers(), torch.randn(9, 20)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(model(dual)).tangent
    assert tangent.shape == (9, 5)
    model[0].weight.requires_grad_(False)
    model[1].bias.requires_grad_(False)
    model(x).sum().backward()
    assert [parameter.grad is None for parameter in model.parameters()] == [
        True,
        False,
        False,
        True,
    ]


def test_a_weight_of_any_layout():
    """Such as a parametrization or a user may make."""
    model, x = layers(), torch.randn(9, 20)
    torch.manual_seed(1)
    expected = model(x)
    for layer in model:
        layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
    torch.manual_seed(1)
    y = model(x)
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    nn.utils.parametrizations.weight_norm(model[0])
    model(x).sum().backward()
    assert model[0].parametrizations.weight.original1.grad.abs().sum() > 0


@pytest.mark.parametrize("rows", [1, 3, "batch"])
@pytest.mark.parametrize("activation", ["relu", None])
def test_gradients_of_gradients(rows, activation):
    """A penalty on gradients reaches the weights, even where the loss is linear in the output."""

    def penalty(ours):
        streams = fastdrop.MaskStream(1), fastdrop.MaskStream(2)
        x = inputs
        for layer, stream in zip(layers, streams, strict=True):
            if ours:
                layer.rng = stream
                x = layer(x)
            else:
                x = F.linear(x, layer.weight, layer.bias)
                x = F.relu(x) if activation else x
                x = ft.dropout(x, layer.rate, rows_per_mask=rows, rng=stream)
        (first,) = torch.autograd.grad(x.sum(), inputs, create_graph=True)
        return torch.autograd.grad(first.square().sum() + x.square().sum(), leaves)

    torch.manual_seed(0)
    inputs = torch.randn(8, 10, dtype=torch.float64, requires_grad=True)
    layers = [
        ft.LinearDropout(10, 12, 0.4, activation, rows_per_mask=rows, dtype=torch.float64),
        ft.LinearDropout(12, 7, 0.4, activation, rows_per_mask=rows, dtype=torch.float64),
    ]
    leaves = [inputs, *(parameter for layer in layers for parameter in layer.parameters())]
    for own, other in zip(penalty(True), penalty(False), strict=True):
        torch.testing.assert_close(own, other)
    assert penalty(True)[1].abs().sum() > 0


def test_second_derivatives_by_finite_differences():
    layer = ft.LinearDropout(4, 5, 0.3, None, rng=1, dtype=torch.float64)

    def function(x, weight, bias):
        layer.rng.position = 0
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    torch.manual_seed(0)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    leaves = (x, *(parameter.detach().requires_grad_() for parameter in layer.parameters()))
    assert torch.autograd.gradgradcheck(function, leaves)
