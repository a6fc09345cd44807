"""Wiring of `privacy evaluate`: methods by name, faces by path, tools of the attacker; and the files it writes."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..consumers.privacy.evaluation import EvaluationSettings, Tools, evaluate
from ..consumers.privacy.protected import PRIVACY_METHODS, load_method
from ..consumers.privacy.slerp_features import VectorGroups
from ..consumers.privacy.slerpface import SlerpFace, SlerpScheme
from ..consumers.privacy.subjects import ImageSubject, PlainSubject, Subject, TemplateSubject
from ..core.device import default_device
from ..core.errors import UserError, near_names
from ..core.files import write_bytes, write_json
from ..core.images import encode_png
from ..core.seeds import numpy_rng
from ..generators.registry import GENERATORS
from ..identity.sources import Faces, load_faces
from ..recognition.embedder import EMBEDDERS, load_embedder
from .contact_sheet import PAPER, SIDE_PX, sheet
from .steps import build_generator

UNPROTECTED = "unprotected"
VALUES, PICTURES, STRIP, TABLE = "evaluation.json", "pictures.npz", "strip.png", "table.csv"
MOST_FACES = 1500
SHOWN = 6
_HEAD_PX = 34


def evaluate_method(
    method: str, weights: str, data: Path, out: Path, *, attacker: Path | None = None, judge: str = "", generator: str = "lcm", settings: Path | None = None
) -> dict[str, Any]:
    """Attack a method and write evaluation.json, table.csv, strip.png and pictures.npz into `out`; return the figures.

    Raises:
        UserError: unknown names, people on both sides, a judge inside the method.
    """
    subject = load_subject(method, weights)
    chosen = judge or ("mobilefacenet-small" if subject.uses == "dlib" else "dlib")
    victims, own = _sides(data, attacker)
    tools = Tools(judge=load_embedder(chosen), guide=load_embedder("dlib"), generator=None if generator == "none" else build_generator(GENERATORS[generator](), default_device()))
    values, pictures = evaluate(subject, victims, own, tools, EvaluationSettings.load(settings) if settings else EvaluationSettings(), out)
    values |= {"weights": weights, "data": data.name, "generator": generator}
    write_evaluation(values, pictures, out)
    return values


def load_subject(method: str, weights: str) -> Subject:
    """Return a method ready to be attacked.

    Raises:
        UserError: unknown method, or weights of another one.
    """
    if method == UNPROTECTED:
        return PlainSubject(load_embedder(weights))
    if method not in PRIVACY_METHODS:
        raise UserError(f"unknown method '{method}'; {near_names(method, [UNPROTECTED, *PRIVACY_METHODS])}")
    if method == SlerpFace.name and (weights in EMBEDDERS or weights.endswith(".safetensors")):
        return TemplateSubject(SlerpScheme(VectorGroups(load_embedder(weights))))
    if not Path(weights).is_dir():
        raise UserError(f"--weights {weights} is no folder; expected what `facefoundry privacy train {method} --out` wrote" + (", or the name of an embedder" if method == SlerpFace.name else ""))
    held = load_method(Path(weights))
    if held.name != method:
        raise UserError(f"--weights {weights} holds '{held.name}', --method says '{method}'; change one of the two")
    return TemplateSubject(held.scheme) if isinstance(held, SlerpFace) else ImageSubject(held)


def some_people(faces: Faces, most: int, seed: int, *, half: int | None = None) -> Faces:
    """Return whole people, drawn by `seed`, until there are `most` faces; with `half` (0 or 1) only of that half of the people."""
    order = numpy_rng(seed, "people").permutation(len(faces.names))
    order = order if half is None else order[half::2]
    count_I = np.bincount(faces.identity_N, minlength=len(faces.names))
    taken = order[: max(2, int(np.searchsorted(np.cumsum(count_I[order]), most)))]
    row = np.flatnonzero(np.isin(faces.identity_N, taken))
    names, identity_N = np.unique(faces.identity_N[row], return_inverse=True)
    return replace(faces, image_NHWC=faces.image_NHWC[row], identity_N=identity_N.astype(np.int32), names=tuple(faces.names[i] for i in names), paths=tuple(faces.paths[i] for i in row))


def _sides(data: Path, attacker: Path | None) -> tuple[Faces, Faces]:
    faces = load_faces(data)
    if attacker is None:
        return some_people(faces, MOST_FACES, 0, half=0), some_people(faces, MOST_FACES, 0, half=1)
    return some_people(faces, MOST_FACES, 0), some_people(load_faces(attacker), MOST_FACES, 1)


def write_evaluation(values: dict[str, Any], pictures: dict[str, np.ndarray], out: Path) -> None:
    """Write the files of an evaluation."""
    shown = {name: image[:SHOWN] for name, image in pictures.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **shown)
    write_json(out / VALUES, values)
    write_bytes(out / TABLE, _table(values).encode())
    write_bytes(out / STRIP, encode_png(strip(shown)))
    write_bytes(out / PICTURES, buffer.getvalue())


def strip(pictures: dict[str, np.ndarray]) -> np.ndarray:
    """Lay pictures out, a column for the original, what the server sees and each attack, a row a face; uint8 (H, W, 3)."""
    from PIL import Image, ImageDraw

    rows = max(len(image) for image in pictures.values())
    blank = np.full((1, SIDE_PX, SIDE_PX, 3), PAPER, np.uint8)
    image_NHWC = np.concatenate([*pictures.values(), blank])
    start = np.cumsum([0, *(len(image) for image in pictures.values())])
    grid = [[int(start[column]) + row if row < len(image) else len(image_NHWC) - 1 for column, image in enumerate(pictures.values())] for row in range(rows)]
    paper = sheet(image_NHWC, grid)
    canvas = Image.new("RGB", (paper.shape[1], paper.shape[0] + _HEAD_PX), (PAPER,) * 3)
    canvas.paste(Image.fromarray(paper), (0, _HEAD_PX))
    pen = ImageDraw.Draw(canvas)
    for column, name in enumerate(pictures):
        pen.multiline_text((column * (paper.shape[1] - 4) // len(pictures) + 6, 4), _folded(name), fill=(28, 32, 36), font_size=11, spacing=1)
    return np.asarray(canvas)


def _folded(name: str, width: int = 19) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(name, width)[:2])


def table_rows(values: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the figures for people."""
    gate, cost = values["gate"], values["cost"]
    rows: list[tuple[str, Any]] = [
        ("AUC", values["accuracy"]["auc"]), ("TAR at FMR 1 %", values["accuracy"]["tar_at_fmr_1e-2"]), ("protecting a face", f"{cost['protect_ms_a_face']:.1f} ms, {cost['bytes_a_face']:,} bytes"),
        ("linear gate", f"{'passed' if gate['passed'] else 'FAILED'}: {gate['psnr_db']:.1f} dB (mean face {gate['guess_db']:.1f}), SSIM {gate['ssim']:.2f}"),
    ]  # fmt: skip
    for attack in values["attacks"]:
        picture = "" if attack["psnr_db"] is None else f"{attack['psnr_db']:.1f} dB, SSIM {attack['ssim']:.2f}, "
        found = attack["found"]
        rows.append((attack["name"], f"{picture}re-identified {found['other_photo']:.1%} (same photo {found['same_photo']:.1%}, chance {found['chance']:.1%})"))
    rows += [(f"D_sys, {name}", f"{one['d_sys']:.3f} (floor {one['floor']:.3f})") for name, one in values["unlinkability"].items()]
    if values["revocability"]:
        rows.append(("accepted with a revoked key", f"{values['revocability']['genuine_with_revoked_key']:.1%} (genuine {values['revocability']['genuine']:.1%})"))
    return rows


def _table(values: dict[str, Any]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = ("psnr_db", "ssim")
    found = ("same_photo", "other_photo", "rank1", "cosine", "chance")
    writer.writerow(["method", "attack", "knows", *names, *found])
    for attack in values["attacks"]:
        cells = [*(attack[name] for name in names), *(attack["found"][name] for name in found)]
        writer.writerow([values["method"], attack["name"], attack["knows"], *("" if cell is None or cell != cell else f"{cell:.4f}" for cell in cells)])
    return buffer.getvalue()
