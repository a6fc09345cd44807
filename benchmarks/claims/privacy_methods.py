"""What the claims about DuetFace, PartialFace, DCTDP and MinusFace share: trainings beside the unprotected recogniser, attacks, cost, verdict.

Every method is trained on N real faces and on N minted ones with the recipe in recipes/ at 28×28 pixels, the unprotected network with the same recipe, faces,
pixels and number of looks at them; the scripts share it. Accuracy: LFW folds 7-8. Victims of the attacks are people of folds 7-8; the attacker owns faces of people
that are in neither training nor test. The judge is mobilefacenet-small, which neither side uses. What is trained stays under --work and is shared.

Axes: S seeds, P pairs, T attacked faces, N faces, D embedding.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from evidence import DATA, HERE, Effect, effect, write_claim
from recognisers import Lab, right_of_pairs
from torch import nn

from facefoundry.challenge.pair_lists import read_pairs
from facefoundry.consumers.privacy.attacks.guessing import recover_by_guessing
from facefoundry.consumers.privacy.attacks.linear_recovery import fitted_linear
from facefoundry.consumers.privacy.attacks.reidentification import judge_threshold
from facefoundry.consumers.privacy.attacks.unet_recovery import UnetSettings, recover, shown, train_recovery
from facefoundry.consumers.privacy.image_metrics import psnr, ssim
from facefoundry.consumers.privacy.protected import PRIVACY_METHODS, PrivacyMethod, PrivacyRecipe, load_method
from facefoundry.consumers.privacy.subjects import ImageSubject
from facefoundry.consumers.privacy.train import MapRecogniser, learn
from facefoundry.core.files import write_atomic
from facefoundry.core.images import to_float, to_uint8
from facefoundry.core.seeds import numpy_rng
from facefoundry.identity.sources import Faces, load_faces
from facefoundry.recognition.embedder import TorchEmbedder, embed_faces, load_embedder

RECIPES = HERE.parent.parent / "recipes"
SIDE = 28
MORE = {"minusface": ("method.widths=[8,16,32]",)}
"""28 pixels can be halved twice."""
KINDS = ("real", "minted")
JUDGE = "mobilefacenet-small"
REACH = {"duetface": 0.01, "partialface": 0.02, "dctdp": 0.02, "minusface": 0.02}
"""How much accuracy a method may lose, as the specification of the consumers asks (consumers.md §11)."""


class Unprotected(nn.Module):
    """The server's network fed with the face itself, at the methods' resolution."""

    def __init__(self, recipe: PrivacyRecipe) -> None:
        super().__init__()
        self.shrink = nn.AvgPool2d(112 // recipe.method.side)
        self.server = MapRecogniser(3, recipe.method, recipe.backbone)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        return self.server(self.shrink(image_BCHW))


@dataclass(kw_only=True)
class Study:
    """The trainings of one script.

    Attributes:
        looks: how often the network sees a face in its (last) training; first stages see `first` as many.
        settings: laid over the method's recipe, e.g. for a smoke run; the last word.
    """

    name: str
    lab: Lab
    minted: Path
    looks: int
    first: float
    settings: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def faces(self, kind: str) -> Faces:
        """As many faces of as many people, real or minted."""
        return self.lab.train_faces if kind == "real" else self._minted_faces

    @cached_property
    def _minted_faces(self) -> Faces:
        every, people, each = load_faces(self.minted), self.lab.people, self.lab.each
        rows = [np.flatnonzero(every.identity_N == i)[:each] for i in range(len(every.names))]
        rows = [row for row in rows if len(row) == each][:people]
        if len(rows) < people:
            raise SystemExit(f"{self.minted} has {len(rows)} people with {each} images, --people is {people}")
        row_M, names = np.concatenate(rows), tuple(every.names[every.identity_N[row[0]]] for row in rows)
        return Faces(image_NHWC=every.image_NHWC[row_M], identity_N=np.repeat(np.arange(people, dtype=np.int32), each), names=names, paths=tuple(every.paths[r] for r in row_M))

    def epochs(self, looks: float) -> float:
        """Passes over the faces."""
        return looks / (self.lab.people * self.lab.each)

    @property
    def size(self) -> str:
        """Part of a folder's name: whatever decides a training beside kind and seed."""
        return f"{self.lab.people}x{self.lab.each}-{self.looks}"

    def recipe(self, changes: Sequence[str]) -> PrivacyRecipe:
        """The method's recipe at the study's resolution."""
        return PRIVACY_METHODS[self.name].Recipe.load(RECIPES / f"privacy-{self.name}.yaml", [f"method.side={SIDE}", *MORE.get(self.name, ()), *changes, *self.settings])

    def unprotected(self, kind: str, seed: int) -> np.ndarray:
        """Rows of the test faces by the network that sees faces; the same whatever the method."""
        folder = self.lab.work / f"unprotected-{kind}-{self.size}-{seed}"

        def train() -> Callable[[np.ndarray], np.ndarray]:
            recipe = self.recipe([f"epochs={self.epochs(self.looks)}", f"seed={seed}"])
            network = learn(recipe, self.faces(kind), folder, lambda: Unprotected(recipe))[0].network.eval()
            return lambda image_NHWC: embed_faces(TorchEmbedder(network, name="unprotected"), image_NHWC)

        return self._rows(folder / "rows.npy", train)

    def protected(self, kind: str, seed: int, changes: Sequence[str] = ()) -> PrivacyMethod:
        """The method, trained at need."""
        mark = "".join(f"-{change.replace('=', '').rpartition('.')[2]}" for change in changes)
        folder = self.lab.work / f"{self.name}{mark}-{kind}-{self.size}-{seed}"
        if not (folder / "server.safetensors").is_file():
            cls = PRIVACY_METHODS[self.name]
            # An epoch of PartialFace and of MinusFace's second training shows a face several times.
            values = cls.Recipe.read(RECIPES / f"privacy-{self.name}.yaml")[0]
            repeated = values.get("samples", 1) * values["method"].get("samples", 1)
            first = [f"{key}={self.epochs(self.looks * self.first)}" for key in ("client_epochs", "generator_epochs") if key in cls.Recipe.model_fields]
            recipe = self.recipe([f"epochs={self.epochs(self.looks) / repeated}", *first, f"seed={seed}", *changes])
            began = time.process_time()
            cls.train_on(recipe, self.faces(kind), folder)
            self.notes.append(f"Training on {kind} faces, seed {seed}{mark}: {time.process_time() - began:.0f} s of processor time.")
        return load_method(folder)

    def protected_rows(self, kind: str, seed: int, changes: Sequence[str] = ()) -> np.ndarray:
        """Rows of the test faces through client and server."""
        mark = "".join(f"-{change.replace('=', '').rpartition('.')[2]}" for change in changes)
        path = self.lab.work / f"{self.name}{mark}-{kind}-{self.size}-{seed}" / "rows.npy"
        return self._rows(path, lambda: ImageSubject(self.protected(kind, seed, changes)).probe)

    def right(self, rows_ND: np.ndarray) -> np.ndarray:
        """Whether each pair is judged rightly, (P,)."""
        return right_of_pairs(self.lab, rows_ND)

    def _rows(self, path: Path, make: Callable[[], Callable[[np.ndarray], np.ndarray]]) -> np.ndarray:
        """Rows of the faces that the pairs name; the others stay 0."""
        if not path.is_file():
            faces, named = self.lab.test_faces, set(sum(read_pairs(DATA / "lfw_folds7_8_pairs.txt").paths, ()))
            row_M = np.array([row for row, name in enumerate(faces.paths) if name in named])
            found_MD = make()(faces.image_NHWC[row_M])
            rows_ND = np.zeros((len(faces), found_MD.shape[1]), np.float32)
            rows_ND[row_M] = found_MD
            write_atomic(path, lambda temporary: np.save(open(temporary, "wb"), rows_ND))
        return np.load(path)

    def accuracy_effects(self) -> list[Effect]:
        """Against the unprotected network, real and minted."""
        found = []
        for kind in KINDS:
            base, own = ([self.right(rows(kind, seed)) for seed in range(self.lab.seeds)] for rows in (self.unprotected, self.protected_rows))
            found.append(effect(f"accuracy on LFW folds 7-8, trained on {kind} faces", np.stack(base), np.stack(own), tolerance=REACH[self.name]))
        return found


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """Faces under attack and whoever judges.

    Attributes:
        image_THWC, row_T: the faces, and their rows among the test faces; one of each of T people with two photos.
        own_NHWC: the attacker's faces.
    """

    image_THWC: np.ndarray
    row_T: np.ndarray
    own_NHWC: np.ndarray
    judged_ND: np.ndarray
    identity_N: np.ndarray
    threshold: float

    def found(self, image_BCHW: torch.Tensor) -> np.ndarray:
        """Whether recovered faces, RGB in [0, 1], match another photo of the person at FMR 1e-3, float (T,)."""
        grown = torch.nn.functional.interpolate(image_BCHW.float(), size=(112, 112), mode="bilinear", align_corners=False)
        embed_TD = embed_faces(load_embedder(JUDGE), to_uint8(grown * 2 - 1))
        other_TN = (self.identity_N[None] == self.identity_N[self.row_T][:, None]) & (np.arange(len(self.identity_N))[None] != self.row_T[:, None])
        return ((embed_TD @ self.judged_ND.T)[np.arange(len(self.row_T)), other_TN.argmax(1)] >= self.threshold).astype(float)


def attacked(study: Study, targets: int, own: int) -> Attacked:
    """Draw victims of folds 7-8 and the attacker's faces, of people that no training saw."""
    test, every = study.lab.test_faces, load_faces(DATA / "train112.zip")
    judged_ND = embed_faces(load_embedder(JUDGE), test.image_NHWC)
    people_I = np.flatnonzero(np.bincount(test.identity_N) > 1)
    people_T = numpy_rng("privacy-victims").permutation(people_I)[:targets]
    row_T = np.array([np.flatnonzero(test.identity_N == i)[0] for i in people_T])
    free_M = np.flatnonzero(~np.isin(np.array(every.names)[every.identity_N], study.lab.train_faces.names))
    own_M = numpy_rng("privacy-attacker").permutation(free_M)[:own]
    return Attacked(
        image_THWC=test.image_NHWC[row_T], row_T=row_T, own_NHWC=every.image_NHWC[own_M], judged_ND=judged_ND, identity_N=test.identity_N,
        threshold=judge_threshold(judged_ND, test.identity_N),
    )  # fmt: skip


def attacks(method: PrivacyMethod, on: Attacked, folder: Path, unet_steps: int) -> dict[str, torch.Tensor]:
    """Recovered faces of each attack, RGB in [0, 1], (T, 3, side, side)."""
    subject, side = ImageSubject(method), method.settings.side
    seen_T = subject.observe(on.image_THWC)
    own = shown(on.own_NHWC, side)
    found = {"A0 inverse transform": method.view(method.protect(to_float(on.image_THWC)))}
    if subject.codes:
        found["A1 linear solve"], taken_T = recover_by_guessing(seen_T, subject.codes, own.mean(0))
    else:
        some = on.own_NHWC[:600]
        found["A1 fitted linear map"] = fitted_linear(subject.observe(some, 0), shown(some, side), seen_T)
    network = train_recovery(subject.observe, on.own_NHWC, UnetSettings(steps=unet_steps, batch=16, width=16, checkpoint_every=10_000), folder)
    found["A2 U-Net"] = recover(network, seen_T)
    return found


def attack_effects(found: dict[str, torch.Tensor], on: Attacked, side: int) -> tuple[list[Effect], list[str]]:
    """Each attack against showing the attacker's mean face, which needs nothing that was sent: likeness, and recognition of another photo."""
    true = shown(on.image_THWC, side)
    mean = shown(on.own_NHWC, side).mean(0).expand_as(true)
    base_ssim, base_found = ssim(mean, true).numpy(), on.found(mean)
    effects, notes = [], [f"Unprotected faces at this resolution are re-identified in {on.found(true).mean():.2f} of the cases: no attack can reach more, and where this is near 0 re-identification says nothing here."]
    for name, image in found.items():
        effects.append(effect(f"SSIM of {name}, over the mean face", base_ssim, ssim(image, true).numpy(), better="lower", tolerance=0.1))
        effects.append(effect(f"share re-identified after {name}, over the mean face", base_found, on.found(image), better="lower", tolerance=0.02))
        notes.append(f"{name}: PSNR {float(psnr(image, true).clamp(max=200).mean()):.1f} dB (mean face {float(psnr(mean, true).mean()):.1f} dB).")
    return effects, notes


def cost_note(method: PrivacyMethod, image_NHWC: np.ndarray) -> str:
    """Time of the client and of the server, and bytes, of one face: the trained method, and the bytes at 112 px."""
    face = to_float(image_NHWC[:32])
    times = []
    for work in (lambda: method.protect(face), lambda sent=method.protect(face): method.recognise(sent)):
        work()
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) / len(face) * 1e3)
    scale = (112 / method.settings.side) ** 2
    return f"Cost at {method.settings.side} px, batches of 32, one core: client {times[0]:.2f} ms and server {times[1]:.2f} ms a face; {method.bytes_per_face:,} bytes sent (about {method.bytes_per_face * scale / 1e6:.2f} MB at 112 px; the raw face is 37,632 bytes)."


def options(name: str, description: str | None, *, looks: int, first: float = 0.4) -> argparse.ArgumentParser:
    """Return the parser of a claim script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--work", type=Path, default=Path("runs/claims/privacy"))
    parser.add_argument("--minted", type=Path, required=True, help="dataset folder that `facefoundry run` minted")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--each", type=int, default=8)
    parser.add_argument("--looks", type=int, default=looks, help="faces the network sees in a training")
    parser.add_argument("--first", type=float, default=first, help="the same of a first stage, as a share")
    parser.add_argument("--targets", type=int, default=64)
    parser.add_argument("--own", type=int, default=1200, help="the attacker's faces")
    parser.add_argument("--unet-steps", type=int, default=250)
    parser.add_argument("--set", dest="settings", action="append", default=[], help="lay a value over the method's recipe")
    parser.add_argument("--dry", action="store_true", help="measure and show, write nothing")
    parser.set_defaults(name=name)
    return parser


def study_of(asked: argparse.Namespace) -> Study:
    """Return the study that the options ask for."""
    keep_memory()
    lab = Lab(work=asked.work, seeds=asked.seeds, people=asked.people, each=asked.each)
    return Study(name=asked.name, lab=lab, minted=asked.minted, looks=asked.looks, first=asked.first, settings=tuple(asked.settings))


def run_claim(asked: argparse.Namespace, *, claim: str, title: str, published: str, more: Callable[[Study, PrivacyMethod, Attacked], tuple[list[Effect], list[str]]]) -> None:
    """Train, attack, measure and write the claim; the verdict needs the accuracy and every attack."""
    study = study_of(asked)
    effects = study.accuracy_effects()
    method, on = study.protected("real", 0), attacked(study, asked.targets, asked.own)
    found = attacks(method, on, asked.work / f"{asked.name}-unet-{study.size}-{asked.unet_steps}", asked.unet_steps)
    attack, notes = attack_effects(found, on, method.settings.side)
    extra, words = more(study, method, on)
    reached = ", ".join(f"{kind} {one.method:.3f} (unprotected {one.baseline:.3f})" for kind, one in zip(KINDS, effects))
    effects += attack + extra
    lines = [
        f"Accuracy: {reached}. {asked.people} people × {asked.each} images, {asked.looks:,} faces seen, {asked.seeds} seeds; {SIDE}×{SIDE} pixels, MobileFaceNet at a quarter of its width. The verdict needs accuracy within {REACH[asked.name]:g} on both sets and no attack more than 0.1 SSIM or 0.02 re-identification better than the mean face.",
        published, *words, *notes, cost_note(method, on.own_NHWC),
        f"Attacks: {asked.targets} faces of people of folds 7-8, the method of seed 0 trained on real faces, {asked.own:,} faces of the attacker, U-Net of {asked.unet_steps} steps: a lower bound on what an attacker reaches. Re-identification: another photo of the person, {JUDGE}, FMR 1e-3. Intervals of attacks: over faces.",
        "Not irreversible: the figures above are what these attacks reached, not a bound.", *study.notes,
    ]  # fmt: skip
    if asked.dry:
        show_claim(effects, lines)
        return
    write_claim(asked.name, claim=claim, method=title, shown=all(one.holds for one in effects if one not in extra), effects=effects, notes=lines)


def show_claim(effects: Sequence[Effect], notes: Sequence[str]) -> None:
    """Show what `write_claim` would write."""
    for line in [*(f"{one.name}: {one.baseline:.4g} → {one.method:.4g} [{one.low:+.3g}, {one.high:+.3g}]" for one in effects), *notes]:
        print(line)


def keep_memory() -> None:
    """Have glibc keep freed memory: maps of 190 channels in fresh pages take twice as long (elsewhere nothing happens)."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 256 * 2**20)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
            libc.mallopt(option, value)
    except (OSError, AttributeError):
        pass
