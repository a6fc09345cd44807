"""`import-weights`: what it tells people and programs, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from facefoundry.core.errors import UserError
from facefoundry.core.weights import load_weights
from facefoundry.jobs.cli_weights import import_weights
from public_weights import TINY_VQ, fill, vq_shapes, write_denoiser


def test_denoiser_for_people_and_for_programs(tmp_path, capsys):
    write_denoiser(tmp_path / "ema_averaged_model_250000.ckpt")
    import_weights("uiface", [tmp_path / "ema_averaged_model_250000.ckpt"], out=tmp_path / "uiface.safetensors")
    told = capsys.readouterr().out
    for words in ("950819", "Apache-2.0", "averaged weights equal the raw ones", "uiface.safetensors", "denoiser:"):
        assert words in told
    import_weights("uiface", [tmp_path / "ema_averaged_model_250000.ckpt"], out=tmp_path / "again.safetensors", json=True)
    values = json.loads(capsys.readouterr().out)
    assert values["imported"] == "uiface" and list(values["files"]) == ["ema_averaged_model_250000.ckpt"]
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "uiface.safetensors").read_bytes()
    assert load_weights(tmp_path / "uiface.safetensors", kind="denoiser")[2]["files"] == values["files"]


def test_first_stage_of_two_files(tmp_path, capsys):
    tensors = fill(vq_shapes(TINY_VQ))
    for part, starts in {"encoder": ("encoder.", "quant_conv."), "decoder": ("decoder.", "quantize.", "post_quant_conv.")}.items():
        torch.save({name: tensor for name, tensor in tensors.items() if name.startswith(starts)}, tmp_path / f"{part}.pt")
    import_weights("vq-f4", [tmp_path / "encoder.pt", tmp_path / "decoder.pt"], out=tmp_path / "vq.safetensors", json=True)
    assert json.loads(capsys.readouterr().out)["parameters"] == 655_038


@pytest.mark.parametrize(("kind", "files", "out", "words"), [
    ("uifac", ["a.ckpt"], "x.safetensors", "unknown kind of weights 'uifac'; did you mean 'uiface'"),
    ("uiface", ["a.ckpt"], "x.pt", "expected a name that ends in .safetensors"),
    ("uiface", ["a.ckpt", "b.ckpt"], "x.safetensors", "2 files for a uiface denoiser, expected one"),
    ("vq-f4", ["a.ckpt"], "x.safetensors", "there is no file"),
])  # fmt: skip
def test_mistakes(kind, files, out, words, tmp_path):
    with pytest.raises(UserError, match=words):
        import_weights(kind, [tmp_path / name for name in files], out=tmp_path / out)
