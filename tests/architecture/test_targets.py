"""The pure parts of the targets' benchmark: diversity in pixels and of maps, verdicts, settings of the demos."""

from __future__ import annotations

import importlib
from pathlib import Path

import facefoundry
import numpy as np
import pytest
from facefoundry.identity.sources import Faces


@pytest.fixture
def targets(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(facefoundry.__file__).resolve().parent / "benchmarks"))
    return importlib.import_module("targets")


def faces_of(values: list[list[int]]) -> Faces:
    """People with images of one grey each."""
    label_N = np.repeat(np.arange(len(values), dtype=np.int32), [len(row) for row in values])
    image_NHWC = np.array([value for row in values for value in row], np.uint8)[:, None, None, None] * np.ones((1, 112, 112, 3), np.uint8)
    return Faces(image_NHWC=image_NHWC, identity_N=label_N, names=tuple(f"p{i}" for i in range(len(values))), paths=tuple(str(n) for n in range(len(label_N))))


def test_pixel_diversity_is_the_mean_over_people_of_their_pairs(targets):
    # 255 grey levels are 2 in [-1, 1]: the pairs of the first differ by 0, 2, 2, those of the second by 1; a lone image says nothing.
    assert targets.pixels(faces_of([[0, 0, 255], [0, 255 // 2], [7]])) == pytest.approx((4 / 3 + 2 * 127 / 255) / 2, abs=1e-6)


def test_perceptual_diversity_of_equal_images_is_none(targets):
    assert targets.perceptual(faces_of([[9, 9], [200, 200], [3]]), targets.MobileFaceNetMaps()) == pytest.approx(0.0, abs=1e-6)


def result(auc: float, distance: float) -> dict:
    return {
        "seconds": 170.0, "dlib": {"auc": auc, "fnmr_at_fmr_1pct": 0.1}, "diversity": {"perceptual": {"over_real": 0.79}},
        "distances": {"fid independent": distance}, "leakage": {"identities_that_match_a_person": 0},
    }  # fmt: skip


def test_targets_are_judged_on_their_side(targets):
    found = targets.judged(result(0.99, 4.0), result(0.9, 8.1))
    assert {key: row["reached"] for key, row in found.items()} == {"auc": True, "fnmr_at_fmr_1pct": True, "diversity_over_real": False, "fid_over_first": True, "seconds": True, "leaking_identities": True}
    assert found["fid_over_first"]["value"] == pytest.approx(4.0 / 8.1) and found["auc"]["target"] == ">= 0.99"
    assert targets.judged(result(0.98, 4.0), None)["fid_over_first"]["reached"] is None


def test_ratios_with_and_without_the_bias_of_a_small_set(targets):
    found = targets.ratios({"fid a": 60.0, "kid a": 0.1}, {"fid a": 100.0, "kid a": 0.4}, {"fid a": 40.0, "kid a": 0.0})
    assert found == {"fid a": pytest.approx(0.6), "kid a": pytest.approx(0.25), "fid a less floor": pytest.approx(1 / 3)}


def test_every_demo_is_a_job_that_can_be_planned(targets):
    from facefoundry.jobs.spec import load_job

    for name in targets.DEMOS:
        spec = load_job(*targets.settings_of(name, Path("unused")))
        assert (spec.identities.count, spec.per_identity, spec.judge) == (24, 8, "dlib")
