"""Real and fake faces brought to one codec, size and crop, so that only the pixels' content tells them apart.

Faces come as aligned 112×112 crops (`facefoundry ingest` aligns others). A lossless picture gets the compression that a picture of the other class has behind it;
then all pass the same last encoding. What a classifier reads from the columns alone (`metadata_accuracy`) is measured, and must be a coin's 50 %.
Axes: N images.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, JpegImagePlugin
from pydantic import Field

from ...core.config import Config
from ...core.errors import UserError
from ...core.progress import bar, log
from ...core.seeds import numpy_rng
from ...identity.entries import EntrySource
from ...identity.sources import SIDE, decode_entries
from .wear import jpeg


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file tells without its pixels: the columns that a metadata-only classifier reads.

    Attributes:
        codec: of the last lossy compression, or "lossless".
        quality: JPEG's, 1 to 100, the nearest of the standard tables; 0 = lossless or unknown.
        subsampling: as Pillow counts it (2 = 4:2:0); -1 = none.
        width_px, height_px: of the picture.
    """

    codec: str
    quality: int
    subsampling: int
    width_px: int
    height_px: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One source of faces: its name, whether they are fake, uint8 (N, 112, 112, 3), their files' facts, who they show, and their names."""

    name: str
    fake: bool
    image_NHWC: np.ndarray
    facts: tuple[FileFacts, ...]
    people: tuple[str, ...]
    paths: tuple[str, ...]


class MatchConfig(Config):
    """How both classes are brought to one pipeline.

    Attributes:
        history: give lossless pictures a compression drawn from the other class's.
        codec, quality: the last encoding of all; "none" = no further one.
        most_metadata_accuracy: above this the training refuses the data.
        seed: of the draws.
    """

    history: bool = True
    codec: Literal["none", "jpeg"] = "none"
    quality: int = Field(92, ge=1, le=100)
    most_metadata_accuracy: float = Field(0.55, ge=0.5, le=1.0)
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Faces of several sources behind one pipeline.

    Attributes:
        image_NHWC: uint8.
        source_N: index into `sources`.
        sources: name of each source and whether it is fake.
        facts: of each picture after the pipeline.
        people, paths: whom it shows, its name in its source.
    """

    image_NHWC: np.ndarray
    source_N: np.ndarray
    sources: tuple[tuple[str, bool], ...]
    facts: tuple[FileFacts, ...]
    people: tuple[str, ...]
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.source_N)

    @cached_property
    def fake_N(self) -> np.ndarray:
        """Whether each is fake, bool."""
        return np.array([fake for _, fake in self.sources])[self.source_N]

    def rows_of(self, name: str) -> np.ndarray:
        """Row numbers of a source."""
        return np.flatnonzero(self.source_N == [known for known, _ in self.sources].index(name))


def read_part(path: Path | str, name: str, *, fake: bool, most: int = 0, seed: int = 0) -> Part:
    """Read a folder per identity, a zip of that, a dataset folder or a .rec file.

    Args:
        most: read so many files, drawn by `seed`; 0 = all.

    Raises:
        UserError: nothing there, or no usable face.
    """
    source, rows, failed = EntrySource(Path(path)), [], []
    # Drawn before anything is decoded: a tenth of a large set costs a tenth.
    kept = set(numpy_rng(seed, "aigi", name).permutation(len(source))[:most].tolist() if most else range(len(source)))
    with bar(f"reading {name}", len(kept)) as step:
        for entry, face in decode_entries(entry for number, entry in enumerate(source) if number in kept):
            if isinstance(face, str) or entry.data is None:
                failed.append(f"{entry.path}: {face}")
            else:
                rows.append((face, file_facts(entry.data), entry.identity, entry.path))
            step(1)
    if not rows:
        raise UserError(f"{path} holds no usable {SIDE}x{SIDE} face" + (f"; first problem: {failed[0]}" if failed else ""))
    if failed:
        log.warning("%s: %d of %d files left out, first: %s", path, len(failed), len(failed) + len(rows), failed[0])
    images, facts, people, paths = zip(*rows)
    return Part(name=name, fake=fake, image_NHWC=np.stack(images), facts=facts, people=people, paths=paths)


def split_people(part: Part, share: float, seed: int = 0) -> tuple[Part, Part]:
    """Return a part as two of different people, `share` of the people in the first."""
    names = np.unique(np.array(part.people))
    first = set(numpy_rng(seed, "people", part.name).permutation(names)[: round(share * len(names))].tolist())
    inside_N = np.array([who in first for who in part.people])
    return _taken(part, np.flatnonzero(inside_N)), _taken(part, np.flatnonzero(~inside_N))


def sample(part: Part, count: int, seed: int = 0) -> Part:
    """Return `count` of a part's faces, drawn by the seed; all where there are fewer."""
    return _taken(part, np.sort(numpy_rng(seed, "sample", part.name).permutation(len(part.people))[:count]))


def file_facts(data: bytes) -> FileFacts:
    """Return the facts of an encoded picture from its header."""
    with Image.open(io.BytesIO(data)) as picture:
        width, height = picture.size
        if picture.format == "JPEG":
            return FileFacts("jpeg", jpeg_quality(picture.quantization), JpegImagePlugin.get_sampling(picture), width, height)
        codec = "lossless" if picture.format in ("PNG", "BMP", "TIFF", "PPM", "GIF") else str(picture.format).lower()
        return FileFacts(codec, 0, -1, width, height)


def jpeg_quality(tables: dict[int, Sequence[int]]) -> int:
    """Return the quality whose standard luminance table is nearest (mean absolute difference), 1 to 100."""
    table = np.asarray(tables[0], float)
    return 1 + int(np.argmin([np.abs(np.asarray(standard, float) - table).mean() for standard in _standard_tables()]))


def matched(parts: Sequence[Part], config: MatchConfig) -> Pictures:
    """Bring the parts to one pipeline, in the order given.

    Raises:
        UserError: one of the two classes is missing, or a name is there twice.
    """
    names = [part.name for part in parts]
    if {part.fake for part in parts} != {False, True}:
        raise UserError("real and fake faces are needed; pass at least one --real and one --fake")
    if len(set(names)) < len(names):
        raise UserError(f"two sources are called '{next(name for name in names if names.count(name) > 1)}'; give each its own name: --fake NAME=FOLDER")
    rng, behind = numpy_rng(config.seed, "aigi", "match"), {fake: [fact for part in parts if part.fake != fake for fact in part.facts] for fake in (False, True)}
    images, facts = [], []
    for part in parts:
        for image_HWC, fact in zip(part.image_NHWC, part.facts):
            if config.history and fact.codec == "lossless":
                image_HWC, fact = _given(image_HWC, fact, behind[part.fake][rng.integers(len(behind[part.fake]))])
            images.append(jpeg(image_HWC, config.quality) if config.codec == "jpeg" else image_HWC)
            facts.append(fact)
    return Pictures(
        image_NHWC=np.stack(images),
        source_N=np.repeat(np.arange(len(parts)), [len(part.image_NHWC) for part in parts]),
        sources=tuple((part.name, part.fake) for part in parts),
        facts=tuple(facts),
        people=tuple(who for part in parts for who in part.people),
        paths=tuple(path for part in parts for path in part.paths),
    )


def metadata_accuracy(facts: Sequence[FileFacts], fake_N: np.ndarray, seed: int = 0) -> float:
    """Return the balanced accuracy of the best classifier that sees the columns alone: 0.5 = they tell nothing.

    Half the files say which class each combination of columns is likelier in, the other half is judged by it, and the other way round; a combination
    not seen, or seen as often in both, counts as a coin's throw.
    """
    fake_N, half_N = np.asarray(fake_N, bool), np.empty(len(facts), bool)
    for value in (False, True):  # each class is split evenly, so that a chance imbalance between the halves is no signal
        row_M = np.flatnonzero(fake_N == value)
        half_N[row_M] = numpy_rng(seed, "halves", int(value)).permutation(len(row_M)) % 2 == 0
    right: dict[bool, list[float]] = defaultdict(list)
    for learnt in (False, True):
        seen = {value: Counter(fact for fact, fake, half in zip(facts, fake_N, half_N) if half == learnt and fake == value) for value in (False, True)}
        count = {value: max(1, sum(seen[value].values())) for value in (False, True)}
        for fact, fake, half in zip(facts, fake_N, half_N):
            if half != learnt:
                lean = seen[True][fact] / count[True] - seen[False][fact] / count[False]
                right[bool(fake)].append(0.5 if lean == 0 else float((lean > 0) == fake))
    return float(np.mean([np.mean(found) for found in right.values()]))


def check_metadata(pictures: Pictures, config: MatchConfig) -> float:
    """Return `metadata_accuracy`.

    Raises:
        UserError: it is above the limit, i.e. the files give the answer away.
    """
    found = metadata_accuracy(pictures.facts, pictures.fake_N, config.seed)
    if found > config.most_metadata_accuracy:
        tell = {name: Counter(pictures.facts[row] for row in pictures.rows_of(name)).most_common(1)[0][0] for name, _ in pictures.sources}
        raise UserError(
            f"codec, quality and size alone tell real from fake with {found:.1%} accuracy, at most {config.most_metadata_accuracy:.0%} is allowed ({tell}); "
            "bring both to one codec and size first, or set match.history: true"
        )
    return found


def _taken(part: Part, row_M: np.ndarray) -> Part:
    facts, people, paths = (tuple(column[row] for row in row_M) for column in (part.facts, part.people, part.paths))
    return replace(part, image_NHWC=part.image_NHWC[row_M], facts=facts, people=people, paths=paths)


def _given(image_HWC: np.ndarray, own: FileFacts, other: FileFacts) -> tuple[np.ndarray, FileFacts]:
    """A lossless picture with another's compression behind it; codecs other than JPEG are not imitated."""
    if other.codec != "jpeg":
        return image_HWC, own
    subsampling = other.subsampling if other.subsampling in (0, 1, 2) else 2
    return jpeg(image_HWC, other.quality, subsampling=subsampling), FileFacts("jpeg", other.quality, subsampling, own.width_px, own.height_px)


@cache
def _standard_tables() -> tuple[Sequence[int], ...]:
    """Luminance tables of qualities 1 to 100 as the codec writes them."""
    tables = []
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as picture:
            tables.append(picture.quantization[0])
    return tuple(tables)
