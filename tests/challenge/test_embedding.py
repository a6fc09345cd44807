"""Named images to embeddings: what fails stops, or is marked and still gets its line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facefoundry.challenge.embedding import ABSENT_SCORE, centre_crop, embed_images
from facefoundry.challenge.lfw import score_pairs
from facefoundry.challenge.pair_lists import Pairs, read_pairs
from facefoundry.core.errors import UserError
from facefoundry.core.images import decode, encode_png, to_float


class Raw:
    """Features of unequal length, as a network gives them."""

    name, dim, differentiable = "raw", 4, True

    def raw(self, image_BCHW):
        corners = torch.stack([image_BCHW[:, 0, :56].mean((1, 2)), image_BCHW[:, 1, 56:].mean((1, 2)), image_BCHW[:, 2, :, :56].mean((1, 2)), image_BCHW[:, 0, :, 56:].mean((1, 2))], 1)
        return 7 * corners + 0.1

    def __call__(self, image_BCHW):
        return torch.nn.functional.normalize(self.raw(image_BCHW))


def face(seed, side=112):
    return np.random.default_rng(seed).integers(0, 256, (side // 14, side // 14, 3)).repeat(14, 0).repeat(14, 1).astype(np.uint8)


@pytest.fixture
def files():
    return {f"{k}.png": encode_png(face(k)) for k in range(5)}


def reader(files):
    def read(name):
        if name not in files:
            raise UserError(f"there is no file '{name}'")
        return files[name]

    return read


def test_raw_features_are_added_not_unit_rows(files):
    found = embed_images(Raw(), sorted(files), reader(files), batch=2)
    for name, row in found.row.items():
        image = to_float(decode(files[name])[None])
        both = (Raw().raw(image) + Raw().raw(image.flip(3)))[0].double()
        assert np.allclose(found.embed_ND[row], both / both.norm(), atol=1e-6)
        assert found.norm_N[row] == pytest.approx(float(Raw().raw(image).norm()), rel=1e-6)
    plain = embed_images(Raw(), sorted(files), reader(files), flip=False)
    assert np.allclose(plain.embed_ND[0], Raw()(to_float(decode(files["0.png"])[None]))[0], atol=1e-6)


def test_results_do_not_depend_on_the_batch(files):
    rows = [embed_images(Raw(), sorted(files), reader(files), batch=batch).embed_ND for batch in (1, 3, 64)]
    assert np.allclose(rows[0], rows[1], atol=1e-12) and np.allclose(rows[0], rows[2], atol=1e-12)


def test_marks_and_scores_of_failed_images(files):
    files |= {"damaged.png": b"PNG?", "photo.png": encode_png(face(9, 224))}
    names = [*sorted(files), "missing.png"]
    found = embed_images(Raw(), names, reader(files), on_failure="mark")
    assert {name: mark.absent for name, mark in found.marks.items()} == {"damaged.png": True, "missing.png": True, "photo.png": False}
    assert "224x224" in found.marks["photo.png"].reason and "there is no file" in found.marks["missing.png"].reason
    scores = found.pair_scores([("0.png", "missing.png"), ("0.png", "1.png"), ("photo.png", "1.png")])
    assert scores[0] == ABSENT_SCORE and abs(scores[1]) <= 1 and scores[2] != ABSENT_SCORE
    for name in ("damaged.png", "missing.png", "photo.png"):
        with pytest.raises(UserError, match=name):
            embed_images(Raw(), [name], reader(files))


def test_no_face_gives_the_centre_crop_and_a_mark(files):
    files["photo.png"] = encode_png(face(9, 224))
    nobody = embed_images(Raw(), ["photo.png"], reader(files), on_failure="mark", aligner=lambda image: None)
    assert nobody.marks["photo.png"].reason == "no face was found" and not nobody.marks["photo.png"].absent
    same = embed_images(Raw(), ["crop.png"], reader({"crop.png": encode_png(centre_crop(face(9, 224)))}))
    assert np.allclose(nobody.embed_ND, same.embed_ND)
    found = embed_images(Raw(), ["photo.png"], reader(files), aligner=lambda image: (face(3), np.zeros((5, 2))))
    assert not found.marks and np.allclose(found.embed_ND, embed_images(Raw(), ["3.png"], reader(files)).embed_ND)


def test_centre_crop_takes_the_middle_square():
    wide = np.zeros((112, 224, 3), np.uint8)
    wide[:, 56:168] = 200
    assert (centre_crop(wide) == 200).all() and centre_crop(wide.transpose(1, 0, 2)).shape == (112, 112, 3)


def test_nan_features(files):
    class Broken(Raw):
        def raw(self, image_BCHW):
            return super().raw(image_BCHW) * torch.where(image_BCHW[:, 0, 0, 0] > 0, 1.0, torch.nan)[:, None]

    names = sorted(files)
    marks = embed_images(Broken(), names, reader(files), flip=False, on_failure="mark").marks
    assert 0 < len(marks) < len(names) and all(mark.absent and "NaN" in mark.reason for mark in marks.values())


def test_every_pair_gets_a_score_with_mark(tmp_path, files):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = (("0.png", "1.png"), ("1.png", "2.png"), ("3.png", "gone.png"), ("4.png", "2.png"))
    pairs = Pairs(paths=paths, same_P=np.array([True, False, True, False]), fold_P=np.array([0, 0, 1, 1]))
    result = score_pairs(Raw(), tmp_path, pairs, on_failure="mark")
    assert result.score_P[2] == ABSENT_SCORE and list(result.marks) == ["gone.png"] and result.summary()["marked_images"] == 1
    assert result.mean_norm is not None
    with pytest.raises(UserError, match="lacks 1 of 6 images"):
        score_pairs(Raw(), tmp_path, pairs)


def test_lists_with_crlf_mark_backslashes_and_bom(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_bytes(b"\xef\xbb\xbfa\\1.jpg a\\2.jpg 1 0\r\na\\1.jpg b\\1.jpg 0 1\r\n")
    assert read_pairs(path).paths == (("a/1.jpg", "a/2.jpg"), ("a/1.jpg", "b/1.jpg"))
    path.write_text("a/1.jpg a/2.jpg 1 0\na/1.jpg a/1.jpg 1 0\n")
    with pytest.raises(UserError, match=r"pairs.txt, line 2: 'a/1.jpg' is paired with itself"):
        read_pairs(path)


def test_headless_official_lists(tmp_path):
    path = tmp_path / "African_pairs.txt"
    path.write_text("m.1 1 2\nm.1 1 m.2 3\n" * 10)
    pairs = read_pairs(path, folds=10)
    assert len(pairs) == 20 and pairs.fold_P.tolist() == np.repeat(np.arange(10), 2).tolist() and pairs.paths[1] == ("m.1/m.1_0001.jpg", "m.2/m.2_0003.jpg")
    path.write_text("m.1 1 2\nm.1 1 m.2 3\n" * 9 + "m.1 1 2\nm.1 1 2\n")
    with pytest.raises(UserError, match="line 20"):
        read_pairs(path, folds=10)
    path.write_text("m.1 1 2\n" * 7)
    with pytest.raises(UserError, match="7 pairs, which 10 folds"):
        read_pairs(path, folds=10)
