"""fastdrop.torch in whole models: swapped modules, patched functions, attention, fused layers."""

import copy
import io
import threading

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch_cases import outcome  # noqa: E402

import fastdrop.torch as ft  # noqa: E402

pytestmark = pytest.mark.torch
KINDS = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")


def model_of_all_kinds():
    layers = [getattr(nn, kind)(0.1 * number, True) for number, kind in enumerate(KINDS, 1)]
    return nn.Sequential(nn.Linear(4, 4), nn.ModuleDict(dict(zip(KINDS, layers, strict=True))))


def test_replace_and_restore():
    model = model_of_all_kinds()
    model[1]["again"] = model[1]["Dropout"]  # one module in two places
    model[1]["Dropout1d"].eval()
    called = []
    model[1]["Dropout"].register_forward_hook(lambda *_: called.append("hook"))
    model[1]["Dropout"].mark = "mine"
    keys, text = list(model.state_dict()), repr(model)
    swapped = ft.replace_dropout(model)
    assert sorted(swapped) == sorted(f"1.{kind}" for kind in (*KINDS, "again"))
    for number, kind in enumerate(KINDS, 1):
        module = model[1][kind]
        assert module is swapped[f"1.{kind}"]
        assert type(module) is getattr(ft, kind)
        assert isinstance(module, getattr(nn, kind))
        assert (module.p, module.inplace) == (0.1 * number, True)
        assert module.training == (kind != "Dropout1d")
    assert model[1]["again"] is model[1]["Dropout"]
    assert model[1]["Dropout"].mark == "mine"
    model[1]["Dropout"](torch.ones(3))
    assert called == ["hook"]
    assert list(model.state_dict()) == keys
    assert repr(model) == text
    assert ft.replace_dropout(model) == {}
    ft.restore_dropout(model)
    assert all(type(model[1][kind]) is getattr(nn, kind) for kind in KINDS)
    model[1]["Dropout"](torch.ones(3))
    assert called == ["hook"] * 2
    assert not model[1]["Dropout1d"].training
    assert ft.restore_dropout(model) == {}


def test_replace_leaves_alone_what_is_not_torchs():
    class Own(nn.Dropout):
        pass

    model = nn.Sequential(Own(0.5))
    assert ft.replace_dropout(model) == {}
    for wrong in (nn.Dropout(0.5), "model", None):
        with pytest.raises(TypeError, match="model must"):
            ft.replace_dropout(wrong)


def test_streams_are_in_the_state_dict():
    model = nn.Sequential(nn.Linear(30, 30), nn.Dropout(0.5), nn.Dropout(0.2))
    ft.replace_dropout(model, rng=[1, 2])
    assert model[1].rng is model[2].rng
    x = torch.ones(4, 30)
    model(x)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    expected = [model(x), model(x)]
    other = nn.Sequential(nn.Linear(30, 30), nn.Dropout(0.5), nn.Dropout(0.2))
    ft.replace_dropout(other, rng=7)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other[1].rng is other[2].rng
    assert torch.equal(other(x), expected[0])
    assert torch.equal(copy.deepcopy(other)(x), expected[1])
    plain = nn.Sequential(nn.Linear(30, 30), nn.Dropout(0.5), nn.Dropout(0.2))
    with pytest.raises(RuntimeError, match=r"Missing key.*1.rng_state"):
        other.load_state_dict(plain.state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*1.rng_state"):
        plain.load_state_dict(other.state_dict())
    broken = other.state_dict()
    broken["1.rng_state"] = torch.zeros(3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="is no state of a MaskStream"):
        other.load_state_dict(broken)


NOT_IN_2_4 = ("boolean", "added, nothing allowed", "grouped")


def attention_cases():
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    boolean = torch.rand(2, 1, 7, 9, generator=generator) < 0.6
    boolean[0, 0, 3] = False  # nothing is allowed
    yield "plain", randn(2, 3, 7, 4), randn(2, 3, 9, 4), randn(2, 3, 9, 5), {}
    square = randn(2, 3, 7, 4), randn(2, 3, 7, 4), randn(2, 3, 7, 4)
    yield "causal", *square, {"is_causal": True}
    yield "scale", *square, {"scale": 0.3}
    long = randn(2, 3, 7, 4), randn(2, 3, 9, 4), randn(2, 3, 9, 4)
    yield "boolean", *long, {"attn_mask": boolean}
    yield "added", *long, {"attn_mask": randn(7, 9)}
    added = torch.zeros(7, 9, dtype=torch.float64)
    added[3] = -torch.inf
    yield "added, nothing allowed", *long, {"attn_mask": added}
    yield "grouped", randn(2, 4, 7, 4), randn(2, 2, 7, 4), randn(2, 2, 7, 4), {"enable_gqa": True}
    yield "matrices", randn(7, 4), randn(9, 4), randn(9, 4), {}


@pytest.mark.parametrize("name", [case[0] for case in attention_cases()])
def test_attention_is_torchs_but_for_the_mask(name, monkeypatch):
    """With a dropout that drops nothing, the same values and gradients."""
    (case,) = (case for case in attention_cases() if case[0] == name)
    _, *tensors, further = case
    if name in NOT_IN_2_4 and "enable_gqa" not in F.scaled_dot_product_attention.__doc__:
        pytest.skip("before torch 2.5 heads are not grouped, and a row without scores is NaN")
    leaves = [*tensors, *(mask for mask in [further.get("attn_mask")] if mask is not None)]
    leaves = [leaf for leaf in leaves if leaf.requires_grad]
    expected = F.scaled_dot_product_attention(*tensors, **further)
    gradients = torch.autograd.grad(expected.square().sum(), leaves)
    seen = []

    def nothing(weights, p):
        seen.append(p)
        return weights

    monkeypatch.setattr("fastdrop.interop.torch.attention.functional.dropout", nothing)
    y = ft.scaled_dot_product_attention(*tensors, dropout_p=0.3, **further)
    assert seen == [0.3]
    torch.testing.assert_close(y, expected)
    for own, other in zip(torch.autograd.grad(y.square().sum(), leaves), gradients, strict=True):
        torch.testing.assert_close(own, other)


def test_attention_drops_weights():
    value = torch.eye(50).expand(2, 50, 50)
    query = torch.zeros(2, 50, 8)
    weights = ft.scaled_dot_product_attention(query, query, value, dropout_p=0.4)
    assert len(weights.unique()) == 2
    assert abs((weights == 0).double().mean() - 0.4) < 0.05
    with pytest.raises(RuntimeError):
        ft.scaled_dot_product_attention(
            query, query, value, torch.ones(50, 50, dtype=torch.bool), 0.4, is_causal=True
        )


HEADS = (2, 4, 6, 8)
WRONG_ATTENTION = {
    "a mask of ints": [HEADS] * 3 + [torch.zeros(6, 6, dtype=torch.int64)],
    "a mask of bytes": [HEADS] * 3 + [torch.zeros(6, 6, dtype=torch.uint8)],
    "a mask of doubles": [HEADS] * 3 + [torch.zeros(6, 6, dtype=torch.float64)],
    "a mask of bfloat16": [HEADS] * 3 + [torch.zeros(6, 6, dtype=torch.bfloat16)],
    "a mask of another shape": [HEADS] * 3 + [torch.zeros(5, 6)],
    "a mask of more axes": [HEADS[1:]] * 3 + [torch.zeros(3, 1, 6, 6)],
    "a list as mask": [HEADS] * 3 + [[0.0]],
    "a list": [[0.0], HEADS, HEADS],
    "heads that do not divide": [HEADS, (2, 3, 6, 8), (2, 3, 6, 8), None, True],
    "more heads of keys": [(2, 2, 6, 8), HEADS, HEADS, None, True],
    "groups of matrices": [(6, 8)] * 3 + [None, True],
    "grouped heads, but not said": [HEADS, (2, 2, 6, 8), (2, 2, 6, 8)],
    "one axis": [(8,)] * 3,
    "features that differ": [HEADS, (2, 4, 6, 7), HEADS],
}


@pytest.mark.parametrize("name", WRONG_ATTENTION)
def test_mistakes_in_attention_are_told_as_by_torch(name):
    *shapes, attn_mask, grouped = (WRONG_ATTENTION[name] + [None, None])[:5]
    tensors = [torch.ones(shape) if isinstance(shape, tuple) else shape for shape in shapes]
    further = {"enable_gqa": True} if grouped else {}
    theirs, ours = (
        outcome(function, *tensors, attn_mask, 0.3, **further)
        for function in (F.scaled_dot_product_attention, ft.scaled_dot_product_attention)
    )
    assert theirs[0] is not None
    assert ours == theirs


@pytest.mark.parametrize("p", [-0.1, 1.5, 1, 1.0])
def test_probabilities_of_attention_are_those_of_torch(p):
    tensors = [torch.ones(HEADS)] * 3
    assert outcome(ft.scaled_dot_product_attention, *tensors, dropout_p=p) == outcome(
        F.scaled_dot_product_attention, *tensors, dropout_p=p
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_in_half_precision_takes_a_mask_of_float32(dtype):
    query = torch.randn(HEADS, dtype=dtype)
    attn_mask = torch.zeros(6, 6).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    y = ft.scaled_dot_product_attention(query, query, query, attn_mask, 1e-9)
    causal = F.scaled_dot_product_attention(query, query, query, is_causal=True)
    torch.testing.assert_close(y, causal, rtol=2e-2, atol=2e-2)


def train(model, steps=12, seed=0):
    torch.manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), 0.05)
    x, target = torch.randn(8, 12, 32), torch.randn(8, 12, 32)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_encoder_layer_trains_alike(dtype):
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True)
    start = copy.deepcopy(model.state_dict())
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        theirs = train(model)
        model.load_state_dict(start)
        with ft.patched():
            ours = train(model)
    assert theirs[-1] < theirs[0]
    assert ours != theirs
    assert abs(ours[-1] - theirs[-1]) < 0.1 * theirs[0]


def test_a_model_of_transformers_trains_alike():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(config)
    start = copy.deepcopy(model.state_dict())
    tokens = torch.randint(0, 50, (8, 16))

    def losses():
        torch.manual_seed(1)
        optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
        values = []
        for _ in range(15):
            optimiser.zero_grad()
            loss = model(input_ids=tokens, labels=tokens).loss
            loss.backward()
            optimiser.step()
            values.append(loss.item())
        return values

    model.train()
    theirs = losses()
    model.load_state_dict(start)
    with ft.patched():
        ours = losses()
        assert ft.replace_dropout(model)
    assert theirs[-1] < 0.9 * theirs[0]
    assert abs(ours[-1] - theirs[-1]) < 0.15 * theirs[0]


def test_threads_draw_masks_of_their_own():
    results = {}

    def work(name):
        x = torch.ones(4, 1000, requires_grad=True)
        for _ in range(50):
            y = ft.dropout(x)
            x.grad = None
            y.sum().backward()
            assert torch.equal(x.grad, y)
        results[name] = y

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({tuple(y.flatten().tolist()) for y in results.values()}) == 4


class Augmented(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return ft.dropout(torch.ones(200))


def test_workers_of_a_data_loader():
    def epoch():
        torch.manual_seed(0)
        loader = torch.utils.data.DataLoader(Augmented(), 1, num_workers=2)
        return torch.cat(list(loader))

    first = epoch()
    assert torch.equal(first, epoch())
    assert len({tuple(row.tolist()) for row in first}) == 4
