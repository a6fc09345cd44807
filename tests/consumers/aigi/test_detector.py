"""The whole detector: four fusions, saving, frozen branches, training that learns, resumes and refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from facefoundry.consumers.aigi.artifact import ArtifactConfig
from facefoundry.consumers.aigi.data import MatchConfig, Part, file_facts, matched
from facefoundry.consumers.aigi.detector import Detector, DetectorConfig, detect, load_detector, save_detector
from facefoundry.consumers.aigi.evaluation import evaluate
from facefoundry.consumers.aigi.reader import Reader, ReaderConfig, artifact_entropy
from facefoundry.consumers.aigi.semantic import SemanticConfig
from facefoundry.consumers.aigi.train import AdapterObjective, AigiRecipe, MixedBatches, train_aigi
from facefoundry.consumers.aigi.tranx import TranXConfig
from facefoundry.core.errors import UserError
from facefoundry.core.images import encode_png
from facefoundry.core.training import LoopConfig

TINY = DetectorConfig(
    artifact=ArtifactConfig(widths=(8, 8), grid=4), semantic=SemanticConfig(name="patches", patch=28, width=8, layers=1, heads=2),
    tranx=TranXConfig(inner=8, heads=2, layers=1), reader=ReaderConfig(dim=8, layers=1, heads=2),
)  # fmt: skip


def recipe(**changes) -> AigiRecipe:
    loop = LoopConfig(optimiser="adamw", lr=1e-2, batch=8, steps=24, weight_decay=0.0, checkpoint_every=12, log_every=1)
    return AigiRecipe(detector=TINY, expert=loop, adapter=loop.model_copy(update={"steps": 24}), **changes)


def pictures(count: int = 24):
    """Smooth "real" faces; "fake" ones with a checkerboard of two grey levels: nothing but the residual shows it."""
    rng = np.random.default_rng(0)
    wave = np.linspace(0, 3, 112)
    base = np.stack([128 + 60 * np.sin(wave[:, None] * rng.uniform(1, 3) + wave * rng.uniform(1, 3))[..., None] + rng.normal(0, 1, (112, 112, 3)) for _ in range(count)])
    base[count // 2 :] += 4 * ((np.arange(112)[:, None] + np.arange(112)) % 2)[..., None]
    image = np.clip(base, 0, 255).astype(np.uint8)
    facts = file_facts(encode_png(image[0]))
    halves = {"real": image[: count // 2], "one": image[count // 2 : 3 * count // 4], "two": image[3 * count // 4 :]}
    parts = [Part(name=name, fake=name != "real", image_NHWC=part, facts=(facts,) * len(part), people=tuple(f"{n}" for n in range(len(part))), paths=tuple(f"{n}" for n in range(len(part)))) for name, part in halves.items()]
    return matched(parts, MatchConfig())


@pytest.mark.parametrize("fusion", ["tranx", "cross_attention", "concatenation", "artifact"])
def test_every_fusion_answers_and_learns(fusion):
    torch.manual_seed(0)
    detector = Detector(TINY.model_copy(update={"fusion": fusion}))
    verdict = detector(torch.rand(3, 3, 112, 112) * 2 - 1)
    assert verdict.logit_B.shape == (3,) and verdict.artifact_logit_BA.shape == (3, 16) and verdict.semantic_logit_BM.shape == (3, 16)
    assert ((verdict.entropy_B > 0) & (verdict.entropy_B <= 1 + 1e-5)).all()
    verdict.logit_B.sum().backward()
    moved = {name.split(".")[0] for name, p in detector.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"from_artifact", "reader"} <= moved and ("semantic" in moved) == (fusion != "artifact")
    assert ("semantic_head" in moved) == (fusion == "tranx")  # its predictions steer the transport


def test_saved_detector_needs_no_other_file(tmp_path, monkeypatch):
    torch.manual_seed(0)
    detector = Detector(DetectorConfig(artifact=ArtifactConfig(widths=(8, 8)), reader=ReaderConfig(dim=8, heads=2), tranx=TranXConfig(inner=8, heads=2, layers=1))).eval()
    save_detector(tmp_path / "d.safetensors", detector, facts={"steps": 3})
    monkeypatch.setattr("facefoundry.consumers.aigi.semantic.load_recogniser", None)  # the recogniser's weights are inside
    again, facts = load_detector(str(tmp_path / "d.safetensors"))
    image = torch.rand(2, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(again(image).logit_B, detector(image).logit_B, atol=5e-3, rtol=0)
    assert facts == {"steps": 3} and again.config == detector.config


def test_semantic_branch_is_the_bundled_recogniser_and_stays_frozen():
    from facefoundry.recognition.feature_maps import MobileFaceNetMaps

    encoder = SemanticConfig().build()
    image = torch.rand(2, 3, 112, 112) * 2 - 1
    torch.testing.assert_close(encoder.train()(image), MobileFaceNetMaps().maps(image)[-2].flatten(2).mT.clone())
    assert not encoder.training and not any(module.training for module in encoder.modules()) and not any(p.requires_grad for p in encoder.parameters())


def test_answer_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    detector = Detector(TINY).eval()
    image = torch.rand(5, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(detector(image).logit_B[1:2], detector(image[1:2]).logit_B, atol=1e-5, rtol=0)


def test_adapter_leaves_the_expert_alone():
    torch.manual_seed(0)
    objective = AdapterObjective(Detector(TINY), 0.3).train()
    before = {name: value.clone() for name, value in objective.network.artifact.state_dict().items()}
    objective(torch.rand(4, 3, 112, 112), torch.tensor([0.0, 1, 0, 1]))["loss"].backward()
    assert all(torch.equal(before[name], value) for name, value in objective.network.artifact.state_dict().items())  # batch statistics, too
    assert all(p.grad is None for p in objective.network.artifact.parameters())


def test_steps_hold_both_classes_and_all_sources_equally():
    found = pictures()
    config = recipe()
    rows = MixedBatches(found, config.wear, config.expert, "x").rows(3)
    assert np.bincount(found.source_N[rows]).tolist() == [4, 2, 2]
    image, fake = MixedBatches(found, config.wear, config.expert, "x")(3, 0, 1)
    np.testing.assert_array_equal(fake.numpy() > 0.5, found.fake_N[rows])
    assert image.shape == (8, 3, 112, 112)
    with pytest.raises(UserError, match="takes 32 of them"):
        MixedBatches(found, config.wear, config.expert.model_copy(update={"batch": 64}), "x")


def test_training_learns_and_a_killed_run_ends_the_same(tmp_path):
    found, calm = pictures(), {"wear": {"chance": 0.0}}
    whole = train_aigi(recipe(**calm), found, tmp_path / "whole")
    last = json.loads((tmp_path / "whole" / "expert" / "log.jsonl").read_text().splitlines()[-1])
    assert last["accuracy"] == 1.0
    detector, facts = load_detector(str(whole))
    score = detect(detector, found.image_NHWC).fake_N
    assert score[found.fake_N].min() > score[~found.fake_N].max()
    assert facts["metadata_accuracy"] == 0.5 and facts["fake"] == {"one": 6, "two": 6}

    class Killed(Exception):
        pass

    original = MixedBatches.__call__
    with pytest.MonkeyPatch.context() as patch:
        def dies(self, step, rank, world):
            if self._purpose == "adapter" and step == 20:
                raise Killed
            return original(self, step, rank, world)

        patch.setattr(MixedBatches, "__call__", dies)
        with pytest.raises(Killed):
            train_aigi(recipe(**calm), found, tmp_path / "killed")
    again, _ = load_detector(str(train_aigi(recipe(**calm), found, tmp_path / "killed")))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in detector.state_dict().items())


def test_training_refuses_files_that_give_the_answer(tmp_path):
    from dataclasses import replace

    from facefoundry.consumers.aigi.data import FileFacts

    found = pictures()
    told = replace(found, facts=tuple(FileFacts("jpeg", 90 if fake else 80, 2, 112, 112) for fake in found.fake_N))
    with pytest.raises(UserError, match="codec, quality and size alone"):
        train_aigi(recipe(), told, tmp_path)


def test_evaluation_by_source_and_condition():
    torch.manual_seed(0)
    found = evaluate(Detector(TINY), pictures(), {"as they are": None, "JPEG 50": ("jpeg", 50)})
    clean = found["as they are"]
    assert set(clean["sources"]) == {"real", "one", "two"} and "ap" not in clean["sources"]["real"]
    assert 0 <= clean["ap"] <= 1 and clean["sources"]["one"]["images"] == 6
    assert detect(Detector(TINY), np.empty((0, 112, 112, 3), np.uint8)).heat_NGG.shape == (0, 4, 4)


def test_reader_attention_is_a_distribution_and_its_gauge_counts_artifacts_only():
    torch.manual_seed(0)
    _, weight_BHT = Reader(ReaderConfig(dim=8, layers=0, heads=2))(torch.randn(3, 12, 8))
    torch.testing.assert_close(weight_BHT.sum(-1), torch.ones(3, 2))
    sharp = torch.zeros(1, 2, 12)
    sharp[..., 3], sharp[..., 11] = 0.1, 0.9
    assert artifact_entropy(sharp, 8).item() < 1e-6 < artifact_entropy(torch.full((1, 2, 12), 1 / 12), 8).item() == pytest.approx(1.0)
