"""Golden masks: read the file, and regenerate the part of it that `fastdrop.reference` computed.

    python tests/make_golden.py

rewrites everything below the line ``MARKER`` in ``tests/data/golden_masks.txt``. A change of a line
that was there before means that the stream is no longer version 1.
"""

import json
import math
import pathlib
import zlib
from dataclasses import dataclass

import numpy

from fastdrop import reference

PATH = pathlib.Path(__file__).parent / "data" / "golden_masks.txt"
MARKER = "# Computed by tests/make_golden.py."
LONGEST_HEX = 48


@dataclass(frozen=True)
class GoldenMask:
    """One line of the file; the header of the file explains the fields."""

    kind: str
    key: tuple[int, int]
    draw: int
    parameter: int
    shape: tuple[int, ...]
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    kept: int
    bits: str
    seed: int | list[int]
    spawn: tuple[int, ...]
    keep_prob: float
    array_shape: tuple[int, ...]
    shared_axes: tuple[int, ...]
    rows_per_mask: int | str

    @property
    def size(self):
        """Number of elements of the window."""
        return math.prod(stop - start for start, stop in zip(self.starts, self.stops, strict=True))

    def draw_with(self, kernels):
        """Return the packed bytes that a kernels module or the reference computes."""
        # Ones everywhere, so that a byte left alone and padding left set are seen.
        bits = numpy.full((self.size + 7) // 8, 255, dtype=numpy.uint8)
        kernel = kernels.draw_bernoulli if self.kind == "bernoulli" else kernels.draw_exact_count
        kernel(*self.key, self.draw, self.parameter, self.shape, self.starts, self.stops, bits)
        return bits

    def __str__(self):
        digits = ",".join
        fields = [
            self.kind,
            f"{self.key[0]:08x}",
            f"{self.key[1]:08x}",
            str(self.draw),
            f"{self.parameter:017x}" if self.kind == "bernoulli" else str(self.parameter),
            digits(map(str, self.shape)),
            digits(map(str, self.starts)),
            digits(map(str, self.stops)),
            str(self.kept),
            self.bits,
            json.dumps(self.seed, separators=(",", ":")),
            digits(map(str, self.spawn)),
            float(self.keep_prob).hex(),
            digits(map(str, self.array_shape)),
            digits(map(str, self.shared_axes)),
            str(self.rows_per_mask),
        ]
        return " ".join(field or "-" for field in fields)


def summarize(bits):
    """Return column 10: the bytes in hexadecimal, or their CRC-32 where they are many."""
    data = bits.tobytes()
    return data.hex() if len(data) <= LONGEST_HEX else f"crc32={zlib.crc32(data):08x}"


def parse(line):
    """Return the `GoldenMask` of a line of the file."""
    fields = line.split(" ")
    if len(fields) != 16:
        raise ValueError(f"line must have 16 columns, got {len(fields)}: {line!r}")

    def integers(text):
        return () if text == "-" else tuple(map(int, text.split(",")))

    return GoldenMask(
        kind=fields[0],
        key=(int(fields[1], 16), int(fields[2], 16)),
        draw=int(fields[3]),
        parameter=int(fields[4], 16 if fields[0] == "bernoulli" else 10),
        shape=integers(fields[5]),
        starts=integers(fields[6]),
        stops=integers(fields[7]),
        kept=int(fields[8]),
        bits="" if fields[9] == "-" else fields[9],
        seed=json.loads(fields[10]),
        spawn=integers(fields[11]),
        keep_prob=float.fromhex(fields[12]),
        array_shape=integers(fields[13]),
        shared_axes=integers(fields[14]),
        rows_per_mask=fields[15] if fields[15] == "batch" else int(fields[15]),
    )


def read():
    """Return every `GoldenMask` of the file."""
    lines = PATH.read_text(encoding="utf-8").splitlines()
    return [parse(line) for line in lines if line and not line.startswith("#")]


def compute(
    array_shape,
    keep_prob,
    draw=0,
    *,
    exact=False,
    window=None,
    shared=(),
    rows_per_mask=1,
    seed=0,
    spawn=(),
):
    """Return the `GoldenMask` of a request; `window` is in the mask's own shape."""
    shape = [1 if axis in shared else size for axis, size in enumerate(array_shape)]
    if rows_per_mask == "batch":
        shape[0] = 1
    elif rows_per_mask > 1:
        shape[0] = -(-shape[0] // rows_per_mask)
    window = window or [(0, size) for size in shape]
    if exact:
        while len(shape) - 1 in shared:
            shape.pop()
        window = window[: len(shape)]
    sequence = numpy.random.SeedSequence(seed, spawn_key=spawn)
    blank = GoldenMask(
        kind="exact" if exact else "bernoulli",
        key=tuple(int(word) for word in sequence.generate_state(2, numpy.uint32)),
        draw=draw,
        parameter=reference.exact_keep_count(keep_prob, shape[-1])
        if exact
        else reference.bernoulli_threshold(keep_prob),
        shape=tuple(shape),
        starts=tuple(start for start, _ in window),
        stops=tuple(stop for _, stop in window),
        kept=0,
        bits="",
        seed=seed,
        spawn=spawn,
        keep_prob=keep_prob,
        array_shape=array_shape,
        shared_axes=shared,
        rows_per_mask=rows_per_mask,
    )
    bits = blank.draw_with(reference)
    return GoldenMask(
        **{**vars(blank), "kept": int(numpy.bitwise_count(bits).sum()), "bits": summarize(bits)}
    )


def groups():
    """Yield the computed part: (title, masks) pairs."""
    third = 1 / 3
    end = 2**62
    yield (
        "Shapes of 0 to 4 axes, empty ones too.",
        [
            compute((), 0.5),
            compute((), 0.3, 3),
            compute((0,), 0.5),
            compute((3, 0, 2), 0.5),
            compute((1,), 0.7, 5),
            compute((127,), 0.5, 2),
            compute((129,), 0.75, 2),
            compute((3, 43), third, 7),
            compute((5, 7, 11), 0.6, 1),
            compute((2, 3, 5, 7), 0.5, 4, seed=3),
            compute((1000, 1001), 0.5, 1),
            compute((257, 1023), 0.8, 6),
        ],
    )
    yield (
        "Probabilities: 0, 1, the ends of the resolution, dyadic and not.",
        [
            compute((130,), 0.0),
            compute((130,), 1.0),
            compute((2**20,), 1 - 2.0**-53, 1),
            compute((2**20,), 2.0**-65, 1),
            compute((2**22,), 2.0**-20, 1),
            compute((2**22,), 1 - 2.0**-20, 1),
            compute((200,), 0.25, 8),
            compute((200,), 1 - 0.1, 8),
            compute((200,), 0.1, 8),
        ],
    )
    yield (
        "Draw numbers on both sides of 2^32, and the last one; other seeds and children.",
        [
            compute((96,), 0.5, 2**32 - 1),
            compute((96,), 0.5, 2**32),
            compute((96,), 0.4, 2**48 + 2**32 + 5, seed=12345),
            compute((96,), 0.4, 2**56 - 1),
            compute((96,), 0.5, seed=2**130 + 17),
            compute((96,), 0.5, seed=[1, 2, 3, 4]),
            compute((96,), 0.5, spawn=(0,)),
            compute((96,), 0.2, 9, spawn=(1, 0), seed=[7, 8]),
        ],
    )
    yield (
        "Windows: in the middle of an axis, beyond 2^32 elements, beyond 2^32 blocks.",
        [
            compute((300,), third, window=[(131, 132)]),
            compute((300,), third, window=[(140, 140)]),
            compute((6, 50, 9), 0.7, 2, window=[(1, 5), (13, 38), (0, 9)]),
            compute((6, 50, 9), 0.7, 2, window=[(0, 6), (49, 50), (2, 8)]),
            compute((2**20, 2**20), 0.5, 3, window=[(2**20 - 3, 2**20), (2**19 - 9, 2**19 + 50)]),
            compute((2**40 + 64,), 0.6, 1, window=[(2**40 - 70, 2**40 + 64)]),
            compute((2**40,), 0.6, 1, window=[(2**39 - 70, 2**39 + 70)]),
            compute((end,), 0.55, 2**33 + 1, window=[(end - 100, end)]),
            compute((2**9, 2**33, 5), 0.2, window=[(511, 512), (2**33 - 30, 2**33), (1, 4)]),
        ],
    )
    yield (
        "Shared axes and rows that share.",
        [
            compute((6, 5, 4, 3), 0.5, shared=(2, 3)),
            compute((6, 5, 4, 3), 0.9, 1, shared=(1,)),
            compute((4, 100), 0.5, 2, shared=(0,)),
            compute((4, 5), 0.5, 2, shared=(0, 1)),
            compute((128, 100), 0.5, rows_per_mask=32),
            compute((130, 100), 0.7, 1, rows_per_mask=32, window=[(3, 5), (0, 100)]),
            compute((128, 100), 0.5, 2, rows_per_mask="batch"),
            compute((50, 8, 3, 3), 0.8, 3, shared=(2, 3), rows_per_mask=20),
        ],
    )
    yield (
        "Exact counts.",
        [
            compute((3, 10), 0.0, exact=True),
            compute((3, 10), 1.0, exact=True),
            compute((9, 1), 0.5, exact=True),
            compute((9, 1), 0.4, exact=True),
            compute((9, 5), 1 - 0.9, exact=True),
            compute((129,), 0.5, 5, exact=True),
            compute((5, 129), third, 2**40, exact=True),
            compute((40, 1025), 0.2, 1, exact=True),
            compute((7, 129), 0.5, 2, exact=True, window=[(2, 6), (100, 129)]),
            compute((2, 3, 33), 0.7, 3, exact=True, window=[(1, 2), (0, 3), (0, 33)]),
            compute((2**50, 20), 0.25, exact=True, window=[(2**50 - 3, 2**50), (0, 20)]),
            compute((6, 40, 4, 4), 0.25, exact=True, shared=(2, 3)),
            compute((6, 40, 4), 0.25, 1, exact=True, shared=(1,)),
            compute((128, 256), 0.5, exact=True, rows_per_mask=32),
            compute((128, 256), 0.9, 4, exact=True, rows_per_mask="batch"),
        ],
    )


def main():
    head = PATH.read_text(encoding="utf-8").partition(MARKER)[0]
    lines = [head + MARKER]
    for title, masks in groups():
        lines += ["", "# " + title, *map(str, masks)]
    PATH.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
