"""TranX in real transformers classes, tiny and randomly initialised, saved to and loaded from a folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facefoundry.consumers.aigi.mrope import image_positions
from facefoundry.consumers.aigi.multimodal import KIND, AnswerObjective, load_multimodal, save_adapter, semantic_view
from facefoundry.core.errors import UserError
from facefoundry.core.training import LoopConfig, run_loop
from safetensors.torch import save_file
from tiny_multimodal import SMALL, llava, qwen

pytest.importorskip("transformers", reason="transformers (extra: multimodal) is not installed")


@pytest.fixture(scope="module", params=[qwen, llava], ids=["qwen2_vl", "llava"])
def folder(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp(request.param.__name__))


@pytest.fixture
def image():
    return torch.rand((2, 3, 112, 112), generator=torch.Generator().manual_seed(1)) * 2 - 1


def made(folder, **settings):
    torch.manual_seed(0)
    return load_multimodal(folder, SMALL, dtype="float32", **settings)


def test_sequence_is_artifacts_then_image_in_the_pictures_place(folder, image):
    detector = made(folder)
    prompt = detector.prompt(image)
    inputs = detector.processor(images=[np.zeros((56, 56, 3), np.uint8)], text=[detector._text()], return_tensors="pt")
    slots = (inputs["input_ids"][0] == detector._image_token()).nonzero()[:, 0]
    assert prompt.start == slots[0] and prompt.artifacts == 16
    assert prompt.embed_BLD.shape == (2, inputs["input_ids"].shape[1] + 16, 16)
    plain = detector.model.get_input_embeddings()(inputs["input_ids"])
    torch.testing.assert_close(prompt.embed_BLD[0, : prompt.start], plain[0, : prompt.start])
    torch.testing.assert_close(prompt.embed_BLD[0, prompt.start + 16 + len(slots) :], plain[0, slots[-1] + 1 :])


def test_answer_follows_the_picture_and_each_alone(folder, image):
    detector = made(folder)
    found = detector.fake_probability(image)
    assert found.shape == (2,) and ((found > 0) & (found < 1)).all() and found[0] != found[1]
    np.testing.assert_allclose(detector.fake_probability(image[1:]), found[1:], atol=1e-5)
    logit = detector.logits(image)[0].softmax(0)
    real, fake = (logit[answer].item() for answer in detector.answer_ids)
    assert found[0] == pytest.approx(fake / (fake + real), abs=1e-6)


def test_only_the_adapter_learns(folder, image, tmp_path):
    detector = made(folder)
    before = {name: value.clone() for name, value in detector.model.state_dict().items()}
    objective = AnswerObjective(detector)
    loop = LoopConfig(optimiser="adamw", lr=1e-2, batch=2, steps=6, weight_decay=0.0, log_every=1)

    class Two:
        steps_per_epoch = 1

        def __call__(self, step, rank, world):
            return image, torch.tensor([0.0, 1.0])

    first = objective(image, torch.tensor([0.0, 1.0]))["loss"].item()
    run_loop(objective, Two(), loop, tmp_path, data="two", label="adapter")
    assert objective(image, torch.tensor([0.0, 1.0]))["loss"].item() < first - 0.01
    assert all(torch.equal(before[name], value) for name, value in detector.model.state_dict().items())
    save_adapter(tmp_path / "adapter.safetensors", detector, facts={"steps": 6})
    again = load_multimodal(folder, SMALL, adapter=tmp_path / "adapter.safetensors", dtype="float32")
    np.testing.assert_allclose(again.fake_probability(image), detector.fake_probability(image), atol=1e-6)
    assert KIND == "aigi-multimodal"


def test_model_of_half_precision_keeps_a_whole_adapter(folder, image):
    torch.manual_seed(0)
    detector = load_multimodal(folder, SMALL, dtype="bfloat16")
    assert detector.model.dtype == torch.bfloat16 and next(detector.adapter.parameters()).dtype == torch.float32
    assert np.isfinite(detector.fake_probability(image)).all()


def test_dilution_gauge(folder, image):
    found = made(folder, attention="eager").dilution(image)
    assert found.shape == (2,) and ((found > 0.5) & (found <= 1 + 1e-5)).all()


def test_positions_are_qwens(tmp_path):
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(qwen(tmp_path))
    kinds = torch.tensor([[0] * 3 + [1] * 6 + [0] * 4])
    theirs, _ = model.model.get_rope_index(torch.ones_like(kinds), mm_token_type_ids=kinds, image_grid_thw=torch.tensor([[1, 4, 6]]))
    torch.testing.assert_close(image_positions(3, [(2, 3)], 4), theirs[:, 0])
    two = image_positions(1, [(2, 2), (1, 3)], 2)
    assert two.tolist() == [[0, 1, 1, 1, 1, 3, 3, 3, 6, 7], [0, 1, 1, 2, 2, 3, 3, 3, 6, 7], [0, 1, 2, 1, 2, 3, 4, 5, 6, 7]]


def test_release_compatible_answers_are_hard(tmp_path, image):
    folder = llava(tmp_path)
    config = SMALL.model_copy(update={"tranx": SMALL.tranx.model_copy(update={"release_compatible": True})})
    torch.manual_seed(0)
    detector = load_multimodal(folder, config, dtype="float32")
    assert set(detector.fake_probability(image)) <= {0.0, 1.0} and detector.adapter.expert.config.release_compatible


def test_defect_text_embedding_of_the_working_directory(tmp_path, image, monkeypatch):
    """The release reads ./text_embedding.pth, whatever lies there; here the file is named, and is no pickle."""
    folder = llava(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    torch.save(torch.ones(8), "text_embedding.pth")
    with pytest.raises(UserError, match="needs text_embedding"):
        load_multimodal(folder, SMALL.model_copy(update={"semantic_head": "text"}), dtype="float32")
    save_file({"embedding": torch.arange(1.0, 9.0)}, "words.safetensors")
    config = SMALL.model_copy(update={"semantic_head": "text", "text_embedding": tmp_path / "words.safetensors"})
    detector = load_multimodal(folder, config, dtype="float32")
    logit = detector.adapter.semantic_head(torch.randn(2, 5, 16))
    assert logit.shape == (2, 5, 1) and logit.abs().max() <= 1
    assert detector.fake_probability(image).shape == (2,)
    with pytest.raises(UserError, match="one vector named"):
        save_file({"other": torch.ones(3)}, "bad.safetensors")
        load_multimodal(folder, config.model_copy(update={"text_embedding": tmp_path / "bad.safetensors"}), dtype="float32")


def test_views():
    wide = torch.rand(1, 3, 40, 80) * 2 - 1
    assert semantic_view(wide, 32).shape == (1, 3, 32, 32)
    torch.testing.assert_close(semantic_view(wide, 40), wide[:, :, :, 20:60], atol=1e-5, rtol=0)


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="no config.json"):
        load_multimodal(tmp_path, SMALL)
    from transformers import Blip2Config, LlavaConfig

    from facefoundry.consumers.aigi.multimodal import MultimodalDetector

    class Other:
        config = Blip2Config()

    with pytest.raises(UserError, match="'blip-2'"):
        MultimodalDetector(Other(), None, SMALL)
    LlavaConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        load_multimodal(tmp_path, SMALL)
