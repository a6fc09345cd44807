"""Published PyTorch checkpoints of the IDiff-Face family, read into our `FamilyUNet`.

Kinds: "uiface" (UIFace, ICLR 2025) and "idiffface" (IDiff-Face, ICCV 2023, cross-attention variant). The public trainers write
state dicts of wrapped modules: Lightning and DistributedDataParallel prefixes, then `eps_model.` for the network inside the
diffusion object, whose schedule constants are buffers of the same file. Wrappers come off, buffers are dropped by name, and what is
left has to be the network, name by name and shape by shape.

Facts that travel with the imported file: the averaged ("ema") and the raw weights of these projects are the same numbers, because
their update multiplies by a decay that stays 0 (generators.md §0.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..core.checkpoints import Source, listed, matched, read_tensors, source_facts
from ..core.errors import UserError
from ..core.weights import save_tensors
from .unet import FamilyUNet, UNetConfig

DenoiserKind = Literal["uiface", "idiffface"]

WRAPPERS = ("module.", "_module.", "_forward_module.", "_original_module.", "averaged_model.", "ema_model.", "diffusion_model.", "eps_model.")
"""Prefixes that say how a network was wrapped when it was saved; any number, in any order."""

BUFFERS = {
    *("betas", "alphas", "sigmas", "sqrt_alphas_inv", "alpha_bars", "sqrt_alpha_bars", "sqrt_one_minus_alpha_bars", "one_minus_alphas_over_sqrt_one_minus_alpha_bars"),
    *("decay", "optimization_step", "update_after_step", "inv_gamma", "power", "min_value", "max_value"),
}
"""Schedule constants of the public diffusion object, and the bookkeeping of its averager."""

EMA_NOTE = "the published averaged weights equal the raw ones: the decay of the public code's averager stays 0"


SOURCES = {
    "uiface": Source(project="https://github.com/Tencent/TFace/tree/master/generation/uiface", licence="Apache-2.0 (code); trained on CASIA-WebFace, research use", note=EMA_NOTE),
    "idiffface": Source(project="https://github.com/fdbtrs/IDiff-Face", licence="CC BY-NC-SA 4.0", note=f"{EMA_NOTE}; no empty context was trained: zeros stand for it, as in the public code"),
}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a checkpoint of the family, wrappers (see `WRAPPERS`) off; see `core.checkpoints.read_tensors`."""
    return read_tensors(path, wrappers=WRAPPERS)


def import_denoiser(path: Path, kind: DenoiserKind, out: Path) -> dict[str, Any]:
    """Read a published denoiser, write it as safetensors (kind "denoiser") and return its facts.

    Raises:
        UserError: see `read_checkpoint`; or keys are missing, unknown or misshapen (named).
    """
    tensors = {name: tensor for name, tensor in read_checkpoint(path).items() if name not in BUFFERS}
    if kind == "idiffface" and "empty_context_embedding" not in tensors and "context_emb.weight" in tensors:
        tensors["empty_context_embedding"] = torch.zeros(tensors["context_emb.weight"].shape[0])
    config = infer_config(tensors, path)
    try:
        with torch.device("meta"):
            network = FamilyUNet(config)
    except ValueError as error:  # widths that no public network has
        raise UserError(f"{path} cannot be built: {error}; expected a U-Net of the public code's widths") from error
    converted = matched(network, tensors, public_name, path)
    facts = {**source_facts(kind, [path], SOURCES[kind]), "parameters": sum(tensor.numel() for tensor in converted.values())}
    save_tensors(out, converted, kind="denoiser", config=config.model_dump(mode="json"), facts=facts)
    return facts


def infer_config(tensors: Mapping[str, Tensor], path: Path) -> UNetConfig:
    """Read the network's widths and depth off the shapes of a public state dict (wrappers off).

    The public code gives a block as many context tokens as a head has channels, and normalises in 32 groups everywhere.

    Raises:
        UserError: the tensors are not those of a cross-attention U-Net of the family.
    """
    needed = ("image_proj.weight", "context_emb.weight", "down.0.res.conv1.weight", "middle.attn.c_proj_in.weight")  # 4, 2, 4 and 2 axes
    if missing := [name for name in needed if name not in tensors or tensors[name].ndim != (2 if name in needed[1::2] else 4)]:
        hint = " (its conditioning is not cross-attention: the AdaGN, DiffAE and unconditional variants are another network)" if "image_proj.weight" in tensors else ""
        raise UserError(f"{path} is not a cross-attention U-Net of the IDiff-Face family{hint}: {listed(missing)} missing; it begins with {listed(sorted(tensors))}")
    width, channels = tensors["image_proj.weight"].shape[:2]
    context_dim, identity_dim = tensors["context_emb.weight"].shape
    tokens = tensors["middle.attn.c_proj_in.weight"].shape[0] // context_dim
    levels = _levels(tensors)
    widths, depths, attention = [blocks[-1][0] for blocks in levels], {len(blocks) for blocks in levels}, [blocks[0][1] for blocks in levels]
    before = [width, *widths[:-1]]
    if len(depths) != 1 or any(now % last for now, last in zip(widths, before)):
        raise UserError(f"{path}: levels of widths {widths} with {sorted(depths)} blocks, expected equal depths and widths that are multiples of the one before")
    multipliers = [now // last for now, last in zip(widths, before)]
    return UNetConfig(
        channels=channels, width=width, multipliers=tuple(multipliers), attention=tuple(attention), blocks=depths.pop(), head_dim=tokens,
        identity_dim=identity_dim, context_dim=context_dim, tokens=tokens,
    )  # fmt: skip


def _levels(tensors: Mapping[str, Tensor]) -> list[list[tuple[int, bool]]]:
    """(width, has attention) of each residual block on the way down, level by level."""
    indices = sorted({int(name.split(".")[1]) for name in tensors if re.match(r"down\.\d+\.", name)})
    levels: list[list[tuple[int, bool]]] = [[]]
    for index in indices:
        if f"down.{index}.conv.weight" in tensors:
            levels.append([])
        elif f"down.{index}.res.conv1.weight" in tensors:
            levels[-1].append((tensors[f"down.{index}.res.conv1.weight"].shape[0], f"down.{index}.attn.x_norm.weight" in tensors))
    return [level for level in levels if level]


RENAMED = [
    (r"^stem\.", "image_proj."), (r"^time\.0\.", "time_emb.lin1."), (r"^time\.2\.", "time_emb.lin2."), (r"^context\.", "context_emb."),
    (r"^empty_context$", "empty_context_embedding"), (r"^norm_out\.", "norm."), (r"^conv_out\.", "final."),
    (r"^((?:down|up)\.\d+)\.(weight|bias)$", r"\1.conv.\2"), (r"\.residual\.", ".res."), (r"\.first\.", ".res1."), (r"\.second\.", ".res2."),
    (r"(\.res\d?)\.norm_in\.", r"\1.norm1."), (r"(\.res\d?)\.conv_in\.", r"\1.conv1."), (r"(\.res\d?)\.time\.", r"\1.time_emb.1."),
    (r"(\.res\d?)\.(scale|shift)\.", r"\1.\2_emb."), (r"(\.res\d?)\.norm_out\.", r"\1.norm2.norm."), (r"(\.res\d?)\.conv_out\.", r"\1.conv2."),
    (r"\.attention\.", ".attn."), (r"\.project_(in|out)\.", r".x_proj_\1."), (r"\.attn\.norm\.", ".attn.x_norm."), (r"\.to_tokens\.", ".c_proj_in."),
    (r"\.token_norm\.", ".c_norm."), (r"\.mlp\.", ".ff."), (r"_attention\.query\.", "_attention.to_q."), (r"_attention\.key\.", "_attention.to_k."),
    (r"_attention\.value\.", "_attention.to_v."), (r"_attention\.out\.", "_attention.proj_out."),
]  # fmt: skip
"""Our names of the U-Net's tensors → theirs, one pattern after the other."""


def public_name(name: str) -> str:
    """Return what the public code calls one of our U-Net's tensors."""
    for pattern, theirs in RENAMED:
        name = re.sub(pattern, theirs, name)
    return name
