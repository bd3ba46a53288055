"""What notebooks show of masks and networks."""

import base64
import re
import zlib

import numpy
import pytest

import fastdrop
from fastdrop import nn


def drawn(html):
    """The picture in a mask's HTML as booleans, True where it is dark; read without fastdrop."""
    png = base64.b64decode(re.search(r"base64,([^\"]+)", html)[1])
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + data) == int.from_bytes(
            png[at + 8 + length : at + 12 + length], "big"
        )
        chunks[kind] = data
        at += 12 + length
    width, height = (int.from_bytes(chunks[b"IHDR"][i : i + 4], "big") for i in (0, 4))
    lines = numpy.frombuffer(zlib.decompress(chunks[b"IDAT"]), numpy.uint8).reshape(height, -1)
    assert not lines[:, 0].any()  # no filter
    return numpy.unpackbits(lines[:, 1:], axis=1)[:, :width] == 0


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 8), (128, 512), (5, 3, 17), (2, 3, 4, 5)])
def test_the_picture_is_the_mask(shape):
    mask = fastdrop.MaskStream(3).draw(shape, rate=0.5)
    html = mask._repr_html_()
    assert (drawn(html) == mask.to_array().reshape(-1, shape[-1])).all()
    assert f"{mask.count():,} of {mask.size:,} kept" in html
    assert "the first" not in html


@pytest.mark.parametrize("shape", [(1000, 3000), (1 << 20,), (40, 40, 600), (3, 1 << 16, 2)])
def test_of_a_large_mask_a_corner_is_drawn(shape):
    mask = fastdrop.MaskStream(3).draw(shape, rate=0.2)
    html = mask._repr_html_()
    picture = drawn(html)
    assert "the first" in html
    assert len(html) < 50_000
    assert (picture[0] == mask.to_array().reshape(-1, shape[-1])[0, : picture.shape[1]]).all()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 3)])
def test_masks_of_no_axes_or_no_elements(shape):
    mask = fastdrop.Mask.from_array(numpy.ones(shape, bool))
    assert "Mask(shape=" in mask._repr_html_()


def test_a_network_is_a_table():
    net = nn.Sequential([nn.Dense(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Dense(16, 2)], rng=0)
    html = net._repr_html_()
    assert html.count("<tr>") == 1 + len(net.layers)
    assert "178 parameters, float32" in html
    assert "dropout0" in html
    assert "Dropout(" in html
