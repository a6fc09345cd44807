"""The small tables beside the faces: one row an identity, and a bounded list of pairs for verification.

    metadata/identities.parquet   configuration "identities"
    pairs/validation.parquet      configuration "pairs", absent where no mated or no non-mated pair can be made

Both are functions of the rows alone: the same shards give the same tables.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..core.files import write_atomic

IDENTITIES, PAIRS = "metadata/identities.parquet", "pairs/validation.parquet"

FOLDS, PAIRS_A_FOLD, ROWS_A_FOLD, ROWS_A_PERSON = 10, 300, 400, 16
"""At most 10 folds of 300 mated and 300 non-mated pairs, like LFW's; drawn from 400 images a fold and 16 a person."""

_ROW_GROUP = 2048


def write_tables(folder: Path, kept: pa.Table, rejected: pa.Table) -> list[Path]:
    """Write both tables of a dataset folder; columns of an identities table that is there already are kept beside ours.

    Args:
        kept, rejected: the rows of the two parts without their images, as `FaceDataset.table`.

    Returns:
        The files written.
    """
    identities, pairs = identity_table(kept, rejected, held=_held(folder / IDENTITIES)), pair_table(kept)
    if not len(pairs):
        (folder / PAIRS).unlink(missing_ok=True)
    written = {IDENTITIES: identities, **({PAIRS: pairs} if len(pairs) else {})}
    for name, table in written.items():
        _write(folder / name, table)
    return [folder / name for name in written]


def identity_table(kept: pa.Table, rejected: pa.Table, *, held: pa.Table | None = None) -> pa.Table:
    """Return one row an identity: number, images kept and rejected, mean and least of each score over its kept images, anchor.

    Args:
        held: a table with a column `identity`; its other columns are joined, ours win.
    """
    numbers_I = np.unique(np.concatenate([part.column("identity").to_numpy() for part in (kept, rejected)]))
    numbers_I = numbers_I[numbers_I >= 0]
    counts = [_count(part, numbers_I) for part in (kept, rejected)]
    columns = {"identity": pa.array(numbers_I, pa.int32()), "kept": pa.array(counts[0], pa.int32()), "rejected": pa.array(counts[1], pa.int32())}
    columns |= _score_columns(kept, numbers_I) | _anchor_column(kept, numbers_I)
    if held is not None and "identity" in held.column_names:
        place = pc.index_in(columns["identity"], value_set=held.column("identity").cast(pa.int32()).combine_chunks())
        columns |= {name: held.column(name).take(place) for name in held.column_names if name not in columns and not name.startswith(("mean_", "least_"))}
    return pa.table(columns)


def pair_table(kept: pa.Table, *, seed: int = 0) -> pa.Table:
    """Return pairs of face ids: `first`, `second`, `mated` (one identity) and `fold`.

    Nobody is in two folds, no pair comes twice, and each fold holds as many mated as non-mated pairs, at most PAIRS_A_FOLD of each. Empty where
    that cannot be.
    """
    rng, identity_N = np.random.default_rng(seed), kept.column("identity").to_numpy()
    people = rng.permutation(np.unique(identity_N))
    parts = [_fold(rng, identity_N, people[fold :: min(FOLDS, len(people) // 2)]) for fold in range(min(FOLDS, len(people) // 2))]
    first_P, second_P = (np.concatenate([np.empty(0, np.int64), *(part[side] for part in parts)]) for side in (0, 1))
    names = kept.column("face_id").combine_chunks()
    return pa.table(
        {
            "first": names.take(pa.array(first_P)), "second": names.take(pa.array(second_P)), "mated": identity_N[first_P] == identity_N[second_P],
            "fold": pa.array(np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts]), pa.int32()),
        }  # fmt: skip
    )


def _fold(rng: np.random.Generator, identity_N: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (first, second) of the pairs among some people, the mated ones first."""
    chosen: list[np.ndarray] = []
    for person in people:
        rows = np.flatnonzero(identity_N == person)
        chosen.append(np.sort(rng.permutation(rows)[:ROWS_A_PERSON]))
        if sum(map(len, chosen)) >= ROWS_A_FOLD:
            break
    rows_N = np.concatenate(chosen)
    left, right = np.triu_indices(len(rows_N), k=1)
    mated_P = identity_N[rows_N[left]] == identity_N[rows_N[right]]
    count = min(PAIRS_A_FOLD, int(mated_P.sum()), int((~mated_P).sum()))
    drawn = [np.sort(rng.choice(np.flatnonzero(which), count, replace=False)) for which in (mated_P, ~mated_P)]
    taken = np.concatenate(drawn)
    return rows_N[left[taken]], rows_N[right[taken]]


def _count(part: pa.Table, numbers_I: np.ndarray) -> np.ndarray:
    identity_N = part.column("identity").to_numpy()
    return np.bincount(np.searchsorted(numbers_I, identity_N[identity_N >= 0]), minlength=len(numbers_I))


def _score_columns(kept: pa.Table, numbers_I: np.ndarray) -> dict[str, pa.Array]:
    """Return mean and least of every score by identity; null where an identity has none."""
    lists = kept.column("scores").combine_chunks()
    row_S, flat = pc.list_parent_indices(lists).to_numpy(), pc.list_flatten(lists)
    name_S, value_S = np.asarray(flat.field("name").to_pylist(), object), flat.field("value").to_numpy(zero_copy_only=False)
    place_S = np.searchsorted(numbers_I, kept.column("identity").to_numpy()[row_S])
    columns = {}
    for name in sorted(set(name_S)):
        place, value = place_S[name_S == name], value_S[name_S == name].astype(np.float64)
        count, least = np.bincount(place, minlength=len(numbers_I)), np.full(len(numbers_I), np.inf)
        np.minimum.at(least, place, value)
        mean = np.bincount(place, weights=value, minlength=len(numbers_I)) / np.maximum(count, 1)
        columns[f"mean_{name}"], columns[f"least_{name}"] = (pa.array(each, pa.float32(), mask=count == 0) for each in (mean, least))
    return columns


def _anchor_column(kept: pa.Table, numbers_I: np.ndarray) -> dict[str, pa.Array]:
    """Return the anchor of every identity (that of its first kept image); no column where no row has one."""
    anchors = kept.column("anchor").combine_chunks()
    if anchors.null_count == len(anchors):
        return {}
    found, first = np.unique(kept.column("identity").to_numpy(), return_index=True)
    place = pc.index_in(pa.array(numbers_I), value_set=pa.array(found))
    return {"anchor": anchors.take(pa.array(first).take(place))}


def _held(path: Path) -> pa.Table | None:
    """Return the identities table that is there, if it can be read; what cannot is written again."""
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        return None


def _write(path: Path, table: pa.Table) -> None:
    write_atomic(path, lambda temporary: pq.write_table(table, temporary, row_group_size=_ROW_GROUP, compression="none", write_page_index=True))
