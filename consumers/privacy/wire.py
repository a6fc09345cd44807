"""What crosses between client and server: a small binary message, checked before anything in it is used.

Layout, little-endian: magic "FFPV" | version u16 | flags u8 (1 = sealed with a key) | method (u8 length, ASCII) | sent u64 (ms since 1970) |
nonce 16 bytes | fields u8 | for each: name (u8 length, ASCII), type u8, axes u8, sizes u32 | the arrays' bytes in that order | tag 32 bytes.
The tag is HMAC-SHA256 under the channel's key, or SHA-256 where there is none: that finds damage, not an attacker. Nothing encrypts: that is TLS's work.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError

MAGIC = b"FFPV"
VERSION = 1
TAG_BYTES = 32
MOST_ROWS = 1024
TYPES = {1: "<f4", 2: "<f2", 3: "|u1", 4: "<i4"}
_CODE = {np.dtype(name): code for code, name in TYPES.items()}
_FIXED = struct.Struct("<4sHB")
_SENT = struct.Struct("<Q16sB")


@dataclass(frozen=True, slots=True, kw_only=True)
class WireField:
    """One array of a message.

    Attributes:
        shape: sizes behind the first axis, which counts faces.
        lo, hi: inclusive range of the values; NaN never passes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "<f4"
    lo: float = -float("inf")
    hi: float = float("inf")

    @property
    def row_bytes(self) -> int:
        """Bytes of one face."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a message held: arrays by name, first axis B faces, and the marks by which a copy is known."""

    method: str
    arrays: Mapping[str, np.ndarray]
    sent_ms: int
    nonce: bytes


def pack(method: str, arrays: Mapping[str, np.ndarray], *, key: bytes | None = None, sent_ms: int | None = None) -> bytes:
    """Return the message with a fresh nonce; `sent_ms` is for tests, the default is now."""
    parts = [_FIXED.pack(MAGIC, VERSION, int(key is not None)), _name(method)]
    parts.append(_SENT.pack(time.time_ns() // 1_000_000 if sent_ms is None else sent_ms, secrets.token_bytes(16), len(arrays)))
    for name, array in arrays.items():
        parts += [_name(name), struct.pack(f"<BB{array.ndim}I", _CODE[array.dtype], array.ndim, *array.shape)]
    parts += [np.ascontiguousarray(array).tobytes() for array in arrays.values()]
    body = b"".join(parts)
    return body + _tag(body, key)


def unpack(data: bytes, method: str, fields: Sequence[WireField], *, key: bytes | None = None) -> Message:
    """Read a message and check it against what `method` sends.

    Raises:
        UserError: not a message, another version, truncated, damaged or sealed with another key, another method, or arrays of other names,
            types, sizes or ranges.
    """
    if len(data) < _FIXED.size or data[:4] != MAGIC:
        raise UserError(f"not a message of this protocol: {len(data)} bytes beginning with {bytes(data[:4])!r}, expected {MAGIC!r}; send what Client.request returned")
    version, flags = struct.unpack_from("<HB", data, 4)
    if version != VERSION:
        raise UserError(f"the message has version {version}, this server reads version {VERSION}; update the older side")
    if bool(flags) != (key is not None):
        raise UserError("the message is not sealed and this channel has a key; seal it with the same key" if key is not None else "the message is sealed with a key and this channel has none; give both sides the same key")
    # The tag first: no length inside a damaged message is believed.
    if len(data) < _FIXED.size + TAG_BYTES or not hmac.compare_digest(_tag(data[:-TAG_BYTES], key), bytes(data[-TAG_BYTES:])):
        raise UserError("the message is truncated or damaged" + (", or sealed with another key" if key is not None else "") + f" ({len(data)} bytes); send it again")
    try:
        return _read(memoryview(data)[_FIXED.size : -TAG_BYTES], method, fields)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise UserError(f"the message ends inside its header ({error}); send it again") from error


def _read(body: memoryview, method: str, fields: Sequence[WireField]) -> Message:
    came, place = _read_name(body, 0)
    if came != method:
        raise UserError(f"the message is of method '{came}', this server serves '{method}'; use the client part of the same training")
    sent_ms, nonce, count = _SENT.unpack_from(body, place)
    place += _SENT.size
    if count != len(fields):
        raise UserError(f"the message holds {count} arrays, '{method}' sends {len(fields)} ({', '.join(field.name for field in fields)})")
    shapes = []
    for field in fields:
        name, place = _read_name(body, place)
        code, axes = struct.unpack_from("<BB", body, place)
        shape = struct.unpack_from(f"<{axes}I", body, place + 2)
        place += 2 + 4 * axes
        if name != field.name or TYPES.get(code) != np.dtype(field.dtype).str or shape[1:] != field.shape:
            raise UserError(f"array '{name}' came as {TYPES.get(code, code)} {shape}, expected '{field.name}' as {np.dtype(field.dtype).str} (faces, {', '.join(map(str, field.shape))})")
        shapes.append(shape)
    rows = shapes[0][0] if shapes else 0
    if not 1 <= rows <= MOST_ROWS or any(shape[0] != rows for shape in shapes):
        raise UserError(f"the message's arrays are of {[shape[0] for shape in shapes]} faces, expected one number from 1 to {MOST_ROWS}")
    if len(body) - place != sum(rows * field.row_bytes for field in fields):
        raise UserError(f"the message has {len(body) - place} bytes of arrays, its header says {sum(rows * field.row_bytes for field in fields)}; send it again")
    arrays = {}
    for field in fields:
        array = np.frombuffer(body, field.dtype, rows * int(np.prod(field.shape)), place).reshape(rows, *field.shape)
        arrays[field.name] = _in_range(array, field)
        place += rows * field.row_bytes
    return Message(method=method, arrays=arrays, sent_ms=sent_ms, nonce=bytes(nonce))


def _in_range(array: np.ndarray, field: WireField) -> np.ndarray:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"array '{field.name}' holds values that are not finite")
    if array.size and (array.min() < field.lo or array.max() > field.hi):
        raise UserError(f"array '{field.name}' has values in [{array.min():.4g}, {array.max():.4g}], expected [{field.lo:.4g}, {field.hi:.4g}]")
    return array


class Replays:
    """Refuses a message that was seen before, is older than `window_s` seconds or comes from the future; memory holds the window's nonces only."""

    def __init__(self, window_s: float = 300.0) -> None:
        self._window_ms = int(window_s * 1000)
        self._seen: dict[bytes, int] = {}

    def check(self, message: Message, *, now_ms: int | None = None) -> None:
        """Remember the message, or raise UserError."""
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        if abs(now - message.sent_ms) > self._window_ms:
            raise UserError(f"the message was sent {(now - message.sent_ms) / 1000:.0f} s ago, accepted are {self._window_ms / 1000:.0f} s to either side; protect the face again, or set the clock")
        # A message from the future stays acceptable until its own time has passed: forget it only then.
        self._seen = {nonce: sent for nonce, sent in self._seen.items() if now - sent <= self._window_ms}
        if message.nonce in self._seen:
            raise UserError("the message was received before (replayed); protect the face again, every request is sent once")
        self._seen[message.nonce] = message.sent_ms


def _name(text: str) -> bytes:
    raw = text.encode("ascii")
    return bytes([len(raw)]) + raw


def _read_name(body: memoryview, place: int) -> tuple[str, int]:
    end = place + 1 + body[place]
    return bytes(body[place + 1 : end]).decode("ascii"), end


def _tag(body: bytes, key: bytes | None) -> bytes:
    return hashlib.sha256(body).digest() if key is None else hmac.digest(key, body, "sha256")
