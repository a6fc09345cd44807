"""Two processes with half a batch each get the loss, state and gradient of one process with the whole (checklist 3, 4, 7; E2.4)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from gloo_pair import run_pair
from torch import nn

from facefoundry.recognition.adaface import AdaFace
from facefoundry.recognition.cifp import CIFP
from facefoundry.recognition.curricularface import CurricularFace
from facefoundry.recognition.ddl import DdlLossConfig, ddl_of_embeddings
from facefoundry.recognition.ekd import Ekd, EkdConfig
from facefoundry.recognition.gather import gather_rows, sum_over_processes
from facefoundry.recognition.heads import ClassCentres, margin_loss


class Case(nn.Module):
    """A linear network under one loss; forward(row_BX, other_BX, label_B) → loss."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network, self.kind = nn.Linear(6, 5), kind
        self.centres = ClassCentres(9, 5)
        heads = {"cifp": CIFP, "cifp-paper": lambda: CIFP(mode="paper", far=0.2), "adaface": AdaFace, "curricularface": CurricularFace}
        self.head = heads[kind]() if kind in heads else None
        self.ekd = Ekd(EkdConfig(compat="compat" in kind, positive=1, negative=1, tau=0.2)) if "ekd" in kind else None

    def forward(self, row_BX: torch.Tensor, other_BX: torch.Tensor, label_B: torch.Tensor) -> torch.Tensor:
        raw_BD = self.network(row_BX)
        if self.head is not None:
            return margin_loss(self.head, self.centres, raw_BD, label_B)["loss"]
        if self.ekd is not None:
            return self.ekd(raw_BD, other_BX, label_B)["loss"] + 0 * self.centres.weight.sum()
        hard_BD = self.network(other_BX)
        return ddl_of_embeddings([raw_BD, hard_BD], DdlLossConfig(compat="compat" in self.kind))["loss"] + 0 * self.centres.weight.sum()


KINDS = ("cifp", "cifp-paper", "adaface", "curricularface", "ddl", "ddl-compat", "ekd", "ekd-compat")


def results(rank: int, world: int) -> dict[str, Any]:
    """Gradient, buffers and mean loss of every case on this process's share of 16 rows."""
    generator = torch.Generator().manual_seed(7)
    row, other, label = torch.randn(16, 6, generator=generator), torch.randn(16, 6, generator=generator), torch.arange(16) // 2
    other = row + 0.7 * other
    row[1::2] = row[::2] + 0.3 * row[1::2]
    mine = slice(rank * 16 // world, (rank + 1) * 16 // world)
    found = {}
    for kind in KINDS:
        case = Case(kind)
        trained = nn.parallel.DistributedDataParallel(case) if world > 1 else case
        loss = trained(row[mine], other[mine], label[mine])
        loss.backward()
        held = {name: value.double() for name, value in case.state_dict().items() if name not in dict(case.named_parameters())}
        found[kind] = {"loss": sum_over_processes(loss) / world, "network": case.network.weight.grad, "centres": case.centres.weight.grad, **held}
    return found


of_process = results


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> list[dict]:
    return run_pair(__file__, tmp_path_factory.mktemp("gloo"))


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch without gloo")
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_are_one(kind, shared):
    alone = results(0, 1)[kind]
    for rank in range(2):
        for name, value in shared[rank][kind].items():
            # The released DDL and EKD weigh their loss by the number of processes; asked for, they do here.
            factor = 2.0 if kind.endswith("compat") and name == "network" else 1.0
            wanted = alone[name].to(value.dtype) * factor
            assert torch.allclose(value, wanted, atol=1e-5 * max(1.0, float(wanted.abs().max()))), (name, value, wanted)
    assert float(alone["network"].abs().max()) > 1e-4, "an example without a gradient shows nothing"


def test_one_process_needs_no_group():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_rows(rows) is rows and torch.equal(sum_over_processes(rows), rows)
