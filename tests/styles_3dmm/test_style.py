"""The style code: blocks come back, names are told, DECA's codes read into the same frame."""

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.styles_3dmm.morphable import tiny
from facefoundry.styles_3dmm.style import BLOCKS, StyleLayout, deca_codes, deca_layout

LAYOUT = StyleLayout.of(tiny())


def blocks(count: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {block: rng.normal(size=(count, len(names))).astype(np.float32) for block, names in LAYOUT.blocks}


def deca(count: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    sizes = {"shape": 100, "exp": 50, "pose": 6, "cam": 3, "tex": 50}
    found = {key: rng.normal(scale=0.1, size=(count, size)) for key, size in sizes.items()}
    return {**found, "light": rng.normal(size=(count, 9, 3))}


def test_pack_and_unpack_are_inverse():
    value = blocks()
    code = LAYOUT.pack(**{**value, "light": value["light"].reshape(-1, 9, 3)})
    assert code.shape == (3, 8 + 4 + 3 + 3 + 3 + 27) and code.dtype == np.float32
    for block, part in LAYOUT.unpack(code).items():
        assert (part == value[block]).all()
    assert (code[:, LAYOUT.column("yaw_deg")] == value["pose"][:, 0]).all()
    assert (code[:, LAYOUT.column("light_1_g")] == value["light"].reshape(-1, 9, 3)[:, 1, 1]).all()


def test_layout_survives_as_text():
    assert StyleLayout.from_json(LAYOUT.to_json()) == LAYOUT
    with pytest.raises(UserError, match="style layout cannot be read"):
        StyleLayout.from_json('{"head": "x"}')


def test_mistakes_are_told():
    with pytest.raises(UserError, match="did you mean 'yaw_deg'"):
        LAYOUT.column("yaw")
    with pytest.raises(ValueError, match="pose has shape"):
        LAYOUT.pack(**{**blocks(), "pose": np.zeros((3, 4))})
    with pytest.raises(ValueError, match="expected"):
        StyleLayout(head="x", blocks=LAYOUT.blocks[::-1])


def test_clip_keeps_what_can_be_rendered():
    wild = LAYOUT.pack(**{block: 10 * part for block, part in blocks().items()})
    kept = StyleLayout(head="x", blocks=LAYOUT.blocks, units=True).clip(wild)
    assert 0 <= LAYOUT.take(kept, "expr").min() <= LAYOUT.take(kept, "expr").max() <= 1
    assert 0 < LAYOUT.take(kept, "tex").min() <= LAYOUT.take(kept, "tex").max() <= 1
    assert LAYOUT.take(kept, "cam")[:, 0].min() > 0
    assert (LAYOUT.take(kept, "pose") == LAYOUT.take(wild, "pose")).all()
    assert (LAYOUT.take(LAYOUT.clip(wild), "expr") == LAYOUT.take(wild, "expr")).all()  # no units, no box


def test_deca_has_236_columns_in_the_same_blocks():
    code, layout = deca_codes(deca())
    assert code.shape == (2, 236) and layout == deca_layout()
    assert tuple(block for block, _ in layout.blocks) == BLOCKS


def test_deca_pose_and_camera_come_into_our_axes():
    """DECA turns about x right, y up: about +y towards the viewer's right is our positive yaw, about +x our looking down."""
    found = deca()
    found["pose"][:] = 0.0
    found["pose"][0, 1], found["pose"][1, 0] = np.radians(20), np.radians(15)
    found["cam"][:] = [[8.0, 0.01, 0.02], [8.0, 0.0, 0.0]]
    code, layout = deca_codes(found)
    pose, camera = layout.take(code, "pose"), layout.take(code, "cam")
    assert pose[0, :3] == pytest.approx([20, 0, 0], abs=1e-3)
    assert pose[1, :3] == pytest.approx([0, -15, 0], abs=1e-3)
    # A point X metres from the origin: DECA's picture coordinate s (X + t) in [-1, 1], 112 px wide, first pixel centre at 0.
    for metres in (0.0, 0.05):
        assert camera[0, 0] * 1000 * metres + camera[0, 1] == pytest.approx((8.0 * (metres + 0.01) + 1) / 2 * 112 - 0.5, abs=1e-3)
        assert camera[0, 0] * -1000 * metres + camera[0, 2] == pytest.approx((1 - 8.0 * (metres + 0.02)) / 2 * 112 - 0.5, abs=1e-3)
    assert layout.take(code, "light")[0, :3] == pytest.approx(found["light"][0, 0] / np.pi, rel=1e-5)


def test_deca_files(tmp_path):
    np.savez(tmp_path / "codes.npz", **deca())
    assert (deca_codes(tmp_path / "codes.npz")[0] == deca_codes(deca())[0]).all()
    with pytest.raises(UserError, match="lack light"):
        deca_codes({key: value for key, value in deca().items() if key != "light"})
    with pytest.raises(UserError, match="'shape' has shape"):
        deca_codes({**deca(), "shape": np.zeros((2, 300))})
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot read DECA codes"):
        deca_codes(tmp_path / "bad.npz")
