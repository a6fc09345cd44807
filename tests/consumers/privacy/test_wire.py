"""The bytes between client and server: what is refused, and why."""

from __future__ import annotations

import numpy as np
import pytest
from facefoundry.consumers.privacy.wire import Message, Replays, WireField, pack, unpack
from facefoundry.core.errors import UserError

FIELDS = (WireField(name="a", shape=(2, 3), lo=-1, hi=1), WireField(name="region", shape=(4,), dtype="|u1", lo=0, hi=1), WireField(name="h", shape=(), dtype="<f2"))
KEY, OTHER = b"k" * 32, b"o" * 32


def arrays(rows=2):
    rng = np.random.default_rng(0)
    return {"a": rng.uniform(-1, 1, (rows, 2, 3)).astype(np.float32), "region": rng.integers(0, 2, (rows, 4)).astype(np.uint8), "h": np.arange(rows, dtype=np.float16)}


@pytest.mark.parametrize("key", [None, KEY])
def test_there_and_back(key):
    found = unpack(pack("m", arrays(), key=key), "m", FIELDS, key=key)
    assert all(np.array_equal(found.arrays[name], value) for name, value in arrays().items())
    assert pack("m", arrays()) != pack("m", arrays())  # a nonce of its own each time


@pytest.mark.parametrize("key", [None, KEY])
def test_no_cut_and_no_changed_byte_passes(key):
    data = pack("m", arrays(), key=key)
    for length in range(0, len(data), 7):
        with pytest.raises(UserError):
            unpack(data[:length], "m", FIELDS, key=key)
    with pytest.raises(UserError):
        unpack(data + b"\0", "m", FIELDS, key=key)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(UserError):
            unpack(bytes(changed), "m", FIELDS, key=key)


@pytest.mark.parametrize(
    ("data", "key", "message"),
    [
        (b"", None, "not a message"),
        (b"PNG\0" * 20, None, "not a message"),
        (b"FFPV\2\0" + pack("m", arrays())[6:], None, "version 2"),
        (pack("m", arrays(), key=KEY), OTHER, "another key"),
        (pack("m", arrays(), key=KEY), None, "sealed with a key"),
        (pack("m", arrays()), KEY, "not sealed"),
        (pack("n", arrays()), None, "method 'n'"),
        (pack("m", {"a": arrays()["a"]}), None, "1 arrays"),
        (pack("m", {**arrays(), "a": arrays()["a"][:, :1]}), None, r"\(2, 1, 3\)"),
        (pack("m", {**arrays(), "a": arrays()["a"].astype(np.float16)}), None, "<f2"),
        (pack("m", {**arrays(), "a": arrays()["a"] * 3}), None, r"expected \[-1, 1\]"),
        (pack("m", {**arrays(), "a": arrays()["a"] * np.nan}), None, "finite"),
        (pack("m", {**arrays(), "h": np.zeros(3, np.float16)}), None, "faces"),
        (pack("m", arrays(0)), None, "faces"),
    ],
)
def test_refused(data, key, message):
    with pytest.raises(UserError, match=message):
        unpack(data, "m", FIELDS, key=key)


def test_replays_and_old_messages():
    guard, message = Replays(10), unpack(pack("m", arrays(), sent_ms=50_000), "m", FIELDS)
    guard.check(message, now_ms=55_000)
    with pytest.raises(UserError, match="replayed"):
        guard.check(message, now_ms=59_000)
    with pytest.raises(UserError, match="ago"):
        guard.check(message, now_ms=61_001)
    early = Message(method="m", arrays={}, sent_ms=69_000, nonce=b"e" * 16)
    guard.check(early, now_ms=60_000)  # a clock 9 s ahead
    with pytest.raises(UserError, match="replayed"):
        guard.check(early, now_ms=78_000)  # remembered as long as it would be accepted
