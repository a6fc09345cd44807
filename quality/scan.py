"""One pass over the images of a data set, a batch at a time: embeddings, hashes, light; nothing of the images stays in memory.

What is kept of an image: its embedding (D x 4 bytes) and some 40 bytes. Axes: N images, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ..core.errors import UserError
from ..core.images import decode, to_float
from ..core.progress import bar
from ..core.seeds import numpy_rng
from ..core.types import Embedder
from ..identity.entries import EntrySource
from ..identity.parquet import parquet_shards
from ..identity.sources import decode_entries
from ..identity.trees import open_tree
from .groups import rows_by_identity
from .image_statistics import LIGHT, light_proxies, luminance, perceptual_hash

BATCH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a pass over the images leaves.

    Attributes:
        source: folder, zip or dataset folder.
        names: name of each image in the source; identities: the name of its identity.
        embed_ND: unit float32 rows. hash_N: perceptual hashes. light_NL: proxies in the order of `image_statistics.LIGHT`.
        failed: (name, reason) of what was left out.
    """

    source: Path
    names: tuple[str, ...]
    identities: tuple[str, ...]
    embed_ND: np.ndarray
    hash_N: np.ndarray
    light_NL: np.ndarray
    failed: tuple[tuple[str, str], ...]


def scan(path: Path | str, embedder: Embedder) -> Scan:
    """Read, embed and hash every face of a folder per identity, a zip of that, or a dataset folder (kept faces).

    Images that cannot be read, are not 112x112 or get an embedding that is not finite are left out with their reason.

    Raises:
        UserError: nothing there, or no usable face at all.
    """
    source = EntrySource(Path(path))
    embed_ND, hash_N, light_NL = np.empty((len(source), embedder.dim), np.float32), np.empty(len(source), np.uint64), np.empty((len(source), len(LIGHT)), np.float32)
    names: list[str] = []
    identities: list[str] = []
    failed: list[tuple[str, str]] = []
    faces, size = decode_entries(source), max(BATCH, getattr(embedder, "bulk", 0))
    with bar(f"embedding {source.path.name} ({embedder.name})", len(source)) as advance, torch.inference_mode():
        while batch := list(islice(faces, size)):
            sound = [(entry, face) for entry, face in batch if not isinstance(face, str)]
            failed += [(entry.path, face) for entry, face in batch if isinstance(face, str)]
            if sound:
                image_BCHW = to_float(np.stack([face for _, face in sound]))
                row_BD = embedder(image_BCHW).cpu().numpy()
                fine_B = np.isfinite(row_BD).all(axis=1)
                failed += [(entry.path, "its embedding is not finite") for (entry, _), fine in zip(sound, fine_B) if not fine]
                light_BHW = luminance(image_BCHW[torch.from_numpy(fine_B)])
                part = slice(len(names), len(names) + int(fine_B.sum()))
                embed_ND[part], hash_N[part], light_NL[part] = row_BD[fine_B], perceptual_hash(light_BHW), light_proxies(light_BHW)
                names += [entry.path for (entry, _), fine in zip(sound, fine_B) if fine]
                identities += [entry.identity for (entry, _), fine in zip(sound, fine_B) if fine]
            advance(len(batch))
    if not names:
        raise UserError(f"{source.path} holds no usable 112x112 face of a named identity" + (f"; first problem: {failed[0][0]}: {failed[0][1]}" if failed else ""))
    end = len(names)
    return Scan(source=source.path, names=tuple(names), identities=tuple(identities), embed_ND=embed_ND[:end], hash_N=hash_N[:end], light_NL=light_NL[:end], failed=tuple(failed))


def fetch(path: Path, names: Sequence[str]) -> np.ndarray:
    """Read some images of a source again by name, uint8 (n, 112, 112, 3), in the order asked for; a name may be asked for twice.

    Of Parquet every image passes by, but only the wanted ones are decoded.
    """
    wanted = set(names)
    held = {name: decode(data) for name, data in _encoded(Path(path), wanted)}
    lost = wanted - held.keys()
    if lost:
        raise UserError(f"{path} no longer holds {sorted(lost)[0]!r} ({len(lost)} images); it was changed while it was read, run again")
    return np.stack([held[name] for name in names]) if names else np.empty((0, 112, 112, 3), np.uint8)


def _encoded(path: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    if parquet_shards(path):
        with bar("fetching pictures", len(source := EntrySource(path))) as advance:
            for entry in source:
                if entry.path in wanted and entry.data is not None:
                    yield entry.path, entry.data
                advance(1)
        return
    with open_tree(path) as tree:
        for name in sorted(wanted):
            yield name, tree.read(name)


def drawn_rows(index_N: np.ndarray, *, images: int, per_identity: int, seed: int) -> list[np.ndarray]:
    """Rows of whole identities, at most `per_identity` of each, drawn by the seed until about `images` are together."""
    groups = rows_by_identity(index_N)
    drawn, total = [], 0
    for number in numpy_rng(seed, "feature sample").permutation(len(groups)):
        if total >= images:
            break
        drawn.append(groups[number][:per_identity])
        total += len(drawn[-1])
    return drawn
