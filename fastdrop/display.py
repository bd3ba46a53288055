"""Masks, streams and networks in a notebook: pictures and tables in HTML."""

import base64
import html
import struct
import zlib
from typing import Any

import numpy

from fastdrop.types import Array, Shape

__all__ = ["mask_html", "network_html", "stream_html"]

MOST_ROWS, MOST_COLUMNS = 128, 512
PREVIEW = (16, 64)


def mask_html(mask: Any) -> str:
    """Return a mask as a picture, kept elements dark, with its `repr` below.

    Rows run along the last axis; of a large mask the first rows and columns are drawn.
    """
    shape = mask.shape if mask.ndim else (1,)
    corner = _corner(shape)
    bits = mask[corner].to_array() if mask.ndim else mask.to_array()
    if not bits.size:
        return f"<code>{html.escape(repr(mask))}</code>"
    rows = bits.reshape(-1, bits.shape[-1] if bits.ndim else 1)[:MOST_ROWS]
    height, width = rows.shape
    cut = height * width < mask.size
    note = f"<br>the first {height} rows and {width} columns" if cut else ""
    return (
        f"{_picture(rows)}<br>"
        f"<code>{html.escape(repr(mask))}</code><br>"
        f"{mask.count():,} of {mask.size:,} kept, {mask.nbytes:,} bytes{note}"
    )


def stream_html(stream: Any, key: tuple[int, int]) -> str:
    """Return a stream as a table: seed, key and position, with a picture of its next mask."""
    state = stream.state
    lines = {
        "seed": state["entropy"],
        "spawn key": state["spawn_key"] or "",
        "children spawned": state["n_children_spawned"] or "",
        "key": f"{key[0]:08x} {key[1]:08x}",
        "next draw": f"{stream.position:,}",
    }
    body = "".join(
        f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in lines.items()
        if value != ""
    )
    table = f"<b>MaskStream</b><table><tbody>{body}</tbody></table>"
    if stream.position == 1 << 56:
        return f"{table}no draws are left"
    rows = stream.draw(PREVIEW, rate=0.5, at=stream.position).to_array()
    return f"{table}{_picture(rows)}<br>its next mask, {PREVIEW} at rate 0.5"


def _picture(rows: Array) -> str:
    """Return booleans, True is dark, as an element of HTML."""
    height, width = rows.shape
    zoom = max(1, min(12, 512 // width, 256 // height))
    picture = base64.b64encode(_png(rows)).decode("ascii")
    return (
        f'<img alt="kept elements are dark" style="image-rendering: pixelated; border: 1px solid" '
        f'width="{zoom * width}" height="{zoom * height}" '
        f'src="data:image/png;base64,{picture}">'
    )


def _corner(shape: Shape) -> tuple[slice, ...]:
    """Slices of the part that is drawn: never more than a few rows of a large mask."""
    left = MOST_ROWS
    slices: list[slice] = []
    for length in reversed(shape[:-1]):
        slices.append(slice(0, min(length, left)))
        left = max(1, left // max(1, length))
    return (*reversed(slices), slice(0, min(shape[-1], MOST_COLUMNS)))


def _png(rows: Array) -> bytes:
    """Return a picture of one bit for each element, in PNG; True is dark."""
    height, width = rows.shape
    packed = numpy.packbits(~rows, axis=1)
    lines = numpy.concatenate([numpy.zeros((height, 1), numpy.uint8), packed], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = zlib.compress(lines.tobytes())
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def network_html(net: Any) -> str:
    """Return a network as a table: its layers, their settings and numbers of parameters."""
    lines = []
    for layer in net.layers:
        parameters = sum(parameter.value.size for parameter in layer.parameters())
        cells = (getattr(layer, "name", ""), repr(layer), f"{parameters:,}" if parameters else "")
        lines.append("".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells))
    total = sum(parameter.value.size for parameter in net.parameters())
    head = "".join(f"<th>{cell}</th>" for cell in ("name", "layer", "parameters"))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"{total:,} parameters, {html.escape(str(net.dtype))}"
    )
