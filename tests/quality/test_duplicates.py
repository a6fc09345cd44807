"""Hashes against all pairs; what survives re-encoding and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.core.images import decode, encode_jpeg, to_float
from facefoundry.quality.duplicates import find_duplicates, near_hashes
from facefoundry.quality.image_statistics import light_proxies, luminance, perceptual_hash


def apart(a, b):
    return bin(int(a) ^ int(b)).count("1")


@pytest.mark.parametrize("bits", [0, 1, 3, 6])
def test_near_hashes_equal_the_double_loop(bits):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 30, dtype=np.uint64) * np.uint64(2) + rng.integers(0, 2, 30, dtype=np.uint64)
    rows = []
    for value in base:
        for flips in (1, 2, 4, 7):
            rows.append(value ^ np.bitwise_or.reduce(np.uint64(1) << rng.choice(64, flips, replace=False).astype(np.uint64)))
    hashes = rng.permutation(np.unique(np.array([*base, *rows], np.uint64)))
    expected = {(i, j) for j in range(len(hashes)) for i in range(j) if apart(hashes[i], hashes[j]) <= bits}
    found = near_hashes(hashes, bits)
    assert {tuple(pair) for pair in found.tolist()} == expected and len(found) == len(expected)
    assert bits == 0 or expected


def test_equal_hashes_are_a_chain_not_all_pairs():
    hashes = np.full(50_000, 7, np.uint64)
    found = near_hashes(hashes, 6)
    assert len(found) < 100_000 and found[0].tolist() == [0, 1]
    embed = np.tile(np.float32([1, 0]), (4, 1))
    twice = find_duplicates(embed, hashes[:4])
    assert {pair.row for pair in twice} == {1, 2, 3} and all(pair.cosine == 1 and pair.bits == 0 for pair in twice)


def test_both_must_agree():
    embed = np.eye(3, dtype=np.float32)[[0, 1, 0]]
    assert find_duplicates(embed, np.array([5, 5, 5], np.uint64)) and {(p.earlier, p.row) for p in find_duplicates(embed, np.array([5, 5, 5], np.uint64))} == {(0, 2)}
    assert find_duplicates(embed, np.array([5, 5, 2**64 - 1], np.uint64)) == []
    assert len(near_hashes(np.empty(0, np.uint64), 4)) == 0
    with pytest.raises(UserError, match="0 to 16"):
        near_hashes(np.array([1], np.uint64), 40)


def test_hash_survives_jpeg_and_light_is_what_it_says():
    x, y = np.meshgrid(np.linspace(0, 6, 112), np.linspace(0, 5, 112))
    face = np.stack([120 + 60 * np.sin(x * k) * np.cos(y + k) for k in (1.0, 1.3, 1.7)], axis=2).astype(np.uint8)
    other = face.transpose(1, 0, 2)
    left = (face * np.linspace(1.0, 0.3, 112)[None, :, None]).astype(np.uint8)
    batch = np.stack([face, decode(encode_jpeg(face, 60)), other, left])
    light = luminance(to_float(batch))
    assert light[0] == pytest.approx(batch[0].reshape(28, 4, 28, 4, 3).mean((1, 3)) @ [0.299, 0.587, 0.114] / 255, abs=1e-4)
    value = perceptual_hash(light)
    assert apart(value[0], value[1]) <= 6 < apart(value[0], value[2])
    proxies = light_proxies(light)
    assert proxies[3, 2] > proxies[0, 2] + 0.3 and abs(proxies[3, 3] - proxies[0, 3]) < 0.2  # brighter on the left, not above
    assert proxies[0, 0] == pytest.approx(light[0].mean(), abs=1e-6)
    ramp = np.tile(np.linspace(0.9, 0.1, 28, dtype=np.float32), (1, 28, 1))
    assert light_proxies(ramp)[0] == pytest.approx([0.5, ramp.std(), 1.6, 0], abs=1e-4)  # from .9 to .1 around .5
    assert np.isfinite(light_proxies(np.zeros((1, 28, 28), np.float32))).all()
