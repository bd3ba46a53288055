"""Masks, streams and networks in a notebook."""

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


def test_a_stream_shows_its_next_mask_and_keeps_it():
    stream = fastdrop.MaskStream(3)
    stream.position = 7
    html = stream._repr_html_()
    assert stream.position == 7
    assert "<td>3</td>" in html
    assert "<td>7</td>" in html
    assert "spawn key" not in html
    assert (drawn(html) == stream.draw((16, 64), rate=0.5).to_array()).all()

    child = stream.spawn(2)[1]
    assert "<th>spawn key</th><td>(1,)</td>" in child._repr_html_()
    assert "<th>children spawned</th><td>2</td>" in stream._repr_html_()


def test_a_stream_without_draws_and_one_of_many_seeds():
    stream = fastdrop.MaskStream([2, 5])
    assert "<td>[2, 5]</td>" in stream._repr_html_()
    stream.position = 1 << 56
    assert "no draws are left" in stream._repr_html_()


def test_a_network_is_a_table():
    net = nn.Sequential([nn.Dense(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Dense(16, 2)], rng=0)
    html = net._repr_html_()
    assert html.count("<tr>") == 1 + len(net.layers)
    assert "178 parameters, float32" in html
    assert "dropout0" in html
    assert "Dropout(" in html
