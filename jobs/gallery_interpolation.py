"""`gallery interpolation`: from one person to another along the great circle of identities, the noise kept. Axes: P pairs, S steps, D embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .captioned import AMBER, BLUE, Bar, Row, Tile, captioned, write_picture
from .gallery_faces import open_people
from .spec import JobSpec


def gallery_of_interpolation(spec: JobSpec, out: Path, *, pairs: int, steps: int) -> dict[str, Any]:
    """Write a row a pair of the job's people, `steps` places from one to the other, every image from the first one's first noise.

    Below each face the judge's cosine to both ends (blue: left, amber: right; the tick is the job's `match_cosine`). Each face is sampled alone, so that the ends are the
    anchors' own images bit for bit.

    Returns:
        `cosine`: for each pair [[left, right] at each step], None without a judge of the anchors' space; `asked` the same of the interpolated anchors.
    """
    people = open_people(spec, 2 * pairs)
    share_S = np.linspace(0.0, 1.0, steps)
    anchor_PSD = np.stack([slerp(people.anchor_ID[2 * pair], people.anchor_ID[2 * pair + 1], share_S) for pair in range(pairs)])
    seeds = [people.seed(2 * pair, 0) for pair in range(pairs) for _ in range(steps)]
    image_NHWC = people.faces(anchor_PSD.reshape(pairs * steps, -1), seeds, batch=1)
    embed_ND = people.embed(image_NHWC)
    end_P2D = people.anchor_ID.reshape(pairs, 2, -1)
    asked_PS2 = np.einsum("psd,ped->pse", anchor_PSD, end_P2D)
    cosine_PS2 = None if embed_ND is None else np.einsum("psd,ped->pse", embed_ND.reshape(pairs, steps, -1), end_P2D)
    rows = [
        Row(tiles=tuple(_tile(image_NHWC[pair * steps + step], None if cosine_PS2 is None else cosine_PS2[pair, step], spec.match_cosine) for step in range(steps)), label=(f"person {2 * pair + 1}", f"to {2 * pair + 2}"))
        for pair in range(pairs)
    ]  # fmt: skip
    write_picture(out, captioned(rows, [f"{share:.0%}" for share in share_S]))
    rounded = lambda value: None if value is None else np.round(value.astype(float), 3).tolist()  # noqa: E731
    return {"generator": people.generator.name, "pairs": pairs, "steps": steps, "cosine": rounded(cosine_PS2), "asked": rounded(asked_PS2), "picture": str(out)}


def slerp(first_D: np.ndarray, second_D: np.ndarray, share_S: np.ndarray) -> np.ndarray:
    """Return unit rows on the great circle from one unit vector to another (Shoemake 1985), float32 (S, D); shares 0 and 1 give the ends' own bits.

    The arc of opposite vectors is not determined; anchors of a job never are.
    """
    angle = np.arccos(np.clip(float(first_D.astype(np.float64) @ second_D.astype(np.float64)), -1, 1))
    if np.sin(angle) < 1e-9:
        row_SD = np.repeat(first_D[None].astype(np.float64), len(share_S), axis=0)
    else:
        row_SD = (np.sin((1 - share_S) * angle)[:, None] * first_D + np.sin(share_S * angle)[:, None] * second_D) / np.sin(angle)
    row_SD = (row_SD / np.linalg.norm(row_SD, axis=1, keepdims=True)).astype(np.float32)
    row_SD[share_S == 0], row_SD[share_S == 1] = first_D, second_D
    return row_SD


def _tile(image_HWC: np.ndarray, cosine_2: np.ndarray | None, match: float) -> Tile:
    if cosine_2 is None:
        return Tile(image_HWC=image_HWC)
    bars = tuple(Bar(value=float(value), colour=colour, tick=match) for value, colour in zip(cosine_2, (BLUE, AMBER)))
    return Tile(image_HWC=image_HWC, bars=bars, caption=(f"{cosine_2[0]:.2f}    {cosine_2[1]:.2f}",))
