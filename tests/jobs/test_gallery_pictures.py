"""The pictures of the gallery that a generator makes: what is drawn is what was sampled, and the figures under it are right."""

from __future__ import annotations

import numpy as np
import procedural
import pytest
from facefoundry.core.errors import UserError
from facefoundry.core.images import decode_file, to_uint8
from facefoundry.generators.uiface import UIFaceConfig, UIFaceSampler
from facefoundry.generators.watching import Recorder
from facefoundry.jobs import captioned, gallery_attention, gallery_faces, gallery_identities, gallery_interpolation, gallery_stages, gallery_trajectory
from facefoundry.jobs.spec import bundled_job, load_job

TIMES = (900, 500, 400, 100)


@pytest.fixture
def spec(monkeypatch):
    """The bundled demo's job with anchors as the tiny generator takes them, and that generator."""
    made = UIFaceConfig.tiny(sampler=UIFaceSampler(steps=8, t_max=500, delta=0))
    monkeypatch.setattr(gallery_faces, "build_generator", lambda settings, device: made)
    return load_job(bundled_job("demo-job.yaml"), [f"identities={{source: uniform, count: 4, dim: {made.anchor_dim}}}", "engine.device=cpu"])


@pytest.fixture
def blocks(tmp_path):
    """A job of the procedural generator, whose judge lives in the space of its anchors."""
    return load_job(procedural.job_file(tmp_path), [])


@pytest.fixture
def drawn(monkeypatch):
    """The rows a picture was laid out from."""
    rows: list = []
    for module in (gallery_attention, gallery_identities, gallery_interpolation, gallery_stages, gallery_trajectory):
        monkeypatch.setattr(module, "captioned", lambda given, head=(): (rows.extend(given), captioned.captioned(given, head))[1])
    return rows


def test_identities_are_the_jobs_own_images(blocks, drawn, tmp_path):
    found = gallery_identities.gallery_of_identities(blocks, tmp_path / "p.jpg", identities=3, draws=4)
    people = gallery_faces.open_people(blocks, 3)
    for person in range(3):
        rows = [people.generator.generate(people.anchor_ID[person : person + 1], [people.seed(person, draw)]).image_BCHW for draw in range(4)]
        assert all(np.array_equal(drawn[person].tiles[draw].image_HWC, to_uint8(row)[0]) for draw, row in enumerate(rows))
        embed = np.stack([people.embed(to_uint8(row))[0] for row in rows])
        assert found["anchor_cosine"][person] == pytest.approx((embed @ people.anchor_ID[person]).mean(), abs=6e-4)
        assert found["own_cosine"][person] == pytest.approx(np.mean([embed[a] @ embed[b] for a in range(4) for b in range(a)]), abs=6e-4)
    assert decode_file(tmp_path / "p.jpg").shape[1] > 4 * 112


def test_more_people_do_not_change_the_first(blocks):
    assert np.array_equal(gallery_faces.open_people(blocks, 2).anchor_ID, gallery_faces.open_people(blocks, 5).anchor_ID[:2])


def test_trajectory_ends_with_the_samplers_image(spec, drawn, tmp_path):
    found = gallery_trajectory.gallery_of_trajectories(spec, tmp_path / "t.jpg", identities=2, noises=3, times=TIMES)
    people = gallery_faces.open_people(spec, 2)
    address = [(0, 0), (1, 0), (0, 1), (0, 2)]
    wanted = to_uint8(people.generator.generate(people.anchor_ID[[who for who, _ in address]], [people.seed(0, number) for _, number in address]).image_BCHW)
    assert [(row["person"], row["noise"]) for row in found["rows"]] == address
    assert all(np.array_equal(row.tiles[-1].image_HWC, image) for row, image in zip(drawn, wanted))
    assert all(row["last_context_free_t"] == 500 for row in found["rows"])  # delta = 0: no row settles before t_max
    assert all(row.border == sum(t >= 500 for t in found["times"]) for row in drawn)
    first = [row.tiles[0].image_HWC for row in drawn]
    assert np.array_equal(first[0], first[1]) and not np.array_equal(first[0], first[2])  # before the line a noise looks alike whoever is asked for


def test_shown_times_are_the_nearest_visited():
    assert gallery_trajectory.nearest_visits([980, 700, 420, 140], (980, 690, 410)) == [0, 1, 2, 3]
    assert gallery_trajectory.nearest_visits([980, 140], (900, 800, 20)) == [0, 1]


def test_stages_above_is_what_stage_1_left(spec, drawn, tmp_path):
    found = gallery_stages.gallery_of_stages(spec, tmp_path / "s.jpg", identities=2, noises=3)
    people, recorder = gallery_faces.open_people(spec, 2), Recorder()
    people.generator.generate(people.anchor_ID[[1, 1, 1]], [people.seed(0, number) for number in range(3)], watch=recorder)
    last = [visit for visit in recorder.visits if visit.t >= 500][-1]
    assert found["ends_t"] == [last.t] * 3
    # Another person's sampling passes the same place: nobody has been asked for.
    assert all(np.array_equal(tile.image_HWC, image) for tile, image in zip(drawn[0].tiles, gallery_trajectory.decoded(people, last.clean())))
    assert len(drawn) == 3 and set(found["shares"]) == {"layout"}  # no judge of the tiny space


def test_shares_of_variance_against_loops():
    person, noise = np.array([[1.0, 2], [3, 5], [0, 1]]), np.array([[0.0, 1], [4, 2]])
    both = person[:, None] + noise[None]
    found = gallery_stages.shares_of_variance(both)
    assert found["rest"] == pytest.approx(0, abs=1e-3) and found["person"] + found["noise"] == pytest.approx(1, abs=1e-3)
    value = np.random.default_rng(0).standard_normal((3, 4, 5))
    total = sum((value[i, j, f] - value[:, :, f].mean()) ** 2 for i in range(3) for j in range(4) for f in range(5))
    by_person = sum((value[i, :, f].mean() - value[:, :, f].mean()) ** 2 for i in range(3) for j in range(4) for f in range(5))
    assert gallery_stages.shares_of_variance(value)["person"] == pytest.approx(by_person / total, abs=6e-4)


def test_attention_rows(spec, drawn, tmp_path):
    found = gallery_attention.gallery_of_attention(spec, tmp_path / "a.png", identity=1, times=TIMES)
    people = gallery_faces.open_people(spec, 2)
    image = to_uint8(people.generator.generate(people.anchor_ID[1:2], [people.seed(1, 0)]).image_BCHW)[0]
    assert np.array_equal(drawn[0].tiles[-1].image_HWC, image)
    assert len(drawn) == 3 + len(gallery_attention.PLACES) and found["first_t_with_identity"] < 500
    pull = drawn[-1].tiles
    assert np.array_equal(pull[0].image_HWC, drawn[0].tiles[0].image_HWC)  # no identity, no pull, no heat
    assert not np.array_equal(pull[-1].image_HWC, image)


def test_self_weights_are_a_distribution_of_the_marked_place():
    import torch

    logits = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = [("self", logits), ("cross", torch.randn(2, 3, 16, 4)), ("self", torch.randn(2, 3, 4, 4))]
    weights = gallery_attention.self_weights(found, (60.0, 100.0))  # column 2, row 3 of 4 x 4
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert torch.allclose(weights.flatten(), logits[0, :, 3 * 4 + 2].softmax(-1).mean(0), atol=1e-6)


def test_heat_is_brightest_where_the_map_is():
    import torch

    face = np.full((112, 112, 3), 128, np.uint8)
    map_HW = torch.zeros(8, 8)
    map_HW[1, 6] = 1
    hot = gallery_attention.heat(face, map_HW).sum(2)
    y, x = np.unravel_index(hot.argmax(), hot.shape)
    assert 14 <= y < 28 and 84 <= x < 98
    with pytest.raises(UserError, match="not finite"):
        gallery_attention.heat(face, map_HW * float("nan"))


def test_interpolation_ends_are_the_anchors_images_bit_for_bit(blocks, drawn, tmp_path):
    found = gallery_interpolation.gallery_of_interpolation(blocks, tmp_path / "i.jpg", pairs=2, steps=4)
    people = gallery_faces.open_people(blocks, 4)
    for pair, row in enumerate(drawn):
        for end, tile in ((0, row.tiles[0]), (1, row.tiles[-1])):
            alone = people.generator.generate(people.anchor_ID[2 * pair + end : 2 * pair + end + 1], [people.seed(2 * pair, 0)])
            assert np.array_equal(tile.image_HWC, to_uint8(alone.image_BCHW)[0])
            assert found["cosine"][pair][-end][end] == pytest.approx(float(people.embed(tile.image_HWC[None])[0] @ people.anchor_ID[2 * pair + end]), abs=6e-4)
            assert found["asked"][pair][-end][end] == pytest.approx(1, abs=1e-3)


def test_interpolation_of_a_network_too(spec, drawn, tmp_path):
    gallery_interpolation.gallery_of_interpolation(spec, tmp_path / "i.jpg", pairs=1, steps=3)
    people = gallery_faces.open_people(spec, 2)
    for end, tile in ((0, drawn[0].tiles[0]), (1, drawn[0].tiles[-1])):
        assert np.array_equal(tile.image_HWC, to_uint8(people.generator.generate(people.anchor_ID[end : end + 1], [people.seed(0, 0)]).image_BCHW)[0])


def test_slerp_goes_by_equal_angles_and_keeps_the_ends():
    first, second = (row / np.linalg.norm(row) for row in np.random.default_rng(1).standard_normal((2, 16)).astype(np.float32))
    row_SD = gallery_interpolation.slerp(first, second, np.linspace(0, 1, 6))
    assert np.array_equal(row_SD[0], first) and np.array_equal(row_SD[-1], second) and row_SD.dtype == np.float32
    angles = np.arccos(np.clip((row_SD[1:].astype(float) * row_SD[:-1]).sum(1), -1, 1))
    assert np.allclose(angles, np.arccos(first @ second) / 5, atol=1e-5)
    assert np.allclose(gallery_interpolation.slerp(first, first, np.array([0, 0.5, 1])), first, atol=1e-6)


@pytest.mark.parametrize("draw", [gallery_trajectory.gallery_of_trajectories, gallery_stages.gallery_of_stages], ids=["trajectory", "stages"])
def test_only_uiface_has_two_stages(blocks, draw, tmp_path):
    with pytest.raises(UserError, match="looks into UIFace's two stages"):
        draw(blocks, tmp_path / "x.jpg", identities=2, noises=2)


def test_attention_needs_uiface(blocks, tmp_path):
    with pytest.raises(UserError, match="procedural"):
        gallery_attention.gallery_of_attention(blocks, tmp_path / "x.jpg")


def test_sheet_keeps_pixels_and_refuses_other_endings(tmp_path):
    face = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    plain = captioned.captioned([captioned.Row(tiles=(captioned.Tile(image_HWC=face), captioned.Tile(image_HWC=None)))])
    assert np.array_equal(plain[4:116, 4:116], face) and plain.shape == (124, 240, 3) and (plain[4:116, 120:232] == captioned.PAPER).all()
    full = captioned.Tile(image_HWC=face, caption=("a", "b"), bars=(captioned.Bar(value=2.0, colour=captioned.BLUE, tick=0.5), captioned.Bar(value=-1.0, colour=captioned.AMBER)), frame=captioned.RED, cross=(50, 50))
    rich = captioned.captioned([captioned.Row(tiles=(full,), label=("row",), title="title", border=0, space=5)], ["head"])
    assert rich.shape[0] > plain.shape[0] + 60
    assert captioned.write_picture(tmp_path / "a.png", plain).read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UserError, match="jpg or .png"):
        captioned.write_picture(tmp_path / "a.gif", plain)
