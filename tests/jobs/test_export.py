"""Round trips through every format, each against a second reader; labels and pixels exact."""

from __future__ import annotations

import io
import json
import struct
import sys
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from facefoundry.identity.rec_faces import iter_faces, read_property
from facefoundry.core.errors import UserError
from facefoundry.core.images import decode, encode_png
from facefoundry.identity.dataset import FaceDataset, finalise, shard_path, write_shard
from facefoundry.identity.ingest import ingest
from facefoundry.identity.records import FaceRecord
from facefoundry.jobs.export import FORMATS, export, open_set, origin_of
from facefoundry.jobs.export_tfrecord import NAME as TFR
from facefoundry.jobs.export_tfrecord import masked_crc
from PIL import Image

PEOPLE = (2, 5, 6, 40)
"""Numbers with gaps, as filters leave them: labels are 0 1 2 3."""


def face(identity: int, shot: int) -> np.ndarray:
    """Red, green and blue differ, so that swapped channels are seen."""
    rng = np.random.default_rng((identity, shot))
    return np.stack([rng.integers(0, 90, (112, 112)), rng.integers(80, 170, (112, 112)), rng.integers(160, 256, (112, 112))], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "set"
    records = [
        FaceRecord(face_id=f"{i:06d}/{k:04d}", identity=i, image=encode_png(face(i, k)), seed=100 * i + k, generator="g@1", origin="generated:g")
        for i in PEOPLE
        for k in range(1 + i % 3)
    ]
    write_shard(shard_path(folder, "data", 0, 2), records[:4])
    write_shard(shard_path(folder, "data", 1, 2), records[4:])
    finalise(folder, title="four people", generator="g", facts={"fingerprint": "f00", "license_chain": "all ours"})
    return folder


def rows(folder) -> list[tuple[int, np.ndarray]]:
    return [(record.identity, decode(record.image)) for record in FaceDataset.open(folder).records()]


@pytest.mark.parametrize("to", FORMATS)
def test_round_trip(dataset, tmp_path, to):
    if to == "lmdb":
        pytest.importorskip("lmdb", reason="the optional package lmdb is not installed")
        pytest.importorskip("msgpack", reason="the optional package msgpack is not installed")
    said = export(dataset, tmp_path / "out", to)
    assert said == {"format": to, "images": 9, "identities": 4}
    assert origin_of(tmp_path / "out") == "generated:g"
    ingest(tmp_path / "out", tmp_path / "back", origin="generated:g", entries=open_set(tmp_path / "out"))
    before, after = rows(dataset), rows(tmp_path / "back")
    labels = {identity: label for label, identity in enumerate(PEOPLE)}
    assert [labels[identity] for identity, _ in before] == [identity for identity, _ in after]
    assert all((left == right).all() for (_, left), (_, right) in zip(before, after, strict=True))
    names = pq.read_table(tmp_path / "back" / "metadata" / "identities.parquet").column("name").to_pylist()
    assert names == [f"{identity:06d}" for identity in PEOPLE]
    sidecar = json.loads((tmp_path / "out" / "facefoundry.json").read_text())
    assert (sidecar["title"], sidecar["fingerprint"], sidecar["license_chain"]) == ("four people", "f00", "all ours")


def test_rec_as_arcface_torch_reads_it(dataset, tmp_path):
    """The steps of its MXFaceDataset, with OpenCV's decoding replaced by Pillow's (both give the colours of the file)."""
    export(dataset, tmp_path / "out", "rec")
    data = (tmp_path / "out" / "train.rec").read_bytes()
    index = dict(map(int, line.split("\t")) for line in (tmp_path / "out" / "train.idx").read_text().splitlines())

    def payload(key: int) -> bytes:
        magic, word = struct.unpack_from("<II", data, index[key])
        assert magic == 0xCED7230A and word >> 29 == 0
        return data[index[key] + 8 : index[key] + 8 + word]

    flag, _, _, _, first, last = struct.unpack("<IfQQff", payload(0))
    assert (flag, first, last) == (2, 10.0, 14.0)
    expected = rows(dataset)
    for key in range(1, int(first)):
        flag, label, number, _ = struct.unpack_from("<IfQQ", payload(key))
        identity, pixels = expected[key - 1]
        assert (flag, PEOPLE[int(label)], number) == (0, identity, key)
        assert (np.asarray(Image.open(io.BytesIO(payload(key)[24:])).convert("RGB")) == pixels).all()
    assert read_property(tmp_path / "out" / "property") == (4, 112, 112)
    listed = [line.split("\t") for line in (tmp_path / "out" / "train.lst").read_text().splitlines()]
    assert listed[0] == ["1", "0", "000002/0000.png"] and [int(row[1]) for row in listed] == [record.label for _, record in iter_faces(tmp_path / "out" / "train.rec")]


def test_webdataset_is_plain_tar_and_the_same_twice(dataset, tmp_path):
    for name in ("a", "b"):
        export(dataset, tmp_path / name, "webdataset")
    path = tmp_path / "a" / "train-00000.tar"
    assert path.read_bytes() == (tmp_path / "b" / "train-00000.tar").read_bytes()
    with tarfile.open(path) as archive:
        names = archive.getnames()
        assert names[:3] == ["000002_0000.png", "000002_0000.cls", "000002_0000.json"] and len(names) == 27
        assert archive.extractfile("000040_0001.cls").read() == b"3"
        facts = json.loads(archive.extractfile("000040_0001.json").read())
    assert (facts["identity"], facts["seed"], facts["origin"]) == (40, 4001, "generated:g")


def test_foreign_webdataset(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, data in (("a/1.jpg.png", encode_png(face(0, 0))), ("a/1.cls", b"7"), ("a/2.cls", b"9"), ("b/3.png", encode_png(face(0, 1))), ("b/3.json", b'{"label": "ann"}')):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert [(entry.path, entry.identity) for entry in open_set(tmp_path / "x.tar")] == [("a/1", "000007"), ("b/3", "ann")]
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:700])
    with pytest.raises(UserError, match="cannot be read as a tar file"):
        list(open_set(tmp_path / "x.tar") or ())


def test_opens_with_datasets(dataset, tmp_path):
    """Hugging Face's own readers of ImageFolder and WebDataset."""
    import datasets

    expected = rows(dataset)
    for to, files in (("webdataset", "*.tar"), ("imagefolder", "**")):
        export(dataset, tmp_path / to, to)
        table = datasets.load_dataset(to, data_files={"train": str(tmp_path / to / files)}, cache_dir=str(tmp_path / "cache"))["train"]
        pixels = table["png" if to == "webdataset" else "image"]
        assert all((np.asarray(image) == right).all() for image, (_, right) in zip(pixels, expected, strict=True))
    assert list(table["identity"]) == [identity for identity, _ in expected]


def test_tfrecord_by_tensorboards_reader(dataset, tmp_path):
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c as reference

    for data in (b"", b"123456789", bytes(range(256)) * 3):
        assert masked_crc(data) == reference(data)
    export(dataset, tmp_path / "out", "tfrecord")
    path = tmp_path / "out" / TFR / f"{TFR}-00000.tfrecord"
    reader, offset, expected = PyRecordReader_New(str(path)), 0, rows(dataset)
    index = [line.split("\t") for line in (tmp_path / "out" / f"{TFR}.txt").read_text().splitlines()]
    for (name, number, at, label), (identity, pixels) in zip(index, expected, strict=True):
        reader.GetNext()  # checks both sums
        record = reader.record()
        assert (name, number, int(at), PEOPLE[int(label)]) == (TFR, "0", offset, identity)
        assert (decode(record[record.index(b"\x89PNG") :].partition(b"IEND")[0] + b"IEND\xaeB`\x82") == pixels).all()
        offset += len(record) + 16
    damaged = bytearray(path.read_bytes())
    damaged[int(index[2][2]) + 500] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=rf"byte {index[2][2]}: the record is cut or damaged"):
        list(open_set(tmp_path / "out"))


def test_lists(dataset, tmp_path):
    export(dataset, tmp_path / "out", "list")
    paths = (tmp_path / "out" / "train.txt").read_text().splitlines()
    assert all(path.startswith(str(tmp_path.resolve())) for path in paths)
    assert [int(path.split("/")[-2]) for path in paths] == [identity for identity, _ in rows(dataset)]
    relative = [line.split("\t") for line in (tmp_path / "out" / "train_labels.txt").read_text().splitlines()]
    assert [PEOPLE[int(label)] for _, label in relative] == [identity for identity, _ in rows(dataset)]
    by_folder = list(open_set(tmp_path / "out" / "train.txt"))
    assert [entry.identity for entry in by_folder] == [f"{identity:06d}" for identity, _ in rows(dataset)]
    (tmp_path / "out" / "images" / "000002" / "0000.png").unlink()
    assert "cannot read it" in next(iter(open_set(tmp_path / "out"))).problem
    (tmp_path / "bad.txt").write_text("a.png\tann\n")
    with pytest.raises(UserError, match="line 1: 'ann' after the path"):
        list(open_set(tmp_path / "bad.txt"))


def test_lmdb_keys_of_the_trainer(dataset, tmp_path):
    lmdb, msgpack = pytest.importorskip("lmdb"), pytest.importorskip("msgpack")
    export(dataset, tmp_path / "out", "lmdb")
    with lmdb.open(str(tmp_path / "out" / "train.lmdb"), subdir=False, readonly=True, lock=False) as held, held.begin() as transaction:
        about = {name: msgpack.loads(transaction.get(f"__{name}__".encode())) for name in ("len", "keys", "classnum")}
        found = [msgpack.loads(transaction.get(key)) for key in about["keys"]]
    assert (about["len"], about["classnum"], about["keys"][0]) == (9, 4, b"0")
    assert [(PEOPLE[label], decode(image).tobytes()) for image, label in found] == [(identity, pixels.tobytes()) for identity, pixels in rows(dataset)]


def test_lmdb_missing_is_said(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match=r"facefoundry\[lmdb\]"):
        export(dataset, tmp_path / "out", "lmdb")


def test_jpeg_on_request(dataset, tmp_path):
    export(dataset, tmp_path / "out", "list", quality=95)
    first = next(iter(open_set(tmp_path / "out")))
    assert first.path.endswith(".jpg") and first.data.startswith(b"\xff\xd8")
    assert np.abs(decode(first.data).mean((0, 1)) - face(2, 0).mean((0, 1))).max() < 3  # channels in their order


def test_mixed_rows_are_sorted_by_label(tmp_path):
    records = [FaceRecord(face_id=f"{i:06d}/{k:04d}", identity=i, image=encode_png(face(i, k))) for k in range(2) for i in (3, 1)]
    write_shard(shard_path(tmp_path / "set", "data", 0, 1), records)
    export(tmp_path / "set", tmp_path / "out", "rec")
    assert [(record.label, decode(record.image)[0, 0].tolist()) for _, record in iter_faces(tmp_path / "out" / "train.rec")] == [
        (label, face(identity, shot)[0, 0].tolist()) for label, identity in enumerate((1, 3)) for shot in range(2)
    ]


def test_refusals(dataset, tmp_path):
    with pytest.raises(UserError, match="did you mean 'webdataset'"):
        export(dataset, tmp_path / "out", "webdatset")
    with pytest.raises(UserError, match="is Parquet already"):
        export(dataset, tmp_path / "out", "parquet")
    with pytest.raises(UserError, match="not empty"):
        export(dataset, dataset, "rec")
    assert open_set(dataset) is None  # ours is read by EntrySource
    tarfile.open(tmp_path / "empty.tar", "w").close()
    with pytest.raises(UserError, match="holds no images"):
        ingest(tmp_path / "empty.tar", tmp_path / "back", entries=open_set(tmp_path / "empty.tar"))
