"""eos models written byte by byte as its sources say: every version, cut files, JSON."""

from __future__ import annotations

import json
import logging
import struct

import numpy as np
import pytest
from foreign_files import E, K, eos_file, known, moods, places, same_shape, shapes, theirs, triangles, unit_columns

from facefoundry.core.errors import UserError
from facefoundry.styles_3dmm.eos import read_eos
from facefoundry.styles_3dmm.foreign import adopt


def stored(tmp_path, data: bytes, name: str = "m.bin"):
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_every_version_is_read(tmp_path, version):
    raw = read_eos(stored(tmp_path, eos_file(version)))
    assert raw.mean_V3 == pytest.approx(places(), abs=1e-4) and raw.identity_KV3 == pytest.approx(shapes(), abs=1e-4)
    assert len(raw.expression_EV3) == (E if version >= 2 else 0)
    assert raw.known == (known() if version >= 3 else {})
    same_shape(adopt(raw, "m.bin", known()))


def test_blendshapes_have_names_and_pca_expressions_bring_their_mean(tmp_path):
    shapes_of = read_eos(stored(tmp_path, eos_file(3)))
    assert shapes_of.expression_names == ("mood0", "mood1") and shapes_of.expression_EV3 == pytest.approx(moods(), abs=1e-4)
    of_pca = read_eos(stored(tmp_path, eos_file(3, blendshapes=False)))
    assert of_pca.expression_names == () and np.abs(of_pca.expression_EV3) == pytest.approx(np.abs(moods()), abs=1e-4)
    assert of_pca.mean_V3 == pytest.approx(places() + 2.0, abs=1e-4)


def test_texture_coordinates_one_a_vertex_are_kept(tmp_path):
    uv = np.random.default_rng(0).random((len(places()), 2))
    head = adopt(read_eos(stored(tmp_path, eos_file(3, uv=uv))), "m")
    assert head.uv_V2 == pytest.approx(uv, abs=1e-6)
    assert read_eos(stored(tmp_path, eos_file(3, uv=uv[:5]))).uv_V2 is None


@pytest.mark.parametrize("factor", [1e-3, 0.1, 1.0, 1e3])
def test_the_unit_is_told_by_the_size(tmp_path, factor):
    raw = read_eos(stored(tmp_path, eos_file(3)))
    scaled = type(raw)(**{**raw.__dict__, "mean_V3": raw.mean_V3 * factor, "identity_KV3": raw.identity_KV3 * factor})
    head = adopt(scaled, "m")
    assert np.ptp(head.mean_V3[:, 1]) == pytest.approx(np.ptp(theirs().mean_V3[:, 1]), rel=1e-4)


def test_json_holds_the_same(tmp_path):
    basis, deviation = unit_columns(shapes())
    fields = {
        "shape_model": {"mean": places().ravel().tolist(), "orthonormal_pca_basis": basis.tolist(), "eigenvalues": (deviation**2).tolist(), "triangle_list": triangles().tolist()},
        "expression_model": [{"name": f"mood{e}", "deformation": moods()[e].ravel().tolist()} for e in range(E)],
        "landmark_definitions": {str(point + 1): vertex for point, vertex in known().items()},
    }
    binary = read_eos(stored(tmp_path, eos_file(3)))
    for value in (fields, {"value0": fields}):
        found = read_eos(stored(tmp_path, json.dumps(value).encode(), "m.json"))
        assert found.mean_V3 == pytest.approx(binary.mean_V3, abs=1e-4) and found.identity_KV3 == pytest.approx(binary.identity_KV3, abs=1e-4)
        assert found.known == binary.known and found.expression_names == binary.expression_names
    with pytest.raises(UserError, match="no 'shape_model'"):
        read_eos(stored(tmp_path, b"{}", "m.json"))
    with pytest.raises(UserError, match="no eos model"):
        read_eos(stored(tmp_path, b'{"shape_model": ', "m.json"))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.95, 0.9999])
def test_cut_files_are_refused(tmp_path, share):
    data = eos_file(4)
    with pytest.raises(UserError, match="cut off or no eos model"):
        read_eos(stored(tmp_path, data[: int(len(data) * share)]))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="version 77"):
        read_eos(stored(tmp_path, struct.pack("<I", 77) + eos_file(3)[4:]))
    with pytest.raises(UserError, match="7 bytes after its end"):
        read_eos(stored(tmp_path, eos_file(3) + b"surplus"))
    with pytest.raises(UserError, match="cut off or no eos model"):
        read_eos(stored(tmp_path, struct.pack("<Iii", 3, -1, 5) + eos_file(3)))
    with pytest.raises(UserError, match="cannot read"):
        read_eos(tmp_path / "none.bin")


def test_landmarks_that_name_no_vertex_and_foreign_triangles_are_refused(tmp_path):
    raw = read_eos(stored(tmp_path, eos_file(3)))
    with pytest.raises(UserError, match=r"landmarks \[9\] name no vertex"):
        adopt(raw, "m", {8: 10**6})
    with pytest.raises(UserError, match="all of whose corners are vertices"):
        adopt(type(raw)(**{**raw.__dict__, "triangle_T3": raw.triangle_T3 + 10**6}), "m")
    with pytest.raises(UserError, match="not finite"):
        adopt(type(raw)(**{**raw.__dict__, "mean_V3": raw.mean_V3 * np.nan}), "m")


def test_the_licence_is_said(tmp_path, caplog):
    raw = read_eos(stored(tmp_path, eos_file(3)))
    with caplog.at_level(logging.WARNING, logger="facefoundry"):
        head = adopt(raw, "m")
    assert "non-commercial" in head.licence and head.licence in caplog.text
    assert len(head.identity_KV3) == K
