"""The dataset folder: opens without our code, random access, hashes, damage."""

import json

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.core.files import sha256_file
from facefoundry.core.images import decode
from facefoundry.identity.dataset import FaceDataset, finalise, read_shard, shard_path, shards_of, verify_dataset, write_shard
from facefoundry.identity.records import FaceRecord
from facefoundry.identity.shards import ROW_GROUP, ShardWriter


@pytest.fixture
def faces(picture):
    """300 kept faces of 100 identities (more than one row group) and two rejected ones."""
    kept = [FaceRecord(face_id=f"{k // 3:06d}/{k % 3:04d}", identity=k // 3, image=picture(k % 40), seed=k, origin="generated:g") for k in range(300)]
    lost = [FaceRecord(face_id=f"{k:06d}/0009", identity=k, image=data, origin="generated:g", dropped="test") for k, data in ((0, picture(1)), (1, None))]
    return kept, lost


@pytest.fixture
def folder(tmp_path, faces):
    kept, lost = faces
    write_shard(shard_path(tmp_path, "data", 0, 2), kept[:270])
    write_shard(shard_path(tmp_path, "data", 1, 2), kept[270:])
    write_shard(shard_path(tmp_path, "rejected", 0, 1), lost)
    finalise(tmp_path, title="Toy", generator="g", facts={"auc": 0.98765, "leakage": "highest cosine 0.41"})
    return tmp_path


def test_load_dataset_opens_it_without_our_code(folder, tmp_path_factory):
    datasets = pytest.importorskip("datasets")
    cache = str(tmp_path_factory.mktemp("cache"))
    kept = datasets.load_dataset(str(folder), cache_dir=cache)["train"]
    assert kept.num_rows == 300 and isinstance(kept.features["image"], datasets.Image)
    np.testing.assert_array_equal(np.asarray(kept[299]["image"]), FaceDataset.open(folder).images([299])[0])
    lost = datasets.load_dataset(str(folder), "rejected", cache_dir=cache)["rejected"]
    assert lost["dropped"][:] == ["test", "test"] and lost[1]["image"] is None


def test_random_access_equals_the_records(folder, faces):
    dataset = FaceDataset.open(folder)
    wanted = [299, 0, 0, ROW_GROUP, ROW_GROUP - 1, 271]
    images = dataset.images(wanted)
    assert len(dataset) == 300 and images.shape == (6, 112, 112, 3)
    for image, row in zip(images, wanted):
        np.testing.assert_array_equal(image, decode(faces[0][row].image))
    assert dataset.identity_N.tolist() == [record.identity for record in dataset.records()] and "image" not in dataset.table.column_names
    assert dataset.images([]).shape == (0, 112, 112, 3)
    with pytest.raises(UserError, match="row 300 is not in"):
        dataset.images([300])


def test_the_same_records_give_the_same_bytes(tmp_path, faces):
    for name in ("a", "b"):
        write_shard(tmp_path / name, faces[0])
    assert sha256_file(tmp_path / "a") == sha256_file(tmp_path / "b")


def test_manifest_is_a_function_of_content_and_verifies(folder):
    before = (folder / "manifest.json").read_bytes()
    finalise(folder, title="Toy", generator="g", facts={"auc": 0.98765, "leakage": "highest cosine 0.41"})
    manifest = json.loads(before)
    assert (folder / "manifest.json").read_bytes() == before and verify_dataset(folder) == []
    assert manifest["rows"] == {"data": 300, "rejected": 2} and manifest["identities"] == 100
    assert [entry["rows"] for entry in manifest["shards"]] == [270, 30, 2, 100, 600]  # and the tables of identities and pairs


def test_verify_finds_what_was_done_to_a_folder(folder, faces):
    first, second = shards_of(folder, "data")
    data = bytearray(first.read_bytes())
    data[1000] ^= 1
    first.write_bytes(data)
    second.unlink()
    write_shard(folder / "data" / "train-00007-of-00009.parquet", faces[0][:1])
    (folder / "README.md").unlink()
    problems = "\n".join(verify_dataset(folder))
    for words in (f"{first.name}: its content has changed", f"{second.name}: missing", "train-00007-of-00009.parquet: not in the manifest", "README.md: missing"):
        assert words in problems


def test_verify_finds_rows_that_contradict_each_other(tmp_path, faces):
    kept, lost = faces
    write_shard(shard_path(tmp_path, "data", 0, 1), [kept[0], kept[0], lost[0]])
    finalise(tmp_path, title="Toy", generator="g", facts={})
    assert verify_dataset(tmp_path) == ["data: face 000000/0000 is there twice", "data: face 000000/0009 has the reason 'test'"]


def test_absent_damaged_and_foreign_folders_are_user_errors(tmp_path, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="no dataset folder"):
        FaceDataset.open(empty)
    with pytest.raises(UserError, match="no manifest.json"):
        verify_dataset(empty)
    shard = shards_of(folder, "data")[0]
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(UserError, match="not a Parquet file"):
        read_shard(shard)
    with pytest.raises(UserError, match="not a Parquet file"):
        read_shard(folder / "none.parquet")


def test_a_full_disk_leaves_no_half_shard(tmp_path, faces, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("facefoundry.identity.shards.pq.write_table", full)
    with pytest.raises(UserError, match="No space left"):
        write_shard(tmp_path / "x" / "s.parquet", faces[0])
    assert list((tmp_path / "x").iterdir()) == []


def test_shard_writer_numbers_the_shards_at_the_end(tmp_path, faces):
    writer = ShardWriter(tmp_path, rows=128)
    for record in (*faces[0], *faces[1]):
        writer.add(record)
        assert not (tmp_path / "data").exists()
    writer.close()
    assert [path.name for path in shards_of(tmp_path, "data")] == [f"train-{k:05d}-of-00003.parquet" for k in range(3)]
    assert [len(read_shard(path)) for path in shards_of(tmp_path, "data")] == [128, 128, 44]
    assert not (tmp_path / ".partial").exists() and len(FaceDataset.open(tmp_path, "rejected")) == 2
