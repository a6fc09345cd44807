"""The mark of machine-made media: the IPTC digital source type "trainedAlgorithmicMedia" as XMP inside a PNG or JPEG file.

The packet is put into the encoded file, beside the pixels: any encoder's output can be marked, no pixel changes, and whatever copies the
bytes of an image (the shards, an export that does not encode again) keeps the mark. Sources: IPTC Photo Metadata Standard, "Digital Source
Type"; XMP Specification Part 3 (iTXt chunk of PNG, APP1 segment of JPEG). EU AI Act, Art. 50(2), asks for machine-readable marking.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from ..core.errors import UserError

TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC NewsCode: created by a model that was trained on sampled content."""

_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    f'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType="{TRAINED}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
).encode()

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_PNG_KEYWORD = b"XML:com.adobe.xmp\0\0\0\0\0"  # keyword, not compressed, no language, no translated keyword
_JPEG_NAME = b"http://ns.adobe.com/xap/1.0/\0"
_SOURCE = re.compile(rb"DigitalSourceType(?:=\"|>|\s+rdf:resource=\")([^\"<]+)")
_APP0, _APP1, _SCAN = 0xE0, 0xE1, 0xDA


def mark(data: bytes) -> bytes:
    """Return a PNG or JPEG file with the mark in it; the same bytes if it names a digital source type already.

    Raises:
        UserError: neither a PNG nor a JPEG, a truncated one, or one with an XMP packet of another content (it is not overwritten).
    """
    if source_type(data) is not None:
        return data
    if _xmp(data) is not None:
        raise UserError("the image has an XMP packet without a digital source type; remove the packet (exiftool -xmp:all=) or add the type to it")
    if data.startswith(_PNG):
        end = 8 + 12 + struct.unpack(">I", data[8:12])[0]  # behind IHDR, which must come first
        return data[:end] + _png_chunk(b"iTXt", _PNG_KEYWORD + _PACKET) + data[end:]
    body = _JPEG_NAME + _PACKET
    end = next((start + 2 + size for marker, start, size in _segments(data) if marker == _APP0), 2)  # JFIF wants its APP0 first
    return data[:end] + struct.pack(">BBH", 0xFF, _APP1, len(body) + 2) + body + data[end:]


def like(data: bytes, original: bytes) -> bytes:
    """Return an image file that was encoded anew, marked if the file it comes from is."""
    return mark(data) if source_type(original) == TRAINED else data


def source_type(data: bytes) -> str | None:
    """Return the digital source type that a PNG or JPEG file names in its XMP packet, or None.

    Raises:
        UserError: neither a PNG nor a JPEG, or a truncated one.
    """
    found = _SOURCE.search(_xmp(data) or b"")
    return found[1].decode("utf-8", "replace") if found else None


def _xmp(data: bytes) -> bytes | None:
    try:
        if data.startswith(_PNG):
            return next((body[len(_PNG_KEYWORD) :] for kind, body in _chunks(data) if kind == b"iTXt" and body.startswith(_PNG_KEYWORD)), None)
        if data.startswith(_JPEG):
            bodies = (data[start + 4 : start + 2 + size] for marker, start, size in _segments(data) if marker == _APP1)
            return next((body[len(_JPEG_NAME) :] for body in bodies if body.startswith(_JPEG_NAME)), None)
    except struct.error as error:
        raise UserError("the image file is truncated") from error
    raise UserError("only PNG and JPEG files can carry the mark of machine-made media; write images as png or jpeg")


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, body) of the chunks before the pixels."""
    place = 8
    while True:
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        if kind in (b"IDAT", b"IEND"):
            return
        yield kind, data[place + 8 : place + 8 + size]
        place += 12 + size


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start of its 0xFF, size without the two bytes of the marker) of the segments before the scan."""
    place = 2
    while True:
        marker, size = struct.unpack(">xBH", data[place : place + 4])
        if marker == _SCAN:
            return
        yield marker, place, size
        place += 2 + size


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
