"""One morphable head in one safetensors file; the bundled one is what everybody uses.

The first `exact` identity components are kept as float16 (they carry most of what is seen), the rest and the expressions as int8 rows
(core.quantise): errors of a coefficient of 1 stay under 0.004 of the largest displacement of its row.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.files import bundled
from ..core.progress import log
from ..core.quantise import quantise_rows
from ..core.weights import load_weights, save_tensors
from .morphable import MorphableHead

KIND = "morphable-head"
BUNDLED = "head-small.safetensors"

_WHOLE = {"triangle_T3": np.int32, "part_T": np.uint8, "landmark_68": np.int32, "eye_V": np.int8}
"""Arrays of whole numbers and the types they have in memory; on disk triangles are int16 where that is enough."""
_REAL = ("mean_V3", "uv_V2", "eye_centre_23")


def save_head(path: Path, head: MorphableHead, *, facts: dict[str, Any] | None = None, exact: int | None = None) -> None:
    """Write a head.

    Args:
        facts: provenance for people.
        exact: identity components kept as float16; None keeps everything as float32.
    """
    tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(head, name), np.float32)) for name in _REAL}
    tensors |= {name: torch.from_numpy(np.ascontiguousarray(getattr(head, name), dtype)) for name, dtype in _WHOLE.items()}
    if len(head.mean_V3) < 2**15:
        tensors["triangle_T3"] = tensors["triangle_T3"].to(torch.int16)
    tensors |= _bases(head, exact)
    config = {"name": head.name, "licence": head.licence, "expression_names": list(head.expression_names)}
    save_tensors(path, tensors, kind=KIND, config=config, facts=facts)


def load_head(path: Path) -> MorphableHead:
    """Read a head written by `save_head`.

    Raises:
        UserError: damaged, of another kind, or its parts do not fit together.
    """
    tensors, config, _ = load_weights(path, kind=KIND)
    try:
        count = len(tensors["mean_V3"])
        identity = torch.cat([tensors.pop("identity_exact"), tensors.pop("identity_rows")]).view(-1, count, 3)
        arrays = {name: tensors[name].numpy().astype(dtype) for name, dtype in _WHOLE.items()}
        head = MorphableHead(
            **{name: tensors[name].numpy() for name in _REAL},
            **arrays,
            identity_KV3=identity.numpy(),
            expression_EV3=tensors["expression"].view(-1, count, 3).numpy(),
            name=config["name"],
            licence=config["licence"],
            expression_names=tuple(config["expression_names"]),
        )
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path} does not hold a whole head ({error}); make it again with 'facefoundry head build'") from error
    return check_head(head, str(path))


def check_head(head: MorphableHead, source: str) -> MorphableHead:
    """Return the head if its arrays fit together.

    Raises:
        UserError: one does not; `source` and the array are named.
    """
    count, triangles = len(head.mean_V3), len(head.triangle_T3)
    wanted = {
        "mean_V3": (count, 3), "identity_KV3": (len(head.identity_KV3), count, 3), "expression_EV3": (len(head.expression_EV3), count, 3),
        "triangle_T3": (triangles, 3), "part_T": (triangles,), "uv_V2": (count, 2), "landmark_68": (68,), "eye_V": (count,), "eye_centre_23": (2, 3),
    }  # fmt: skip
    for name, shape in wanted.items():
        if getattr(head, name).shape != shape:
            raise UserError(f"{source}: {name} has shape {getattr(head, name).shape}, expected {shape}; the file is damaged or of another model")
    if head.triangle_T3.size and not 0 <= head.triangle_T3.min() <= head.triangle_T3.max() < count:
        raise UserError(f"{source}: triangles name vertices outside 0..{count - 1}; the file is damaged")
    if not 0 <= head.landmark_68.min() <= head.landmark_68.max() < count:
        raise UserError(f"{source}: landmarks name vertices outside 0..{count - 1}; the file is damaged")
    return head


@lru_cache(maxsize=1)
def default_head() -> MorphableHead:
    """Return the bundled head: MakeHuman's, CC0 1.0. Its arrays are shared: do not write into them."""
    head = load_head(bundled(BUNDLED))
    log.debug("head: %s, licence %s", head.name, head.licence)
    return head


def with_components(head: MorphableHead, components: int) -> MorphableHead:
    """Return the head with its first identity components only."""
    return replace(head, identity_KV3=head.identity_KV3[:components])


def _bases(head: MorphableHead, exact: int | None) -> dict[str, Tensor]:
    identity, expression = (torch.from_numpy(np.ascontiguousarray(basis, np.float32)).flatten(1) for basis in (head.identity_KV3, head.expression_EV3))
    if exact is None:
        return {"identity_exact": identity, "identity_rows": identity[:0], "expression": expression}
    return {"identity_exact": identity[:exact].half()} | quantise_rows({"identity_rows": identity[exact:].contiguous(), "expression": expression})
