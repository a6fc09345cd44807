"""The card claims what was handed in and says of the rest that nobody measured it."""

import yaml

from facefoundry.identity.card import card_text

MANIFEST = {"title": "Toy", "generator": "uiface", "rows": {"data": 1500, "rejected": 3}, "identities": 30, "origins": ["generated:uiface"]}


def _front(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_yaml_names_the_configurations_and_gates_the_set():
    front = _front(card_text(MANIFEST, {"license": "mit"}, tables=["identities"]))
    assert [(config["config_name"], config["data_files"][0]["path"]) for config in front["configs"]] == [
        ("default", "data/*.parquet"), ("rejected", "rejected/*.parquet"), ("identities", "metadata/identities.parquet"),
    ]  # fmt: skip
    assert front["license"] == "mit" and "license_name" not in front and front["size_categories"] == ["1K<n<10K"]
    assert "synthetic" in front["tags"] and all(kind == "checkbox" for kind in front["extra_gated_fields"].values())


def test_unmeasured_things_are_called_so():
    text = card_text(MANIFEST, {})
    assert text.count("not measured") >= 3 and "does not mean free of risk" in text


def test_given_facts_are_in_it():
    text = card_text(MANIFEST, {"leakage": "0.41 at most", "training_data": "LFW", "auc": 0.98765, "mated_non-mated": {"mated": 0.5, "non": 0.1}})
    for words in ("0.41 at most", "Real data behind it: LFW", "| auc | 0.9877 |", "mated 0.5, non 0.1"):
        assert words in text


def test_a_set_of_photographs_is_not_called_synthetic():
    text = card_text({**MANIFEST, "origins": ["real"], "generator": "ingest"}, {})
    assert "synthetic" not in _front(text)["tags"] and "real people" in text and "Do not publish" in text
    mixed = card_text({**MANIFEST, "origins": ["generated:uiface", "real"]}, {})
    assert "none is a photograph" not in mixed and "real people" in mixed
