"""The card claims what was handed in and says of the rest that nobody measured it."""

import pytest
import yaml

from facefoundry.core.errors import UserError
from facefoundry.identity.card import card_text

MANIFEST = {"title": "Toy", "generator": "uiface", "rows": {"data": 1500, "rejected": 3}, "identities": 30, "origins": ["generated:uiface"]}
FILES = {"shards": [{"path": path, "rows": rows, "bytes": 10 * rows} for path, rows in (
    ("data/train-00000-of-00002.parquet", 900), ("data/train-00001-of-00002.parquet", 600), ("rejected/rejected-00000-of-00001.parquet", 3),
    ("metadata/identities.parquet", 30), ("pairs/validation.parquet", 200),
)]}  # fmt: skip


def _front(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_yaml_names_the_configurations_and_gates_the_set():
    front = _front(card_text({**MANIFEST, **FILES}, {"license": "mit"}))
    assert [(config["config_name"], config["data_files"][0]["path"], config["data_files"][0]["split"], config.get("default", False)) for config in front["configs"]] == [
        ("default", "data/*.parquet", "train", True), ("rejected", "rejected/*.parquet", "rejected", False),
        ("identities", "metadata/identities.parquet", "train", False), ("pairs", "pairs/*.parquet", "validation", False),
    ]  # fmt: skip
    assert front["dataset_info"][0] == {"config_name": "default", "splits": [{"name": "train", "num_bytes": 15000, "num_examples": 1500}], "download_size": 15000, "dataset_size": 15000}
    assert front["license"] == "mit" and "license_name" not in front and "license_link" not in front and front["size_categories"] == ["1K<n<10K"]
    assert "synthetic" in front["tags"] and set(front["extra_gated_fields"].values()) == {"text", "checkbox"}
    assert "surveillance" in front["extra_gated_prompt"]


def test_a_configuration_without_files_is_not_named():
    text = card_text(MANIFEST, {})
    assert _front(text)["configs"] == [] and "license_name" in _front(text)
    table = [line for line in card_text({**MANIFEST, **FILES}, {}).splitlines() if line.startswith("| `")]
    assert table == [
        "| `default` | train | 1500 | `data/*.parquet` |", "| `rejected` | rejected | 3 | `rejected/*.parquet` |",
        "| `identities` | train | 30 | `metadata/identities.parquet` |", "| `pairs` | validation | 200 | `pairs/*.parquet` |",
    ]  # fmt: skip


def test_unmeasured_things_are_called_so():
    text = card_text(MANIFEST, {})
    for words in ("None: not measured.", "training data: not checked", "Demographics: not measured.", "Take-down and questions: not stated", "does not mean free of risk"):
        assert words in text


def test_groups_come_with_their_method_or_not_at_all():
    groups = {"method": "FairFace classifier on 500 faces", "groups": {"darker": 0.25, "lighter": 0.75}}
    words = "proxies by FairFace classifier on 500 faces; its error: not measured: darker 0.25, lighter 0.75. Whatever is given"
    assert words in card_text(MANIFEST, {"demographics": groups})
    with pytest.raises(UserError, match="'method'"):
        card_text(MANIFEST, {"demographics": {"groups": {"darker": 0.25}}})


def test_given_facts_are_in_it():
    text = card_text(MANIFEST, {"leakage": "0.41 at most", "training_data": "LFW", "auc": 0.98765, "mated_non-mated": {"mated": 0.5, "non": 0.1}})
    for words in ("0.41 at most", "Real data behind it: LFW", "| auc | 0.9877 |", "mated 0.5, non 0.1"):
        assert words in text


def test_a_set_of_photographs_is_not_called_synthetic():
    text = card_text({**MANIFEST, "origins": ["real"], "generator": "ingest"}, {})
    assert "synthetic" not in _front(text)["tags"] and "real people" in text and "Do not publish" in text
    mixed = card_text({**MANIFEST, "origins": ["generated:uiface", "real"]}, {})
    assert "none is a photograph" not in mixed and "real people" in mixed
