"""Pair lists and scoring of an embedder on small synthetic folders."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch

from facefoundry.challenge.lfw import read_pairs, score_pairs
from facefoundry.core.errors import UserError
from facefoundry.core.images import encode_png


class Means:
    """Embeds a face by the mean colours of its left and right half: sensitive to mirroring."""

    name, dim, differentiable = "means", 6, True

    def __call__(self, image_BCHW):
        halves = torch.cat((image_BCHW[..., :56].mean((2, 3)), image_BCHW[..., 56:].mean((2, 3))), dim=1)
        return torch.nn.functional.normalize(halves, dim=1)


@pytest.fixture
def faces(tmp_path):
    """Twelve people with two images each, and a list of 12 + 12 pairs in two folds."""
    rng = np.random.default_rng(0)
    root = tmp_path / "faces"
    lines = []
    for person in range(12):
        folder = root / f"P{person}"
        folder.mkdir(parents=True)
        sides = rng.integers(40, 215, (2, 3))
        for shot in (1, 2):
            image = np.repeat(sides + rng.integers(-8, 9, (2, 3)), 56, axis=0)[None].repeat(112, axis=0).astype(np.uint8)
            (folder / f"P{person}_{shot:04d}.jpg").write_bytes(encode_png(image))
        other = (person + 1) % 12
        lines.append(f"P{person}/P{person}_0001.jpg P{person}/P{person}_0002.jpg 1 {7 + person % 2}")
        lines.append(f"P{person}/P{person}_0001.jpg P{other}/P{other}_0002.jpg 0 {7 + person % 2}")
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("\n".join(lines) + "\n")
    return root, pairs


def test_reads_our_format(faces):
    pairs = read_pairs(faces[1])
    assert len(pairs) == 24 and pairs.same_P.sum() == 12 and set(pairs.fold_P.tolist()) == {7, 8}
    assert pairs.paths[1] == ("P0/P0_0001.jpg", "P1/P1_0002.jpg")


def test_reads_the_official_format(tmp_path):
    file = tmp_path / "pairs.txt"
    file.write_text("2\t1\nAnn_B\t1\t4\nAnn_B\t2\tCy\t10\nDee\t3\t2\nDee\t1\tEd\t1\n")
    pairs = read_pairs(file)
    assert pairs.paths[:2] == (("Ann_B/Ann_B_0001.jpg", "Ann_B/Ann_B_0004.jpg"), ("Ann_B/Ann_B_0002.jpg", "Cy/Cy_0010.jpg"))
    assert pairs.same_P.tolist() == [True, False, True, False] and pairs.fold_P.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "holds no pairs"), ("a.jpg b.jpg 1", "line 1"), ("a.jpg b.jpg 1 0\na.jpg b.jpg 2 0", "line 2"), ("10 300\nA 1 2", "announces 10 folds"), ("1 1\nA 1 2\nB x C 1", "line 3")],
)
def test_bad_lists_name_the_line(tmp_path, text, message):
    file = tmp_path / "pairs.txt"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        read_pairs(file)


def slow_scores(root, pairs):
    """One pair at a time: embed both images and their mirrors, add, normalise, multiply."""
    from facefoundry.core.images import decode_file, to_float

    def embed(path):
        image = to_float(decode_file(root / path)[None])
        both = (Means()(image) + Means()(image.flip(3)))[0].double()
        return both / both.norm()

    return np.array([float(embed(a) @ embed(b)) for a, b in pairs.paths])


def test_scores_equal_one_pair_at_a_time_from_folder_and_zip(faces, tmp_path):
    root, list_path = faces
    archive = tmp_path / "faces.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for file in root.rglob("*.jpg"):
            out.write(file, file.relative_to(root).as_posix())
    expected = slow_scores(root, read_pairs(list_path))
    for source, batch in ((root, 64), (archive, 5)):
        result = score_pairs(Means(), source, list_path, batch=batch)
        assert np.allclose(result.score_P, expected, atol=1e-6)
        assert result.accuracy.accuracy_F.shape == (2,)
    assert not np.allclose(score_pairs(Means(), root, list_path, flip=False).score_P, expected, atol=1e-3)
    summary = result.summary()
    assert summary["pairs"] == 24 and summary["embedder"] == "means" and 0.5 < summary["auc"] <= 1
    assert {"accuracy", "accuracy_std", "accuracy_folds", "tar_at_far_0.01", "tar_at_far_0.001", "fnmr_at_fmr_1pct", "eer"} <= set(summary)
    assert not result.points[1].resolved  # 12 non-mated pairs cannot resolve 1e-3


def test_bad_images_and_embeddings_are_named(faces, tmp_path):
    root, pairs = faces

    class Broken(Means):
        def __call__(self, image_BCHW):
            return super().__call__(image_BCHW) * torch.nan

    with pytest.raises(UserError, match=r"P0/P0_0001.jpg: the embedding is NaN"):
        score_pairs(Broken(), root, pairs)
    (root / "P3" / "P3_0001.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="P3/P3_0001.jpg: not an image"):
        score_pairs(Means(), root, pairs)
    (root / "P3" / "P3_0001.jpg").write_bytes(encode_png(np.zeros((100, 90, 3), np.uint8)))
    with pytest.raises(UserError, match="P3_0001.jpg: is 90x100, expected an aligned 112x112"):
        score_pairs(Means(), root, pairs)
    (root / "P3" / "P3_0001.jpg").unlink()
    with pytest.raises(UserError, match="lacks 1 of 24 images.*P3/P3_0001.jpg"):
        score_pairs(Means(), root, pairs)
    with pytest.raises(UserError, match="does not exist"):
        score_pairs(Means(), tmp_path / "nowhere", pairs)


def test_zip_with_paths_leading_out_is_refused(faces, tmp_path):
    for name in ("../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:/evil.jpg"):
        archive = tmp_path / "bad.zip"
        with zipfile.ZipFile(archive, "w") as out:
            out.writestr(name, b"x")
        with pytest.raises(UserError, match="unsafe path"):
            score_pairs(Means(), archive, faces[1])
    archive.write_bytes(b"PK not a zip")
    with pytest.raises(UserError, match="cannot be read as a zip"):
        score_pairs(Means(), archive, faces[1])
