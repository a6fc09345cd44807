"""Recognisers under attack: rank-1 identification and verification of faces that somebody has changed by a few grey levels.

The attacker knows the network (white box, through every part of it, AFA's predictor included) and the gallery or the reference face. In verification he dodges in
mated pairs and impersonates in non-mated ones. The figures are those of the attack that was run; a stronger one may find more.
Axes: P probes or pairs, S strengths, I people of the gallery, D embedding, B images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.images import to_float
from ..core.progress import track
from ..core.seeds import derive_seed, numpy_rng
from ..core.types import Embedder
from ..identity.sources import Faces
from .attacks import library_attack
from .embedder import embed_faces

SCALE = 16.0
"""Of cosines as logits: the gradient of PGD's sign steps does not depend on it, AutoAttack's losses hardly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSettings:
    """Which attack, how long.

    Attributes:
        name: see `attacks.library_attack`.
        steps: its steps.
        batch: faces at a time.
        seed: of random starts.
    """

    name: str = "pgd"
    steps: int = 20
    batch: int = 50
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """A closed set: the first face of each person, by path, and probes out of the others.

    Attributes:
        first_I: row of each person's gallery face; probe_P: rows of the probes; label_P: each probe's place in the gallery.
    """

    first_I: np.ndarray
    probe_P: np.ndarray
    label_P: np.ndarray


class GalleryLogits(nn.Module):
    """Faces → scaled cosines to the gallery, (B, I)."""

    def __init__(self, embedder: Embedder, template_ID: Tensor) -> None:
        super().__init__()
        _check_differentiable(embedder)
        self.embedder, self.network = embedder, getattr(embedder, "network", nn.Identity())
        self.register_buffer("template_ID", template_ID)
        self._mark = nn.Parameter(torch.empty(0))  # the library asks the parameters for the device
        self.eval()  # the library puts a model back into the mode it found, the network inside with it

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return SCALE * self.embedder(image_BCHW) @ self.template_ID.T


class PairLogits(GalleryLogits):
    """Faces → logits (B, 2) of "another person" and "the same" beside each one's own reference and threshold; row b belongs to reference b."""

    def __init__(self, embedder: Embedder, reference_BD: Tensor, threshold_B: Tensor) -> None:
        super().__init__(embedder, reference_BD)
        self.register_buffer("threshold_B", threshold_B)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        above_B = SCALE * ((self.embedder(image_BCHW) * self.template_ID).sum(1) - self.threshold_B)
        return torch.stack((-above_B, above_B), 1)


def make_gallery(faces: Faces, probes: int, seed: int = 0) -> Gallery:
    """Draw at most `probes` probes of people with two faces or more.

    Raises:
        UserError: fewer than two people, or no face to probe with.
    """
    order = np.argsort(faces.identity_N, kind="stable")
    known_I, start_I = np.unique(faces.identity_N[order], return_index=True)
    first_I = order[start_I]
    others = np.setdiff1d(np.arange(len(faces)), first_I)
    if len(known_I) < 2 or not len(others):
        raise UserError(f"the data has {len(known_I)} people and {len(others)} faces beside the first of each; identification under attack needs two people, and one with two faces")
    probe_P = np.sort(numpy_rng(seed, "probes").permutation(others)[:probes])
    return Gallery(first_I=first_I, probe_P=probe_P, label_P=np.searchsorted(known_I, faces.identity_N[probe_P]))


def identify_under_attack(embedder: Embedder, faces: Faces, gallery: Gallery, strengths: Sequence[float], attack: AttackSettings = AttackSettings()) -> np.ndarray:
    """Return whether each probe found its own person first, bool (S, P), one row a strength in grey levels.

    Raises:
        UserError: the embedder passes no gradients; see `library_attack`.
    """
    logits = GalleryLogits(embedder, torch.from_numpy(embed_faces(embedder, faces.image_NHWC[gallery.first_I])))

    def right(image_BCHW: Tensor, rows: slice, strength: float, seed: int) -> Tensor:
        label_B = torch.from_numpy(gallery.label_P[rows])
        changed = library_attack(attack.name, logits, image_BCHW, label_B, strength=strength, steps=attack.steps, classes=len(gallery.first_I), seed=seed)
        with torch.no_grad():
            return logits(changed).argmax(1) == label_B

    return _by_strength(faces.image_NHWC[gallery.probe_P], strengths, attack, right)


def score_under_attack(
    embedder: Embedder, reference_PD: np.ndarray, probe_PHWC: np.ndarray, same_P: np.ndarray, threshold_P: np.ndarray, strengths: Sequence[float], attack: AttackSettings = AttackSettings()
) -> np.ndarray:
    """Return the cosine of each attacked probe to its reference, float (S, P).

    Only PGD attacks pairs: the library's other attacks take rows out of a batch, which then no longer stand beside their references.

    Args:
        reference_PD: unit rows of the faces that are not attacked.
        probe_PHWC: uint8 faces that are.
        same_P: mated pairs, whose similarity is lowered; that of the others is raised.
        threshold_P: what decides about each pair; it does not change the direction of the attack, only logits.

    Raises:
        UserError: another attack than "pgd"; the embedder passes no gradients.
    """
    if attack.name != "pgd":
        raise UserError(f"'{attack.name}' cannot attack pairs; use --attack pgd, or leave the pairs out")
    reference, threshold = torch.from_numpy(reference_PD).float(), torch.from_numpy(np.asarray(threshold_P)).float()

    def score(image_BCHW: Tensor, rows: slice, strength: float, seed: int) -> Tensor:
        logits = PairLogits(embedder, reference[rows], threshold[rows])
        label_B = torch.from_numpy(same_P[rows].astype(np.int64))
        changed = library_attack("pgd", logits, image_BCHW, label_B, strength=strength, steps=attack.steps, classes=2, seed=seed)
        with torch.no_grad():
            return logits(changed)[:, 1] / SCALE + threshold[rows]

    return _by_strength(probe_PHWC, strengths, attack, score)


def shares_under_attack(embedder: Embedder, image_NHWC: np.ndarray) -> float | None:
    """Return the mean fusing weight AFA's predictor gives, or None for another network."""
    share = getattr(getattr(embedder, "network", None), "share", None)
    if share is None:
        return None
    with torch.no_grad():
        return float(share(to_float(image_NHWC)).mean())


def _by_strength(image_PHWC: np.ndarray, strengths: Sequence[float], attack: AttackSettings, measure: Callable[[Tensor, slice, float, int], Tensor]) -> np.ndarray:
    """Measure every batch at every strength; the random start belongs to the batch, so that strengths are compared on the same one."""
    parts: list[list[Tensor]] = [[] for _ in strengths]
    starts = range(0, len(image_PHWC), attack.batch)
    for start, number in track([(start, number) for start in starts for number in range(len(strengths))], f"attack ({attack.name})"):
        rows = slice(start, start + attack.batch)
        # 31 bits: numpy's legacy generator inside the library takes no more.
        seed = derive_seed(attack.seed, "attack", start) % 2**31
        parts[number].append(measure(to_float(image_PHWC[rows]), rows, strengths[number], seed))
    return np.stack([torch.cat(part).numpy() for part in parts])


def _check_differentiable(embedder: Embedder) -> None:
    if not embedder.differentiable:
        raise UserError(f"the embedder '{embedder.name}' passes no gradients, which the attack needs; use a .safetensors recogniser or mobilefacenet-small")
