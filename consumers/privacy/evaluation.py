"""One method under every attack we have: its rows for the table, its pictures for the strip.

Template protection as ISO/IEC 30136 reports it: irreversibility (share of recovered faces that an independent recogniser takes for the person at FMR
1e-3), unlinkability (D_sys), revocability, loss of accuracy. Victims, attackers and judge are kept apart: other people, another recogniser. A figure says
what OUR attacks reached with the faces and minutes they had; a stronger attacker reaches more. Axes: N faces of the victims, T of them attacked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ...core.config import Config
from ...core.errors import UserError
from ...core.images import to_uint8
from ...core.seeds import derive_seed, numpy_rng
from ...core.stats import auc, eer, fnmr_at_fmr
from ...core.types import Embedder, Generator
from ...identity.sources import Faces
from ...recognition.embedder import embed_faces
from .attacks.embedding_map import MapSettings, read, train_reader
from .attacks.guessing import recover_by_guessing
from .attacks.hill_climbing import ClimbSettings, climb
from .attacks.linear_recovery import LinearGate, fitted_linear, linear_gate
from .attacks.reidentification import FMR, Reidentification, judge_threshold, reidentify
from .attacks.template_inversion import draw_faces, to_space, undo_with_key
from .attacks.training import Observe
from .attacks.unet_recovery import UnetSettings, recover, shown, train_recovery
from .image_metrics import psnr, ssim
from .linkability import draw_pairs, linkage
from .subjects import Subject, TemplateSubject, attacker_view, verifier

_MOST_NUMBERS = 4e8
"""Numbers of the attacker's observations that the fitted linear map may hold at once (float64: 3.2 GB)."""


class EvaluationSettings(Config):
    """How much the evaluation spends.

    Attributes:
        targets: faces of the victims that are attacked; climbing takes the first `climbed` of them.
        pairs: pairs of each kind for the accuracy.
        linear_steps: conjugate gradients of the known linear system.
        linear_faces: attacker's faces for the fitted linear map, at most.
        queries: how often a face is sent where noise is to be averaged out; 1 leaves that attack out.
        unet, reader, map_reader, climb: the learned attacks (readers of vectors, of pictures) and the climb; steps 0, and climbed 0, leave one out.
        gallery: faces the climb begins with.
    """

    targets: int = Field(48, ge=1)
    climbed: int = Field(24, ge=0)
    pairs: int = Field(3000, ge=100)
    linear_steps: int = Field(200, ge=1)
    linear_faces: int = Field(1000, ge=2)
    queries: int = Field(16, ge=1)
    unet: UnetSettings = UnetSettings()
    reader: MapSettings = MapSettings()
    map_reader: MapSettings = MapSettings(steps=400, batch=16)
    climb: ClimbSettings = ClimbSettings()
    gallery: int = Field(200, ge=2)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What the attacker and the judge own.

    Attributes:
        judge: recogniser that neither the defence nor the attack uses.
        guide: recogniser in whose space the generator's anchors live (dlib).
        generator: draws faces of embeddings; None leaves those attacks out.
    """

    judge: Embedder
    guide: Embedder
    generator: Generator | None


@dataclass(frozen=True, kw_only=True)
class AttackRow:
    """What one attack reached.

    Attributes:
        name, knows: what it does, what it needs.
        psnr_db, ssim: of the pictures; None where it does not aim at the picture.
        found: how recognisable they are.
    """

    name: str
    knows: str
    psnr_db: float | None
    ssim: float | None
    found: Reidentification | None


@dataclass(kw_only=True)
class _Case:
    """The faces of one evaluation and what has been found so far."""

    subject: Subject
    victims: Faces
    attackers: Faces
    tools: Tools
    settings: EvaluationSettings
    out: Path
    row_T: np.ndarray
    judged_ND: np.ndarray
    threshold: float
    rows: list[AttackRow] = field(default_factory=list)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def probe(self) -> Any:
        """What the comparison uses of the victims."""
        return self.subject.probe(self.victims.image_NHWC)

    @cached_property
    def own_probe(self) -> Any:
        """The same of the attacker's faces."""
        return self.subject.probe(self.attackers.image_NHWC)

    @cached_property
    def guided_ND(self) -> np.ndarray:
        """The attacker's faces in the generator's space."""
        return embed_faces(self.tools.guide, self.attackers.image_NHWC)

    @cached_property
    def attacker_view(self) -> Observe:
        """See `subjects.attacker_view`."""
        return attacker_view(self.subject, self.attackers.image_NHWC, self.own_probe if self.subject.kind != "image" else None)

    @cached_property
    def folder(self) -> Path:
        """Where the attacks on this method with these weights are trained; resumed if they are there."""
        return self.out / "attacks" / self.subject.fingerprint(self.attackers.image_NHWC[:2])[:16]

    @cached_property
    def mean_CHW(self) -> Tensor:
        """The attacker's mean face at the method's resolution, RGB in [0, 1]."""
        return shown(self.attackers.image_NHWC[: self.settings.linear_faces], self.subject.side).mean(0)

    @property
    def target_THWC(self) -> np.ndarray:
        return self.victims.image_NHWC[self.row_T]

    def add(self, name: str, knows: str, image_THWC: np.ndarray, *, picture: bool) -> None:
        """Judge recovered faces, uint8 (T', 112, 112, 3), of the first T' targets."""
        count = len(image_THWC)
        found = reidentify(embed_faces(self.tools.judge, image_THWC), self.row_T[:count], self.judged_ND, self.victims.identity_N, self.threshold)
        near, like = None, None
        if picture:
            both = [shown(image, 112) for image in (image_THWC, self.target_THWC[:count])]
            near, like = float(psnr(*both).clamp(max=200).mean()), float(ssim(*both).mean())
        self.rows.append(AttackRow(name=name, knows=knows, psnr_db=near, ssim=like, found=found))
        self.pictures[name] = image_THWC


def evaluate(subject: Subject, victims: Faces, attackers: Faces, tools: Tools, settings: EvaluationSettings, out: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Attack a method.

    Args:
        victims: people with two photos or more each; attackers: other people, the attacker's own faces.
        out: folder of the attacks' trainings (`attacks/`).

    Returns:
        figures ready for JSON; and pictures by name, uint8 (T', 112, 112, 3), "original" first.

    Raises:
        UserError: shared people, a judge that is inside the method, too few people or pairs.
    """
    case = _case(subject, victims, attackers, tools, settings, out)
    accuracy = _accuracy(case)
    seen_T, ms = _timed(lambda: subject.observe(case.target_THWC), len(case.row_T))
    case.pictures["original"] = case.target_THWC
    _look(case, seen_T)
    gate = _linear(case, seen_T)
    _averaged(case, seen_T)
    _learned_picture(case, seen_T)
    _learned_embedding(case, seen_T)
    if tools.generator is not None:
        _leaked_key(case)
        _climb(case)
    linked, revoked = linkage(subject, victims, case.probe, settings.seed)
    values = {
        "method": subject.name, "kind": subject.kind, "accuracy": accuracy, "cost": {"protect_ms_a_face": ms, "bytes_a_face": subject.bytes_per_face},
        "gate": {**asdict(gate), "passed": gate.passed}, "attacks": [asdict(row) for row in case.rows], "unlinkability": linked, "revocability": revoked,
        "judge": tools.judge.name, "judge_threshold": case.threshold, "fmr": FMR, "targets": len(case.row_T), "victims": len(victims), "attacker_faces": len(attackers),
        "settings": settings.model_dump(mode="json"),
    }  # fmt: skip
    return values, case.pictures


def _case(subject: Subject, victims: Faces, attackers: Faces, tools: Tools, settings: EvaluationSettings, out: Path) -> _Case:
    if shared := set(victims.names) & set(attackers.names):
        raise UserError(f"{len(shared)} people are both victims and attackers ({sorted(shared)[0]} …); give the attacker other people")
    if tools.judge.name == subject.uses:
        raise UserError(f"'{subject.uses}' is inside the method and cannot judge it; choose another judge (dlib, mobilefacenet-small, or a .safetensors recogniser)")
    count_I = np.bincount(victims.identity_N)
    row_M = np.flatnonzero(count_I[victims.identity_N] > 1)
    # One face of a person first, then the second ones: as many different people as there are.
    row_M = numpy_rng(settings.seed, "targets").permutation(row_M)
    _, first = np.unique(victims.identity_N[row_M], return_index=True)
    row_T = np.concatenate((row_M[np.sort(first)], np.delete(row_M, first)))[: settings.targets]
    if not len(row_T):
        raise UserError("no person among the victims has two photos; re-identification by another photo needs them")
    judged_ND = embed_faces(tools.judge, victims.image_NHWC)
    return _Case(
        subject=subject, victims=victims, attackers=attackers, tools=tools, settings=settings, out=out, row_T=row_T, judged_ND=judged_ND,
        threshold=judge_threshold(judged_ND, victims.identity_N),
    )  # fmt: skip


def _accuracy(case: _Case) -> dict[str, float]:
    enrolled = case.subject.enrol(case.probe)
    pair_P2, same_P = draw_pairs(case.victims.identity_N, case.settings.pairs, case.settings.seed)
    score_P = case.subject.verify(enrolled, pair_P2[:, 0], case.probe, pair_P2[:, 1])
    return {"auc": auc(score_P, same_P), "eer": eer(score_P, same_P), "tar_at_fmr_1e-2": 1 - fnmr_at_fmr(score_P, same_P, 1e-2), "mated": int(same_P.sum()), "non_mated": int((~same_P).sum())}


def _timed(work: Callable[[], Tensor], count: int) -> tuple[Tensor, float]:
    begin = time.perf_counter()
    return work(), (time.perf_counter() - begin) * 1000 / count


def _bytes_of(image_BCHW: Tensor) -> np.ndarray:
    """RGB in [0, 1] of any size → uint8 at 112x112."""
    grown = torch.nn.functional.interpolate(image_BCHW.float(), size=(112, 112), mode="bilinear") if image_BCHW.shape[2:] != (112, 112) else image_BCHW.float()
    return to_uint8(grown * 2 - 1)


def _look(case: _Case, seen_T: Tensor) -> None:
    picture = case.subject.picture(seen_T)
    if picture is None:
        return
    if case.subject.kind == "template":
        # A picture of numbers, for the eye: no recogniser can be asked about it.
        case.pictures["what is stored"] = to_uint8(torch.nn.functional.interpolate(picture, size=(112, 112), mode="nearest") * 2 - 1)
    else:
        case.add("A0 what the server sees", "the public transform", _bytes_of(picture), picture=True)


def _linear(case: _Case, seen_T: Tensor) -> LinearGate:
    subject, own = case.subject, case.attackers.image_NHWC[: case.settings.linear_faces]
    side, mean_CHW = subject.side, case.mean_CHW
    true = shown(case.target_THWC, side)
    found: dict[str, tuple[str, Tensor]] = {}
    if subject.codes:
        guessed = f", tried {len(subject.codes)} secret draws" if len(subject.codes) > 1 else ""
        found["A1 linear solve"] = (f"the public transform{guessed}; no training", recover_by_guessing(seen_T, subject.codes, mean_CHW, steps=case.settings.linear_steps)[0])
    else:
        numbers = int(np.prod(seen_T.shape[1:]))
        own = own[: max(2, min(len(own), int(_MOST_NUMBERS // numbers)))]
        found["A1 fitted linear map"] = (f"{len(own)} faces protected by the attacker", fitted_linear(subject.observe(own, case.settings.seed), shown(own, side), seen_T))
    gates = []
    for name, (knows, image) in found.items():
        case.add(name, knows, _bytes_of(image), picture=True)
        gates.append(linear_gate(image, true, mean_CHW))
    return max(gates, key=lambda gate: gate.psnr_db)


def _averaged(case: _Case, seen_T: Tensor) -> None:
    """A8: a face sent again and again under fresh noise, averaged, then A1. Where nothing is drawn, asking again tells nothing."""
    subject, count = case.subject, case.settings.queries
    if len(subject.codes) != 1 or count < 2:
        return
    mean_T = seen_T / count
    for number in range(1, count):
        again_T = subject.observe(case.target_THWC, derive_seed(case.settings.seed, "query", number))
        if torch.equal(again_T, seen_T):
            return
        mean_T += again_T / count
    found, _ = recover_by_guessing(mean_T, subject.codes, case.mean_CHW, steps=case.settings.linear_steps)
    case.add("A8 averaged queries", f"the public transform; {count} queries of each face", _bytes_of(found), picture=True)


def _learned_picture(case: _Case, seen_T: Tensor) -> None:
    if seen_T.ndim != 4 or not case.settings.unet.steps:
        return
    network = train_recovery(case.subject.observe, case.attackers.image_NHWC, case.settings.unet, case.folder / "unet")
    case.add("A2 U-Net", f"{len(case.attackers):,} faces of the attacker, {case.settings.unet.steps} steps", _bytes_of(recover(network, seen_T)), picture=True)


def _learned_embedding(case: _Case, seen_T: Tensor) -> None:
    settings = case.settings.map_reader if seen_T.ndim == 4 else case.settings.reader
    if not settings.steps or case.tools.generator is None:
        return
    own = case.attackers.image_NHWC
    network = train_reader(case.attacker_view, own, case.guided_ND, settings, case.folder / "reader")
    drawn = draw_faces(read(network, seen_T), case.tools.generator, seed=case.settings.seed)
    what = "A5 template to face" if seen_T.ndim == 2 else "A4 embedding read out, face drawn"
    case.add(what, f"{len(own):,} faces of the attacker; no key", drawn, picture=False)


def _leaked_key(case: _Case) -> None:
    """SlerpFace with its keys: undo the rotation, map the features to the generator's space by least squares on the attacker's own people, draw."""
    if not isinstance(case.subject, TemplateSubject) or case.tools.generator is None:
        return
    config = case.subject.scheme.config
    known, new = (undo_with_key(case.subject.enrol(probe), config) for probe in (case.own_probe, case.subject.probe(case.target_THWC)))
    found = to_space(known, case.guided_ND, new)
    case.add("A7 leaked key to face", "the template and its key", draw_faces(found, case.tools.generator, seed=case.settings.seed), picture=False)


def _climb(case: _Case) -> None:
    count = min(case.settings.climbed, len(case.row_T))
    if not count or case.tools.generator is None:
        return
    enrolled = case.subject.enrol(case.subject.probe(case.target_THWC[:count]))
    gallery = case.attackers.image_NHWC[: case.settings.gallery]
    won = climb(verifier(case.subject, enrolled), count, gallery, case.guided_ND[: len(gallery)], case.tools.generator, case.settings.climb)
    case.add("hill climbing", f"scores of {won.queries} queries", won.image_THWC, picture=False)
