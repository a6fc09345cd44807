"""Heads at a glance, by function and by verb; conversion to our own format."""

from __future__ import annotations

import json

import numpy as np
import pytest
from foreign_files import E, K, eos_file, same_shape
from PIL import Image
from typer.testing import CliRunner

from facefoundry.core.errors import UserError
from facefoundry.jobs.cli_head import convert, head_app
from facefoundry.styles_3dmm.head_file import load_head
from facefoundry.styles_3dmm.head_picture import draw_head, head_facts
from facefoundry.styles_3dmm.morphable import tiny


def test_facts_and_picture(tmp_path):
    head = tiny()
    facts = head_facts(head)
    assert (facts["vertices"], facts["identity components"], facts["expressions"], facts["named"]) == (len(head.mean_V3), 8, 4, "no")
    assert sum(facts["triangles by part"].values()) == len(head.triangle_T3) and facts["eyes_apart_mm"] == pytest.approx(64.0)
    draw_head(head, tmp_path / "h.png")
    picture = np.asarray(Image.open(tmp_path / "h.png"))
    assert picture.shape == (4 * 224, 4 * 224, 3)
    assert (picture[:224, :224] != picture[:224, 672:]).mean() > 0.005  # turned
    assert (picture[224:448, :224] != picture[448:672, :224]).mean() > 0.001  # +2 and -2


def test_verbs_show_and_convert(tmp_path):
    (tmp_path / "m.bin").write_bytes(eos_file(3))
    runner = CliRunner()
    shown = runner.invoke(head_app, ["show", str(tmp_path / "m.bin"), "--out", str(tmp_path / "h.png"), "--json"])
    assert shown.exit_code == 0 and (tmp_path / "h.png").is_file()
    facts = json.loads(shown.stdout)
    assert (facts["identity components"], facts["expressions"]) == (K, E) and "non-commercial" in facts["licence"]
    made = runner.invoke(head_app, ["convert", str(tmp_path / "m.bin"), "--out", str(tmp_path / "m.safetensors")])
    assert made.exit_code == 0
    same_shape(load_head(tmp_path / "m.safetensors"))
    assert "non-commercial" in load_head(tmp_path / "m.safetensors").licence
    with pytest.raises(UserError, match="ends in .safetensors"):
        convert(tmp_path / "m.bin", tmp_path / "m.npz")
