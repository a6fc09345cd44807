"""RFW, SCface and TinyFace-type folders, the drawn occluders and the mini benchmark, on made-up faces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facefoundry.challenge.frcsyn import load_comparisons
from facefoundry.challenge.mini import KEYS, asymmetry, build_mini, low_resolution
from facefoundry.challenge.occluders import OCCLUDERS, occlude
from facefoundry.challenge.rfw import RACES, score_rfw
from facefoundry.challenge.scface import score_scface
from facefoundry.challenge.tinyface import score_closed_set
from facefoundry.core.errors import UserError
from facefoundry.core.images import decode_file, encode_png


class Blocks:
    """Embeds a face by the mean colours of its 4x4 blocks."""

    name, dim, differentiable = "blocks", 48, True

    def __call__(self, image_BCHW):
        return torch.nn.functional.normalize(torch.nn.functional.avg_pool2d(image_BCHW, 28).flatten(1))


def face(person, shot):
    colours = np.random.default_rng(person).integers(0, 256, (4, 4, 3)) + np.random.default_rng((person, shot)).integers(-25, 26, (4, 4, 3))
    return np.clip(colours, 0, 255).astype(np.uint8).repeat(28, 0).repeat(28, 1)


def put(path, person, shot):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(face(person, shot)))


def test_rfw(tmp_path):
    for number, race in enumerate(RACES):
        lines = []
        for fold in range(10):
            first, second = 100 * number + 2 * fold, 100 * number + 2 * fold + 1
            for person in (first, second):
                for shot in (1, 2):
                    put(tmp_path / "data" / race / f"m.{person}" / f"m.{person}_{shot:04d}.jpg", person, shot)
            lines += [f"m.{first}\t1\t2", f"m.{second}\t1\t2", f"m.{first}\t1\tm.{second}\t1", f"m.{first}\t2\tm.{second}\t2"]
        (tmp_path / "txts" / race).mkdir(parents=True)
        (tmp_path / "txts" / race / f"{race}_pairs.txt").write_text("\n".join(lines) + "\n")
    result = score_rfw(Blocks(), tmp_path, flip=False)
    values = [result.by_race[race].accuracy.mean for race in RACES]
    assert result.mean == np.mean(values) and result.std == np.std(values, ddof=1) and result.mean > 0.9
    assert set(RACES) < set(result.summary())
    (tmp_path / "txts" / "Indian" / "Indian_pairs.txt").unlink()
    with pytest.raises(UserError, match="Indian"):
        score_rfw(Blocks(), tmp_path)


def test_rfw_mean_and_sample_deviation_of_a_published_row():
    # recognition.md 2.5 publishes four accuracies with their mean and standard deviation: ddof 1.
    from facefoundry.challenge.rfw import RfwResult
    from types import SimpleNamespace

    result = RfwResult(by_race={race: SimpleNamespace(accuracy=SimpleNamespace(mean=value)) for race, value in zip(RACES, (0.9, 0.8, 0.7, 0.6))})
    assert result.mean == pytest.approx(0.75) and result.std == pytest.approx(0.1290994)


def test_scface(tmp_path):
    for person in range(1, 9):
        put(tmp_path / "mugshot" / f"{person:03d}_frontal.png", person, 0)
        for camera in range(1, 6):
            for distance in (1, 2, 3):
                put(tmp_path / "cams" / f"{person:03d}_cam{camera}_{distance}.png", person if distance > 1 else 99, camera)
    found = score_scface(Blocks(), tmp_path, test_subjects=6, splits=4, flip=False)
    assert found["d2_2.6m"] == found["d3_1.0m"] == 1.0 and found["d1_4.2m"] <= 2 / 6  # the far probes all show one stranger
    assert found["mean"] == pytest.approx((2 + found["d1_4.2m"]) / 3) and found["splits"] == 4
    assert score_scface(Blocks(), tmp_path, test_subjects=8, flip=False)["splits"] == 1
    with pytest.raises(UserError, match="8 subjects with a mugshot, fewer than the 80"):
        score_scface(Blocks(), tmp_path)
    with pytest.raises(UserError, match="0 mugshots"):
        score_scface(Blocks(), tmp_path / "cams")


def test_closed_set(tmp_path):
    for person in range(6):
        put(tmp_path / "Gallery_Match" / f"{person}_1.png", person, 1)
        put(tmp_path / "Probe" / f"{person}_2.png", person, 2)
    for other in range(50, 70):
        put(tmp_path / "Gallery_Distractor" / f"x{other}.png", other, 0)
    found = score_closed_set(Blocks(), tmp_path, flip=False)
    assert (found["probes"], found["gallery"], found["distractors"], found["people"]) == (6, 6, 20, 6) and found["rank_1"] == 1.0
    put(tmp_path / "Gallery_Distractor" / "twin.png", 3, 2)  # a distractor nearer than the match
    assert score_closed_set(Blocks(), tmp_path, flip=False)["rank_1"] == pytest.approx(5 / 6)
    assert score_closed_set(Blocks(), tmp_path, flip=False)["rank_5"] == 1.0
    put(tmp_path / "Probe" / "77_1.png", 77, 1)
    with pytest.raises(UserError, match="1 probes show nobody of the gallery, e.g. Probe/77_1.png"):
        score_closed_set(Blocks(), tmp_path)


@pytest.mark.parametrize("kind", sorted(OCCLUDERS))
def test_occluders(kind):
    image = face(1, 1)
    one, again, other = (occlude(image, kind, seed) for seed in (5, 5, 6))
    assert np.array_equal(one, again) and not np.array_equal(one, other) and one.shape == image.shape and one.dtype == np.uint8
    changed = (np.abs(one.astype(int) - image).max(axis=2) > 30).mean()
    assert 0.04 < changed < 0.5 and not np.array_equal(one, image)
    upper, lower = (np.abs(one.astype(int) - image)[rows].mean() for rows in (slice(0, 62), slice(66, 112)))
    if kind != "bar":
        assert (upper < lower) == (kind == "mask")  # a mask lies low, glasses high
    with pytest.raises(UserError, match="did you mean 'mask'"):
        occlude(image, "masc", 1)


def test_low_resolution_and_asymmetry():
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    small = low_resolution(image, 3)
    assert np.array_equal(small, low_resolution(image, 3)) and small.std() < 0.4 * image.std()
    half = image.copy()
    half[:, :56] = 128
    values = asymmetry(np.stack([image, half, half[:, ::-1]]))
    assert abs(values[0]) < 0.1 and values[1] > 0.8 and values[2] == pytest.approx(-values[1], abs=0.05)


@pytest.fixture
def people(tmp_path):
    lines = []
    for person in range(8):
        for shot in (1, 2):
            put(tmp_path / "faces" / f"P{person}" / f"{shot}.jpg", person, shot)
        lines += [f"P{person}/1.jpg P{person}/2.jpg 1 0", f"P{person}/1.jpg P{(person + 1) % 8}/2.jpg 0 0"]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "faces", tmp_path / "pairs.txt"


def test_mini_benchmark_is_an_frcsyn_list(people, tmp_path):
    yaw = lambda images: images.astype(float).mean((1, 2, 3))  # noqa: E731  (any order will do)
    facts = build_mini(*people, tmp_path / "mini", pose=yaw)
    assert facts["pairs"] == 16 and facts["pose_pairs"] == 8 and facts["pose_by"] == "predictor"
    lists = load_comparisons(tmp_path / "mini" / "lists")
    assert sorted(lists) == sorted(KEYS)
    assert {key: (int(one.same_P.sum()), len(one)) for key, one in lists.items()} == {"lfw": (8, 16), "lfw-occluded": (8, 16), "lfw-lowres": (8, 16), "lfw-pose": (4, 8)}
    for key, comparison in lists.items():
        for first, second in comparison.paths:
            left, right = (decode_file(tmp_path / "mini" / "images" / key / path) for path in (first, second))
            original = decode_file(people[0] / "/".join(second.split("/")[1:]).replace(".png", ".jpg"))
            assert first.startswith("plain/") and np.array_equal(right, original) == (second.startswith("plain/")) == (key in ("lfw", "lfw-pose")), (key, second)
            assert left.shape == (112, 112, 3)
    text = (tmp_path / "mini" / "lists" / "sub-tasks_2.1" / "lfw_comparison.txt").read_bytes()
    assert text.count(b"\r\n") == 16 and text.endswith(b"\r\n")
    build_mini(*people, tmp_path / "again", pose=yaw)
    for path in sorted(path for path in (tmp_path / "mini").rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(tmp_path / "mini")).read_bytes()
    with pytest.raises(UserError, match="not empty"):
        build_mini(*people, tmp_path / "mini")


def test_mini_benchmark_says_when_pose_is_a_proxy(people, tmp_path):
    assert "proxy" in build_mini(*people, tmp_path / "mini")["pose_by"]
    (people[0] / "P0" / "1.jpg").unlink()
    with pytest.raises(UserError, match="P0/1.jpg"):
        build_mini(*people, tmp_path / "other")
