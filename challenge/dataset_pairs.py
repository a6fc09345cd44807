"""The pairs every dataset folder of ours brings (pairs/validation.parquet), with their images: a recogniser scored on minted people it was not trained on.

Such a score says how the recogniser tells these made people apart; it is no substitute for real ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import UserError
from ..core.types import Embedder
from ..identity.dataset import FaceDataset
from ..identity.parquet import open_parquet
from ..identity.tables import PAIRS
from .embedding import embed_images
from .lfw import VerificationResult, measure_pairs
from .pair_lists import Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPairs:
    """Pairs of a dataset folder.

    Attributes:
        pairs: face ids ("000012/0003") in the place of paths.
        images: encoded image of every face named.
    """

    pairs: Pairs
    images: Mapping[str, bytes]

    def read(self, name: str) -> bytes:
        """Return an encoded image by its face id."""
        return self.images[name]


def read_dataset_pairs(folder: Path) -> DatasetPairs:
    """Read the pairs of a dataset folder and the images they name.

    Raises:
        UserError: no dataset folder, or one without pairs (fewer than four people with two images each).
    """
    dataset, path = FaceDataset.open(folder), folder / PAIRS
    if not path.is_file():
        raise UserError(f"{folder} brings no pairs ({PAIRS}): it has too few people with two images; mint more, or give a pair list")
    table = open_parquet(path).read()
    first, second = (table.column(name).to_pylist() for name in ("first", "second"))
    pairs = Pairs(paths=tuple(zip(first, second)), same_P=table.column("mated").to_numpy(), fold_P=table.column("fold").to_numpy().astype("int64"))
    wanted = set(pairs.images())
    images = {record.face_id: record.image for record in dataset.records() if record.face_id in wanted}
    lost = sorted(wanted - images.keys())
    if lost:
        raise UserError(f"{path} names {len(lost)} faces that are not in the dataset, e.g. {lost[0]}; the folder was changed after it was written: make it again")
    return DatasetPairs(pairs=pairs, images=images)


def score_dataset(embedder: Embedder, faces: DatasetPairs, *, flip: bool = True) -> VerificationResult:
    """Score the pairs of a dataset folder in its own folds."""
    found = embed_images(embedder, faces.pairs.images(), faces.read, flip=flip)
    return measure_pairs(found.pair_scores(faces.pairs.paths), faces.pairs, embedder.name, found)
