"""Published recognisers, read into our networks: what arcface_torch, CVLface, AdaFace, TFace and CurricularFace write.

The network is found from names and shapes: blocks of each stage, width, squeeze-and-excitation, which normalisations there are. Wrappers come off the names
and every tensor must then find its place. Networks trained on BGR get the colour planes of their first convolution turned round: ours all take RGB.
Vision transformers, IR-152/200 with bottleneck blocks and other families are refused by name of what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.checkpoints import Source, listed, matched, read_tensors, source_facts
from ..core.errors import UserError, near_names
from ..core.weights import save_tensors
from .backbones import BACKBONES, BackboneConfig
from .checkpoint import KIND
from .ir import ImprovedResNet
from .mobilefacenet import MobileFaceNet

WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "_forward_module.")
"""Prefixes that say how a network was wrapped when it was saved (DDP, compile, Lightning, CVLface, Fabric)."""

Names = Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """One public trainer.

    Attributes:
        names: the layouts of names it writes, for `LAYOUTS`.
        bgr: its networks see blue first.
    """

    source: Source
    names: tuple[str, ...]
    bgr: bool = False


def _of(project: str, licence: str, note: str) -> Source:
    return Source(project=f"https://github.com/{project}", licence=f"{licence}; weights trained on web-collected faces, research use", note=note)


PUBLISHERS = {
    "arcface_torch": Publisher(source=_of("deepinsight/insightface", "MIT (code), non-commercial research (models)", "RGB; straight-through ArcFace or CosFace margin"), names=("iresnet", "mbf")),
    "cvlface": Publisher(source=_of("mk-minchul/CVLface", "MIT (code)", "RGB; color_space in the model's own yaml says otherwise where it is BGR"), names=("ir", "iresnet")),
    "adaface": Publisher(source=_of("mk-minchul/AdaFace", "MIT (code)", "trained on BGR; colour planes of the first convolution turned round"), names=("ir",), bgr=True),
    "tface": Publisher(source=_of("Tencent/TFace", "Apache-2.0 (code)", "RGB"), names=("ir", "tface-mobile")),
    "curricularface": Publisher(source=_of("HuangYG123/CurricularFace", "MIT (code)", "RGB; blocks without the middle normalisation"), names=("ir",)),
}


def import_recogniser(path: Path, kind: str, out: Path, *, bgr: bool | None = None) -> dict[str, Any]:
    """Read a published recogniser, write it as a file that `load_embedder` takes, and return its facts.

    Args:
        kind: key in `PUBLISHERS`.
        bgr: whether the network was trained on BGR; None = what is usual for the kind.

    Raises:
        UserError: an unknown kind; a file that is no plain state dict; names or shapes that are no network of ours (named).
    """
    if kind not in PUBLISHERS:
        raise UserError(f"unknown kind of weights '{kind}'; {near_names(kind, PUBLISHERS)}")
    publisher = PUBLISHERS[kind]
    held = read_tensors(path, wrappers=WRAPPERS)
    # AdaFace's Lightning files hold the training's class centres and statistics beside the network.
    tensors = {name: tensor for name, tensor in held.items() if not name.startswith("head.")}
    layout = next((LAYOUTS[name] for name in publisher.names if LAYOUTS[name].sign in tensors), None)
    if layout is None:
        signs = " or ".join(LAYOUTS[name].sign for name in publisher.names)
        raise UserError(f"{path} is no network of {kind} that we have: expected a tensor {signs}; it begins with {listed(sorted(tensors))}. ViT and other families are not here: export them to ONNX and use onnx:FILE")
    config = layout.config(tensors, path)
    with torch.device("meta"):
        network = config.build()
    names = {name: layout.rename(network, name) for name in network.state_dict()}
    for theirs in names.values():  # counters that old versions of torch did not store
        if theirs.endswith("num_batches_tracked"):
            tensors.setdefault(theirs, torch.zeros((), dtype=torch.long))
    converted = matched(network, tensors, names.__getitem__, path)
    turned = publisher.bgr if bgr is None else bgr
    if turned:
        converted["stem.0.weight" if "stem.0.weight" in converted else "stem.0.0.weight"] = _stem(converted).flip(1).contiguous()
    facts = {**source_facts(kind, [path], publisher.source), "network": config.name, "parameters": sum(t.numel() for t in converted.values()), "colours_turned": turned}
    save_tensors(out, converted, kind=KIND, config=config.model_dump(mode="json"), facts=facts)
    return facts


def _stem(tensors: Mapping[str, Tensor]) -> Tensor:
    return tensors["stem.0.weight"] if "stem.0.weight" in tensors else tensors["stem.0.0.weight"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a trainer names the parts of a network.

    Attributes:
        sign: the tensor by which the layout is known: the first convolution.
        project: the last linear layer's weight; its rows are the embedding.
        norm: the last normalisation.
        config: (tensors, path) → settings of the network.
        rename: (network, our name) → their name.
    """

    sign: str
    project: str
    norm: str
    blocks: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    rename: Callable[[Any, str], str]

    def config(self, tensors: Mapping[str, Tensor], path: Path) -> BackboneConfig:
        """Return the settings of the network that has these tensors.

        Raises:
            UserError: no network of ours has such blocks.
        """
        if self.project not in tensors:
            raise UserError(f"{path} lacks {self.project}, the layer that makes the embedding; expected the whole backbone")
        traits = self.blocks(tensors)
        family = traits.pop("family")
        for name in BACKBONES:
            cls = BACKBONES[name]
            if issubclass(cls, family) and all(getattr(cls, trait) == value for trait, value in traits.items()):
                width = tensors[self.sign].shape[0] / (64.0 * getattr(cls, "wider", 1))
                return BackboneConfig(name=name, embed_dim=tensors[self.project].shape[0], width=width, affine=f"{self.norm}.weight" in tensors)
        raise UserError(f"{path}: no network of ours has {', '.join(f'{trait} {value}' for trait, value in traits.items())}; export it to ONNX and use onnx:FILE")


def _units(stages: list[int]) -> tuple[int, ...]:
    """Blocks of each stage, from each block's number of channels."""
    return tuple(stages.count(channels) for channels in dict.fromkeys(stages))


def _numbered(tensors: Mapping[str, Tensor], pattern: str) -> list[str]:
    """Names that match, in the order of their first number."""
    found = {int(hit[1]): name for name in tensors if (hit := re.fullmatch(pattern, name))}
    return [found[number] for number in sorted(found)]


def _ir_traits(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    # The second convolution of a block is its last one: place 4 with a middle normalisation, 3 without.
    middle = any(re.fullmatch(r"body\.\d+\.res_layer\.2\.running_mean", name) for name in tensors)
    last = _numbered(tensors, rf"body\.(\d+)\.res_layer\.{4 if middle else 3}\.weight")
    squeeze = any(name.endswith("fc1.weight") for name in tensors)
    return {"family": ImprovedResNet, "units": _units([tensors[name].shape[0] for name in last]), "squeeze": squeeze, "middle_norm": middle, "pooled": True}


def _ir_name(network: Any, name: str) -> str:
    place = "se_block" if network.middle_norm else "5"
    for ours, theirs in (
        (r"^stem\.", "input_layer."), (r"^blocks\.(\d+)\.path\.(?:5|6)\.(fc[12])\.", rf"body.\1.res_layer.{place}.\2."), (r"^blocks\.(\d+)\.path\.", r"body.\1.res_layer."),
        (r"^blocks\.(\d+)\.shortcut\.", r"body.\1.shortcut_layer."), (r"^last\.0\.", "output_layer.0."), (r"^project\.", "output_layer.3."), (r"^norm\.", "output_layer.4."),
    ):  # fmt: skip
        name = re.sub(ours, theirs, name)
    return name


def _iresnet_traits(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    units = tuple(len(_numbered(tensors, rf"layer{stage}\.(\d+)\.conv1\.weight")) for stage in range(1, 5))
    return {"family": ImprovedResNet, "units": units, "squeeze": False, "middle_norm": True, "pooled": False}


def _iresnet_name(network: Any, name: str) -> str:
    def block(hit: re.Match[str]) -> str:
        number, stage = int(hit[1]), 0
        while number >= network.units[stage]:
            number, stage = number - network.units[stage], stage + 1
        return f"layer{stage + 1}.{number}."

    name = re.sub(r"^blocks\.(\d+)\.", block, name)
    parts = {"path.0.": "bn1.", "path.1.": "conv1.", "path.2.": "bn2.", "path.3.": "prelu.", "path.4.": "conv2.", "path.5.": "bn3.", "shortcut.": "downsample."}
    for ours, theirs in parts.items():
        name = name.replace(ours, theirs)
    for ours, theirs in ((r"^stem\.0\.", "conv1."), (r"^stem\.1\.", "bn1."), (r"^stem\.2\.", "prelu."), (r"^last\.0\.", "bn2."), (r"^project\.", "fc."), (r"^norm\.", "features.")):
        name = re.sub(ours, theirs, name)
    return name


def _mbf_traits(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    repeats = tuple(len(_numbered(tensors, rf"layers\.{place}\.layers\.(\d+)\.layers\.0\.layers\.0\.weight")) for place in (3, 5, 7))
    return {"family": MobileFaceNet, "repeats": repeats, "wider": 2 if "layers.1.layers.1.weight" in tensors else 4}


def _mobile_place(network: Any, number: int) -> tuple[int, int | None]:
    """Place of one of our flat blocks: which of the six groups, and which residual block in it (None in a group of one)."""
    for stage, repeats in enumerate(network.repeats):
        if number == 0:
            return 2 * stage, None
        if number <= repeats:
            return 2 * stage + 1, number - 1
        number -= 1 + repeats
    raise IndexError(number)


def _mbf_name(network: Any, name: str) -> str:
    def block(hit: re.Match[str]) -> str:
        group, within = _mobile_place(network, int(hit[1]))
        return f"layers.{group + 2}." + (f"layers.{within}." if within is not None else "")

    name = re.sub(r"^blocks\.(\d+)\.", block, name)
    name = re.sub(r"^stem\.1\.(\d+)\.path\.", r"layers.1.layers.\1.path.", name)
    name = re.sub(r"path\.(\d)\.", r"layers.\1.layers.", name)
    for ours, theirs in ((r"^stem\.", "layers."), (r"^spread\.", "conv_sep.layers."), (r"^gather\.", "features.layers.0.layers."), (r"^project\.", "features.layers.2."), (r"^norm\.", "features.layers.3.")):
        name = re.sub(ours, theirs, name)
    return re.sub(r"^layers\.([01])\.(\d)\.", r"layers.\1.layers.\2.", name)


def _tface_mobile_traits(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    repeats = tuple(len(_numbered(tensors, rf"conv_{place}\.model\.(\d+)\.conv\.conv\.weight")) for place in (3, 4, 5))
    return {"family": MobileFaceNet, "repeats": repeats, "wider": 1}


def _tface_mobile_name(network: Any, name: str) -> str:
    def block(hit: re.Match[str]) -> str:
        group, within = _mobile_place(network, int(hit[1]))
        return ("conv_23.", "conv_3.", "conv_34.", "conv_4.", "conv_45.", "conv_5.")[group] + (f"model.{within}." if within is not None else "")

    name = re.sub(r"^blocks\.(\d+)\.", block, name)
    for ours, theirs in (
        (r"^stem\.0\.", "conv1."), (r"^stem\.1\.", "conv2_dw."), (r"^spread\.", "conv_6_sep."), (r"^gather\.", "output_layer.conv_6_dw."), (r"^project\.", "output_layer.linear."),
        (r"^norm\.", "output_layer.bn."), (r"path\.0\.", "conv."), (r"path\.1\.", "conv_dw."), (r"path\.2\.", "project."),
    ):  # fmt: skip
        name = re.sub(ours, theirs, name)
    # Places within a unit stand before the last part of a name; a residual block's own number stands earlier and stays.
    return re.sub(r"\.([012])\.(?=[a-z_]+$)", lambda hit: f".{('conv', 'bn', 'prelu')[int(hit[1])]}.", name)


LAYOUTS = {
    "ir": Layout(sign="input_layer.0.weight", project="output_layer.3.weight", norm="output_layer.4", blocks=_ir_traits, rename=_ir_name),
    "iresnet": Layout(sign="conv1.weight", project="fc.weight", norm="features", blocks=_iresnet_traits, rename=_iresnet_name),
    "mbf": Layout(sign="layers.0.layers.0.weight", project="features.layers.2.weight", norm="features.layers.3", blocks=_mbf_traits, rename=_mbf_name),
    "tface-mobile": Layout(sign="conv1.conv.weight", project="output_layer.linear.weight", norm="output_layer.bn", blocks=_tface_mobile_traits, rename=_tface_mobile_name),
}
"""What the trainers' names look like: TFace, CVLface, AdaFace and CurricularFace; insightface; insightface's mbf; TFace's MobileFaceNet."""
