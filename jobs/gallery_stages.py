"""`gallery stages`: what UIFace's context-free stage decides. People by noises, above them what stage 1 left. Axes: I people, J noises, F features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..core.images import to_float, to_uint8
from ..generators.watching import Recorder
from ..quality.image_statistics import luminance
from .captioned import Row, Tile, captioned, write_picture
from .gallery_faces import need_watch, open_people
from .gallery_trajectory import decoded, first_with_identity
from .spec import JobSpec


def gallery_of_stages(spec: JobSpec, out: Path, *, identities: int, noises: int) -> dict[str, Any]:
    """Write the grid: a column a noise, a row a person; the top row is x̂0 at the end of the context-free stage.

    Returns:
        Shares of the variance of the finished images that noise and person explain (`shares`), for the layout (luminance in 28x28 blocks) and for the judge's embedding.

    Raises:
        UserError: not UIFace's generator, or its sampler has no first stage.
    """
    people = open_people(spec, identities)
    need_watch(people.generator, "gallery stages")
    seeds, images, left = [people.seed(0, number) for number in range(noises)], [], []
    for person in range(identities):
        recorder = Recorder(keep_attention=False)
        made = people.generator.generate(np.repeat(people.anchor_ID[person : person + 1], noises, axis=0), seeds, watch=recorder)
        images.append(to_uint8(made.image_BCHW))
        if not person:  # nobody's identity has been seen by then: any person's sampling would do
            ends = [max(first_with_identity(recorder.visits, row) - 1, 0) for row in range(noises)]
            left = [decoded(people, recorder.visits[end].clean()[row : row + 1])[0] for row, end in enumerate(ends)]
    image_IJHWC = np.stack(images)
    top = Row(tiles=tuple(Tile(image_HWC=face, caption=(f"t = {recorder.visits[end].t}",)) for face, end in zip(left, ends)), label=("end of", "stage 1:", "nobody yet"))
    rows = [Row(tiles=tuple(Tile(image_HWC=face) for face in row), label=(f"person {number + 1}",), space=6 * (number == 0)) for number, row in enumerate(image_IJHWC)]
    write_picture(out, captioned([top, *rows], [f"noise {number + 1}" for number in range(noises)]))
    flat_NHWC = image_IJHWC.reshape(-1, *image_IJHWC.shape[2:])
    features = {"layout": luminance(to_float(flat_NHWC)).reshape(len(flat_NHWC), -1), "embedding": people.embed(flat_NHWC)}
    shares = {name: shares_of_variance(rows_NF.reshape(identities, noises, -1)) for name, rows_NF in features.items() if rows_NF is not None}
    return {"identities": identities, "noises": noises, "ends_t": [recorder.visits[end].t for end in ends], "shares": shares, "picture": str(out)}


def shares_of_variance(value_IJF: np.ndarray) -> dict[str, float]:
    """Two-way analysis of variance without repetition, summed over features: the shares of person, noise, and of what neither explains alone; they sum to 1."""
    value_IJF = value_IJF.astype(np.float64)
    mean_F = value_IJF.mean((0, 1))
    total = ((value_IJF - mean_F) ** 2).sum()
    person = value_IJF.shape[1] * ((value_IJF.mean(1) - mean_F) ** 2).sum() / total
    noise = value_IJF.shape[0] * ((value_IJF.mean(0) - mean_F) ** 2).sum() / total
    return {"person": round(float(person), 3), "noise": round(float(noise), 3), "rest": round(float(1 - person - noise), 3)}
