"""Centres of people: computed, stored, read back."""

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.identity.centres import class_centres, read_centres, write_centres


def test_class_centres_equal_the_plain_loop(unit_faces):
    embed_ND, identity_N = unit_faces
    centres = class_centres(embed_ND, identity_N)
    for row, name in enumerate(sorted(set(identity_N.tolist()))):
        mean_D = embed_ND[identity_N == name].mean(axis=0)
        np.testing.assert_allclose(centres[row], mean_D / np.linalg.norm(mean_D), atol=1e-6)


def test_opposite_faces_have_no_direction():
    assert not class_centres(np.array([[1, 0], [-1, 0]], np.float32), np.zeros(2)).any()


def test_both_kinds_of_file(tmp_path, unit_faces):
    centre_ID = write_centres(*unit_faces, tmp_path / "c.safetensors")
    np.testing.assert_allclose(read_centres(tmp_path / "c.safetensors"), centre_ID, atol=1e-6)
    np.save(tmp_path / "c.npy", 3.0 * centre_ID.astype(np.float64))
    again_ID = read_centres(tmp_path / "c.npy")
    assert again_ID.dtype == np.float32
    np.testing.assert_allclose(again_ID, centre_ID, atol=1e-6)


def test_bad_files_are_user_errors(tmp_path):
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "flat.npy", np.ones(4))
    np.save(tmp_path / "code.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "zero.npy", np.array([[1, 0], [0, 0]]))
    np.save(tmp_path / "nan.npy", np.array([[1, 0], [1, 0], [np.nan, 0]]))
    for name, message in (
        ("none.safetensors", "there is no file"), ("none.npy", "cannot be read"), ("text.npy", "cannot be read"), ("code.npy", "cannot be read"),
        ("flat.npy", "one row of numbers for each"), ("zero.npy", "1 rows that are .* zero .the first is row 1"), ("nan.npy", "the first is row 2"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            read_centres(tmp_path / name)
