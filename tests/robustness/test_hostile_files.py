"""Pickles and checkpoints that were changed by accident or on purpose: an error, or what was saved.

Reading one runs no code, does not crash, and changes nothing where it fails.
"""

import io
import json
import os
import pickle
import random
import zipfile

import numpy
import pytest
from hostile import BAD_INTEGERS, NOT_NUMBERS, raised
from hypothesis import given
from hypothesis import strategies as st

import fastdrop
from fastdrop import Mask, MaskStream, nn, optim
from fastdrop.mask import _unpickle

# --- Pickles of masks and streams ------------------------------------------------------------

VALUES = st.sampled_from(
    [*BAD_INTEGERS, *NOT_NUMBERS, -1, 0, 3, 2**63, numpy.nan, "batch", (), (3,)]
)


@given(data=st.data(), which=st.integers(0, 4), value=VALUES)
def test_masks_of_changed_pickles(data, which, value):
    mask = MaskStream(0).draw((3, 5), rate=0.5)
    arguments = list(mask.__reduce__()[1])
    arguments[which] = value
    try:
        changed = _unpickle(*arguments)
    except (TypeError, ValueError, OverflowError):
        return
    assert changed.bits.size == -(-changed.to_array().size // 8)
    assert changed.keep_prob is None or 0 <= changed.keep_prob <= 1
    for shape in ((3, 5), (15,), (1,), ()):
        y = raised(lambda shape=shape: fastdrop.apply_mask(numpy.ones(shape), changed), ("mask",))
        assert y is None or y.shape == shape


@given(name=st.sampled_from(sorted(MaskStream(0).state)), value=VALUES, missing=st.booleans())
def test_streams_of_changed_states(name, value, missing):
    state = MaskStream(0).state
    if missing:
        del state[name]
    else:
        state[name] = value
    try:
        stream = MaskStream.from_state(state)
    except (KeyError, TypeError, ValueError, OverflowError):
        return
    assert 0 <= stream.position <= 2**56
    assert pickle.loads(pickle.dumps(stream)) == stream


ALLOWED = {
    ("fastdrop.mask", "_unpickle"): _unpickle,
    ("builtins", "getattr"): getattr,
    ("fastdrop.stream", "MaskStream"): MaskStream,
    ("fastdrop.stream", "MaskStream.from_state"): MaskStream.from_state,
}


class OnlyOurs(pickle.Unpickler):
    """A mutated pickle may name any function: here it is only let have those of masks."""

    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return ALLOWED[module, name]


@given(
    seed=st.integers(0, 2**32), protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
    thing=st.sampled_from([MaskStream(7), MaskStream(0).draw((9, 5), rate=0.3)]),
)  # fmt: skip
def test_pickles_with_changed_bytes(seed, protocol, thing):
    data = mutated(pickle.dumps(thing, protocol), random.Random(seed))
    try:
        found = OnlyOurs(io.BytesIO(data)).load()
    except MemoryError:
        return  # the length of a string was changed
    except SystemError:
        raise
    except Exception:
        return
    if isinstance(found, Mask):
        assert found.to_array().shape == found.shape
    elif isinstance(found, MaskStream):
        found.draw((70,), rate=0.5, at=3)


def mutated(data, generator):
    """Some bytes changed, inserted, removed or cut off."""
    data = bytearray(data)
    for _ in range(generator.randint(1, 3)):
        place = generator.randrange(len(data) + 1)
        what = generator.choice(["change", "change", "change", "insert", "remove", "cut"])
        if what == "change" and place < len(data):
            data[place] = generator.randrange(256)
        elif what == "insert":
            data[place:place] = generator.randbytes(generator.randint(1, 4))
        elif what == "remove":
            del data[place : place + generator.randint(1, 4)]
        elif generator.random() < 0.2:
            del data[place:]
    return bytes(data)


# --- Checkpoints -----------------------------------------------------------------------------


def network():
    layers = [nn.Dense(3, 4), nn.ReLU(), nn.Dropout(0.5), nn.Dense(4, 2)]
    net = nn.Sequential(layers, rng=0)
    opt = optim.Adam(net, 0.1)
    for _ in range(3):
        net.backward(net.forward(numpy.ones((2, 3)), training=True))
        opt.step()
    return net, opt


def snapshot(net, opt):
    return pickle.dumps((net.state_dict(), opt.state_dict()))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file, what is in it, and another network and optimiser to load it."""
    path = tmp_path_factory.mktemp("hostile") / "run.npz"
    net, opt = network()
    fastdrop.save(path, net, opt)
    saved = snapshot(net, opt)
    with numpy.load(path) as file:
        arrays = dict(file)
    net.backward(net.forward(numpy.ones((2, 3)), training=True))
    opt.step()
    return path.with_name("changed.npz"), path.read_bytes(), arrays, saved, net, opt


def loads(checkpoint, as_saved=True):
    """Load the changed file, which has to change nothing where it fails.

    Returns the error's text, or True: then what was saved is there, or something that works.
    """
    path, _, _, saved, net, opt = checkpoint
    before = snapshot(net, opt)
    states = net.state_dict(), opt.state_dict()
    try:
        fastdrop.load(path, net, opt)
    except (ValueError, MemoryError) as error:
        assert snapshot(net, opt) == before
        return str(error)
    after = snapshot(net, opt)
    net.backward(net.forward(numpy.ones((2, 3)), training=True))
    opt.step()
    net.load_state_dict(states[0])
    opt.load_state_dict(states[1])
    assert not as_saved or after == saved
    return True


@given(seed=st.integers(0, 2**32))
def test_checkpoints_with_changed_bytes(checkpoint, seed):
    path, data = checkpoint[:2]
    path.write_bytes(mutated(data, random.Random(seed)))
    loads(checkpoint)


HEADERS = st.one_of(
    VALUES.filter(lambda value: isinstance(value, int | float | str | type(None))),
    st.sampled_from(
        [[], [[]], {}, {"__array__": []}, {"__array__": "net"}, {"a": 1}, 1e400, -(2**80)]
    ),
)


def places(value, path=()):
    """Paths to all values inside a tree of dicts and lists."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


@given(data=st.data(), value=HEADERS)
@pytest.mark.filterwarnings("ignore:the state is of a network with other settings")
def test_checkpoints_with_a_changed_header(checkpoint, data, value):
    path, _, arrays = checkpoint[:3]
    header = json.loads(arrays["checkpoint.json"].tobytes())
    where = data.draw(st.sampled_from([place for place in places(header) if place]))
    inner = header
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    text = numpy.frombuffer(json.dumps(header).encode(), numpy.uint8)
    numpy.savez(path, **{**arrays, "checkpoint.json": text})
    loads(checkpoint, as_saved=False)  # a number that could have been saved is not seen to be wrong


@given(
    data=st.data(),
    change=st.sampled_from(
        ["dtype", "shape", "missing", "object", "values", "structured", "bytes"]
    ),
)
def test_checkpoints_with_changed_arrays(checkpoint, data, change):
    path, _, arrays = checkpoint[:3]
    arrays = dict(arrays)
    name = data.draw(st.sampled_from(sorted(set(arrays) - {"checkpoint.json"})))
    array = arrays.pop(name)
    if change == "values":
        if "counts" not in name:
            return
        arrays[name] = array + data.draw(st.sampled_from([-(2**62), -4, 2**40, 2**62]))
    elif change != "missing":
        arrays[name] = {
            "dtype": array.astype(">f8"), "shape": array[None], "object": array.astype(object),
            "structured": numpy.zeros(array.shape, "f4,f4"), "bytes": array.astype("S8"),
        }[change]  # fmt: skip
    numpy.savez(path, **arrays)
    assert isinstance(loads(checkpoint), str)


class Code:
    """Unpickled, it runs code."""

    def __init__(self, evidence):
        self.evidence = evidence

    def __reduce__(self):
        return os.mkdir, (self.evidence,)


@pytest.mark.parametrize("kind", ["array", "header", "whole file", "npy"])
def test_a_checkpoint_runs_no_code(checkpoint, tmp_path, kind):
    path, _, arrays = checkpoint[:3]
    evidence = str(tmp_path / "evidence")
    array = numpy.array([Code(evidence)], object)
    if kind == "whole file":
        path.write_bytes(pickle.dumps(Code(evidence)))
    elif kind == "npy":
        with open(path, "wb") as file:
            numpy.save(file, array)
    else:
        name = "checkpoint.json" if kind == "header" else "net/dense0.weight"
        numpy.savez(path, **{**arrays, name: array})
    assert "no file of fastdrop.save" in loads(checkpoint)
    assert not os.path.exists(evidence)
    if kind == "npy":  # the file is what it is made out to be: who trusts it runs its code
        numpy.load(path, allow_pickle=True)
        assert os.path.exists(evidence)


def test_a_checkpoint_does_not_grow_in_memory(checkpoint):
    path, _, arrays = checkpoint[:3]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in {**arrays, "bomb": numpy.zeros(1 << 24)}.items():
            with file.open(f"{name}.npy", "w") as member:
                numpy.save(member, array)
    assert path.stat().st_size < 1 << 20
    assert "compressed" in loads(checkpoint)
