"""IJB-B and IJB-C: the protocol's text files, and the 1:1 and 1:N figures of a set of features (recognition.md §8.3, §8.4).

    meta/ijbc_face_tid_mid.txt          image template media
    meta/ijbc_template_pair_label.txt   template template 0|1
    meta/ijbc_name_5pts_score.txt       image x1 y1 ... x5 y5 detector-score
    meta/ijbc_1N_gallery_G1.csv ...     TEMPLATE_ID,SUBJECT_ID,...
Axes: N images, P pairs.
"""

from __future__ import annotations

import csv
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from .lists import read_lines
from .roc import IJB_FARS, Roc
from .templates import pool_templates, score_template_pairs, template_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class IjbProtocol:
    """The lists of one set.

    Attributes:
        name: "ijbb" or "ijbc".
        image_N: file names; template_N, media_N: ids of each.
        landmark_N52: five points of each image in pixels; detector_N: its score.
        left_P, right_P: template ids of the pairs; same_P: bool.
    """

    name: str
    image_N: tuple[str, ...]
    template_N: np.ndarray
    media_N: np.ndarray
    landmark_N52: np.ndarray
    detector_N: np.ndarray
    left_P: np.ndarray
    right_P: np.ndarray
    same_P: np.ndarray


def read_ijb(folder: Path | str) -> IjbProtocol:
    """Read the lists from `folder` or `folder/meta`.

    Raises:
        UserError: a list is missing or two differ in their images, or a line has the wrong number of fields (names file and line).
    """
    folder = Path(folder) / "meta" if (Path(folder) / "meta").is_dir() else Path(folder)
    found = sorted(folder.glob("ijb*_face_tid_mid.txt"))
    if len(found) != 1:
        raise UserError(f"{folder} holds {len(found)} files ijb*_face_tid_mid.txt, expected one (the meta folder of IJB-B or IJB-C)")
    name = found[0].name.split("_")[0]
    images, ids_N2 = _named_table(found[0], 2)
    points, values = _named_table(folder / f"{name}_name_5pts_score.txt", 11)
    if points != images:
        raise UserError(f"{folder / f'{name}_name_5pts_score.txt'} lists {len(points)} images, {found[0].name} {len(images)}, or in another order; expected the same images line by line")
    pair_P3 = read_integers(folder / f"{name}_template_pair_label.txt", 3)
    return IjbProtocol(
        name=name,
        image_N=images,
        template_N=ids_N2[:, 0].astype(np.int64),
        media_N=ids_N2[:, 1].astype(np.int64),
        landmark_N52=values[:, :10].reshape(-1, 5, 2),
        detector_N=values[:, 10],
        left_P=pair_P3[:, 0],
        right_P=pair_P3[:, 1],
        same_P=pair_P3[:, 2] == 1,
    )


def ijb_figures(protocol: IjbProtocol, feature_ND: np.ndarray, *, detector_weights: bool = True, keep_norms: bool = True) -> dict[str, float]:
    """Return TAR at FAR 1e-6 ... 1e-1 of the 1:1 protocol by both rules.

    Args:
        feature_ND: raw features, flip added ("F2"), in the order of `image_N`. The official tables are F2 N1 D1, the defaults here.
    """
    id_T, template_TD = pool_templates(feature_ND, protocol.template_N, protocol.media_N, weight_N=protocol.detector_N if detector_weights else None, keep_norms=keep_norms)
    score_P = score_template_pairs(template_TD, template_rows(id_T, protocol.left_P), template_rows(id_T, protocol.right_P))
    roc = Roc(score_P, protocol.same_P)
    figures = {}
    for rule in ("nearest", "conservative"):
        figures |= {f"tar_at_far_{far:g}_{rule}": point.tar for far, point in zip(IJB_FARS, roc.points(rule=rule)) if point.resolved}  # type: ignore[arg-type]
    return figures


def read_gallery(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """Read a 1:N gallery or probe list (CSV with TEMPLATE_ID and SUBJECT_ID): (template ids, subject ids), each template once."""
    rows = list(csv.DictReader(read_lines(path, "gallery list")))
    try:
        pairs = dict.fromkeys((int(row["TEMPLATE_ID"]), int(row["SUBJECT_ID"])) for row in rows)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {error!r}; expected the columns TEMPLATE_ID and SUBJECT_ID with whole numbers") from error
    template_G, subject_G = np.array(list(pairs), np.int64).reshape(-1, 2).T
    return template_G, subject_G


def read_integers(path: Path | str, columns: int) -> np.ndarray:
    """Read a table of whole numbers, int64 (rows, columns); millions of lines in seconds. Messages name the first bad line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy warns of an empty file
            table = np.loadtxt(path, np.int64, comments=None, ndmin=2)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (ValueError, UserWarning) as error:
        raise UserError(f"{path}: {error}; expected {columns} whole numbers a line") from error
    if table.shape[1] != columns:
        raise UserError(f"{path} has {table.shape[1]} numbers a line, expected {columns}")
    return table


def _named_table(path: Path, columns: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Read lines of a name and numbers."""
    lines = [line.split() for line in read_lines(path, "list")]
    values = np.empty((len(lines), columns))
    for number, fields in enumerate(lines, 1):
        try:
            values[number - 1] = [float(part) for part in fields[1:]] if len(fields) == columns + 1 else np.nan
        except ValueError:
            values[number - 1] = np.nan
        if not np.isfinite(values[number - 1]).all():
            raise UserError(f"{path}, line {number}: '{' '.join(fields)[:80]}'; expected a name and {columns} numbers")
    return tuple(fields[0] for fields in lines), values
