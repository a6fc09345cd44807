"""`gallery build`: every picture of the gallery at its documented size, and the page that shows them, by one command.

A picture is a verb of `facefoundry gallery` with options; the command the page prints is written from the same options that make it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..core.errors import UserError
from ..core.files import write_bytes, write_json
from ..core.progress import track
from .spec import bundled_job, load_job

PAGE, FOLDER, FIGURES = "gallery.md", "gallery", "nearest.json"
SET, SET_JOB, SET_OPTIONS = "gallery-set", "demo-id3-job.yaml", ("identities.count=32", "filters=[]")
"""The set that `worst` and `nearest` look at: nothing filtered away."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A picture.

    Attributes:
        verb: of `facefoundry gallery`; name: of the picture's file.
        job: bundled job, or "" where the verb takes the set.
        options: of the verb.
    """

    verb: str
    name: str
    job: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def command(self) -> str:
        """Return the line that makes this picture."""
        options = " ".join(f"--{key.replace('_', '-')}" if value is True else f"--{key.replace('_', '-')} {value}" for key, value in self.options.items())
        return f"facefoundry gallery {self.verb} {f'recipes/{self.job}' if self.job else SET} {options} --out docs/{FOLDER}/{self.name}"


UIFACE, ID3, LCM, MORPHFACE = "demo-job.yaml", "demo-id3-job.yaml", "demo-lcm-job.yaml", "demo-morphface-job.yaml"
SHOTS = (
    Shot(verb="identities", name="identities-id3.jpg", job=ID3, options={"identities": 8, "draws": 10}),
    Shot(verb="identities", name="identities-uiface.jpg", job=UIFACE, options={"identities": 4, "draws": 10}),
    Shot(verb="identities", name="identities-lcm.jpg", job=LCM, options={"identities": 4, "draws": 10}),
    Shot(verb="styles", name="styles.jpg", job=MORPHFACE, options={"identities": 4, "styles": 10}),
    Shot(verb="stages", name="stages.jpg", job=UIFACE, options={"identities": 4, "noises": 10}),
    Shot(verb="trajectory", name="trajectory.jpg", job=UIFACE, options={"identities": 3, "noises": 3}),
    Shot(verb="attention", name="attention.jpg", job=UIFACE, options={"identity": 2, "image": 0}),
    Shot(verb="interpolation", name="interpolation.jpg", job=ID3, options={"pairs": 3, "steps": 10}),
    Shot(verb="worst", name="worst.jpg", options={"number": 10}),
)
NEAREST = Shot(verb="nearest", name="nearest.png", options={"real": "train112.zip", "chart_only": True, "figures": f"docs/{FOLDER}/{FIGURES}"})


def build_gallery(out: Path, *, real: Path | None = None, shots: tuple[Shot, ...] = SHOTS) -> dict[str, Any]:
    """Make the pictures in `out`/gallery and the page `out`/gallery.md.

    Args:
        real: faces or centres of real people; None draws the chart of the nearest from the figures that lie there.

    Returns:
        Seconds and bytes of each picture and together, the page, and what each verb found.

    Raises:
        UserError: neither real faces nor figures of an earlier run; whatever a verb raises.
    """
    from .gallery_page import page

    pictures, found = out / FOLDER, {}
    figures = pictures / FIGURES
    if real is None and not figures.is_file():
        raise UserError(f"{figures} is not there, and without --real the chart of the nearest real people cannot be made; give --real FACES, or keep the file that comes with the repository")
    begin_s = time.monotonic()
    with TemporaryDirectory(prefix="facefoundry-gallery-") as folder:
        dataset = Path(folder) / SET
        made_s = _timed(lambda: _mint(dataset))[1]
        for shot in track((*shots, NEAREST), "pictures"):
            result, seconds = _timed(lambda shot=shot: _take(shot, pictures / shot.name, dataset, real, figures))
            found[shot.name] = {"seconds": round(seconds, 1), "bytes": (pictures / shot.name).stat().st_size, "result": result, "command": shot.command()}
    seconds = time.monotonic() - begin_s
    write_bytes(out / PAGE, page(found, set_seconds=made_s, seconds=seconds, real=real is not None).encode())
    return {"pictures": found, "set_seconds": round(made_s, 1), "seconds": round(seconds, 1), "bytes": sum(part["bytes"] for part in found.values()), "page": str(out / PAGE)}


def set_command() -> str:
    """Return the line that makes the set."""
    return f"facefoundry run recipes/{SET_JOB} --out {SET} " + " ".join(f"--set '{option}'" for option in SET_OPTIONS)


def _mint(dataset: Path) -> None:
    from .run import run_job

    run_job(load_job(bundled_job(SET_JOB), list(SET_OPTIONS)), dataset)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begin_s = time.monotonic()
    return work(), time.monotonic() - begin_s


def _take(shot: Shot, out: Path, dataset: Path, real: Path | None, figures: Path) -> dict[str, Any]:
    if shot.verb == "nearest":
        return _nearest(out, dataset, real, figures)
    if shot.verb == "worst":
        from ..recognition.embedder import load_embedder
        from .gallery_worst import gallery_of_worst
        from .head_attributes import HeadPredictor

        return gallery_of_worst(dataset, out, load_embedder("dlib"), attributes=HeadPredictor(), **shot.options)
    return _of_job(shot.verb)(load_job(bundled_job(shot.job), []), out, **shot.options)


def _of_job(verb: str) -> Callable[..., dict[str, Any]]:
    from .gallery import gallery_of_styles
    from .gallery_attention import gallery_of_attention
    from .gallery_identities import gallery_of_identities
    from .gallery_interpolation import gallery_of_interpolation
    from .gallery_stages import gallery_of_stages
    from .gallery_trajectory import gallery_of_trajectories

    return {"styles": gallery_of_styles, "identities": gallery_of_identities, "stages": gallery_of_stages, "trajectory": gallery_of_trajectories, "attention": gallery_of_attention, "interpolation": gallery_of_interpolation}[verb]


def _nearest(out: Path, dataset: Path, real: Path | None, figures: Path) -> dict[str, Any]:
    """Make the chart from real people, or draw it again from the figures; `of_this_set` says whether those are of the set just made."""
    from .gallery_faces import THRESHOLD
    from .gallery_nearest import draw_nearest, gallery_of_nearest, maker_of

    if real is not None:
        from ..recognition.embedder import load_embedder

        found = gallery_of_nearest(dataset, real, out, load_embedder("dlib"), threshold=THRESHOLD, chart_only=True)
        kept = {key: value for key, value in found.items() if key not in ("picture", "shows_real_people")}
        write_json(figures, kept)
        return kept | {"of_this_set": True}
    try:
        kept = json.loads(figures.read_text(encoding="utf-8"))
        draw_nearest(kept, out)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{figures} does not hold the figures of `gallery nearest` ({error}); make it anew with --real FACES") from error
    return kept | {"of_this_set": kept.get("generator") == maker_of(dataset)}
