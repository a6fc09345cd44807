"""A dataset folder is scored by the pairs it brings; the result is that of the same pairs written as a list beside the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from facefoundry.challenge.dataset_pairs import read_dataset_pairs, score_dataset
from facefoundry.challenge.lfw import score_pairs
from facefoundry.core.errors import UserError
from facefoundry.core.images import encode_png
from facefoundry.identity.dataset import finalise
from facefoundry.identity.records import FaceRecord
from facefoundry.identity.shards import write_shard
from facefoundry.identity.tables import PAIRS


class Means:
    """Mean colours of a 4 × 4 grid, less their own mean."""

    name, dim, differentiable = "means", 48, True

    def __call__(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        row_BD = torch.nn.functional.adaptive_avg_pool2d(image_BCHW, 4).flatten(1)
        return torch.nn.functional.normalize(row_BD - row_BD.mean(1, keepdim=True))


def dataset(folder: Path, people: int = 6, shots: int = 4) -> Path:
    """People of one pattern each, with noise."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(60, 196, (people, 8, 8, 3))
    records = []
    for person in range(people):
        for shot in range(shots):
            image = np.kron(patterns[person] + rng.integers(-55, 56, (8, 8, 3)), np.ones((14, 14, 1))).astype(np.uint8)
            records.append(FaceRecord(face_id=f"{person:06d}/{shot:04d}", identity=person, image=encode_png(image), origin="generated:blocks", seed=1))
    write_shard(folder / "data" / "train-00000-of-00001.parquet", records)
    finalise(folder, title="blocks", generator="blocks", facts={})
    return folder


def test_the_folder_and_the_list_beside_its_images_score_alike(tmp_path):
    faces = read_dataset_pairs(dataset(tmp_path / "set"))
    result = score_dataset(Means(), faces, flip=True)
    assert set(faces.pairs.fold_P) == {0, 1, 2} and faces.pairs.same_P.mean() == 0.5 and len(faces.pairs) == len(result.score_P)
    rows = []
    for (first, second), same, fold in zip(faces.pairs.paths, faces.pairs.same_P, faces.pairs.fold_P):
        assert (first.split("/")[0] == second.split("/")[0]) == same
        rows.append(f"{first}.png {second}.png {int(same)} {fold}")
    for name in faces.pairs.images():
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(faces.read(name))
    (tmp_path / "pairs.txt").write_text("\n".join(rows))
    beside = score_pairs(Means(), tmp_path / "images", tmp_path / "pairs.txt")
    assert np.array_equal(beside.score_P, result.score_P) and {**beside.summary(), "embedder": ""} == {**result.summary(), "embedder": ""}
    assert result.auc > 0.9


def test_folders_that_cannot_be_scored(tmp_path):
    with pytest.raises(UserError, match="is no dataset folder"):
        read_dataset_pairs(tmp_path)
    with pytest.raises(UserError, match="brings no pairs .pairs/validation.parquet.*mint more"):
        read_dataset_pairs(dataset(tmp_path / "alone", people=1))
    folder = dataset(tmp_path / "cut")
    table = pq.read_table(folder / PAIRS)
    pq.write_table(table.set_column(0, "first", pa.array(["000099/0000"] * len(table))), folder / PAIRS)
    with pytest.raises(UserError, match="names 1 faces that are not in the dataset, e.g. 000099/0000"):
        read_dataset_pairs(folder)
