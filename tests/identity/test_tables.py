"""The tables beside the faces: one row a person, and pairs that a verification may use."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from facefoundry.identity import tables
from facefoundry.identity.records import FEATURES, FaceRecord, to_table
from facefoundry.identity.tables import IDENTITIES, PAIRS, identity_table, pair_table, write_tables


def rows(counts, *, anchor=True, **changes) -> pa.Table:
    """`counts[i]` faces of person i; score "a" is identity + index, "b" is there for even indices only."""
    records = [
        FaceRecord(face_id=f"{person:06d}/{index:04d}", identity=person, image=b"x", anchor=np.full(3, person, np.float32) if anchor else None, scores={"a": person + index, **({"b": index} if index % 2 == 0 else {})}, **changes)
        for person, count in enumerate(counts) for index in range(count)
    ]  # fmt: skip
    return to_table(records).drop_columns(["image"])


NONE = rows([])


def test_one_row_a_person_against_counting_by_hand():
    kept, rejected = rows([3, 1, 0, 2]), rows([0, 0, 2, 1], dropped="bad")
    found = identity_table(kept, rejected).to_pylist()
    assert [(row["identity"], row["kept"], row["rejected"]) for row in found] == [(0, 3, 0), (1, 1, 0), (2, 0, 2), (3, 2, 1)]
    assert [(row["mean_a"], row["least_a"]) for row in found] == [(1.0, 0.0), (1.0, 1.0), (None, None), (3.5, 3.0)]
    assert [(row["mean_b"], row["least_b"]) for row in found] == [(1.0, 0.0), (0.0, 0.0), (None, None), (0.0, 0.0)]
    assert [row["anchor"] for row in found] == [[0, 0, 0], [1, 1, 1], None, [3, 3, 3]]


def test_no_anchor_no_column_and_nobody_without_a_number():
    strangers = to_table([FaceRecord(face_id="unknown/000000", identity=-1, image=None, dropped="no identity")]).drop_columns(["image"])
    table = identity_table(rows([1, 1], anchor=False), strangers)
    assert "anchor" not in table.column_names and table.column("identity").to_pylist() == [0, 1]


def test_columns_that_were_there_are_joined_by_identity():
    held = pa.table({"identity": pa.array([1, 0], pa.int32()), "name": ["bob", "ann"], "kept": [7, 7], "mean_old": [0.0, 0.0]})
    table = identity_table(rows([1, 2, 1]), NONE, held=held)
    assert table.column("name").to_pylist() == ["ann", "bob", None]
    assert table.column("kept").to_pylist() == [1, 2, 1] and "mean_old" not in table.column_names


def check_pairs(table: pa.Table) -> None:
    seen, people_of = set(), {}
    for row in table.to_pylist():
        first, second = (int(row[side].split("/")[0]) for side in ("first", "second"))
        assert row["mated"] == (first == second) and row["first"] != row["second"]
        assert (pair := frozenset((row["first"], row["second"]))) not in seen
        seen.add(pair)
        for person in (first, second):
            assert people_of.setdefault(person, row["fold"]) == row["fold"], "one person in two folds"


@pytest.mark.parametrize(("counts", "pairs", "folds"), [([3, 3], 12, 1), ([4] * 40, 2 * 10 * 24, 10), ([2, 1, 1, 1], 2, 1), ([40] * 60, 2 * 10 * 300, 10)])
def test_pairs_are_balanced_and_folds_share_nobody(counts, pairs, folds):
    table = pair_table(rows(counts))
    check_pairs(table)
    assert len(table) == pairs and len(set(table.column("fold").to_pylist())) == folds
    assert sum(table.column("mated").to_pylist()) * 2 == len(table)
    assert table.equals(pair_table(rows(counts))) and (pairs < 100 or not table.equals(pair_table(rows(counts), seed=1)))


@pytest.mark.parametrize("counts", [[], [5], [1, 1, 1]])
def test_where_no_pair_can_be_there_is_no_file(tmp_path, counts):
    (tmp_path / "pairs").mkdir()
    (tmp_path / PAIRS).write_bytes(b"of an earlier attempt")
    assert write_tables(tmp_path, rows(counts), NONE) == [tmp_path / IDENTITIES] and not (tmp_path / PAIRS).exists()


def test_writing_again_gives_the_same_bytes_and_repairs_damage(tmp_path):
    kept = rows([3, 3, 2])
    files = write_tables(tmp_path, kept, NONE)
    first = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in write_tables(tmp_path, kept, NONE)] == first
    files[0].write_bytes(first[0][:-5])
    assert [file.read_bytes() for file in write_tables(tmp_path, kept, NONE)] == first


def test_row_groups_are_small(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_ROW_GROUP", 4)
    write_tables(tmp_path, rows([1] * 10), NONE)
    assert pq.ParquetFile(tmp_path / IDENTITIES).metadata.num_row_groups == 3


def test_features_name_every_column_used():
    assert {"face_id", "identity", "scores", "anchor"} <= set(FEATURES)
