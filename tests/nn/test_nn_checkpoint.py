"""Saving and loading: resumed runs go on bit for bit, and files that do not fit are refused."""

import json
import os
import zipfile

import numpy
import pytest
from nn_cases import values

import fastdrop
from fastdrop import nn, optim

BATCH = 12
OPTIMISERS = {
    "SGD": lambda net: optim.SGD(net, learning_rate=0.05, momentum=0.9),
    "Adam": lambda net: optim.Adam(net, learning_rate=0.01),
    "AdamW": lambda net: optim.AdamW(net, learning_rate=0.01, weight_decay=0.1),
}


def network(rows_per_mask="batch", seed=0, dtype=numpy.float32, hidden=16):
    dropouts = [nn.Dropout(rate, rows_per_mask=rows_per_mask) for rate in (0.2, 0.5)]
    hidden_layers = [nn.Dense(10, hidden), nn.ReLU(), dropouts[1]]
    return nn.Sequential([dropouts[0], *hidden_layers, nn.Dense(hidden, 3)], rng=seed, dtype=dtype)


def train(net, opt, steps, first=0):
    loss, losses = nn.SoftmaxCrossEntropy(), []
    for number in range(first, first + steps):
        x = values((BATCH, 10), number)
        labels = numpy.random.default_rng(number).integers(0, 3, BATCH)
        value, grad = loss(net.forward(x, training=True), labels)
        net.backward(grad)
        opt.step()
        losses.append(value)
    return losses


def assert_same_state(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        if isinstance(value, dict):
            assert_same_state(value, theirs[name])
        else:
            numpy.testing.assert_array_equal(value, theirs[name], err_msg=name)


@pytest.mark.parametrize("rows_per_mask", [1, 4, "batch"])
@pytest.mark.parametrize("kind", OPTIMISERS)
def test_a_resumed_run_continues_bit_for_bit(tmp_path, kind, rows_per_mask):
    path = tmp_path / "run.npz"
    net = network(rows_per_mask)
    opt = OPTIMISERS[kind](net)
    train(net, opt, 5)
    fastdrop.save(path, net, opt)
    losses = train(net, opt, 5, first=5)
    other = network(rows_per_mask, seed=99)
    resumed = OPTIMISERS[kind](other)
    train(other, resumed, 2)  # whatever was there before
    fastdrop.load(path, other, resumed)
    assert train(other, resumed, 5, first=5) == losses
    assert_same_state(other.state_dict(), net.state_dict())
    assert_same_state(resumed.state_dict(), opt.state_dict())
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        numpy.testing.assert_array_equal(mine.value, theirs.value)


def test_loading_keeps_the_arrays_in_place(tmp_path):
    path = tmp_path / "run.npz"
    net, other = network(), network(seed=1)
    fastdrop.save(path, net)
    arrays = [parameter.value for parameter in other.parameters()]
    fastdrop.load(path, other)
    for parameter, array in zip(other.parameters(), arrays, strict=True):
        assert parameter.value is array
    x = values((4, 10))
    numpy.testing.assert_array_equal(other.forward(x), net.forward(x))


def test_streams_are_restored_in_full(tmp_path):
    path = tmp_path / "run.npz"
    net = network(seed=2**200 + 7)
    stream = net.layers[0].stream
    stream.spawn(3)
    stream.position = 2**56 - 1
    fastdrop.save(path, net)
    other = network()
    fastdrop.load(path, other)
    assert other.layers[0].stream == stream
    assert other.layers[0].stream.state["entropy"] == 2**200 + 7
    assert other.layers[0].stream.spawn(1)[0] == stream.spawn(1)[0]


def test_the_file_is_plain(tmp_path):
    """Arrays by name, and a text; nothing pickled."""
    path = tmp_path / "run.npz"
    net = network()
    fastdrop.save(path, net)
    with numpy.load(path, allow_pickle=False) as file:
        numpy.testing.assert_array_equal(file["net/dense0.weight"], net.layers[1].weight)
        header = json.loads(file["checkpoint.json"].tobytes())
    assert header["format"] == "fastdrop checkpoint"
    assert header["net"]["dropout0.stream"]["position"] == 0


def test_without_the_optimiser(tmp_path):
    path = tmp_path / "run.npz"
    net = network()
    opt = OPTIMISERS["SGD"](net)
    fastdrop.save(path, net)
    with pytest.raises(ValueError, match="holds no state of an optimiser"):
        fastdrop.load(path, net, opt)
    fastdrop.save(path, net, opt)
    fastdrop.load(path, net)  # the optimiser's part is left alone


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: network(hidden=17), r"dense0.weight: expected shape \(10, 17\) and dtype float32"),
        (lambda: network(dtype=numpy.float64), "dtype float64, got .* float32"),
        (lambda: nn.Sequential([nn.Dense(10, 16)]), "has what the network does not: dense1.bias"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path, other, message):
    path = tmp_path / "run.npz"
    fastdrop.save(path, network())
    net = other()
    before = net.state_dict()
    with pytest.raises(ValueError, match=rf"run.npz' does not fit this Sequential: .*{message}"):
        fastdrop.load(path, net)
    assert_same_state(net.state_dict(), before)


def test_an_optimiser_that_does_not_fit_leaves_the_network_alone(tmp_path):
    path = tmp_path / "run.npz"
    net = network()
    opt = OPTIMISERS["SGD"](net)
    train(net, opt, 2)
    fastdrop.save(path, net, opt)
    other = network(seed=1)
    adam = OPTIMISERS["Adam"](other)
    before = other.state_dict()
    with pytest.raises(ValueError, match="does not fit this Adam"):
        fastdrop.load(path, other, adam)
    assert_same_state(other.state_dict(), before)


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 cut off"])
def test_files_of_somebody_else(tmp_path, content):
    path = tmp_path / "run.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run.npz' is no file of fastdrop.save"):
        fastdrop.load(path, network())


def test_other_archives(tmp_path):
    path = tmp_path / "run.npz"
    numpy.savez(path, a=numpy.ones(3))
    with pytest.raises(ValueError, match=r"is no file of fastdrop\.save"):
        fastdrop.load(path, network())
    numpy.savez(path, **{"checkpoint.json": numpy.array([{"pickled": 1}], dtype=object)})
    with pytest.raises(ValueError, match=r"is no file of fastdrop\.save"):
        fastdrop.load(path, network())
    header = {"format": "fastdrop checkpoint", "version": 2, "net": {}, "opt": None}
    text = numpy.frombuffer(json.dumps(header).encode(), numpy.uint8)
    numpy.savez(path, **{"checkpoint.json": text})
    with pytest.raises(ValueError, match="has version 2 of the format, this fastdrop reads 1"):
        fastdrop.load(path, network())
    with pytest.raises(FileNotFoundError):
        fastdrop.load(tmp_path / "nowhere.npz", network())


def test_every_damaged_byte_of_the_archives_own_is_told(tmp_path):
    """Whatever zipfile makes of it: an unknown method, encryption, offsets outside of the file."""
    path = tmp_path / "run.npz"
    net = network()
    fastdrop.save(path, net)
    whole = path.read_bytes()
    directory = whole.rindex(b"PK\x01\x02")  # of the last file
    messages = []
    for place in range(directory, len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        before = net.state_dict()
        try:
            fastdrop.load(path, net)
        except ValueError as error:
            messages.append(str(error))
        assert_same_state(net.state_dict(), before)
    assert len(messages) > 30  # the others are dates, versions and the like
    assert all("damaged" in message for message in messages)


def test_a_missing_array(tmp_path):
    path, damaged = tmp_path / "run.npz", tmp_path / "damaged.npz"
    fastdrop.save(path, network())
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(damaged, "w") as part:
        for name in whole.namelist():
            if "dense0.bias" not in name:
                part.writestr(name, whole.read(name))
    with pytest.raises(ValueError, match=r"damaged: it lacks the array 'net/dense0\.bias'"):
        fastdrop.load(damaged, network())


class Stateful:
    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def test_states_of_any_shape(tmp_path):
    path = tmp_path / "run.npz"
    state = {
        "numbers": [1, 2.5, True, None, "text", 2**70],
        "nested": {"empty": {}, "array": numpy.arange(3), "list": [numpy.ones((2, 0)), [3]]},
        "scalar": numpy.float64(1 / 3),
    }
    fastdrop.save(path, Stateful(state))
    read = Stateful(None)
    fastdrop.load(path, read)
    assert read.state["numbers"] == state["numbers"]
    numpy.testing.assert_equal(read.state["nested"], state["nested"])
    assert read.state["scalar"] == 1 / 3


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {1: 2}}, r"net/a: keys of a state must be strings, got \[1\]"),
        ({"a": [object()]}, "net/a/0: a state must not hold object objects"),
        ({"a": numpy.array([None])}, "net/a: arrays of Python objects cannot be saved"),
    ],
)
def test_states_that_cannot_be_saved(tmp_path, state, message):
    path = tmp_path / "run.npz"
    with pytest.raises(TypeError, match=message):
        fastdrop.save(path, Stateful(state))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_an_earlier_file_survives_a_failure(tmp_path, monkeypatch, failing):
    path = tmp_path / "run.npz"
    fastdrop.save(path, network())
    before = path.read_bytes()

    def fail(*args):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="no space left"):
            fastdrop.save(path, network(seed=1))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.npz"]


def test_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fastdrop.save("run", network())  # no directory, no ending: used as it is
    assert os.listdir(tmp_path) == ["run"]
    fastdrop.load("run", network())
    with pytest.raises(FileNotFoundError):
        fastdrop.save(tmp_path / "nowhere" / "run.npz", network())


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_permissions(tmp_path):
    path = tmp_path / "run.npz"
    fastdrop.save(path, network())
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o640)
    fastdrop.save(path, network())
    assert path.stat().st_mode & 0o777 == 0o640


def test_extra(tmp_path):
    path = tmp_path / "run.npz"
    net = network()
    assert (
        fastdrop.save(path, net, extra={"epoch": 3, "curve": numpy.arange(4), "t": (1, 2)}) is None
    )
    extra = fastdrop.load(path, net)
    assert (extra["epoch"], extra["t"]) == (3, [1, 2])
    numpy.testing.assert_array_equal(extra["curve"], numpy.arange(4))
    fastdrop.save(path, net)
    assert fastdrop.load(path, net) is None
    opt = OPTIMISERS["SGD"](net)
    fastdrop.save(path, net, opt, extra="a word")
    assert fastdrop.load(path, net, opt) == "a word"
    assert fastdrop.load(path, net, strict=True) == "a word"
    before = path.read_bytes()
    with pytest.raises(TypeError, match="extra/rng: a state must not hold Generator objects"):
        fastdrop.save(path, net, extra={"rng": numpy.random.default_rng()})
    for key in ("a/b", "a.npy", "a\0", "__array__"):
        with pytest.raises(ValueError, match="extra: a key must not hold"):
            fastdrop.save(path, net, extra={key: numpy.zeros(2), "a": {"b": 1}})
    assert path.read_bytes() == before


def settings(rate=0.5, rows_per_mask=1, slope=0.1, activation=nn.LeakyReLU, **options):
    function = activation(slope) if activation is nn.LeakyReLU else activation()
    dropout = nn.Dropout(rate, rows_per_mask=rows_per_mask, **options)
    return nn.Sequential([nn.Dense(4, 6), function, dropout, nn.Dense(6, 2)], rng=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rate": 0.25}, "dropout0.keep_prob is 0.5 in the state and 0.75 here"),
        ({"rows_per_mask": "batch"}, "dropout0.rows_per_mask is 1 in the state and 'batch' here"),
        ({"shared_axes": -1}, r"dropout0.shared_axes is \[\] in the state and \[-1\] here"),
        ({"exact_count": True}, "dropout0.exact_count is False in the state and True here"),
        ({"scale_at": "test"}, "dropout0.scale_at is 'train' in the state and 'test' here"),
        ({"slope": 0.2}, "leakyrelu0.negative_slope is 0.1 in the state and 0.2 here"),
        ({"activation": nn.Tanh}, "layers are dense0, leakyrelu0, .* and dense0, tanh0, dropout0"),
    ],
)
def test_other_settings(tmp_path, changed, message):
    path = tmp_path / "run.npz"
    net, other = settings(), settings(**changed)
    opt = optim.SGD(net, 0.1)
    net.layers[0].weight += 1
    fastdrop.save(path, net, opt)
    before = other.state_dict()
    with pytest.raises(ValueError, match=rf"run.npz' does not fit this Sequential: .*{message}"):
        fastdrop.load(path, other, strict=True)
    numpy.testing.assert_equal(other.state_dict(), before)
    with pytest.warns(UserWarning, match=message) as caught:
        fastdrop.load(path, other)
    assert [warning.filename for warning in caught] == [__file__]
    numpy.testing.assert_array_equal(other.layers[0].weight, net.layers[0].weight)
    assert other.state_dict()["settings"] == before["settings"]
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(net.state_dict(), strict=True)


@pytest.mark.filterwarnings("error")
def test_the_same_settings(tmp_path):
    path = tmp_path / "run.npz"
    for options in ({}, {"rate": 1 / 3, "shared_axes": (0, -1)}, {"rows_per_mask": "batch"}):
        fastdrop.save(path, settings(**options))
        fastdrop.load(path, settings(**options), strict=True)


@pytest.mark.parametrize("value", [None, 5, {"dense0": 1}])
def test_settings_that_are_none(value):
    net = settings()
    state = net.state_dict()
    state["settings"] = value
    with pytest.raises(ValueError, match="settings must be a dict of dicts, got "):
        net.load_state_dict(state)
    del state["settings"]
    with pytest.raises(ValueError, match="the state lacks: settings"):
        net.load_state_dict(state)
