"""The dlib embedder's crop, cache and processes; the network itself runs on a few made-up images only."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import facefoundry.recognition.dlib_embedder as module
from facefoundry.core.images import to_float
from facefoundry.recognition.descriptor_cache import PARTS_MOST, DescriptorCache, image_keys
from facefoundry.recognition.dlib_embedder import DlibEmbedder, centred, dlib_chip


@pytest.fixture
def image_NHWC():
    return np.random.default_rng(1).integers(0, 256, (3, 112, 112, 3), np.uint8)


def test_the_helper_package_is_never_imported(image_NHWC, tmp_path):
    DlibEmbedder(cache=None)(to_float(image_NHWC[:1]))
    assert "face_recognition_models" not in sys.modules


def test_chip_is_the_fixed_box_of_the_padded_face():
    ramp = np.tile(np.arange(112, dtype=np.uint8)[:, None, None] * 2, (1, 112, 3))
    chip = dlib_chip(ramp)
    assert chip.shape == (150, 150, 3) and chip.flags.c_contiguous
    # Row r of the chip is the centre of source rows 22.75 + (r, r + 1)·98.5/150; the value of row y is 2·y.
    for row in (3, 70, 130):
        assert float(chip[row, 75, 0]) == pytest.approx(2 * (22.75 + (row + 0.5) * 98.5 / 150 - 0.5), abs=1.0)
    assert (chip[140:] == 222).all()  # below the face: the last row, repeated


def test_centred_is_textbook():
    raw, mean = np.array([[3.0, 4.0], [1.0, 1.0]], np.float32), np.array([0.0, 1.0])
    assert np.allclose(centred(raw, mean), [[2**-0.5, 2**-0.5], [1, 0]])


def test_rows_are_cached_by_pixels_and_duplicates_computed_once(image_NHWC, tmp_path, monkeypatch):
    calls = []

    def fake(images):
        calls.append(len(images))
        return images[:, 0, :1, 0].astype(np.float32) + np.arange(128, dtype=np.float32)

    monkeypatch.setattr(module, "raw_descriptors", fake)
    twice = np.concatenate([image_NHWC, image_NHWC])
    first = DlibEmbedder(cache=tmp_path, processes=1).embed_uint8(twice)
    again = DlibEmbedder(cache=tmp_path, processes=1).embed_uint8(twice)
    assert calls == [3] and np.array_equal(first, again) and np.array_equal(first[:3], first[3:])
    DlibEmbedder(cache=None, processes=1).embed_uint8(twice)
    assert calls == [3, 6]


def test_several_processes_give_the_rows_of_one(image_NHWC, monkeypatch):
    monkeypatch.setattr(module, "_POOL_LEAST", 2)
    monkeypatch.setattr(module, "_CHUNK", 2)
    one, two = DlibEmbedder(cache=None, processes=1), DlibEmbedder(cache=None, processes=2)
    try:
        assert np.array_equal(two.embed_uint8(image_NHWC), one.embed_uint8(image_NHWC)) and two._pool is not None
    finally:
        two.close()


def test_cache_survives_damage_and_joins_its_parts(tmp_path):
    image_NHWC = np.arange(PARTS_MOST + 4, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    keys, rows = image_keys(image_NHWC), np.arange((PARTS_MOST + 4) * 2, dtype=np.float32).reshape(-1, 2)
    cache = DescriptorCache(tmp_path, 2)
    for key, row in zip(keys, rows):
        cache.put([key], row[None])
    (tmp_path / "part-00damaged.npz").write_bytes(b"PK junk")
    joined = DescriptorCache(tmp_path, 2)
    assert all(np.array_equal(joined.get(key), row) for key, row in zip(keys, rows))
    assert len(list(tmp_path.glob("part-*.npz"))) == 1
    assert np.array_equal(DescriptorCache(tmp_path, 2).get(keys[5]), rows[5])
    assert DescriptorCache(tmp_path, 3).get(keys[5]) is None


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = DescriptorCache(tmp_path / "file" / "folder", 2)
    cache.put([b"k" * 32], np.ones((1, 2), np.float32))
    assert cache.get(b"k" * 32) is not None
