"""MaskStream: seeds, position, windows, spawning, state, processes."""

import copy
import os
import pickle
import subprocess
import sys
import threading

import numpy
import pytest

from fastdrop import MaskStream, reference

LAST_DRAW = 2**56 - 1


def bits_of(stream, shape=(256,), **options):
    options.setdefault("keep_prob", 0.5)
    return stream.draw(shape, **options).bits.tobytes()


def expected_bits(sequence, draw, keep_prob=0.5, n=256):
    """The bits of a one-dimensional draw, from the seed sequence and the reference alone."""
    key = [int(word) for word in sequence.generate_state(2, numpy.uint32)]
    bits = numpy.empty((n + 7) // 8, dtype=numpy.uint8)
    threshold = reference.bernoulli_threshold(keep_prob)
    reference.draw_bernoulli(*key, draw, threshold, (n,), (0,), (n,), bits)
    return bits.tobytes()


# --- Seeds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**200 + 9, [1, 2, 3], (4, 5), numpy.int64(77)])
def test_a_seed_is_the_seed_of_a_seed_sequence(seed):
    assert bits_of(MaskStream(seed)) == expected_bits(numpy.random.SeedSequence(seed), 0)


def test_a_seed_sequence_is_taken_as_it_is():
    sequence = numpy.random.SeedSequence(9, spawn_key=(3,), pool_size=8)
    assert bits_of(MaskStream(sequence)) == expected_bits(sequence, 0)


def test_no_seed_is_a_fresh_one_each_time():
    assert bits_of(MaskStream()) != bits_of(MaskStream())


def test_different_seeds_give_different_masks():
    assert len({bits_of(MaskStream(seed)) for seed in range(50)}) == 50


# --- Requests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_prob", [0.5, 1 / 3, 0.9, 2.0**-20, 0.0, 1.0])
def test_draws_follow_one_another(keep_prob):
    stream = MaskStream(3)
    sequence = numpy.random.SeedSequence(3)
    for draw in range(4):
        assert bits_of(stream, keep_prob=keep_prob) == expected_bits(sequence, draw, keep_prob)


@pytest.mark.parametrize("rate", [0, 1, 0.0, 1.0, 0.5, 0.1, 1 / 3, numpy.float32(0.3)])
def test_rate_is_one_minus_keep_prob(rate):
    mask = MaskStream(0).draw((500,), rate=rate)
    assert mask.keep_prob == 1.0 - float(rate)
    assert mask == MaskStream(0).draw((500,), keep_prob=1.0 - float(rate))


def test_rate_zero_keeps_all_and_rate_one_nothing():
    assert MaskStream(0).draw((77, 3), rate=0).count() == 231
    assert MaskStream(0).draw((77, 3), rate=1).count() == 0
    assert MaskStream(0).draw((77, 3), rate=0, exact_count=True).count() == 231
    assert MaskStream(0).draw((77, 3), rate=1, exact_count=True).count() == 0


@pytest.mark.parametrize(
    ("shared_axes", "shape"),
    [
        ((), (4, 5, 6)),
        (0, (1, 5, 6)),
        (-1, (4, 5, 1)),
        ((1, 2), (4, 1, 1)),
        ((-1, 0), (1, 5, 1)),
        ((0, 1, 2), (1, 1, 1)),
    ],
)
def test_shared_axes_have_length_one(shared_axes, shape):
    mask = MaskStream(0).draw((4, 5, 6), rate=0.5, shared_axes=shared_axes)
    assert mask.shape == shape
    whole = MaskStream(0).draw(shape, rate=0.5)
    assert mask.bits.tobytes() == whole.bits.tobytes()


@pytest.mark.parametrize(
    ("rows_per_mask", "rows"), [(1, 130), (2, 65), (32, 5), (130, 1), (1000, 1), ("batch", 1)]
)
def test_rows_that_share(rows_per_mask, rows):
    mask = MaskStream(0).draw((130, 40), rate=0.5, rows_per_mask=rows_per_mask)
    assert mask.shape == (rows, 40)
    assert mask.rows_per_mask == rows_per_mask
    assert mask.bits.tobytes() == MaskStream(0).draw((rows, 40), rate=0.5).bits.tobytes()


def test_rows_per_mask_and_shared_axes_together():
    mask = MaskStream(0).draw((10, 4, 3, 3), rate=0.5, rows_per_mask=4, shared_axes=(2, 3))
    assert mask.shape == (3, 4, 1, 1)


@pytest.mark.parametrize("keep_prob", [0.0, 0.1, 1 / 3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(
    ("shape", "options", "n"),
    [
        ((7, 129), {}, 129),
        ((129,), {}, 129),
        ((6, 1), {}, 1),
        ((6, 10, 4), {"shared_axes": 2}, 10),
        ((6, 10, 4), {"shared_axes": 1}, 4),
        ((6, 10, 4), {"shared_axes": (1, 2)}, 6),
        ((64, 30), {"rows_per_mask": 10}, 30),
        ((64, 30), {"rows_per_mask": "batch"}, 30),
    ],
)
def test_every_row_of_an_exact_count_mask_keeps_k(shape, options, n, keep_prob):
    mask = MaskStream(0).draw(shape, keep_prob=keep_prob, exact_count=True, **options)
    k = int(numpy.floor(keep_prob * n + 0.5 + 1e-6))
    rows = mask.to_array().reshape(-1, n)
    assert (rows.sum(axis=1) == k).all()
    assert mask.scale == (n / k if k else 0)


@pytest.mark.parametrize(
    ("rate", "n", "k"), [(0.9, 5, 1), (0.5, 5, 3), (0.7, 5, 2), (0.5, 256, 128), (0.3, 3, 2)]
)
def test_halves_are_rounded_up_in_spite_of_binary_fractions(rate, n, k):
    assert MaskStream(0).draw((n,), rate=rate, exact_count=True).count() == k


def test_an_exact_count_mask_keeps_the_smallest():
    mask = MaskStream(0).draw((3, 50), keep_prob=0.3, exact_count=True).to_array()
    key = [int(word) for word in numpy.random.SeedSequence(0).generate_state(2, numpy.uint32)]
    uniform = reference.uniforms(numpy.arange(150), 0, key).reshape(3, 50)
    for row in range(3):
        assert uniform[row][mask[row]].max() < uniform[row][~mask[row]].min()


def test_a_window_is_a_part_of_the_whole():
    whole = MaskStream(1).draw((20, 30, 7), rate=0.4).to_array()
    window = (slice(3, 17), slice(None, 29), slice(2, None))
    part = MaskStream(1).draw((20, 30, 7), rate=0.4, window=window)
    numpy.testing.assert_array_equal(part.to_array(), whole[window])
    assert part.shape == (14, 29, 5)


def test_the_ends_of_a_window_may_count_from_the_end():
    whole = MaskStream(1).draw((20, 30), rate=0.4).to_array()
    for window in [(slice(-5, -1), slice(-30, 30)), (slice(None), slice(7, 7))]:
        part = MaskStream(1).draw((20, 30), rate=0.4, window=window)
        numpy.testing.assert_array_equal(part.to_array(), whole[window])


def test_a_window_counts_in_the_shape_of_the_mask():
    options = {"rate": 0.4, "shared_axes": 2, "rows_per_mask": 4}
    whole = MaskStream(1).draw((20, 30, 7), **options).to_array()
    window = (slice(1, 4), slice(5, 30), slice(0, 1))
    part = MaskStream(1).draw((20, 30, 7), window=window, **options)
    numpy.testing.assert_array_equal(part.to_array(), whole[window])


def test_a_window_of_an_exact_count_mask_cuts_whole_rows():
    whole = MaskStream(1).draw((20, 33), rate=0.4, exact_count=True).to_array()
    window = (slice(3, 17), slice(20, 31))
    part = MaskStream(1).draw((20, 33), rate=0.4, exact_count=True, window=window)
    numpy.testing.assert_array_equal(part.to_array(), whole[window])


def test_the_window_of_a_mask_larger_than_any_memory():
    whole = (2**31, 2**31)
    corner = (slice(2**31 - 4, None), slice(2**31 - 64, None))
    mask = MaskStream(0).draw(whole, rate=0.5, window=corner)
    assert mask.shape == (4, 64)
    assert mask.nbytes == 32


# --- Position -----------------------------------------------------------------------------------


def test_a_draw_takes_the_position_and_advances_it():
    stream = MaskStream(0)
    assert stream.position == 0
    first, second = bits_of(stream), bits_of(stream)
    assert stream.position == 2
    assert first != second
    stream.position = 1
    assert bits_of(stream) == second
    assert stream.position == 2


@pytest.mark.parametrize(
    "request_",
    [
        {"shape": (0,), "rate": 0.5},
        {"shape": (), "rate": 0.5},
        {"shape": (5,), "rate": 0},
        {"shape": (5,), "rate": 1},
        {"shape": (5,), "rate": 1, "exact_count": True},
        {"shape": (5,), "rate": 0.5, "window": (slice(2, 2),)},
    ],
    ids=str,
)
def test_every_successful_draw_advances(request_):
    stream = MaskStream(0)
    stream.draw(**request_)
    assert stream.position == 1


@pytest.mark.parametrize(
    "request_",
    [
        {"shape": (5,)},
        {"shape": (5,), "rate": 1.5},
        {"shape": (5,), "rate": 0.5, "keep_prob": 0.5},
        {"shape": (-5,), "rate": 0.5},
        {"shape": (5,), "rate": 0.5, "shared_axes": 1},
        {"shape": (5,), "rate": 0.5, "rows_per_mask": 0},
        {"shape": (5,), "rate": 0.5, "window": (slice(0, 6),)},
        {"shape": (5,), "rate": 0.5, "shared_axes": 0, "exact_count": True},
        # More memory than there is.
        {"shape": (2**31, 2**31), "rate": 0.5},
    ],
    ids=str,
)
def test_a_failed_draw_does_not_advance(request_):
    stream = MaskStream(0)
    with pytest.raises((ValueError, TypeError, MemoryError)):
        stream.draw(**request_)
    assert stream.position == 0


def test_at_draws_a_number_and_leaves_the_position_alone():
    stream = MaskStream(0)
    masks = [bits_of(stream) for _ in range(5)]
    for draw in (3, 0, 4, 4):
        assert bits_of(stream, at=draw) == masks[draw]
        assert stream.position == 5
    assert bits_of(MaskStream(0), at=LAST_DRAW) == expected_bits(
        numpy.random.SeedSequence(0), LAST_DRAW
    )


def test_the_last_draw_exhausts_the_stream():
    stream = MaskStream(0)
    stream.position = LAST_DRAW
    last = bits_of(stream)
    assert last == bits_of(MaskStream(0), at=LAST_DRAW)
    with pytest.raises(ValueError, match=r"2\*\*56"):
        bits_of(stream)
    assert bits_of(stream, at=0) == bits_of(MaskStream(0))
    stream.position = 0
    assert bits_of(stream) == bits_of(MaskStream(0))


# --- Spawning and state -------------------------------------------------------------------------


def test_spawned_streams_are_those_of_the_spawned_sequences():
    stream, sequence = MaskStream(12), numpy.random.SeedSequence(12)
    for n in (2, 0, 3):
        children, expected = stream.spawn(n), sequence.spawn(n)
        assert [bits_of(child) for child in children] == [expected_bits(e, 0) for e in expected]


def test_spawning_leaves_the_position_alone():
    stream = MaskStream(0)
    bits_of(stream)
    children = stream.spawn(2)
    assert stream.position == 1
    assert [child.position for child in children] == [0, 0]


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_a_copy_draws_and_spawns_as_the_original_would(duplicate):
    stream = MaskStream(numpy.random.SeedSequence([4, 5], spawn_key=(6,), pool_size=8))
    stream.spawn(3)
    bits_of(stream)
    copied = duplicate(stream)
    assert copied == stream
    assert copied.position == 1
    assert bits_of(copied) == bits_of(stream)
    assert bits_of(copied.spawn(1)[0]) == bits_of(stream.spawn(1)[0])
    bits_of(copied)
    assert stream.position == 2


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol(protocol):
    stream = MaskStream(8)
    assert pickle.loads(pickle.dumps(stream, protocol)) == stream


def test_streams_are_equal_by_their_state():
    assert MaskStream(1) == MaskStream(1)
    assert MaskStream(1) != MaskStream(2)
    moved = MaskStream(1)
    moved.position = 1
    assert moved != MaskStream(1)
    parent = MaskStream(1)
    parent.spawn(1)
    assert parent != MaskStream(1)
    assert MaskStream(1) != 1
    a, b = (numpy.random.SeedSequence(1, pool_size=size) for size in (4, 8))
    assert MaskStream(a) != MaskStream(b)


def test_repr_names_what_makes_the_stream():
    stream = MaskStream(1234)
    stream.position = 56
    assert "1234" in repr(stream)
    assert "56" in repr(stream)


# --- Threads and processes ----------------------------------------------------------------------


def test_the_mask_does_not_depend_on_the_number_of_threads(each_isa, each_thread_count):
    options = {"keep_prob": 0.7, "at": 5}
    assert bits_of(MaskStream(0), (700_001,), **options) == expected_bits(
        numpy.random.SeedSequence(0), 5, 0.7, 700_001
    )


def test_python_threads_share_a_stream_without_repeating_a_draw():
    stream = MaskStream(0)
    masks = []

    def work():
        masks.extend(bits_of(stream) for _ in range(500))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.position == 2000
    assert len(set(masks)) == 2000


FORK = """
import os, sys
import numpy
import fastdrop

fastdrop.set_num_threads(2)
x = numpy.ones(3_000_000, dtype=numpy.float32)
y, mask = fastdrop.dropout(x, 0.3, rng=1)
unseeded = fastdrop.dropout(x[:999], 0.5)[1].bits.tobytes()
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    z, again = fastdrop.dropout(x, 0.3, rng=1)
    exact = fastdrop.MaskStream(1).draw((1000, 300), rate=0.5, exact_count=True)
    assert again == mask and (y == z).all() and exact.count() == 150_000
    os.write(writing, fastdrop.dropout(x[:999], 0.5)[1].bits.tobytes())
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
of_child = os.read(reading, 1000)
of_parent = fastdrop.dropout(x[:999], 0.5)[1].bits.tobytes()
assert len({unseeded, of_child, of_parent}) == 3
z, again = fastdrop.dropout(x, 0.3, rng=1)
assert again == mask and (y == z).all()
print("survived")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_works_after_threads_were_used():
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "survived\n", done.stderr


def test_the_public_names_are_there_from_the_start():
    names = ["MaskStream", "Mask", "dropout", "dropout_backward", "apply_mask", "reference"]
    names += ["get_num_threads", "set_num_threads", "show_config", "__version__"]
    code = f"import fastdrop\nfor name in {names}: getattr(fastdrop, name)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
