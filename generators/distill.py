"""Few-step distillation: a student of the same network learns to go in one pass where the teacher's sampler goes in many.

The student f takes (z_t, t, identity) and jumps along the teacher's own trajectory to the end of its segment (multistep consistency, Heek et al. 2024,
arXiv 2403.06807; one segment is a consistency model, Song et al. 2023, arXiv 2303.01469). The goal of each jump is not bootstrapped from the student's
moving average, as LCM does (Luo et al. 2023), but read from recorded trajectories (knowledge distillation, Luhman & Luhman 2021, with the target of
progressive distillation, Salimans & Ho 2022, app. G): on hours of a CPU regression to fixed goals learns, and bootstrapping does not get from t = 0
to t = 1000. Guidance, rescaling, stages and injected attention are in the trajectories, hence in the student: one pass a step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ..core.check import check_unit_rows
from ..core.config import Config
from ..core.device import autocast, default_device, memory_format
from ..core.errors import UserError
from ..core.seeds import derive_seed
from ..core.training import LoopConfig, data_digest, epoch_order, fresh, run_loop
from ..core.weights import save_weights
from .autoencoder import Autoencoder, PatchAutoencoder, PatchAutoencoderConfig
from .lcm import StudentConfig, save_student
from .low_rank import attach
from .prediction import target
from .schedule import alpha_bars
from .trajectories import Trajectories, TrajectoryConfig, cached_trajectories
from .uiface import UIFace, UIFaceConfig
from .unet import FamilyUNet


class StudentRecipe(Config):
    """How the few-step network is trained.

    Attributes:
        segments: parts of the trajectory; a jump ends where its segment ends. As many passes make an image, or a multiple that divides the kept times;
            1 = a consistency model, which takes any divisor of them.
        rank: of the factors on every matrix (`low_rank`); 0 trains and stores the whole network.
    """

    segments: int = Field(4, ge=1)
    rank: int = Field(16, ge=0)
    loop: LoopConfig


class DecoderRecipe(Config):
    """A smaller decoder on the teacher's fixed basis: |x̂ - x̂_teacher| + `gradient` · the same of differences, on the trajectories' ends.

    Attributes:
        width, blocks, detail_width: see `PatchAutoencoderConfig`.
    """

    width: int = 32
    blocks: int = 1
    detail_width: int = 8
    gradient: float = 0.5
    loop: LoopConfig


class FewStepRecipe(Config):
    """A training file: `facefoundry distill RECIPE --data FACES`.

    Attributes:
        teacher: generator whose sampler is distilled, with the settings it samples with.
        decoder: leave out to keep the teacher's.
    """

    name: str
    teacher: UIFaceConfig = UIFaceConfig()
    trajectories: TrajectoryConfig = TrajectoryConfig()
    student: StudentRecipe
    decoder: DecoderRecipe | None = None

    @model_validator(mode="after")
    def _segments_divide_the_times(self) -> Self:
        times, segments = len(self.trajectories.times), self.student.segments
        if times % segments:
            raise ValueError(f"{times} trajectories.times in {segments} student.segments: expected a divisor of {times}")
        return self


def distill(recipe: FewStepRecipe, embed_ND: np.ndarray, out: Path, *, teacher: UIFace | None = None) -> dict[str, Path]:
    """Record trajectories, train the student and, where asked for, the decoder; return the paths of the weights files.

    Args:
        embed_ND: unit identity rows the teacher samples, (N, anchor_dim).
        out: folder of trajectories, states, logs and weights; a run found there is continued.
        teacher: what `recipe.teacher` builds, if it is there already.

    Raises:
        UserError: rows of another length; `out` holds another training; see also `run_loop`.
    """
    teacher = teacher or recipe.teacher.build(default_device())
    if embed_ND.shape[1] != teacher.anchor_dim:
        raise UserError(f"the identity rows have {embed_ND.shape[1]} numbers, the teacher '{recipe.teacher.denoiser}' takes {teacher.anchor_dim}; use the embedder it was trained with")
    check_unit_rows("embed_ND", embed_ND)
    seed = recipe.student.loop.seed
    found = cached_trajectories(teacher, embed_ND, recipe.trajectories, out / f"trajectories-{_key(recipe, teacher, embed_ND):016x}", seed=seed)
    paths = {"denoiser": train_student(recipe, teacher, found, out / "student")}
    if recipe.decoder is not None:
        paths["autoencoder"] = train_decoder(recipe.decoder, teacher.autoencoder, found, out / "decoder")
    return paths


def train_student(recipe: FewStepRecipe, teacher: UIFace, found: Trajectories, out: Path) -> Path:
    """Train the few-step network on recorded trajectories; return its weights file."""
    network = FamilyUNet(teacher.network.config)
    network.load_state_dict({name: tensor.cpu().float() for name, tensor in teacher.network.state_dict().items()})
    if recipe.student.rank:
        fresh(lambda: attach(network, recipe.student.rank), recipe.student.loop.seed, "factors")
    loop, segments = recipe.student.loop, recipe.student.segments
    batches = JumpBatches(found, segments, loop)
    steps = run_loop(JumpObjective(network, loop), batches, loop, out, data=found.digest(), settings={"segments": segments, "rank": recipe.student.rank}, label="student")
    config = StudentConfig(base=recipe.teacher.denoiser, times=found.times, segments=segments, rank=recipe.student.rank)
    facts = {"name": recipe.name, "steps": steps, "batch": loop.batch, "trajectories": len(found), "sampler": recipe.teacher.sampler.model_dump(mode="json")}
    return save_student(out / "lcm.safetensors", network, config, facts=facts)


def train_decoder(recipe: DecoderRecipe, teacher: Autoencoder, found: Trajectories, out: Path) -> Path:
    """Distil the decoder; return the weights file of an autoencoder with the teacher's encoder."""
    if not isinstance(teacher, PatchAutoencoder):
        raise UserError(f"the teacher's autoencoder is a {type(teacher).__name__}; only that of a patch autoencoder can be distilled: leave out 'decoder'")
    settings = {"width": recipe.width, "blocks": recipe.blocks, "detail_width": recipe.detail_width}
    config = PatchAutoencoderConfig(**{**teacher.config.model_dump(), **settings})
    network = fresh(lambda: PatchAutoencoder(config), recipe.loop.seed, "decoder")
    for name, buffer in teacher.named_buffers():
        getattr(network, name).copy_(buffer)
    objective = DecoderObjective(network, teacher.cpu(), recipe)
    # The trajectories are latents, the same whatever decodes them: what is learnt from is named here.
    whole = {**settings, "gradient": recipe.gradient, "teacher": data_digest(*(tensor.float().numpy() for tensor in teacher.state_dict().values()))}
    steps = run_loop(objective, EndBatches(found, recipe.loop), recipe.loop, out, data=found.digest(), settings=whole, label="decoder")
    path = out / "autoencoder.safetensors"
    save_weights(path, network, kind="autoencoder", config=config.model_dump(mode="json"), facts={"steps": steps, "batch": recipe.loop.batch, "latents": len(found)})
    return path


def segment_end(place: np.ndarray, times: int, segments: int) -> np.ndarray:
    """Return for states `place` (0 = noise, `times` = clean) the state their segment ends in."""
    length = times // segments
    return (place // length + 1) * length


def jump_goal(latent_BCHW: Tensor, goal_BCHW: Tensor, alpha: Tensor, alpha_goal: Tensor) -> tuple[Tensor, Tensor]:
    """Return (clean, noise) such that one DDIM step with that noise leads from `latent` at ᾱ to `goal` at ᾱ_goal (Salimans & Ho 2022, app. G).

    Args:
        alpha, alpha_goal: broadcastable to the latents, alpha < alpha_goal.
    """
    ratio = ((1 - alpha_goal) / (1 - alpha)).sqrt()
    clean_BCHW = (goal_BCHW - ratio * latent_BCHW) / (alpha_goal.sqrt() - ratio * alpha.sqrt())
    return clean_BCHW, (latent_BCHW - alpha.sqrt() * clean_BCHW) / (1 - alpha).sqrt()


class JumpBatches:
    """Pairs of states: somewhere on a trajectory, and the end of its segment."""

    def __init__(self, found: Trajectories, segments: int, loop: LoopConfig) -> None:
        self._found, self._segments, self._loop = found, segments, loop
        self.steps_per_epoch = _whole_batches(len(found) * len(found.times), loop.batch)

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        """Return latents, goals, t (B,), ᾱ of the goals (B,) and identities (B, D)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        size, times = self._loop.batch, len(self._found.times)
        picked = epoch_order(len(self._found) * times, epoch, self._loop.seed)[place * size : (place + 1) * size][rank::world]
        row, start = np.divmod(picked, times)
        end = segment_end(start, times, self._segments)
        alpha = np.append(alpha_bars().numpy()[list(self._found.times)], 1.0)
        t_B = torch.tensor(self._found.times)[start]
        return self._found.state(row, start), self._found.state(row, end), t_B, torch.from_numpy(alpha[end]), torch.from_numpy(self._found.embed_ND[row])


class JumpObjective(nn.Module):
    """Squared error of what the network says (ε, v or flow), at the value that makes its jump end on the goal."""

    def __init__(self, network: FamilyUNet, loop: LoopConfig) -> None:
        super().__init__()
        self.network, self._loop = network, loop

    def forward(self, latent_BCHW: Tensor, goal_BCHW: Tensor, t_B: Tensor, alpha_goal_B: Tensor, identity_BD: Tensor) -> dict[str, Tensor]:
        alpha = alpha_bars().to(t_B.device)[t_B].view(-1, 1, 1, 1)
        clean_BCHW, noise_BCHW = jump_goal(latent_BCHW.double(), goal_BCHW.double(), alpha, alpha_goal_B.view(-1, 1, 1, 1))
        wanted_BCHW = target(self.network.config.prediction, clean_BCHW, noise_BCHW, t_B).float()
        with autocast(latent_BCHW.device, self._loop.precision):
            said_BCHW = self.network(latent_BCHW.contiguous(memory_format=memory_format(latent_BCHW.device)), t_B, self.network.embed_context(identity_BD))
        return {"loss": F.mse_loss(said_BCHW.float(), wanted_BCHW)}


class EndBatches:
    """The clean ends of trajectories."""

    def __init__(self, found: Trajectories, loop: LoopConfig) -> None:
        self._found, self._loop = found, loop
        self.steps_per_epoch = _whole_batches(len(found), loop.batch)

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor]:
        epoch, place = divmod(step, self.steps_per_epoch)
        row = epoch_order(len(self._found), epoch, self._loop.seed)[place * self._loop.batch : (place + 1) * self._loop.batch][rank::world]
        return (self._found.state(row, np.full(len(row), len(self._found.times))),)


class DecoderObjective(nn.Module):
    """The teacher's picture of a latent as the small decoder's goal; the teacher is no part of the training state."""

    def __init__(self, network: PatchAutoencoder, teacher: PatchAutoencoder, recipe: DecoderRecipe) -> None:
        super().__init__()
        self.network, self._teacher, self._recipe = network, (teacher,), recipe

    def forward(self, latent_BCHW: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            goal_BCHW = self._teacher[0].to(latent_BCHW.device).decode(latent_BCHW)
        with autocast(latent_BCHW.device, self._recipe.loop.precision):
            image_BCHW = self.network.decode(latent_BCHW).float()
        gap_BCHW = image_BCHW - goal_BCHW
        edges = sum(gap_BCHW.diff(dim=axis).abs().mean() for axis in (-1, -2))
        return {"loss": gap_BCHW.abs().mean() + self._recipe.gradient * edges, "psnr_db": 10 * torch.log10(4 / gap_BCHW.square().mean())}


def _key(recipe: FewStepRecipe, teacher: UIFace, embed_ND: np.ndarray) -> int:
    """A number that names everything that decides the trajectories."""
    parts: list[Any] = [recipe.teacher.model_dump_json(), recipe.trajectories.model_dump_json(), recipe.student.loop.seed, data_digest(embed_ND)]
    weights = [data_digest(tensor.float().cpu().numpy()) for tensor in teacher.network.state_dict().values()]
    return derive_seed(*parts, *weights)


def _whole_batches(count: int, batch: int) -> int:
    if count < batch:
        raise UserError(f"there are {count} states to train on, less than one batch of {batch}; record more trajectories or take a smaller 'batch'")
    return count // batch
