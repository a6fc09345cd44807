"""The pictures of the gallery that look at a finished set: the worst faces, the nearest real people, and the page of all."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import procedural
import pytest
from facefoundry.core.errors import UserError
from facefoundry.core.images import decode_file, encode_png, to_uint8
from facefoundry.identity.centres import class_centres, write_centres
from facefoundry.jobs import captioned, gallery_build, gallery_nearest, gallery_shots, gallery_worst
from facefoundry.jobs.run import run_job
from facefoundry.jobs.spec import load_job

ROOT = Path(__file__).resolve().parents[2]
JUDGE = procedural.BlocksEmbedder()
PEOPLE, SHOTS = 5, 4


def anchors(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, procedural.DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def lay_out(folder: Path, anchor_ID: np.ndarray, *, swap: tuple[int, int, int] | None = None) -> Path:
    """A folder a person of the procedural generator's faces; with (person, shot, other) that one shot shows somebody else."""
    maker = procedural.ProceduralConfig.tiny()
    for person in range(len(anchor_ID)):
        whose = [swap[2] if swap and (person, shot) == swap[:2] else person for shot in range(SHOTS)]
        images = to_uint8(maker.generate(anchor_ID[whose], [100 * person + shot for shot in range(SHOTS)]).image_BCHW)
        for shot, image in enumerate(images):
            path = folder / f"p{person}" / f"{shot}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(image))
    return folder


@pytest.fixture
def drawn(monkeypatch):
    rows: list = []
    for module in (gallery_worst, gallery_nearest):
        monkeypatch.setattr(module, "captioned", lambda given, head=(): (rows.extend(given), captioned.captioned(given, head))[1])
    return rows


def test_worst_finds_the_planted_face_and_says_whose_it_is(drawn, tmp_path):
    folder = lay_out(tmp_path / "set", anchors(PEOPLE, 0), swap=(1, 2, 3))
    found = gallery_worst.gallery_of_worst(folder, tmp_path / "w.jpg", JUDGE, number=3, per_person=0)
    assert found["against"] == "centre" and found["images"] == PEOPLE * SHOTS
    for name in ("quality", "anchor"):
        assert found[name][0]["face"].endswith("p1/2.png") and found[name][0]["reason"] == "like p3"
        values = [item["value"] for item in found[name]]
        assert values == sorted(values) and len(values) == 3
    assert np.array_equal(drawn[0].tiles[0].image_HWC, decode_file(folder / "p1" / "2.png"))
    assert not np.array_equal(drawn[1].tiles[0].image_HWC, drawn[0].tiles[0].image_HWC)  # the same person's best


def test_worst_takes_anchors_where_the_set_has_them(drawn, tmp_path):
    result = run_job(load_job(procedural.job_file(tmp_path, filters="[]"), []), tmp_path / "set", workers=1)
    found = gallery_worst.gallery_of_worst(result.folder, tmp_path / "w.jpg", JUDGE, number=2, per_person=0)
    assert found["against"] == "anchor"
    read = gallery_worst.scan(result.folder, JUDGE)
    anchor_ID = np.load(tmp_path / "anchors.npy")
    cosine_N = np.array([read.embed_ND[row] @ anchor_ID[int(name.split("/")[0])] for row, name in enumerate(read.names)])
    assert [item["face"] for item in found["anchor"]] == [read.names[row] for row in np.argsort(cosine_N)[:2]]
    assert found["anchor"][0]["value"] == pytest.approx(cosine_N.min(), abs=6e-4)


def test_cosine_to_others_of_person_against_a_loop():
    embed, owner = anchors(9, 1), np.array([0, 1, 0, 2, 1, 0, 1, 1, 0])
    found = gallery_worst.cosine_to_others_of_person(embed, owner)
    for row in range(9):
        rest = [other for other in range(9) if other != row and owner[other] == owner[row]]
        mean = embed[rest].sum(0) if rest else None
        assert np.isnan(found[row]) if mean is None else found[row] == pytest.approx(embed[row] @ mean / np.linalg.norm(mean), abs=1e-5)


def test_reasons_in_their_order():
    standing = gallery_worst.Standing(names_I=("a", "b"), index_N=np.zeros(1, int), quality_N=np.zeros(1), own_N=np.array([0.3]), home_N=np.array([0.1]), other_N=np.array([0.2]), stranger_N=np.array([1]))
    calm, dark = np.zeros(4), np.array([-3.0, 0, 0, 0])
    assert gallery_worst._reason(standing, 0, calm, 0.0) == "far from its own"
    many = replace(standing, own_N=np.array([0.8, 0.3, 0.4, 0.5]))
    assert gallery_worst._reason(replace(many, home_N=np.array([0.2])), 0, calm, 0.0) == "whole person off"
    assert gallery_worst._reason(replace(many, home_N=np.array([0.7])), 0, calm, 0.0) == "no plain reason"
    assert gallery_worst._reason(standing, 0, dark, float("nan")) == "dark"
    assert gallery_worst._reason(standing, 0, dark, -31.0) == "turned 31°"
    standing.other_N[0] = 0.4
    assert gallery_worst._reason(standing, 0, dark, -31.0) == "like b"


def test_lowest_leaves_out_nan_and_holds_to_the_number_a_person():
    value, owner = np.array([3.0, np.nan, 1.0, 0.5, 2.0, 1.0]), np.array([0, 0, 1, 1, 2, 2])
    assert gallery_worst.lowest(value, 3, owner) == [3, 2, 5]
    assert gallery_worst.lowest(value, 9, owner) == [3, 2, 5, 4, 0]
    assert gallery_worst.lowest(value, 9, owner, 1) == [3, 5, 0]
    assert gallery_worst.best_of_person(value, owner, 5) == 4


def test_worst_wants_two_people(tmp_path):
    with pytest.raises(UserError, match="one person only"):
        gallery_worst.gallery_of_worst(lay_out(tmp_path / "set", anchors(1, 0)), tmp_path / "w.jpg", JUDGE, number=2)


@pytest.fixture
def two_sets(tmp_path):
    """Five minted people and twelve real ones; the third minted is nearly the eighth real."""
    real = anchors(12, 5)
    minted = anchors(PEOPLE, 6)
    minted[2] = real[7] + 0.05 * minted[2]
    minted[2] /= np.linalg.norm(minted[2])
    return lay_out(tmp_path / "minted", minted), lay_out(tmp_path / "real", real)


def centres(folder: Path) -> np.ndarray:
    read = gallery_worst.scan(folder, JUDGE)
    return class_centres(read.embed_ND, np.array(read.identities))


def test_nearest_against_a_slow_reference(two_sets, drawn, tmp_path):
    minted, real = two_sets
    found = gallery_nearest.gallery_of_nearest(minted, real, tmp_path / "n.png", JUDGE, threshold=0.8, number=2, shots=3)
    mine, theirs = centres(minted), centres(real)
    near = [max(float(a @ b) for b in theirs) for a in mine]
    among = [max(float(a @ b) for place, b in enumerate(theirs) if place != row) for row, a in enumerate(theirs)]
    assert found["minted_to_real"]["highest"] == pytest.approx(max(near), abs=6e-4) and found["minted_to_real"]["median"] == pytest.approx(np.median(near), abs=6e-4)
    assert found["real_to_real"]["median"] == pytest.approx(np.median(among), abs=6e-4)
    assert (found["minted_to_real"]["at_threshold"], found["real_to_real"]["at_threshold"]) == (1, sum(value >= 0.8 for value in among))
    assert found["usual"] == pytest.approx(np.quantile(among, 0.99), abs=6e-4) and found["nearer_than_usual"] == sum(value > np.quantile(among, 0.99) for value in near)
    assert sum(found["minted_to_real"]["counts"]) == PEOPLE and sum(found["real_to_real"]["counts"]) == 12
    assert drawn[0].label[0] == "minted p2" and len(drawn) == 2  # nearest first
    names = sorted(path.name for path in real.iterdir())
    right = drawn[0].tiles[3].image_HWC
    assert np.array_equal(right, decode_file(real / "p7" / "0.png")) and "p7" in names
    assert found["shows_real_people"]


def test_nearest_others_in_blocks(monkeypatch):
    row_RD = anchors(11, 3)
    monkeypatch.setattr(gallery_nearest, "_BLOCK", 4)
    cos = row_RD @ row_RD.T
    np.fill_diagonal(cos, -2)
    assert np.allclose(gallery_nearest.nearest_others(row_RD), cos.max(1), atol=1e-6)


def test_chart_needs_no_faces_and_can_be_drawn_again(two_sets, tmp_path):
    minted, real = two_sets
    read = gallery_worst.scan(real, JUDGE)
    write_centres(read.embed_ND, np.array(read.identities), tmp_path / "real.safetensors", embedder="blocks")
    found = gallery_nearest.gallery_of_nearest(minted, tmp_path / "real.safetensors", tmp_path / "n.png", JUDGE, threshold=0.8, chart_only=True, figures=tmp_path / "n.json")
    kept = json.loads((tmp_path / "n.json").read_text())
    assert not found["shows_real_people"] and kept["minted_to_real"]["at_threshold"] == 1
    assert all(set(kept[name]) == {"people", "counts", "median", "highest", "at_threshold"} for name in ("minted_to_real", "real_to_real"))  # nobody's own cosine, no name
    gallery_nearest.draw_nearest(kept, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "n.png").read_bytes()
    with pytest.raises(UserError, match="no faces to show"):
        gallery_nearest.gallery_of_nearest(minted, tmp_path / "real.safetensors", tmp_path / "m.png", JUDGE, threshold=0.8)


def test_centres_of_another_embedder_are_refused(two_sets, tmp_path):
    write_centres(anchors(3, 0), np.arange(3), tmp_path / "real.safetensors", embedder="dlib")
    with pytest.raises(UserError, match="made with the embedder 'dlib'"):
        gallery_nearest.gallery_of_nearest(two_sets[0], tmp_path / "real.safetensors", tmp_path / "m.png", JUDGE, threshold=0.8, chart_only=True)


def test_build_without_real_faces_draws_from_the_figures(two_sets, monkeypatch, tmp_path):
    minted, real = two_sets
    monkeypatch.setattr(gallery_build, "_mint", lambda dataset: None)
    monkeypatch.setattr(gallery_nearest, "maker_of", lambda dataset: "id3@now")
    with pytest.raises(UserError, match="give --real"):
        gallery_build.build_gallery(tmp_path / "docs", shots=())
    figures = tmp_path / "docs" / gallery_shots.FOLDER / gallery_shots.FIGURES
    figures.parent.mkdir(parents=True)
    found = gallery_nearest.gallery_of_nearest(minted, real, tmp_path / "n.png", JUDGE, threshold=0.8, chart_only=True)
    for maker, stale in (("id3@now", False), ("id3@before", True)):
        figures.write_text(json.dumps(found | {"generator": maker}))
        made = gallery_build.build_gallery(tmp_path / "docs", shots=())
        text = (tmp_path / "docs" / "gallery.md").read_text()
        assert ("earlier weights" in text) == stale and "## Nearest real people" in text and list(made["pictures"]) == ["nearest.png"]
    figures.write_text("{}")
    with pytest.raises(UserError, match="does not hold the figures"):
        gallery_build.build_gallery(tmp_path / "docs", shots=())


def test_printed_commands_are_verbs_with_those_options():
    import typer
    from facefoundry.jobs.cli_gallery import gallery_app

    verbs = typer.main.get_command(gallery_app).commands
    for shot in (*gallery_shots.SHOTS, gallery_shots.NEAREST):
        words = shot.command().split()
        known = {name for param in verbs[words[2]].params for name in param.opts}
        assert all(word in known for word in words if word.startswith("--")), shot.command()
        assert not shot.job or (ROOT / "recipes" / shot.job).is_file()


def test_the_page_in_the_repository_is_whole():
    """Every picture is there, none is left over, together at most 2.5 MB, and none shows a real person."""
    page = ROOT / "docs" / gallery_shots.PAGE
    text, folder = page.read_text(encoding="utf-8"), ROOT / "docs" / gallery_shots.FOLDER
    shown = set(re.findall(rf"\]\({gallery_shots.FOLDER}/([^)]+)\)", text))
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert shown == {shot.name for shot in (*gallery_shots.SHOTS, gallery_shots.NEAREST)} == set(files) - {gallery_shots.FIGURES}
    assert sum(files.values()) <= 2_500_000
    assert max(decode_file(folder / name).shape[1] for name in shown) <= 1400
    assert "--chart-only" in gallery_shots.NEAREST.command()
