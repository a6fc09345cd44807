"""`facefoundry gallery ...`: pictures of what a generator does, and the page that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import show
from .options import Json

gallery_app = typer.Typer(help="Pictures of what a generator does, and the page that shows them.", no_args_is_help=True)

Job = Annotated[Path | None, typer.Argument(help="Job file (YAML); left out, the bundled demo.")]
Dataset = Annotated[Path, typer.Argument(help="Folder per identity, a zip of that, or a dataset folder of aligned 112x112 faces.")]
Settings = Annotated[list[str], typer.Option("--set", help="Lay a value over the file: --set generator.sampler.t_max=500. May be repeated.")]
Judge = Annotated[str, typer.Option(help="Embedder that judges.")]
UIFACE, ID3, MORPHFACE = "demo-job.yaml", "demo-id3-job.yaml", "demo-morphface-job.yaml"


@gallery_app.command("styles")
def styles(
    job: Annotated[Path | None, typer.Argument(help="Job file (YAML); left out, the bundled demo of MorphFace.")] = None,
    identities: Annotated[int, typer.Option(min=1, help="How many people: rows.")] = 6,
    number: Annotated[int, typer.Option("--styles", min=1, help="How many styles: columns.")] = 8,
    own: Annotated[bool, typer.Option("--own", help="Each person in styles of their own habits; left out, everybody in the same.")] = False,
    out: Annotated[Path, typer.Option(help="The picture to write, .jpg or .png.")] = Path("styles.png"),
    settings: Annotated[list[str], typer.Option("--set", help="Lay a value over the file: --set generator.styles.fixed.yaw_deg=30. May be repeated.")] = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Show people in several styles with the renders the faces were made from."""
    from .gallery import gallery_of_styles

    found = gallery_of_styles(_job(job, MORPHFACE, settings), out, identities=identities, styles=number, own=own)
    _tell(found, json, "Styles", [("people", found["identities"]), ("styles", found["styles"]), ("faces a second", found["images_per_s"])])


@gallery_app.command("identities")
def identities(
    job: Job = None,
    number: Annotated[int, typer.Option("--identities", min=1, help="How many people: rows.")] = 8,
    draws: Annotated[int, typer.Option(min=1, help="Images of each: columns.")] = 10,
    out: Annotated[Path, typer.Option(help="The picture to write, .jpg or .png.")] = Path("identities.jpg"),
    settings: Settings = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Show the first people of a job with several images each: any generator."""
    from .gallery_identities import gallery_of_identities

    found = gallery_of_identities(_job(job, UIFACE, settings), out, identities=number, draws=draws)
    _tell(found, json, "Identities", [("generator", found["generator"]), ("cosine to the anchor", found["anchor_cosine"]), ("cosine of a person's images", found["own_cosine"])])


@gallery_app.command("trajectory")
def trajectory(
    job: Job = None,
    number: Annotated[int, typer.Option("--identities", min=1, help="People drawn from the first noise.")] = 3,
    noises: Annotated[int, typer.Option(min=1, help="Noises the first person is drawn from.")] = 3,
    out: Annotated[Path, typer.Option(help="The picture to write, .jpg or .png.")] = Path("trajectory.jpg"),
    settings: Settings = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Show what UIFace's sampler believes at each time: the one-step estimate, and where stage 1 ends."""
    from .gallery_trajectory import gallery_of_trajectories

    found = gallery_of_trajectories(_job(job, UIFACE, settings), out, identities=number, noises=noises)
    rows = [(f"person {row['person'] + 1}, noise {row['noise'] + 1}", f"context-free to t = {row['last_context_free_t']}; cosine {row['cosine'] and row['cosine'][-1]}") for row in found["rows"]]
    _tell(found, json, "Trajectory", [("times", found["times"]), *rows])


@gallery_app.command("stages")
def stages(
    job: Job = None,
    number: Annotated[int, typer.Option("--identities", min=2, help="How many people: rows.")] = 4,
    noises: Annotated[int, typer.Option(min=2, help="How many noises: columns.")] = 9,
    out: Annotated[Path, typer.Option(help="The picture to write, .jpg or .png.")] = Path("stages.jpg"),
    settings: Settings = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Show what UIFace's context-free stage decides: people by noises below what stage 1 left, with the shares of variance."""
    from .gallery_stages import gallery_of_stages

    found = gallery_of_stages(_job(job, UIFACE, settings), out, identities=number, noises=noises)
    _tell(found, json, "Stages", [("stage 1 ends at t", found["ends_t"]), *((f"variance of the {name}", shares) for name, shares in found["shares"].items())])


@gallery_app.command("attention")
def attention(
    job: Job = None,
    identity: Annotated[int, typer.Option(min=0, help="Whose face, counted from 0.")] = 0,
    image: Annotated[int, typer.Option(min=0, help="Which of their images, counted from 0.")] = 0,
    out: Annotated[Path, typer.Option(help="The picture to write, .jpg or .png.")] = Path("attention.jpg"),
    settings: Settings = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Show where UIFace's network looks over time: cross-attention to the identity, and the self-attention that is injected."""
    from .gallery_attention import gallery_of_attention

    found = gallery_of_attention(_job(job, UIFACE, settings), out, identity=identity, image=image)
    _tell(found, json, "Attention", [("times", found["times"]), ("map moved", found["moved"]), ("first t with identity", found["first_t_with_identity"])])


@gallery_app.command("interpolation")
def interpolation(
    job: Annotated[Path | None, typer.Argument(help="Job file (YAML); left out, the bundled demo of ID³.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of people: rows.")] = 3,
    steps: Annotated[int, typer.Option(min=2, help="Places from one to the other, both included: columns.")] = 10,
    out: Annotated[Path, typer.Option(help="The picture to write, .jpg or .png.")] = Path("interpolation.jpg"),
    settings: Settings = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Show people between people: spherical interpolation of identities, the noise kept."""
    from .gallery_interpolation import gallery_of_interpolation

    found = gallery_of_interpolation(_job(job, ID3, settings), out, pairs=pairs, steps=steps)
    _tell(found, json, "Interpolation", [("generator", found["generator"]), *((f"pair {row + 1}, cosine to both ends", cosines) for row, cosines in enumerate(found["cosine"] or []))])


@gallery_app.command("worst")
def worst(
    dataset: Dataset,
    number: Annotated[int, typer.Option(min=1, help="Faces a row.")] = 10,
    per_person: Annotated[int, typer.Option(min=0, help="At most so many of one person; 0 = any number.")] = 1,
    pose: Annotated[bool, typer.Option(help="Fit the 3D head to the shown faces, so that a turned head is called so.")] = True,
    out: Annotated[Path, typer.Option(help="The picture to write, .jpg or .png.")] = Path("worst.jpg"),
    embedder: Judge = "dlib",
    json: Json = False,
) -> None:
    """Show the worst faces of a set by SDD-FIQA and by cosine to the anchor, each with its reason and its person's best."""
    from ..recognition.embedder import load_embedder
    from .gallery_worst import gallery_of_worst
    from .head_attributes import HeadPredictor

    found = gallery_of_worst(dataset, out, load_embedder(embedder), number=number, per_person=per_person, attributes=HeadPredictor() if pose else None)
    _tell(found, json, str(dataset), [(f"{item['face']} by {name}", f"{item['value']} ({item['reason']})") for name in ("quality", "anchor") for item in found[name]])


@gallery_app.command("nearest")
def nearest(
    dataset: Dataset,
    real: Annotated[Path, typer.Option(help="Faces of real people (folder per identity, zip, dataset folder); or a file of centres, with --chart-only.")],
    number: Annotated[int, typer.Option(min=1, help="Minted people shown, the nearest first.")] = 8,
    chart_only: Annotated[bool, typer.Option("--chart-only", help="Write the chart of cosines, no face: the only form that may be passed on.")] = False,
    figures: Annotated[Path | None, typer.Option(help="JSON to write the chart's counts to.")] = None,
    match: Annotated[float, typer.Option(min=-1, max=1, help="Cosine from which the embedder calls two people one.")] = 0.58,
    out: Annotated[Path, typer.Option(help="The picture (.jpg, .png) or chart (.png, .svg) to write.")] = Path("nearest.png"),
    embedder: Judge = "dlib",
    json: Json = False,
) -> None:
    """Show minted people beside the real people nearest to them, for whoever holds the real faces; or the chart alone."""
    from ..recognition.embedder import load_embedder
    from .gallery_nearest import gallery_of_nearest

    found = gallery_of_nearest(dataset, real, out, load_embedder(embedder), threshold=match, number=number, chart_only=chart_only, figures=figures)
    rows = [(name.replace("_", " "), {key: value for key, value in found[name].items() if key != "counts"}) for name in ("minted_to_real", "real_to_real")]
    _tell(found, json, str(dataset), rows)
    if not json and not chart_only:
        show.line(f"{out} shows real people: keep it where their faces are kept.")


@gallery_app.command("build")
def build(
    out: Annotated[Path, typer.Option(help="Folder of gallery.md; the pictures go to its gallery/.")] = Path("docs"),
    real: Annotated[Path | None, typer.Option(help="Faces of real people, or a file of centres, for the chart of the nearest; left out, the chart is drawn from the figures that are there.")] = None,
    json: Json = False,
) -> None:
    """Make every picture of the gallery anew, and the page that shows them."""
    from .gallery_build import build_gallery

    found = build_gallery(out, real=real)
    if json:
        show.as_json(found)
        return
    show.table([*((name, f"{part['seconds']} s, {part['bytes'] / 1024:.0f} KB") for name, part in found["pictures"].items()), ("page", found["page"]), ("together", f"{found['seconds']} s, {found['bytes'] / 1e6:.2f} MB")], title="Gallery")


def _job(job: Path | None, left_out: str, settings: list[str]) -> Any:
    from .spec import bundled_job, load_job

    return load_job(job or bundled_job(left_out), settings)


def _tell(found: dict[str, Any], json: bool, title: str, rows: list[tuple[str, Any]]) -> None:
    if json:
        show.as_json(found)
    else:
        show.table([*rows, ("picture", found.get("picture") or found.get("sheet"))], title=title)
