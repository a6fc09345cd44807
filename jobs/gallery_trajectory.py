"""`gallery trajectory`: what the sampler believes at each time. UIFace's two stages, the boundary between them marked. Axes: B rows, T shown times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..core.images import to_uint8
from ..generators.watching import Recorder, Visit
from .captioned import Row, Tile, captioned, write_picture
from .gallery_faces import People, need_watch, open_people
from .spec import JobSpec

TIMES = (980, 860, 760, 700, 660, 600, 500, 360, 180, 20)


def gallery_of_trajectories(spec: JobSpec, out: Path, *, identities: int, noises: int, times: tuple[int, ...] = TIMES) -> dict[str, Any]:
    """Write the one-step estimates x̂0(t), decoded: several people from one noise, then one person from several noises.

    Args:
        times: training steps to show; the sampler's nearest are taken.

    Returns:
        `rows`: for each its person and noise, the last context-free time (None: there was none), and the cosine to the anchor at each shown time.

    Raises:
        UserError: not UIFace's generator.
    """
    people = open_people(spec, identities)
    need_watch(people.generator, "gallery trajectory")
    address = [*((person, 0) for person in range(identities)), *((0, number) for number in range(1, noises))]
    anchor_BD = people.anchor_ID[[person for person, _ in address]]
    recorder = Recorder(keep_attention=False)
    people.generator.generate(anchor_BD, [people.seed(0, number) for _, number in address], watch=recorder)
    shown = nearest_visits([visit.t for visit in recorder.visits], times)
    image_TBHWC = np.stack([decoded(people, recorder.visits[place].clean()) for place in shown])
    border_B = [first_with_identity(recorder.visits, row) for row in range(len(address))]
    cosine_TB = _cosines(people, image_TBHWC, anchor_BD)
    rows = [_row(number, address, [image[number] for image in image_TBHWC], shown, border_B[number], cosine_TB, identities) for number in range(len(address))]
    write_picture(out, captioned(rows, [f"t = {recorder.visits[place].t}" for place in shown]))
    found = [
        {"person": person, "noise": number, "last_context_free_t": recorder.visits[border_B[row] - 1].t if border_B[row] else None,
         "cosine": None if cosine_TB is None else [round(float(value), 3) for value in cosine_TB[:, row]]}
        for row, (person, number) in enumerate(address)
    ]  # fmt: skip
    return {"times": [recorder.visits[place].t for place in shown], "rows": found, "picture": str(out)}


def decoded(people: People, latent_BCHW: Tensor) -> np.ndarray:
    """Return latents as the generator shows them, uint8 (B, 112, 112, 3)."""
    return to_uint8(people.generator.autoencoder.decode(latent_BCHW).float().clamp(-1, 1))


def nearest_visits(visited: list[int], wanted: tuple[int, ...]) -> list[int]:
    """Return the places of the visited times nearest to the wanted ones, each once, noisiest first; the last visit is always among them."""
    return sorted({min(range(len(visited)), key=lambda place: abs(visited[place] - goal)) for goal in wanted} | {len(visited) - 1})


def first_with_identity(visits: list[Visit], row: int) -> int:
    """Return the place of the first visit whose pass had the row's identity; the number of visits if none had."""
    return next((place for place, visit in enumerate(visits) if visit.has_identity_B[row]), len(visits))


def _cosines(people: People, image_TBHWC: np.ndarray, anchor_BD: np.ndarray) -> np.ndarray | None:
    embed_ND = people.embed(image_TBHWC.reshape(-1, *image_TBHWC.shape[2:]))
    return None if embed_ND is None else (embed_ND.reshape(*image_TBHWC.shape[:2], -1) * anchor_BD).sum(2)


def _row(number: int, address: list[tuple[int, int]], images: list[np.ndarray], shown: list[int], border: int, cosine_TB: np.ndarray | None, identities: int) -> Row:
    person, noise = address[number]
    tiles = tuple(Tile(image_HWC=image, caption=() if cosine_TB is None else (f"{cosine_TB[place, number]:.2f}",)) for place, image in enumerate(images))
    place = next((column for column, at in enumerate(shown) if at >= border), None)
    title = {0: "Several people from one noise. Left of the red line the sampler does not know whom it draws.", identities: "The first person from other noises."}.get(number, "")
    return Row(tiles=tiles, label=(f"person {person + 1}", f"noise {noise + 1}"), border=place or None, title=title, space=10 if number == identities else 0)
