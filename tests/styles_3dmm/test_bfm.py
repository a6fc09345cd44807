"""Basel models: the .mat of 2009 through SciPy, the layout of the .h5 through any mapping (and h5py where it is installed); damage is named."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from foreign_files import E, K, known, moods, places, same_shape, shapes, triangles, unit_columns
from scipy.io import savemat

from facefoundry.core.errors import UserError
from facefoundry.styles_3dmm.bfm import from_2019, read_bfm
from facefoundry.styles_3dmm.foreign import adopt


def of_2009() -> dict[str, np.ndarray]:
    """Micrometres, wound the wrong way round, counted from 1."""
    basis, deviation = unit_columns(shapes() * 1000)
    return {"shapeMU": (places().reshape(-1, 1) * 1000).astype(np.float32), "shapePC": basis.astype(np.float32), "shapeEV": deviation[:, None].astype(np.float32), "tl": triangles()[:, [0, 2, 1]] + 1.0}


def of_2019(landmarks: bool = True) -> dict[str, np.ndarray]:
    basis, deviation = unit_columns(shapes())
    mood, strength = unit_columns(moods())
    own = {
        "shape/model/mean": places().ravel() - 1.0, "shape/model/pcaBasis": basis, "shape/model/pcaVariance": deviation**2, "shape/representer/cells": triangles().T,
        "expression/model/mean": np.full(places().size, 1.0), "expression/model/pcaBasis": mood, "expression/model/pcaVariance": strength**2,
    }  # fmt: skip
    if landmarks:
        rows = [
            {"id": "center.nose.tip", "coordinates": (places()[known()[30]] + 0.01).tolist()},
            {"id": "left.eye.corner_outer", "coordinates": [0, 0, 999]},
            {"id": "hat", "coordinates": [0, 0, 0]},
        ]
        own["metadata/landmarks/json"] = np.array([json.dumps(rows)], object)
    return own


def test_2009_is_read(tmp_path):
    savemat(tmp_path / "01_MorphableModel.mat", of_2009())
    raw = read_bfm(tmp_path / "01_MorphableModel.mat")
    assert raw.identity_KV3 == pytest.approx(shapes() * 1000, abs=1.0) and len(raw.expression_EV3) == 0
    head = adopt(raw, "bfm", known())
    same_shape(head)
    assert "2009" in head.licence and "research only" in head.licence


def test_2019_is_read(tmp_path):
    raw = from_2019(of_2019(), tmp_path / "model2019_fullHead.h5")
    assert raw.name == "bfm-2019"
    assert raw.mean_V3 == pytest.approx(places()) and raw.expression_EV3.shape == (E, len(places()), 3) and raw.identity_KV3 == pytest.approx(shapes())
    assert (raw.triangle_T3 == triangles()).all()
    assert raw.known == {30: known()[30]}  # one name is not ours, one place is not on the mesh
    same_shape(adopt(raw, "bfm", known()))


def test_2019_without_landmarks_or_expressions_is_a_model_too(tmp_path):
    stored = {name: value for name, value in of_2019(landmarks=False).items() if not name.startswith("expression")}
    raw = from_2019(stored, tmp_path / "m.h5")
    assert raw.known == {} and len(raw.expression_EV3) == 0 and len(raw.identity_KV3) == K


def test_an_h5_file_is_the_same_model(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is optional; without it the layout is tested by a mapping")
    with h5py.File(tmp_path / "model2019_fullHead.h5", "w") as file:
        for name, value in of_2019(landmarks=False).items():
            file[name] = value
    assert read_bfm(tmp_path / "model2019_fullHead.h5").mean_V3 == pytest.approx(places())
    (tmp_path / "cut.h5").write_bytes((tmp_path / "model2019_fullHead.h5").read_bytes()[:3000])
    with pytest.raises(UserError, match="cannot read"):
        read_bfm(tmp_path / "cut.h5")


def test_without_h5py_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"facefoundry\[bfm\]"):
        read_bfm(tmp_path / "m.h5")


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95])
def test_cut_mat_is_refused(tmp_path, share):
    savemat(tmp_path / "m.mat", of_2009(), do_compression=True)
    data = (tmp_path / "m.mat").read_bytes()
    (tmp_path / "m.mat").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"m\.mat"):
        read_bfm(tmp_path / "m.mat")


@pytest.mark.parametrize(
    "changed, message",
    [({"shapeEV": np.zeros((7, 1))}, "a basis of shape"), ({"tl": np.full((3, 3), 99999.0)}, "corners are vertices"), ({"shapeMU": np.array(["no"])}, "holds no numbers"), ({"shapePC": None}, "has no 'shapePC'")],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, changed, message):
    savemat(tmp_path / "m.mat", {name: value for name, value in {**of_2009(), **changed}.items() if value is not None})
    with pytest.raises(UserError, match=message):
        adopt(read_bfm(tmp_path / "m.mat"), "m.mat", known())


def test_expressions_of_another_mesh_are_refused(tmp_path):
    with pytest.raises(UserError, match="expressions of 2 vertices"):
        from_2019({**of_2019(), "expression/model/mean": np.zeros(6)}, tmp_path / "m.h5")


