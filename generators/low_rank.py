"""Low-rank adapters: a network that differs from a bundled one by small factors, so that it ships in a few hundred kilobytes.

Every matrix W (convolutions flattened to out × rest) becomes W₀ + B·A with A of `rank` rows (LoRA, Hu et al. 2022, eq. 3, without its factor α/r;
the idea of shipping a few-step sampler that way is LCM-LoRA, Luo et al. 2023). Biases, norms and the empty context are trained whole: they are small.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..core.errors import UserError

DOWN, UP = "low_rank.down", "low_rank.up"


class LowRank(nn.Module):
    """W₀ → W₀ + B·A; B starts at zero, so that training starts at the base network."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.down = nn.Parameter(torch.randn(rank, columns) * columns**-0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # bfloat16 would round away what an update of the factors adds
            return weight + (self.up @ self.down).view_as(weight)


def attach(network: nn.Module, rank: int) -> None:
    """Freeze every matrix of the network, in place, behind its factors; matrices that factors would not make smaller stay trainable."""
    for _, module in _matrices(network, rank):
        module.weight.requires_grad_(False)
        parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))


def factors(network: nn.Module) -> dict[str, Tensor]:
    """Return what training changed: "layer.low_rank.up" and "layer.low_rank.down" of each adapted layer, and the small tensors whole."""
    found = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            found[name.replace("parametrizations.weight.0.", "low_rank.")] = parameter.detach()
    return found


@torch.no_grad()
def merge(network: nn.Module, held: dict[str, Tensor]) -> None:
    """Add the products of the factors to the matrices of a plain network and put the small tensors in their place.

    Raises:
        UserError: the factors are of another network (names or shapes).
    """
    parameters = dict(network.named_parameters())
    for name, tensor in held.items():
        if name.endswith(DOWN):
            continue
        layer = name.removesuffix(UP)
        goal = parameters.get(f"{layer}weight" if name.endswith(UP) else name)
        value = tensor @ held[layer + DOWN] if name.endswith(UP) and layer + DOWN in held else tensor
        if goal is None or goal.numel() != value.numel() or len(goal) != len(value):
            raise UserError(f"the adapter's '{name}' has no fitting place in the base network; use the base it was trained on")
        if name.endswith(UP):
            goal.add_(value.view_as(goal))
        else:
            goal.copy_(value.view_as(goal))


def _matrices(network: nn.Module, rank: int) -> list[tuple[str, nn.Module]]:
    found = []
    for name, module in network.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            rows, columns = module.weight.flatten(1).shape
            if rank * (rows + columns) < rows * columns:
                found.append((name, module))
    return found
