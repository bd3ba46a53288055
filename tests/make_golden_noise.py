"""Golden noise: read the file, and regenerate it by `fastdrop.reference`.

    python tests/make_golden_noise.py

A change of a line that was there before means that the noise is no longer version 1.
"""

import pathlib
import zlib

import numpy

from fastdrop import reference

PATH = pathlib.Path(__file__).parent / "data" / "golden_noise.txt"
HEADER = """\
# Noise of the fastdrop mask stream, "normal, version 1" and "uniform, version 1"
# (docs/design/mask-stream.md). Written by tests/make_golden_noise.py.
#
# One run of elements a line, 7 columns separated by one space:
#    1 kind     normal or uniform
#    2 key0     hexadecimal
#    3 key1     hexadecimal
#    4 draw     decimal
#    5 first    the first element, decimal
#    6 count    how many elements, decimal
#    7 numbers  their float32 bits in hexadecimal, separated by commas; of more than 8 elements
#               "crc32=" and the CRC-32 (the one of zlib and PNG) of the numbers in little-endian
# order

"""
KIND = {"normal": reference.NORMAL, "uniform": reference.UNIFORM}
KEY, OTHER = (0xB0F478BE, 0xDB2CD7E7), (0x2820A7AF, 0x43BFFF7A)
LARGEST = (1 << 63) - 1
RUNS = [
    (KEY, 0, 0, 4),
    (KEY, 0, 62, 4),
    (KEY, 0, 0, 100_000),
    (KEY, 1, 0, 129),
    (KEY, 2**40 + 3, 126, 4),
    (KEY, 2**56 - 1, 2**39 - 2, 4),
    (KEY, 0, 2**62 + 77, 1000),
    (OTHER, 7, 3, 1021),
]


def drawn_with(kernels, kind, key, draw, first, count):
    """Return the float32 numbers of a run of elements."""
    out = numpy.full(count, numpy.nan, numpy.float32)
    kernels.draw_noise(*key, draw, KIND[kind], (LARGEST,), (first,), (first + count,), out)
    return out


def summarize(numbers):
    """Return numbers as the file has them."""
    if len(numbers) <= 8:
        return ",".join(f"{word:08x}" for word in numbers.view(numpy.uint32).tolist())
    return f"crc32={zlib.crc32(numbers.astype('<f4').tobytes()):08x}"


def read():
    """Return the lines of the file: kind, key, draw, first, count, numbers."""
    lines = [line.split() for line in PATH.read_text("ascii").splitlines()]
    return [
        (kind, (int(key0, 16), int(key1, 16)), *map(int, rest[:3]), rest[3])
        for kind, key0, key1, *rest in (
            line for line in lines if line and not line[0].startswith("#")
        )
    ]


if __name__ == "__main__":
    made = [
        f"{kind} {key[0]:08x} {key[1]:08x} {draw} {first} {count} "
        + summarize(drawn_with(reference, kind, key, draw, first, count))
        for kind in KIND
        for key, draw, first, count in RUNS
    ]
    PATH.write_text(HEADER + "\n".join(made) + "\n", "ascii")
