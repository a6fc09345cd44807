"""Restart of dead codebook rows: a row that no position chose for a while begins anew at an encoder output.

Not in GloTok; ordinary practice for short trainings (Dhariwal et al., "Jukebox", 2020, §3), [C], and switchable. Rows come from the step's own outputs, drawn
by a seed that the state holds: a resumed run restarts the same rows. Axes: M outputs, K rows, D numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.seeds import derive_seed


class RowRestart(nn.Module):
    """Counts the use of a book's rows and, every so many steps, restarts those that were not used.

    Args:
        rows: K.
        every: steps between two restarts.
        until: steps after which none is restarted any more; the last rows need time to learn.
    """

    def __init__(self, rows: int, *, every: int, until: int, seed: int) -> None:
        super().__init__()
        self._every, self._until, self._seed = every, until, seed
        self.register_buffer("used_K", torch.zeros(rows, dtype=torch.int64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, book: nn.Embedding, output_MD: Tensor, token_M: Tensor) -> int:
        """Note a step's tokens, restart where it is time, and return how many rows were."""
        self.used_K += _over_processes(torch.bincount(token_M, minlength=len(self.used_K)))
        self.step += 1
        if int(self.step) % self._every or int(self.step) > self._until:
            return 0
        dead_R = (self.used_K == 0).nonzero()[:, 0]
        self.used_K.zero_()
        draw = torch.Generator().manual_seed(derive_seed(self._seed, int(self.step), "restart"))
        chosen_R = torch.randint(len(output_MD), (len(dead_R),), generator=draw).to(output_MD.device)
        row_RD = _of_first_process(output_MD[chosen_R].contiguous())
        cosine = nn.utils.parametrize.is_parametrized(book)
        stored_KD = book.parametrizations.weight.original if cosine else book.weight
        # Only the direction of a cosine book's row counts, but the longer it is stored the slower it turns: keep the others' length.
        stored_KD[dead_R] = F.normalize(row_RD, dim=1) * stored_KD.norm(dim=1).median() if cosine else row_RD
        return len(dead_R)


def _over_processes(count_K: Tensor) -> Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count_K)
    return count_K


def _of_first_process(row_RD: Tensor) -> Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast(row_RD, 0)
    return row_RD
