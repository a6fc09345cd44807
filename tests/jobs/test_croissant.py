"""croissant.json: valid by mlcroissant, readable by it, and saying what the facts say."""

from __future__ import annotations

import json

import pytest
from facefoundry.core.files import write_json
from facefoundry.jobs.croissant import CROISSANT, croissant, problems_of, responsible_ai
from facefoundry.jobs.run import run_job
from facefoundry.jobs.spec import load_job
from procedural import job_file


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("croissant")
    run_job(load_job(job_file(folder, name="my faces 1.0")), folder / "out", workers=1)
    manifest = json.loads((folder / "out" / "manifest.json").read_bytes())
    write_json(folder / "out" / CROISSANT, croissant(folder / "out", manifest, repo="me/faces", published="2026-11-21"))
    return folder / "out"


def test_every_configuration_is_a_record_set_over_its_files(made):
    found = json.loads((made / CROISSANT).read_bytes())
    assert [part["@id"] for part in found["recordSet"]] == ["default", "rejected", "identities", "pairs"]
    for part in found["distribution"]:
        assert list(made.glob(part["includes"]))
    fields = {field["@id"]: field for part in found["recordSet"] for field in part["field"]}
    assert fields["default/image"]["dataType"] == "sc:ImageObject" and fields["default/anchor"]["repeated"] and fields["pairs/mated"]["dataType"] == "sc:Boolean"
    assert "default/scores" not in fields  # nested: left to the card


def test_responsible_ai_entries_come_from_the_facts(made):
    manifest = json.loads((made / "manifest.json").read_bytes())
    said = responsible_ai(manifest)
    assert "not measured" in said["dataBiases"][0] and said["dataReleaseMaintenancePlan"] is None and "sdd_fiqa -4" in said["dataManipulationProtocol"]
    said = responsible_ai({**manifest, "facts": {**manifest["facts"], "contact": "a@b", "demographics": {"method": "m", "groups": {"x": 1.0}}}})
    assert "a@b" in said["dataReleaseMaintenancePlan"] and "proxies by m" in said["dataBiases"][0]
    assert "Real people" not in str(said) and "biometric data of real people" in str(responsible_ai({**manifest, "origins": ["real"], "facts": {}}))
    found = json.loads((made / CROISSANT).read_bytes())
    assert found["rai:dataManipulationProtocol"] and "rai:dataDataManipulationProtocol" not in found and "rai:dataReleaseMaintenancePlan" not in found


def test_valid_and_readable_by_mlcroissant(made):
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed (pip install mlcroissant): the file's structure is tested, not its validity")
    assert problems_of(made / CROISSANT) == []
    metadata = mlcroissant.Dataset(jsonld=made / CROISSANT).metadata
    assert metadata.data_biases and metadata.personal_sensitive_information and metadata.data_use_cases and not metadata.ctx.issues.warnings
    rows = list(mlcroissant.Dataset(jsonld=made / CROISSANT).records("default"))
    assert len(rows) == 20 and rows[0]["default/image"].size == (112, 112) and len(rows[0]["default/anchor"]) == 128
    pairs = list(mlcroissant.Dataset(jsonld=made / CROISSANT).records("pairs"))
    assert {row["pairs/mated"] for row in pairs} == {True, False}


def test_a_broken_file_is_found(made, tmp_path):
    pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    found = json.loads((made / CROISSANT).read_bytes())
    del found["recordSet"][0]["field"][0]["dataType"]
    found["distribution"][0].pop("includes")
    write_json(tmp_path / CROISSANT, found)
    assert any("includes" in line for line in problems_of(tmp_path / CROISSANT))
