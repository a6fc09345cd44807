"""Everything that comes in is a kept or a rejected row."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from facefoundry.core.errors import UserError
from facefoundry.core.images import decode
from facefoundry.identity.dataset import FaceDataset, verify_dataset
from facefoundry.identity.ingest import ingest


def _rows(folder) -> dict:
    return {record.source: record for part in ("data", "rejected") for record in FaceDataset.open(folder, part).records()}


def test_every_kind_of_file_becomes_a_row(tmp_path, people, make_folder, picture):
    odd = {
        "ann/grey.png": picture(50, mode="L"), "ann/rgba.png": picture(51, mode="RGBA"), "ann/cmyk.jpg": picture(52, mode="CMYK", kind="JPEG"),
        "ann/plain.jpg": picture(53, kind="JPEG"), "ann/deep.png": _deep(),
    }  # fmt: skip
    bad = {
        "bob/cut.png": (picture(60)[:-80], "unreadable"), "bob/zero.png": (b"", "unreadable"), "bob/notes.txt": (b"hello", "unreadable"),
        "bob/bomb.png": (_bomb(), "unreadable"), "bob/large.png": (picture(61, (250, 200)), "size"), "loose.png": (picture(62), "no identity"),
    }  # fmt: skip
    source = make_folder(tmp_path / "in", {**people, **odd, **{name: data for name, (data, _) in bad.items()}})
    summary = ingest(source, tmp_path / "out")
    rows = _rows(tmp_path / "out")
    assert set(rows) == {*people, *odd, *bad} and summary.kept == len(people) + len(odd) and summary.rejected == len(bad)
    assert summary.identities == 3 and summary.single_image == 1 and summary.reasons == {"unreadable": 4, "size": 1, "no identity": 1}
    for name, data in {**people, **odd}.items():
        assert rows[name].dropped is None
        with Image.open(io.BytesIO(rows[name].image)) as stored:
            assert stored.mode == "RGB" and stored.size == (112, 112)
        np.testing.assert_array_equal(decode(rows[name].image), decode(data))
    assert rows["ann/plain.jpg"].image == odd["ann/plain.jpg"], "a crop that any reader shows alike is taken byte by byte"
    for name, (_, kind) in bad.items():
        assert rows[name].dropped.startswith(kind)
    assert "pixels" in rows["bob/bomb.png"].dropped and "250x200" in rows["bob/large.png"].dropped
    assert verify_dataset(tmp_path / "out") == []
    names = pq.read_table(tmp_path / "out" / "metadata" / "identities.parquet").to_pylist()
    assert names[0] == {"identity": 0, "name": "ann", "kept": 7, "rejected": 0} and names[1]["rejected"] == 5


def test_equal_images_keep_the_first_and_name_it(tmp_path, people, make_folder, picture):
    twins = {"bob/same.png": people["bob/0.png"], "cid/same.png": people["ann/1.png"], "cid/bmp.bmp": picture(1, kind="BMP")}
    summary = ingest(make_folder(tmp_path / "in", {**people, **twins}), tmp_path / "out")
    rows = _rows(tmp_path / "out")
    assert summary.kept == 6 and summary.rejected == 3 and summary.reasons == {"duplicate": 1, "duplicate of another identity": 2}
    assert summary.shared == ((rows["ann/1.png"].face_id, rows["cid/bmp.bmp"].face_id), (rows["ann/1.png"].face_id, rows["cid/same.png"].face_id))
    assert rows["bob/0.png"].face_id in rows["bob/same.png"].dropped and "'ann'" in rows["cid/same.png"].dropped


def test_other_sizes_go_through_the_aligner(tmp_path, make_folder, picture):
    def aligner(image_HWC):
        if image_HWC.shape[0] < 100:
            return None
        return image_HWC[:112, :112].copy(), np.full((5, 2), 50.0)

    files = {"ann/0.jpg": picture(0, (300, 200), kind="JPEG"), "ann/1.png": picture(1), "bob/0.png": picture(2, (80, 80)), "bob/1.png": picture(3)}
    summary = ingest(make_folder(tmp_path / "in", files), tmp_path / "out", aligner=aligner)
    rows = _rows(tmp_path / "out")
    assert summary.kept == 3 and summary.reasons == {"no face": 1} and rows["bob/0.png"].image is None
    np.testing.assert_array_equal(decode(rows["ann/0.jpg"].image), decode(files["ann/0.jpg"])[:112, :112])
    assert rows["ann/0.jpg"].landmarks_px.shape == (5, 2) and rows["ann/1.png"].landmarks_px is None


def test_ingest_is_repeatable_and_zip_equals_folder(tmp_path, people, make_folder, make_zip):
    ingest(make_folder(tmp_path / "set", people), tmp_path / "a", title="t")
    ingest(make_zip(tmp_path / "set.zip", people), tmp_path / "b", title="t")
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()
    ingest(tmp_path / "a", tmp_path / "c")
    assert FaceDataset.open(tmp_path / "c").table.column("source").to_pylist() == FaceDataset.open(tmp_path / "a").table.column("face_id").to_pylist()


def test_what_cannot_be_is_refused(tmp_path, people, make_folder):
    source = make_folder(tmp_path / "in", people)
    with pytest.raises(UserError, match="not empty"):
        ingest(source, source)
    with pytest.raises(UserError, match="no face could be kept, 1 files were rejected"):
        ingest(make_folder(tmp_path / "bad", {"a/x.png": b"x"}), tmp_path / "out")


def _deep() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((np.add.outer(np.arange(112), np.arange(112)) * 290).astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def _bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (12000, 12000)).save(buffer, "PNG")
    return buffer.getvalue()
