"""Publishing: the folder opens anywhere, what must not leave is refused, and a Hub receives exactly the folder."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path

import datasets
import huggingface_hub
import pytest
import yaml
from facefoundry.core.errors import UserError
from facefoundry.core.files import sha256_file, write_json
from facefoundry.identity.dataset import FaceDataset, finalise, verify_dataset
from facefoundry.jobs import cli, publish_checks
from facefoundry.jobs.publish_hub import prepare, publish
from facefoundry.jobs.release import git_commit
from facefoundry.jobs.run import run_job, verify_job
from facefoundry.jobs.shards import Stage
from facefoundry.jobs.spec import load_job
from fake_hub import fake_hub
from procedural import job_file

REPO = "me/faces"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("publish")
    run_job(load_job(job_file(folder), ["writer.mark=true"]), folder / "out", workers=1)
    return folder / "out"


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "out"))


@pytest.fixture
def hub(monkeypatch):
    """A Hub on loopback, and nothing else to reach: Xet off, the token in the environment."""
    with fake_hub() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_forthistestonly")
        yield server


def tree(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def test_every_configuration_loads_offline(made, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    loaded = {name: datasets.load_dataset(str(made), name, cache_dir=str(tmp_path)) for name in datasets.get_dataset_config_names(str(made))}
    counts = {name: {split: len(rows) for split, rows in parts.items()} for name, parts in loaded.items()}
    assert counts == {"default": {"train": 20}, "rejected": {"rejected": 4}, "identities": {"train": 6}, "pairs": {"validation": counts["pairs"]["validation"]}}
    assert datasets.load_dataset(str(made), split="train", cache_dir=str(tmp_path))[0]["image"].size == (112, 112)
    names = set(loaded["default"]["train"]["face_id"])
    for pair in loaded["pairs"]["validation"]:
        assert {pair["first"], pair["second"]} <= names and pair["mated"] == (pair["first"][:6] == pair["second"][:6])
    assert sum(loaded["identities"]["train"]["kept"]) == 20 and sum(loaded["identities"]["train"]["rejected"]) == 4


def test_sizes_in_the_card_are_those_of_the_files(made):
    front = yaml.safe_load((made / "README.md").read_text().split("---\n")[1])
    for config, info in zip(front["configs"], front["dataset_info"]):
        files = list(made.glob(config["data_files"][0]["path"]))
        assert info["config_name"] == config["config_name"] and info["download_size"] == sum(file.stat().st_size for file in files) > 0


def test_the_card_says_what_was_measured_and_what_not(made):
    text = (made / "README.md").read_text()
    for words in ("Demographics: not measured.", "were not compared with real people", "`blocks`: not known here", "loads no weights", "The set inherits the limits", "24 made, sdd_fiqa -4, 20 kept"):
        assert words in text


def test_dry_run_writes_and_sends_nothing(folder, monkeypatch, capsys):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
    before = tree(folder)
    monkeypatch.setattr(sys, "argv", ["facefoundry", "publish", str(folder), "--repo", REPO, "--dry-run", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    found = json.loads(capsys.readouterr().out)
    assert not ended.value.code and tree(folder) == before
    assert found["ready"] and found["problems"] == [] and "url" not in found and found["files"] == len(found["list"])
    assert {"README.md", "manifest.json", "croissant.json", "release.json", "report.html", "metadata/identities.parquet", "pairs/validation.parquet"} <= found["list"].keys()
    assert not [name for name in found["list"] if name.startswith("job/")]
    assert any("no license, no contact, no citation" in line for line in found["warnings"]) and any("demographics" in line for line in found["warnings"])
    assert not [line for line in found["warnings"] if "mark" in line]


def test_the_hub_receives_the_folder_and_no_more(folder, hub, tmp_path):
    hub.files["data/train-00007-of-00009.parquet"] = b"of an earlier release, and the card's pattern would read it"
    hub.files["notes.txt"] = b"somebody's"
    planned = prepare(folder, REPO)
    assert publish(planned).endswith("/datasets/me/faces")
    assert hub.events == ["create private", "info", "commit private"] and hub.tokens == {"Bearer hf_forthistestonly"}
    assert hub.files.keys() == planned.sizes.keys() | {"notes.txt"}
    assert {name: len(data) for name, data in hub.files.items() if name != "notes.txt"} == planned.sizes
    for name, data in hub.files.items():
        place = tmp_path / "clone" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    assert verify_dataset(tmp_path / "clone") == [] and len(FaceDataset.open(tmp_path / "clone")) == 20


def test_published_again_nothing_changes(folder, hub, tmp_path):
    card = tmp_path / "card.yaml"
    card.write_text("contact: faces@example.org\nlicense: cc-by-nc-4.0\ncitation: us\ndemographics: {method: nobody's eye, groups: {a: 0.5, b: 0.5}}\n")
    planned = prepare(folder, REPO, card=card)
    assert not [line for line in planned.warnings if "--card" in line or "demographics" in line]
    publish(planned)
    assert b"faces@example.org" in hub.files["README.md"] and b"proxies by nobody's eye" in hub.files["README.md"] and b"cc-by-nc-4.0" in hub.files["croissant.json"]
    assert verify_job(folder)["ok"]
    assert Stage(root=folder, name="publish").repair([0]) == [], "the job would be made again"
    first = tree(folder)
    release = json.loads((folder / "release.json").read_text())
    write_json(folder / "release.json", release | {"date": "2020-02-02"})  # the day of these rows' release, not of the last upload
    publish(prepare(folder, REPO))
    assert json.loads((folder / "release.json").read_text())["date"] == "2020-02-02" and tree(folder)["README.md"] == first["README.md"]


def test_release_names_tool_weights_and_no_host(folder):
    found = json.loads(prepare(folder, REPO).texts["release.json"])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert found["manifest_sha256"] == sha256_file(folder / "manifest.json")
    assert found["fingerprint"] == manifest["facts"]["fingerprint"] and len(found["materials_sha256"]["identities"]) == 64
    assert found["tool"]["version"] and socket.gethostname() not in json.dumps(found)


def test_commit_of_a_checkout_only(tmp_path):
    root = Path(cli.__file__).resolve().parents[1]
    assert git_commit(tmp_path) is None and git_commit(root / "jobs") is None  # a package inside somebody's repository is not that repository


def test_shown_only_behind_the_gate(folder, hub):
    publish(prepare(folder, REPO), public=True)
    assert hub.events[-2:] == ["commit private", 'settings {"gated": "manual", "visibility": "public"}'] and hub.gated == "manual"
    hub.gated = False  # somebody opened the gate by hand
    hub.events.clear()
    publish(prepare(folder, REPO))
    assert hub.events[2] == 'settings {"gated": "manual"}' and hub.events[-1] == "commit gated"


def test_refusals_of_the_hub_are_told(folder, hub, monkeypatch):
    hub.refuse = 403
    with pytest.raises(UserError, match="refused \\(403\\).*may not write.*me/faces"):
        publish(prepare(folder, REPO))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(folder / "none"))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="hf auth login"):
        publish(prepare(folder, REPO))


SECRET = "hf_" + "abcdefghij" * 4


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "report.json").write_text(json.dumps({"note": SECRET})), "report.json holds what looks like a Hugging Face token"),
        (lambda folder: (folder / "report.html").write_text("s3://me:secret@host/x"), "report.html holds what looks like a password"),
        (lambda folder: finalise(folder, title="t", generator="g", facts={"contact": SECRET}), "README.md holds what looks like a Hugging Face token"),
    ],
)  # fmt: skip
def test_what_must_not_leave_is_named(folder, harm, words):
    harm(folder)
    planned = prepare(folder, REPO)
    assert any(words in line for line in planned.problems) and not any(SECRET in line for line in planned.problems)
    with pytest.raises(UserError, match="cannot be published"):
        publish(planned)


@pytest.mark.parametrize("name", ["data/train-00000-of-00003.parquet", "metadata/identities.parquet", "pairs/validation.parquet"])
def test_a_damaged_folder_is_not_published(folder, name):
    (folder / name).write_bytes(b"PAR1")
    with pytest.raises(UserError, match=f"is damaged.*\n{name}: has 4 bytes"):
        prepare(folder, REPO)


def test_limits_of_the_hub(folder, monkeypatch):
    for name, value in {"MAX_FILES": 5, "MAX_IN_FOLDER": 3, "MAX_FILE": 1000, "MAX_ROW_GROUP": 1000}.items():
        monkeypatch.setattr(publish_checks, name, value)
    problems = "\n".join(prepare(folder, REPO).problems)
    for words in ("files; a repository", "data/ holds 3 files", "the Hub takes up to", "a viewer reads at most"):
        assert words in problems


def test_photographs_of_people_are_not_published(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", manifest | {"origins": ["real"]})
    assert any("photographs of real people" in line for line in prepare(folder, REPO).problems)


def test_unmarked_images_are_noted(made, monkeypatch):
    monkeypatch.setattr(publish_checks, "source_type", lambda data: None)
    assert any("writer.mark: true" in line for line in prepare(made, REPO).warnings)


@pytest.mark.parametrize("repo", ["faces", "me/fa ces", "me/faces/x", "", "../x"])
def test_names_that_cannot_be(made, repo):
    with pytest.raises(UserError, match="no repository name"):
        prepare(made, repo)


def test_users_mistakes(made, tmp_path):
    with pytest.raises(UserError, match="finish the job first"):
        prepare(tmp_path, REPO)
    with pytest.raises(UserError, match="no card file"):
        prepare(made, REPO, card=tmp_path / "none.yaml")
    (tmp_path / "card.yaml").write_text("contakt: me\n")
    with pytest.raises(UserError, match="no place for contakt"):
        prepare(made, REPO, card=tmp_path / "card.yaml")
