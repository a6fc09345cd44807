"""Style codes of pictures: rendered faces get codes, hopeless landmarks get none, a file brings them back."""

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.styles_3dmm.camera import Camera, project
from facefoundry.styles_3dmm.codes import StyleCodes, fit_codes
from facefoundry.styles_3dmm.light import ambient
from facefoundry.styles_3dmm.morphable import tiny
from facefoundry.styles_3dmm.render import render

HEAD = tiny()


def pictures(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, landmarks and poses."""
    rng = np.random.default_rng(0)
    vertices, pose = HEAD.vertices(rng.normal(size=(count, 8)), np.zeros((count, 4))), rng.uniform(-15, 15, (count, 3))
    camera = Camera.weak(np.full(count, 0.45), np.tile([56.0, 50.0], (count, 1)))
    picture = render(HEAD, vertices, camera, pose, light_B93=ambient(0.8)[None], size_px=112)
    return (picture.colour * 255).round().astype(np.uint8), project(camera, HEAD.landmarks(vertices), pose)[:, :, :2], pose


def test_codes_and_their_file(tmp_path):
    image, landmark, pose = pictures(6)
    landmark[4] = np.random.default_rng(1).uniform(0, 112, (68, 2))
    codes = fit_codes(HEAD, image, landmark, np.array(["a", "a", "b", "b", "c", "c"]))
    assert np.isnan(codes.code_NP[4]).all() and np.isfinite(np.delete(codes.code_NP, 4, 0)).all()
    found = codes.layout.take(codes.code_NP, "pose")
    assert np.abs(found - pose)[[0, 1, 2, 3, 5]].mean() < 5
    codes.save(tmp_path / "codes.npz")
    again = StyleCodes.load(tmp_path / "codes.npz")
    assert again.layout == codes.layout and again.identity_N.tolist() == codes.identity_N.tolist()
    np.testing.assert_array_equal(again.code_NP, codes.code_NP)


def test_bad_files_are_told(tmp_path):
    with pytest.raises(UserError, match="styles fit"):
        StyleCodes.load(tmp_path / "none.npz")
    np.savez(tmp_path / "bad.npz", code_NP=np.zeros((2, 3)))
    with pytest.raises(UserError, match="styles fit"):
        StyleCodes.load(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match="image_NHWC"):
        fit_codes(HEAD, np.zeros((2, 64, 64, 3), np.uint8), np.zeros((2, 68, 2)))
