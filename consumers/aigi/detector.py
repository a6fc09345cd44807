"""The embedded detector: artifact branch, semantic branch, fusion, reader; saved whole.

After TranX-Adapter (consumers.md §8) with a small reader for the language model. Axes: B N images, A artifact tokens, M semantic tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.check import check
from ...core.config import Config
from ...core.files import weights_path
from ...core.images import to_float
from ...core.progress import track
from ...core.weights import load_into, load_weights, save_weights
from .artifact import ArtifactBranch, ArtifactConfig
from .fusion import Fusion, FusionName
from .reader import Reader, ReaderConfig, artifact_entropy
from .semantic import SemanticConfig
from .tranx import TranXConfig

KIND = "aigi"


class DetectorConfig(Config):
    """What the detector is built from.

    Attributes:
        artifact, semantic: the branches.
        fusion: tranx, cross_attention, concatenation or artifact.
        tranx: sizes of the adapter (cross_attention uses them too).
        reader: the rest; its `dim` is the width of all tokens.
    """

    artifact: ArtifactConfig = ArtifactConfig()
    semantic: SemanticConfig = SemanticConfig()
    fusion: FusionName = "tranx"
    tranx: TranXConfig = TranXConfig(inner=64, heads=4, layers=1)
    reader: ReaderConfig = ReaderConfig()


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """What the branches see, before any fusion: `artifact_BAK`, `semantic_BMK`, and the expert's logits of "fake" a place."""

    artifact_BAK: Tensor
    artifact_logit_BA: Tensor
    semantic_BMK: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What the detector says.

    Attributes:
        logit_B: of "fake".
        artifact_logit_BA, semantic_logit_BM: of the two heads, a place each; their grids are square, row by row.
        entropy_B: dilution gauge of the answer's attention over the artifact tokens, in [0, 1].
        cost_B: mean cost of the transport; 0 where there is none.
    """

    logit_B: Tensor
    artifact_logit_BA: Tensor
    semantic_logit_BM: Tensor
    entropy_B: Tensor
    cost_B: Tensor


class Detector(nn.Module):
    """forward((B, 3, 112, 112) in [-1, 1]) → `Verdict`; `tokens` and `read` are its halves, for whoever keeps the first."""

    def __init__(self, config: DetectorConfig, *, empty: bool = False) -> None:
        super().__init__()
        self.config = config = config.model_copy(update={"semantic": config.semantic.complete()})
        self.artifact = ArtifactBranch(config.artifact)
        self.semantic = config.semantic.empty() if empty else config.semantic.build()
        self.from_artifact, self.from_semantic = nn.Linear(self.artifact.width, config.reader.dim), nn.Linear(self.semantic.width, config.reader.dim)
        self.semantic_head = nn.Linear(config.reader.dim, 1)
        self.fusion = Fusion(config.fusion, config.reader.dim, config.tranx)
        self.reader = Reader(config.reader)

    def tokens(self, image_BCHW: Tensor) -> Tokens:
        """Return what the branches see."""
        check("image_BCHW", image_BCHW, "B 3 112 112")
        artifact_BAK, logit_BA = self.artifact(image_BCHW)
        return Tokens(artifact_BAK=artifact_BAK, artifact_logit_BA=logit_BA, semantic_BMK=self.semantic(image_BCHW))

    def read(self, seen: Tokens) -> Verdict:
        """Fuse and answer."""
        semantic_BMD = self.from_semantic(seen.semantic_BMK)
        semantic_logit_BM = self.semantic_head(semantic_BMD)[..., 0]
        sequence = self.fusion(self.from_artifact(seen.artifact_BAK), semantic_BMD, seen.artifact_logit_BA, semantic_logit_BM)
        logit_B, weight_BHT = self.reader(sequence.token_BTD)
        cost_B = torch.zeros_like(logit_B) if sequence.cost_B is None else sequence.cost_B
        entropy_B = artifact_entropy(weight_BHT, sequence.artifacts)
        return Verdict(logit_B=logit_B, artifact_logit_BA=seen.artifact_logit_BA, semantic_logit_BM=semantic_logit_BM, entropy_B=entropy_B, cost_B=cost_B)

    def forward(self, image_BCHW: Tensor) -> Verdict:
        return self.read(self.tokens(image_BCHW))


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """The detector's findings on N images: `fake_N` in [0, 1], `heat_NGG` in [0, 1] (the expert's probability a place), `entropy_N`."""

    fake_N: np.ndarray
    heat_NGG: np.ndarray
    entropy_N: np.ndarray


def detect(detector: Detector, image_NHWC: np.ndarray, *, batch: int = 32) -> Findings:
    """Judge uint8 faces, (N, 112, 112, 3), as they are: never resized, never encoded again."""
    check("image_NHWC", image_NHWC, "N 112 112 3")
    found: list[tuple[np.ndarray, ...]] = []
    device = next(detector.parameters()).device
    with torch.inference_mode():
        for start in track(range(0, len(image_NHWC), batch), "detecting"):
            verdict = detector.eval()(to_float(image_NHWC[start : start + batch]).to(device))
            found.append(tuple(x.float().cpu().numpy() for x in (verdict.logit_B.sigmoid(), verdict.artifact_logit_BA.sigmoid(), verdict.entropy_B)))
    fake_N, heat_NA, entropy_N = (np.concatenate(parts) for parts in zip(*found)) if found else (np.empty(0), np.empty((0, detector.config.artifact.grid**2)), np.empty(0))
    grid = detector.config.artifact.grid
    return Findings(fake_N=fake_N, heat_NGG=heat_NA.reshape(-1, grid, grid), entropy_N=entropy_N)


def save_detector(path: Path, detector: Detector, *, facts: Mapping[str, Any]) -> None:
    """Write the whole detector, its frozen branch too, as float16; `facts` is provenance for the header."""
    save_weights(path, detector, kind=KIND, config=detector.config.model_dump(mode="json"), facts=dict(facts), dtype=torch.float16)


def load_detector(name: str = "aigi-small") -> tuple[Detector, dict[str, Any]]:
    """Return the detector of a bundled name or a `.safetensors` file (evaluation mode, float32, CPU) and the facts of its header.

    Raises:
        UserError: no such file, not safetensors (a pickle is never opened), truncated, or no detector.
    """
    path = weights_path(name)
    tensors, values, facts = load_weights(path, kind=KIND)
    with torch.random.fork_rng(devices=[]):
        detector = Detector(DetectorConfig.parse(values, source=f"header of {path}"), empty=True)
    load_into(detector, tensors, path)
    return detector.eval(), facts
