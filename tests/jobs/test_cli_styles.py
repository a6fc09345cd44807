"""The verbs `styles fit` and `styles prior`: from faces to codes to a prior."""

from __future__ import annotations

import json

import numpy as np
import pytest
from facefoundry.core.errors import UserError
from facefoundry.jobs.cli_styles import fit, prior
from facefoundry.styles_3dmm.codes import StyleCodes
from facefoundry.styles_3dmm.head_file import save_head
from facefoundry.styles_3dmm.morphable import tiny
from facefoundry.styles_3dmm.style_prior import StylePrior
from PIL import Image


def test_faces_to_codes_to_a_prior(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for person in range(3):
        (tmp_path / "faces" / f"p{person}").mkdir(parents=True)
        for number in range(4):
            Image.fromarray(rng.integers(0, 255, (112, 112, 3), np.uint8)).save(tmp_path / "faces" / f"p{person}" / f"{number}.png")
    save_head(tmp_path / "tiny.safetensors", tiny())
    fit(tmp_path / "faces", out=tmp_path / "codes.npz", head=tmp_path / "tiny.safetensors", json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["faces"], told["head"]) == (12, "tiny")
    codes = StyleCodes.load(tmp_path / "codes.npz")
    assert codes.code_NP.shape == (12, 48) and codes.identity_N.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    StyleCodes(layout=codes.layout, code_NP=rng.normal(size=(12, 48)).astype(np.float32), identity_N=codes.identity_N, residual_N=codes.residual_N).save(tmp_path / "codes.npz")
    prior(tmp_path / "codes.npz", out=tmp_path / "p.safetensors", least_images=4, json=True)
    assert json.loads(capsys.readouterr().out)["subjects"] == 3
    assert len(StylePrior.load(tmp_path / "p.safetensors").layout) == 48


def test_wrong_names_and_too_few_people(tmp_path):
    with pytest.raises(UserError, match="ends in .npz"):
        fit(tmp_path, out=tmp_path / "codes.safetensors")
    with pytest.raises(UserError, match="ends in .safetensors"):
        prior(tmp_path / "codes.npz", out=tmp_path / "prior.npz")
