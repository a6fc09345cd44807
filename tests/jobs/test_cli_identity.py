"""The verbs `centres` and `candidates`: what they write is what a job reads."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from facefoundry.core.errors import UserError
from facefoundry.generators.sampling import SamplerConfig
from facefoundry.generators.uiface import UIFaceConfig
from facefoundry.identity.centres import embedder_of, read_centres
from facefoundry.identity.separation import measure_separation
from facefoundry.jobs.candidates import embed_nobodies
from facefoundry.jobs.cli_identity import centres
from PIL import Image
from procedural import BlocksEmbedder, Procedural, ProceduralConfig


def test_centres_of_a_folder(tmp_path, capsys):
    maker, anchor_ID = Procedural(ProceduralConfig(spread=0.1)), np.linalg.qr(np.random.default_rng(0).standard_normal((128, 3)))[0].T.astype(np.float32)
    for person, anchor_D in enumerate(anchor_ID):
        (tmp_path / "faces" / f"p{person}").mkdir(parents=True)
        for number, image in enumerate(maker.generate(np.repeat(anchor_D[None], 4, 0), range(4)).image_BCHW):
            Image.fromarray(((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(tmp_path / "faces" / f"p{person}" / f"{number}.png")
    centres(tmp_path / "faces", out=tmp_path / "c.safetensors", embedder="blocks", json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["people"], told["faces"], told["dimensions"]) == (3, 12, 128)
    found = read_centres(tmp_path / "c.safetensors")
    assert embedder_of(tmp_path / "c.safetensors") == "blocks" and (found * anchor_ID).sum(1).min() > 0.9
    with pytest.raises(UserError, match="ends in .safetensors"):
        centres(tmp_path / "faces", out=tmp_path / "c.npy", embedder="blocks")


def test_nobodies_stay_apart_and_do_not_depend_on_their_number():
    generator, eyes, fast = UIFaceConfig.tiny(), BlocksEmbedder(), SamplerConfig(steps=3)
    many = embed_nobodies(generator, eyes, 20, 1, max_cosine=0.9999, settings=fast)
    few = embed_nobodies(generator, eyes, 6, 1, max_cosine=0.9999, settings=fast)
    np.testing.assert_allclose(few.row_ID, many.row_ID[: len(few.row_ID)], atol=1e-4)
    limit = float(np.quantile((many.row_ID @ many.row_ID.T)[np.triu_indices(len(many.row_ID), 1)], 0.5))
    thin = embed_nobodies(generator, eyes, 20, 1, max_cosine=limit, settings=fast)
    assert 0 < len(thin.row_ID) < len(many.row_ID) and thin.crowded == 20 - len(thin.row_ID) and not measure_separation(thin.row_ID, limit).close
    assert torch.is_grad_enabled()
