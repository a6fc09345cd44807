"""`gallery build`: every picture of `gallery_shots`, and the page that shows them, by one command."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..core.errors import UserError
from ..core.files import write_bytes, write_json
from ..core.progress import track
from .gallery_shots import FIGURES, FOLDER, NEAREST, PAGE, SET, SET_JOB, SET_OPTIONS, SHOTS, Shot
from .local import cores
from .spec import bundled_job, load_job


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
    write_bytes(out / PAGE, page(found, set_seconds=made_s, seconds=seconds, cores=cores(), real=real is not None).encode())
    return {"pictures": found, "set_seconds": round(made_s, 1), "seconds": round(seconds, 1), "bytes": sum(part["bytes"] for part in found.values()), "page": str(out / PAGE)}


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
    from .gallery_nearest import draw_nearest, gallery_of_nearest, maker_of

    if real is not None:
        from ..recognition.embedder import load_embedder

        found = gallery_of_nearest(dataset, real, out, load_embedder("dlib"), threshold=load_job(bundled_job(SET_JOB), []).match_cosine, chart_only=True)
        kept = {key: value for key, value in found.items() if key not in ("picture", "shows_real_people")}
        write_json(figures, kept)
        return kept | {"of_this_set": True}
    try:
        kept = json.loads(figures.read_text(encoding="utf-8"))
        draw_nearest(kept, out)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{figures} does not hold the figures of `gallery nearest` ({error}); make it anew with --real FACES") from error
    return kept | {"of_this_set": kept.get("generator") == maker_of(dataset)}
