"""Refill: replacements for images that failed or were set aside, in rounds, until every identity has its count or the rounds are over.

Round 0 is the job's own images. In round r a slot (identity, image) that holds no kept image is minted again as image `image + r * per_identity`, so its
seed follows from the original index and the round. After every round ALL images are judged together: which slots are empty is a function of the plan and
of the images so far, never of workers or kills. The list of a round is written before it begins; whoever comes later reads it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..core.files import write_json
from .plan import Plan, Shard
from .shards import Stage
from .store import StoreStage, store_of

Addresses = list[tuple[int, int]]
"""(identity, image) of the images of a shard, in order."""


def stage_of(folder: Path, kind: str, number: int, lease_s: float = 30.0) -> Stage:
    """Return the stage "generate" or "embed" of a round."""
    name, store = kind if number == 0 else f"{kind}-{number}", store_of(folder)
    return Stage(root=folder, name=name, lease_s=lease_s) if store is None else StoreStage(root=folder, name=name, lease_s=lease_s, store=store)


def rounds(folder: Path, plan: Plan) -> list[int]:
    """Return the rounds whose list stands, 0 among them; a round without replacements does not count."""
    found = [0]
    while found[-1] < plan.spec.refill and list_path(folder, found[-1] + 1).is_file() and _lists(folder, found[-1] + 1):
        found.append(found[-1] + 1)
    return found


def is_listed(folder: Path, number: int) -> bool:
    """Return whether the list of a round was written."""
    return number == 0 or list_path(folder, number).is_file()


def shards_in(folder: Path, plan: Plan, number: int) -> list[Shard]:
    """Return the shards that have images in a round."""
    if number == 0:
        return list(plan.shards)
    listed = _lists(folder, number)
    return [shard for shard in plan.shards if str(shard.id) in listed]


def addresses(folder: Path, plan: Plan, shard: Shard, number: int = 0) -> Addresses:
    """Return (identity, image) of every image of a shard in a round, in order."""
    if number:
        return [(identity, image) for identity, image in _lists(folder, number)[str(shard.id)]]
    identities = range(shard.first_identity, shard.first_identity + shard.identities)
    return [(identity, image) for identity in identities for image in range(plan.spec.per_identity)]


def counts(folder: Path, plan: Plan, number: int) -> dict[int, int]:
    """Return how many images each shard has in a round."""
    if number == 0:
        return {shard.id: shard.identities * plan.spec.per_identity for shard in plan.shards}
    return {int(shard): len(rows) for shard, rows in _lists(folder, number).items()}


def write_list(folder: Path, plan: Plan, number: int, *, identity_N: np.ndarray, image_N: np.ndarray, kept_N: np.ndarray, refused: frozenset[int]) -> None:
    """Write the list of a round from the judgement of all rounds before it.

    Args:
        identity_N, image_N: addresses of every image there is; kept_N: which of them are kept.
        refused: identities that are set aside as such; no image would help them.
    """
    made = replacements(plan, number, identity_N=identity_N, image_N=image_N, kept_N=kept_N, refused=refused)
    write_json(list_path(folder, number), {"round": number, "shards": made})


def replacements(plan: Plan, number: int, *, identity_N: np.ndarray, image_N: np.ndarray, kept_N: np.ndarray, refused: frozenset[int]) -> Mapping[str, Sequence[tuple[int, int]]]:
    """Return the addresses of a round by shard: for each identity its first empty slots, as many as it lacks."""
    per_identity, total = plan.spec.per_identity, plan.spec.identities.count
    filled_IK = np.zeros((total, per_identity), bool)
    filled_IK[identity_N[kept_N], image_N[kept_N] % per_identity] = True
    lacking_I = per_identity - np.bincount(identity_N[kept_N], minlength=total)
    found: dict[str, list[tuple[int, int]]] = {}
    for shard in plan.shards:
        rows = [
            (identity, int(slot) + number * per_identity)
            for identity in range(shard.first_identity, shard.first_identity + shard.identities)
            if lacking_I[identity] > 0 and identity not in refused
            for slot in np.flatnonzero(~filled_IK[identity])[: lacking_I[identity]]
        ]
        if rows:
            found[str(shard.id)] = rows
    return found


def list_path(folder: Path, number: int) -> Path:
    """Where the list of a round stands."""
    return folder / "job" / "refill" / f"{number}.json"


def _lists(folder: Path, number: int) -> dict[str, list[list[int]]]:
    path = list_path(folder, number)
    return _read(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(path: Path, time_ns: int) -> dict[str, list[list[int]]]:
    return json.loads(path.read_bytes())["shards"]  # asked for by every shard; a list is written once and never changed
