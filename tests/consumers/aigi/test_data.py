"""Matched sources: what files tell without their pixels before and after, histories, people, mistakes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from facefoundry.consumers.aigi.data import FileFacts, MatchConfig, check_metadata, file_facts, matched, metadata_accuracy, read_part, sample, split_people
from facefoundry.consumers.aigi.wear import jpeg
from facefoundry.core.errors import UserError
from facefoundry.core.images import encode_jpeg, encode_png
from PIL import Image


def folder(root, name, *, people=5, each=4, seed=0, suffix="png", quality=92):
    rng = np.random.default_rng(seed)
    for person in range(people):
        for number in range(each):
            coarse = rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)
            image = np.asarray(Image.fromarray(coarse).resize((112, 112), Image.Resampling.BICUBIC))
            path = root / name / f"p{person}" / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix == "png":
                path.write_bytes(encode_png(image))
            else:
                Image.fromarray(image).save(path, "JPEG", quality=quality)
    return root / name


@pytest.fixture
def parts(tmp_path):
    real = read_part(folder(tmp_path, "real", suffix="jpg"), "real", fake=False)
    return [real, read_part(folder(tmp_path, "fake", seed=1), "uiface", fake=True)]


def told(parts):
    return metadata_accuracy([fact for part in parts for fact in part.facts], np.repeat([part.fake for part in parts], [len(part.facts) for part in parts]))


def test_metadata_alone_scores_half_after_matching(parts):
    assert told(parts) == 1.0  # JPEG photographs, PNG fakes: the suffix gives the answer
    pictures = matched(parts, MatchConfig())
    assert metadata_accuracy(pictures.facts, pictures.fake_N) == check_metadata(pictures, MatchConfig()) == 0.5
    assert set(pictures.facts) == {FileFacts("jpeg", 92, 2, 112, 112)}


def test_training_refuses_what_metadata_tells(parts):
    pictures = matched(parts, MatchConfig(history=False))
    with pytest.raises(UserError, match="100.0% accuracy"):
        check_metadata(pictures, MatchConfig(history=False))


def test_histories_that_cannot_be_matched_are_found(tmp_path):
    apart = [read_part(folder(tmp_path, "a", suffix="jpg", quality=92), "a", fake=False), read_part(folder(tmp_path, "b", suffix="jpg", quality=70), "b", fake=True)]
    with pytest.raises(UserError, match="codec, quality and size alone"):
        check_metadata(matched(apart, MatchConfig()), MatchConfig())


def test_fakes_get_exactly_the_compression_of_the_real(parts):
    pictures = matched(parts, MatchConfig())
    fakes = pictures.image_NHWC[pictures.fake_N]
    np.testing.assert_array_equal(fakes[3], jpeg(parts[1].image_NHWC[3], 92, subsampling=2))
    np.testing.assert_array_equal(pictures.image_NHWC[~pictures.fake_N], parts[0].image_NHWC)  # theirs is behind them
    last = matched(parts, MatchConfig(codec="jpeg", quality=80)).image_NHWC
    np.testing.assert_array_equal(last[0], jpeg(parts[0].image_NHWC[0], 80))


def test_half_compressed_sets_end_with_equal_shares(tmp_path):
    rng = np.random.default_rng(0)
    base = read_part(folder(tmp_path, "x", people=50, each=4), "x", fake=False)
    squeezed = FileFacts("jpeg", 90, 2, 112, 112)
    parts = [replace(base, name=name, fake=fake, facts=tuple(squeezed if u < share else fact for u, fact in zip(rng.random(200), base.facts))) for name, fake, share in (("r", False, 0.7), ("f", True, 0.3))]
    before = told(parts)
    pictures = matched(parts, MatchConfig())
    share = [np.mean([fact == squeezed for fact, fake in zip(pictures.facts, pictures.fake_N) if fake == value]) for value in (False, True)]
    assert before > 0.6 and abs(share[0] - share[1]) < 0.12
    assert metadata_accuracy(pictures.facts, pictures.fake_N) < 0.58


def test_classifier_of_columns_is_honest():
    rng = np.random.default_rng(0)
    fake = rng.random(4000) < 0.3
    noise = [FileFacts("jpeg", int(q), 2, 112, 112) for q in rng.integers(60, 95, 4000)]
    assert metadata_accuracy(noise, fake) == pytest.approx(0.5, abs=0.03)
    leak = [FileFacts("jpeg", 90 if value != wrong else 80, 2, 112, 112) for value, wrong in zip(fake, rng.random(4000) < 0.1)]
    assert metadata_accuracy(leak, fake) == pytest.approx(0.9, abs=0.02)
    one_of_a_kind = [FileFacts("jpeg", 90, 2, 100 + n, 112) for n in range(4000)]
    assert metadata_accuracy(one_of_a_kind, fake) == 0.5  # never seen in the other half: a coin


def test_facts_of_files():
    image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    assert file_facts(encode_png(image)) == FileFacts("lossless", 0, -1, 40, 24)
    for quality in (30, 75, 92, 100):
        assert file_facts(encode_jpeg(image, quality)) == FileFacts("jpeg", quality, 0, 40, 24)


def test_splits_share_no_person(parts):
    first, second = split_people(parts[0], 0.6)
    assert not set(first.people) & set(second.people) and len(first.people) + len(second.people) == 20
    assert len(sample(first, 5).people) == 5 == len(sample(first, 5).image_NHWC)


def test_most_is_drawn_before_reading(tmp_path):
    part = read_part(folder(tmp_path, "many"), "many", fake=True, most=7)
    assert len(part.image_NHWC) == len(part.facts) == 7 and len(set(part.paths)) == 7


def test_mistakes(tmp_path, parts):
    with pytest.raises(UserError, match="real and fake faces are needed"):
        matched(parts[:1], MatchConfig())
    with pytest.raises(UserError, match="two sources are called 'real'"):
        matched([parts[0], replace(parts[1], name="real")], MatchConfig())
    (tmp_path / "bad" / "p0").mkdir(parents=True)
    (tmp_path / "bad" / "p0" / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="no usable 112x112 face"):
        read_part(tmp_path / "bad", "bad", fake=True)
