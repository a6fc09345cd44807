"""The schema and the way between rows and records."""

import numpy as np
import pyarrow as pa
import pytest

from facefoundry.core.errors import UserError
from facefoundry.core.face_style import FaceStyle
from facefoundry.identity.records import FEATURES, SCHEMA, SCHEMA_VERSION, VERSION_KEY, FaceRecord, from_table, to_table, with_scores


def _record(**changes) -> FaceRecord:
    values = {
        "face_id": "000123/0007", "identity": 123, "image": b"png", "seed": 2**63 - 1, "generator": "uiface@0", "origin": "generated:uiface",
        "anchor": np.arange(4, dtype=np.float32), "style": FaceStyle(pose_deg=(1.0, -2.0, 3.5)), "landmarks_px": np.arange(10.0).reshape(5, 2),
        "scores": {"sdd_fiqa": 55.5, "sim_anchor": 0.25}, "source": "x/y.png",
    }  # fmt: skip
    return FaceRecord(**{**values, **changes})


def test_round_trip_keeps_every_field():
    full, bare = _record(), FaceRecord(face_id="1/2", identity=-1, image=None, dropped="unreadable: empty")
    for before, after in zip((full, bare), from_table(to_table([full, bare]))):
        for name in FaceRecord.__dataclass_fields__:
            one, two = getattr(before, name), getattr(after, name)
            assert np.array_equal(one, two) if isinstance(one, np.ndarray) else one == two, name


def test_schema_carries_its_version_and_the_hugging_face_features():
    table = to_table([_record()])
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert table.schema.metadata[VERSION_KEY] == str(SCHEMA_VERSION).encode()
    assert type(FEATURES)(FEATURES).arrow_schema.field("image").type == pa.struct({"bytes": pa.binary(), "path": pa.string()})
    assert b'"Image"' in table.schema.metadata[b"huggingface"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"anchor": np.array([1.0, np.nan])}, "anchor"),
        ({"anchor": np.ones((2, 2))}, "anchor"),
        ({"landmarks_px": np.full((5, 2), np.inf)}, "landmarks_px"),
        ({"landmarks_px": np.ones(10)}, "landmarks_px"),
        ({"image": None}, "kept face needs an image"),
        ({"image": b""}, "kept face needs an image"),
        ({"identity": -1}, "identity of 0 or more"),
        ({"face_id": ""}, "face_id is empty"),
        ({"dropped": ""}, "`dropped` is empty"),
    ],
)
def test_bad_rows_are_refused_by_name(changes, words):
    with pytest.raises(UserError, match=f"row 1.*{words}"):
        to_table([_record(), _record(**changes)])


def test_foreign_and_newer_tables_are_refused():
    with pytest.raises(UserError, match="not a FaceFoundry shard"):
        from_table(pa.table({"image": [b""]}))
    newer = to_table([_record()]).replace_schema_metadata({VERSION_KEY: b"99"})
    with pytest.raises(UserError, match="schema version 99"):
        from_table(newer)


def test_later_columns_may_be_missing_or_more():
    table = to_table([_record()])
    older = table.drop_columns(["source"])
    assert from_table(older)[0].source is None
    assert from_table(table.append_column("later", pa.array([1])))[0].face_id == "000123/0007"


def test_scores_are_added_never_overwritten():
    assert with_scores({"a": 1.0}, {"b": 2.0}) == {"a": 1.0, "b": 2.0}
    with pytest.raises(ValueError, match="never overwritten"):
        with_scores({"a": 1.0}, {"a": 2.0})
