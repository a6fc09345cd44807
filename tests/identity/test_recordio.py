"""RecordIO and face records, against the byte examples of the specification and an obvious second reader."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from facefoundry.identity.rec_faces import ImageRecord, iter_faces, pack, read_property, unpack, write_rec
from facefoundry.identity.recordio import MAGIC, RecordFile, encode_record, read_index, write_records
from facefoundry.core.errors import UserError

M = struct.pack("<I", MAGIC)


def hexed(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (pack(ImageRecord(labels=(3.0,), image=hexed("ffd8ffd9"), id=7)), "0a23d7ce 1c000000 00000000 00004040 0700000000000000 0000000000000000 ffd8ffd9"),
        (pack(ImageRecord(labels=(5.0, 7.0), image=b"", id2=1)), "0a23d7ce 20000000 02000000 00000000 0000000000000000 0100000000000000 0000a040 0000e040"),
        (
            pack(ImageRecord(labels=(3.0, 1.0), image=b"AAAA" + M + b"BB", id=8)),
            "0a23d7ce 24000020 02000000 00000000 0800000000000000 0000000000000000 00004040 0000803f 41414141 0a23d7ce 02000060 42420000",
        ),
        (M + b"xyz", "0a23d7ce 00000020 0a23d7ce 03000060 78797a00"),
        (M + M + b"xyz", "0a23d7ce 00000020 0a23d7ce 00000040 0a23d7ce 03000060 78797a00"),
        (b"a" + M, "0a23d7ce 05000000 61 0a23d7ce 000000"),
    ],
)
def test_byte_examples(payload, expected):
    assert encode_record(payload) == hexed(expected)


def slow_records(data: bytes) -> list[bytes]:
    """A second reader, straight from the description."""
    found, at, held = [], 0, None
    while at < len(data):
        magic, word = struct.unpack_from("<II", data, at)
        assert magic == MAGIC and at % 4 == 0
        kind, length = word >> 29, word & 0x1FFFFFFF
        piece = data[at + 8 : at + 8 + length]
        held = piece if held is None else held + M + piece
        if kind in (0, 3):
            found.append(held)
            held = None
        at += 8 + (length + 3) // 4 * 4
    return found


def test_round_trip_of_payloads_full_of_magic(tmp_path):
    rng = np.random.default_rng(0)
    payloads = [b"".join(rng.choice([M, b"\x0a", b"#abc", b""]) for _ in range(rng.integers(0, 12))) for _ in range(300)]
    offsets = write_records(tmp_path / "x.rec", enumerate(payloads))
    assert slow_records((tmp_path / "x.rec").read_bytes()) == payloads
    with RecordFile(tmp_path / "x.rec") as records:
        assert [payload for _, payload in records] == payloads and records[7] == payloads[7] and records.offsets == offsets
        rewritten = write_records(tmp_path / "y.rec", list(records))
    assert rewritten == offsets
    for end in ("rec", "idx"):
        assert (tmp_path / f"x.{end}").read_bytes() == (tmp_path / f"y.{end}").read_bytes()
    (tmp_path / "x.idx").unlink()
    with RecordFile(tmp_path / "x.rec") as records:  # scanned
        assert records.offsets == offsets


@pytest.mark.parametrize("labels", [(3.0,), (3.0, 1.5), (2.0, 0.0, 9.0)])
@pytest.mark.parametrize("in_header", [True, False])
def test_unpack_of_pack(labels, in_header):
    payload = pack(ImageRecord(labels=labels, image=b"jpeg", id=1 << 40, id2=3, in_header=in_header))
    assert pack(unpack(payload)) == payload and unpack(payload).labels == labels


def test_face_set_layout_and_round_trip(tmp_path):
    faces = [(identity, bytes([identity, shot]) * 7) for identity in range(3) for shot in range(identity + 1)]
    assert write_rec(tmp_path / "train.rec", faces) == 6
    assert read_property(tmp_path / "property") == (3, 112, 112)
    with RecordFile(tmp_path / "train.rec") as records:
        assert unpack(records[0]).labels == (7.0, 10.0) and list(records.offsets) == list(range(10))
        assert [unpack(records[7 + i]).labels for i in range(3)] == [(1.0, 2.0), (2.0, 4.0), (4.0, 7.0)]
    found = list(iter_faces(tmp_path / "train.rec"))
    assert [(record.label, record.image) for _, record in found] == faces and [key for key, _ in found] == list(range(1, 7))
    write_rec(tmp_path / "again" / "train.rec", [(record.label, record.image) for _, record in found])
    for name in ("train.rec", "train.idx", "property"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_im2rec_files_have_no_header_and_multi_label_records(tmp_path):
    write_records(tmp_path / "x.rec", [(k, pack(ImageRecord(labels=(float(k // 2), 0.0), image=b"img%d" % k))) for k in range(4)])
    assert [(record.label, record.image) for _, record in iter_faces(tmp_path / "x.rec")] == [(0, b"img0"), (0, b"img1"), (1, b"img2"), (1, b"img3")]


def test_header_rounded_by_float32_is_not_trusted(tmp_path):
    records = [(0, pack(ImageRecord(labels=(42_474_558.0, 42_474_560.0), image=b""))), (1, pack(ImageRecord(labels=(0.0,), image=b"a"))), (2, pack(ImageRecord(labels=(1.0, 2.0), image=b"")))]
    write_records(tmp_path / "x.rec", records)
    assert [key for key, _ in iter_faces(tmp_path / "x.rec")] == [1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rec: rec[:-3], "cut at byte"),
        (lambda rec: b"\0" + rec[1:], "byte 0: 0xced72300"),
        (lambda rec: rec[:4] + struct.pack("<I", 3 << 29 | 4) + rec[8:], "part of kind 3 at the start"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    write_records(tmp_path / "x.rec", [(0, b"abcdefg"), (1, b"hijklmn")])
    (tmp_path / "x.rec").write_bytes(damage((tmp_path / "x.rec").read_bytes()))
    with pytest.raises(UserError, match=message), RecordFile(tmp_path / "x.rec") as records:
        list(records)


@pytest.mark.parametrize(("text", "message"), [("0 0\n", "line 1"), ("0\t0\n1\t6\n", "line 2: offset 6 is no multiple"), ("0\t0\n1\t400\n", "beyond the end"), ("0\t0\n0\t8\n", "line 2: key 0 stands there twice"), ("a\t0\n", "line 1")])
def test_bad_index(tmp_path, text, message):
    (tmp_path / "x.idx").write_text(text)
    with pytest.raises(UserError, match=message):
        read_index(tmp_path / "x.idx", size=100)


def test_bad_faces(tmp_path):
    for faces, message in (([], "none to write"), ([(1, b"a"), (0, b"b")], "not sorted")):
        with pytest.raises(UserError, match=message):
            write_rec(tmp_path / "x.rec", faces)
    with pytest.raises(UserError, match="announces 9 labels"):
        unpack(struct.pack("<IfQQ", 9, 0, 0, 0) + b"abc")
    with pytest.raises(UserError, match="expected a header"):
        unpack(b"abc")
