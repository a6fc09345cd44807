"""Our networks against the public implementations with the same random weights, forward passes in float32.

Check the public code out beside the project and pass its folders (each is optional):

    python benchmarks/parity.py --uiface TFace/generation/uiface --idiffface IDiff-Face --ldm latent-diffusion [--published]

`--published` adds the published sizes (216,341,187 parameters, VQ-f4 at 128 pixels; 5 GB of memory, a minute). The public code needs
the package einops; what else it imports and does not use here (Lightning, taming) is replaced by empty stand-ins. All parameters get random
values, the zero-initialised and the norms too. A checkpoint is written as the public trainers write it, read by our importer and compared;
prints the largest absolute difference and its ratio to the largest output. Goal: at most 1e-5 of the output's scale.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facefoundry.core.weights import load_into, load_weights
from facefoundry.generators.attention import AttentionControl
from facefoundry.generators.published import import_denoiser
from facefoundry.generators.train import load_autoencoder
from facefoundry.generators.unet import FamilyUNet, UNetConfig
from facefoundry.generators.vq import import_first_stage

GOAL = 1e-5
TINY = {"input_channels": 3, "initial_channels": 32, "channel_multipliers": (1, 2), "is_attention": (False, True), "n_blocks_per_resolution": 1, "context_input_channels": 16, "context_channels": 32}
PUBLISHED = {"input_channels": 3, "initial_channels": 96, "channel_multipliers": (1, 2, 2, 2), "is_attention": (False, True, True, True), "n_blocks_per_resolution": 2, "context_input_channels": 512, "context_channels": 256}
FAMILY = {"attention_heads": -1, "attention_head_channels": 32, "condition_type": "CA", "is_context_conditional": True, "context_dropout_probability": 0.25}
TINY_VQ = {"ch": 32, "ch_mult": (1, 2), "num_res_blocks": 1, "n_embed": 64}
PUBLISHED_VQ = {"ch": 128, "ch_mult": (1, 2, 4), "num_res_blocks": 2, "n_embed": 8192}
Report = dict[str, float]


def fill(tensors: Mapping[str, Tensor], seed: int = 7) -> dict[str, Tensor]:
    """Random values for named tensors, in the order of their names: matrices of gain 1.2, norms about 1, biases about 0.

    numpy's RandomState is frozen by promise: the same names and sizes give the same numbers for ever.
    """
    rng, filled = np.random.RandomState(seed), {}
    for name in sorted(tensors):
        shape = tensors[name].shape
        values = torch.from_numpy(rng.standard_normal(tuple(shape)).astype(np.float32))
        matrix = len(shape) > 1 and shape[1:].numel() > 1
        filled[name] = values * 1.2 * shape[1:].numel() ** -0.5 if matrix else 0.3 * values + (len(shape) == 1 and name.endswith("weight"))
    return filled


def rows(count: int, *shape: int, seed: int) -> Tensor:
    """Standard normal float32 numbers."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((count, *shape)).astype(np.float32))


@contextmanager
def public(folder: Path) -> Iterator[None]:
    """Import from `folder` inside the block; what was imported is forgotten afterwards (the projects share module names)."""
    before, standing = set(sys.modules), _stand_ins()
    sys.modules.update({name: module for name, module in standing.items() if name not in before})
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if name.split(".")[0] in {"models", "utils", "diffusion", "ldm", *(stand.split(".")[0] for stand in standing)}:
                del sys.modules[name]


def unet_case(folder: Path, kind: str, settings: Mapping[str, Any], side: int, show: bool) -> Report:
    """Public U-Net and ours on identity contexts, on the empty context, and (UIFace) under attention injection."""
    with public(folder):
        network = importlib.import_module("models.diffusion.unet").ConditionalUNet
        theirs = network(**settings, **FAMILY, learn_empty_context=kind == "uiface").eval()
        theirs.load_state_dict(fill(theirs.state_dict()))
        ours = _imported(theirs.state_dict(), kind)
        latent, t, identity = rows(2, 3, side, side, seed=1), torch.tensor([7, 980]), rows(2, settings["context_input_channels"], seed=2)
        identity /= identity.norm(dim=1, keepdim=True)
        with torch.no_grad():
            pairs = {"identity": (theirs(latent, t, identity), ours(latent, t, ours.embed_context(identity))), "empty": (theirs(latent, t, None), ours(latent, t, ours.empty_rows(2)))}
        pairs = {name: (wanted[0] if isinstance(wanted, tuple) else wanted, got) for name, (wanted, got) in pairs.items()}
        if kind == "uiface":
            pairs["injected"] = _injected(theirs, ours, latent, t, identity)
    if show:
        shapes = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(theirs.state_dict().items()))
        logging.info("%s", json.dumps({"keys_sha256": hashlib.sha256(shapes.encode()).hexdigest(), **{name: _pins(wanted) for name, (wanted, _) in pairs.items()}}))
    report = {"parameters": float(sum(p.numel() for p in theirs.parameters()))}
    for name, (wanted, got) in pairs.items():
        report |= _differences(name, wanted, got)
    return report


def _injected(theirs: nn.Module, ours: FamilyUNet, latent: Tensor, t: Tensor, identity: Tensor) -> tuple[Tensor, Tensor]:
    """Stage 2: the identity pass under the empty pass's attention, theirs and ours (which runs both passes in one batch)."""
    with torch.no_grad():
        _, self_maps, cross_maps = theirs(latent, t, None)
        wanted = theirs(latent, t, identity, src_self_attn_map_list=self_maps, src_cross_attn_map_list=cross_maps)[0]
        control = AttentionControl(2, torch.arange(2), share_self=True, blend_cross=True)
        context = torch.cat([ours.empty_rows(2), ours.embed_context(identity)])
        got = ours(torch.cat([latent, latent]), torch.cat([t, t]), context, control)[2:]
    return wanted, got


def vq_case(folder: Path, settings: Mapping[str, Any], show: bool) -> Report:
    """The encoder with its 1x1 convolution, and quantisation with the decoder, on 112x112 faces."""
    size = {key: settings[key] for key in ("ch", "ch_mult", "num_res_blocks")}
    with public(folder):
        parts = importlib.import_module("ldm.modules.diffusionmodules.model" if (folder / "ldm").is_dir() else "models.autoencoder.modules")
        common = {"double_z": False, "z_channels": 3, "resolution": 256, "in_channels": 3, "out_ch": 3, "attn_resolutions": [], "dropout": 0.0}
        theirs = nn.ModuleDict({"encoder": parts.Encoder(**size, **common), "decoder": parts.Decoder(**size, **common)})
    theirs["quant_conv"], theirs["post_quant_conv"] = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    theirs["quantize"] = nn.ModuleDict({"embedding": nn.Embedding(settings["n_embed"], 3)})
    theirs.load_state_dict(fill(theirs.state_dict()))
    theirs.eval()
    with tempfile.TemporaryDirectory() as temporary:
        source, out = Path(temporary) / "model.ckpt", Path(temporary) / "vq.safetensors"
        torch.save({"state_dict": {f"first_stage_model.{name}": tensor for name, tensor in theirs.state_dict().items()}}, source)
        import_first_stage([source], out)
        ours = load_autoencoder(out)
    image = nn.functional.interpolate(rows(1, 3, 14, 14, seed=3).clamp(-2, 2) / 2, (112, 112), mode="bilinear")
    with torch.no_grad():
        encoded = theirs["quant_conv"](theirs["encoder"](_sized(image, 128)))
        got = ours.encode(image)
        book = theirs["quantize"]["embedding"].weight
        picked = book[torch.cdist(encoded.movedim(1, -1).double(), book.double()).argmin(-1)].movedim(-1, 1)
        picked = encoded + (picked - encoded)  # the straight-through sum of the public quantiser, for its rounding
        raw = theirs["decoder"](theirs["post_quant_conv"](picked))
        raw_difference = _differences("decode_unclamped", raw, ours.network.decode(encoded).sample)
        decoded, back = _sized(raw.clamp(-1, 1), 112), ours.decode(encoded)
    if show:
        logging.info("%s", json.dumps({"encoded": _pins(encoded), "decoded": _pins(decoded)}))
    return {"parameters": float(sum(p.numel() for p in theirs.parameters())), **_differences("encode", encoded, got), **raw_difference, **_differences("decode", decoded, back)}


def _imported(tensors: Mapping[str, Tensor], kind: str) -> FamilyUNet:
    """Write a checkpoint as the public trainers do, import it, load it."""
    with tempfile.TemporaryDirectory() as temporary:
        source, out = Path(temporary) / "model.ckpt", Path(temporary) / "denoiser.safetensors"
        torch.save({f"module.eps_model.{name}": tensor for name, tensor in tensors.items()} | {"module.betas": torch.zeros(1000)}, source)
        import_denoiser(source, kind, out)
        held, config, _ = load_weights(out, kind="denoiser")
        network = FamilyUNet(UNetConfig.parse(config))
        load_into(network, held, out)
    return network.eval()


def _differences(name: str, wanted: Tensor, got: Tensor) -> Report:
    largest = float((wanted - got).abs().max())
    return {f"{name}_max_abs": largest, f"{name}_relative": largest / float(wanted.abs().max()), f"{name}_scale": float(wanted.abs().max())}


def _pins(x: Tensor) -> list[float]:
    flat = x.flatten()
    return [round(float(value), 6) for value in flat[:: max(1, len(flat) // 8)][:8]]


def _sized(image: Tensor, side: int) -> Tensor:
    return nn.functional.interpolate(image, (side, side), mode="bilinear")


def _stand_ins() -> dict[str, ModuleType]:
    """Modules the public code imports for its training loop."""
    lightning, utilities = ModuleType("pytorch_lightning"), ModuleType("pytorch_lightning.utilities")
    utilities.rank_zero_only = lambda function: function
    return {"pytorch_lightning": lightning, "pytorch_lightning.utilities": utilities}


def main() -> None:
    """Run the cases whose folders were given; exit code 1 if one misses the goal."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("uiface", "idiffface", "ldm"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--published", action="store_true", help="also the published sizes")
    parser.add_argument("--pins", action="store_true", help="also print the numbers that tests/generators/test_published.py and test_vq.py hold")
    asked = parser.parse_args()
    reports = {}
    sizes = {"tiny": (TINY, 8, TINY_VQ)} | ({"published": (PUBLISHED, 32, PUBLISHED_VQ)} if asked.published else {})
    for size, (unet, side, vq) in sizes.items():
        for kind in ("uiface", "idiffface"):
            if folder := getattr(asked, kind):
                reports[f"{kind} {size}"] = unet_case(folder.resolve(), kind, unet, side, asked.pins)
                logging.info("%s %s: %s", kind, size, reports[f"{kind} {size}"])
        if asked.ldm:
            reports[f"vq-f4 {size}"] = vq_case(asked.ldm.resolve(), vq, asked.pins)
            logging.info("vq-f4 %s: %s", size, reports[f"vq-f4 {size}"])
    worst = max((value for report in reports.values() for name, value in report.items() if name.endswith("_relative")), default=None)
    if worst is None:
        parser.error("pass at least one of --uiface, --idiffface, --ldm")
    logging.info("largest difference relative to the output: %.2g (goal %.0e: %s)", worst, GOAL, "reached" if worst <= GOAL else "missed")
    sys.exit(worst > GOAL)


if __name__ == "__main__":
    main()
