"""What trained a recogniser, from manifests, against the rules of the sub-tasks."""

from __future__ import annotations

import json

import pytest
from facefoundry.challenge.frcsyn_rules import subtasks
from facefoundry.challenge.provenance import check_training_sets, read_training_set
from facefoundry.core.errors import UserError


def dataset(folder, *, title="minted", images=1000, origins=("generated",), generator="uiface"):
    folder.mkdir(parents=True)
    manifest = {"title": title, "generator": generator, "rows": {"data": images, "rejected": 7}, "identities": 10, "origins": list(origins), "facts": {"fingerprint": "abc"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return read_training_set(folder)


def test_budget_counts_kept_rows_of_all_sets_together(tmp_path):
    row = subtasks(2)["2.1"]
    sets = [dataset(tmp_path / "a", images=300_000), dataset(tmp_path / "b", images=200_000)]
    assert sets[0].fingerprint == "abc" and check_training_sets(row, sets) == []
    assert check_training_sets(row, [*sets, dataset(tmp_path / "c", images=1)]) == ["500001 synthetic images, sub-task 2.1 allows 500000"]
    assert check_training_sets(subtasks(2)["2.2"], [dataset(tmp_path / "d", images=30_000_000)]) == []


def test_real_data_by_title(tmp_path):
    casia = dataset(tmp_path / "casia", title="casia webface", origins=("real",), images=494_000, generator="ingest")
    minted = dataset(tmp_path / "minted", images=500_000)
    assert check_training_sets(subtasks(2)["2.3"], [casia, minted]) == []  # real images do not count against the synthetic budget
    assert "allows none" in check_training_sets(subtasks(2)["2.1"], [casia, minted])[0]
    other = dataset(tmp_path / "ms1m", title="MS1M", origins=("real",))
    assert "real data 'MS1M'" in check_training_sets(subtasks(2)["2.3"], [other])[0]
    mixed = dataset(tmp_path / "mixed", origins=("generated", "real"))
    assert any("mixes real and synthetic" in problem for problem in check_training_sets(subtasks(2)["2.3"], [mixed]))


def test_first_edition_fixes_the_generators(tmp_path):
    row = subtasks(1)["1.1"]
    assert check_training_sets(row, [dataset(tmp_path / "a", title="DCFace 0.5M", generator="DCFace")]) == []
    assert "edition 1 fixes DCFace or GANDiffFace" in check_training_sets(row, [dataset(tmp_path / "b")])[0]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"title": "x"}', '{"title": "x", "generator": "g", "rows": 5, "identities": 1, "origins": []}'])
def test_no_manifest_no_provenance(tmp_path, text):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="provenance of the training data is unknown"):
        read_training_set(tmp_path)
