"""The words of docs/gallery.md: for each picture what one sees, what one should not conclude, its command and its time; figures come from what was just made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .gallery_shots import FOLDER, SET, set_command

HEAD = """# Gallery

Pictures of what the bundled models do, good and bad. Nobody shown here exists. One command makes all of them anew, with this page:

```
facefoundry gallery build --out docs{real}
```

Without `--real FACES` the last chart is drawn again from the figures that lie beside it (`docs/gallery/nearest.json`).

{seconds:.0f} s on {cores} CPU core{plural}, {set_seconds:.0f} s of them for the set of faces under *Worst faces*. Each picture has a command of its own, printed under it; people and noises are those of
the job file, so the same person and noise number is the same anchor and seed in every picture of one job. Cosines are by the dlib network in its centred 128-d space, which also conditions the
generators: it is a lenient judge. From 0.58 it calls two real faces one person (false match rate 0.1 %).
"""


def page(found: Mapping[str, Mapping[str, Any]], *, set_seconds: float, seconds: float, cores: int, real: bool) -> str:
    """Return the page, Markdown.

    Args:
        found: for each picture its `result`, `command` and `seconds`.
    """
    values = {name: part["result"] for name, part in found.items()}
    parts = [HEAD.format(real=" --real train112.zip" if real else "", seconds=seconds, set_seconds=set_seconds, cores=cores, plural="" if cores == 1 else "s")]
    for title, names, words in SECTIONS:
        if all(name in values for name in names):
            parts.append(f"## {title}\n")
            for name in names:
                parts.append(f"![{title}]({FOLDER}/{name})\n\n`{found[name]['command']}` ({found[name]['seconds']:.0f} s)\n")
            parts.append(words(values) + "\n")
    return "\n".join(parts)


def _identities(values: Mapping[str, Any]) -> str:
    rows = [values[f"identities-{name}.jpg"] for name in ("id3", "uiface", "lcm")]
    table = "\n".join(f"| {row['generator']} | {_mean(row['anchor_cosine'])} | {_mean(row['own_cosine'])} | {row['images_per_s']} |" for row in rows)
    return f"""ID³, then UIFace, then the few-step student: the same people from the same noises, unfiltered. *id*: mean cosine of a row to its anchor; *own*: mean cosine of the row's images among themselves.

| | id | own | images a second |
|---|--:|--:|--:|
{table}

**Sees:** a row is one person in other poses, light and backdrops; ID³ holds it best. Where *own* is well above *id*, the generator agrees with itself on somebody who is not quite the person asked for.
**Do not conclude** that faces look alike to people: only a network was asked, the one that conditions. Blotches, smeared eyes and teeth are what 15 M parameters at a 16×16 latent leave."""


def _styles(values: Mapping[str, Any]) -> str:
    return """Top row: renders of the 3D head in ten styles; below, MorphFace's faces made from them, a row a person.

**Sees:** yaw and the side of the light follow the render. **Do not conclude** that expression does: it hardly moves (measured correlation 0.14, [figures](../README.md))."""


def _stages(values: Mapping[str, Any]) -> str:
    found = values["stages.jpg"]
    layout, embedding = found["shares"]["layout"], found["shares"].get("embedding")
    second = f"; in the judge's embedding {embedding['noise']:.0%} and {embedding['person']:.0%}" if embedding else ""
    ends = sorted(set(found["ends_t"]))
    when = f"t = {ends[0]}" if len(ends) == 1 else f"t = {ends[0]} to {ends[-1]}"
    return f"""Top row: the one-step estimate at the end of UIFace's context-free first stage (here {when}), one column a noise. Nobody has been asked for yet. Below: who comes of it, a row a person.

**Sees:** the first stage decides backdrop, overall light, head pose and where hair begins; it survives down the column whoever is drawn. The second stage decides sex, age, skin and features.
In a two-way analysis of variance of these {found["identities"]} × {found["noises"]} images the noise explains {layout["noise"]:.0%} of the layout (luminance of 28×28 blocks) and the person {layout["person"]:.0%}{second}.
**Do not conclude** that layout and identity part cleanly: the rest ({layout["rest"]:.0%}) is their meeting, and a bad layout spoils a face (hands, half faces)."""


def _trajectory(values: Mapping[str, Any]) -> str:
    rows = values["trajectory.jpg"]["rows"]
    gains = [row["cosine"] for row in rows if row["cosine"]]
    ends = f" The cosine to the anchor (below each face) goes from {_mean([row[0] for row in gains])} at the start to {_mean([row[-1] for row in gains])}." if gains else ""
    return f"""The sampler's one-step estimate x̂0(t) = (z_t − √(1−ᾱ) ε)/√ᾱ, decoded. The last column is the finished image. The red line: before it no pass of that row has seen the identity.

**Sees:** the mean face, then a layout, then within a few steps after the line another person each.{ends} Guidance overshoots first (hard contrast at t = 660), which later steps take back in part.
**Do not conclude** that the intermediate faces exist in the sampler: the latent is still mostly noise, and x̂0 is the mean of all that could come of it."""


def _attention(values: Mapping[str, Any]) -> str:
    found = values["attention.jpg"]
    moves = [value for value in found["moved"] if value == value]
    fired = "never falls to δ*, so that stage 2 begins at t_max" if not found["smallest_move_in_stage_1"] < found["delta"] else "falls below δ*, so that stage 2 begins early"
    return f"""One face over time, seen through the sampler's own hook (`UIFace.generate(..., watch=Recorder())` in `generators/watching.py`); no pixel depends on whether one looks. Each map is stretched to its own range.
Second row: UIFace's map of the cross-attention to the identity's tokens (softmax over places, mean over tokens, heads and blocks), below it how far it moved in a step. Then the self-attention of the context-free pass, which the identity's pass takes over: what the place of the cross gathers from, mean over heads and
the 8×8 blocks. Last: where the identity changes the predicted noise.

**Sees:** cross-attention rests on a few places, on the inner face while the layout forms, later on hair, cheek or border, elsewhere for another face. The eye gathers from the other eye's side, the mouth from nose and cheeks. The identity pulls at brows, eyes and hairline first, at fine detail last.
The map's move per step ({min(moves):.3f} to {max(moves):.3f}; δ* = {found["delta"]}) {fired}: with this small network the adaptive partition of the paper is not at work.
**Do not conclude** that heat explains the face: maps are means over heads, another face (`--identity 0`) gives others, and a place that everything reads (a bright spot far from every cross) may be a store of the network's and mean nothing where it lies."""


def _interpolation(values: Mapping[str, Any]) -> str:
    found = values["interpolation.jpg"]
    cosines = found["cosine"]
    note = f" At the ends the cosine to the own anchor is {_mean([value for row in cosines for value in (row[0][0], row[-1][1])])}, to the other {_mean([value for row in cosines for value in (row[0][1], row[-1][0])])}; half-way both are near {_mean([value for row in cosines for value in row[len(row) // 2]])}." if cosines else ""
    return f"""From one person to another along the great circle of identities, the noise kept. Bars: cosine to the left (blue) and right person (amber); the tick is the match threshold of real faces.

**Sees:** identity turns steadily while pose, light and backdrop stand; where the two differ in sex or hair, that tips over within a step or two.{note} **Do not conclude** that every place on the way is a new person: neighbours match each other, and new identities must keep their distance (the anchor prior's do)."""


def _worst(values: Mapping[str, Any]) -> str:
    found = values["worst.jpg"]
    return f"""The worst of {found["images"]} faces of {found["people"]} people, one of a person, nothing filtered: `{set_command()}`. By SDD-FIQA (0 to 100, relative to this set) and by cosine to the {found["against"]}; framed blue, the same person's best.
Under each its value, the plainest reason, and its cosine to its person's other images / to the nearest other person. *like 7*: nearer to person 7 than to its own; *whole person off*: it agrees with its person's other images, and all miss the anchor.

**Sees:** what the demo's filter is for; most failures are layouts that leave no room for the face. **Do not conclude** anything about rates: these are the tails, chosen to be."""


def _nearest(values: Mapping[str, Any]) -> str:
    found = values["nearest.png"]
    minted, real = found["minted_to_real"], found["real_to_real"]
    stale = "" if found["of_this_set"] else " These figures were measured on a set made with earlier weights or settings, and drawn again here, where the real faces are not."
    return f"""For each minted person the cosine to the nearest of {real["people"]:,} real people (the training set's), and for each of those to the nearest other; means of a person's images, all of the set, unfiltered.

**Sees:** median {minted["median"]:.2f} against {real["median"]:.2f} among real strangers, highest {minted["highest"]:.2f} against {real["highest"]:.2f} (1.00: people who are in the set under two names). {found["nearer_than_usual"]} of {minted["people"]} minted people are nearer to a real one than 99 % of real people are to any other.
The match threshold does not help here: it is for two single images; means lie nearer, and among thousands somebody is always near: {real["at_threshold"] / real["people"]:.0%} of real people reach it with a stranger, {minted["at_threshold"] / minted["people"]:.0%} of minted ones.{stale}
**Do not conclude** that nobody can be recognised: one network looked, at {minted["people"]} people, and at the training set alone; a minted mean rests on eight images, most real ones on fewer, which by itself brings means nearer.

There is no picture: it would show real people, who did not ask to stand here. Whoever holds the faces makes it for themselves, minted people on the left, the nearest real ones on the right:

```
facefoundry gallery nearest {SET} --real train112.zip --out nearest.jpg
```"""


SECTIONS = (
    ("People, three generators", ("identities-id3.jpg", "identities-uiface.jpg", "identities-lcm.jpg"), _identities),
    ("What stage 1 decides", ("stages.jpg",), _stages),
    ("Two stages over time", ("trajectory.jpg",), _trajectory),
    ("Attention over time", ("attention.jpg",), _attention),
    ("Between two people", ("interpolation.jpg",), _interpolation),
    ("People by styles", ("styles.jpg",), _styles),
    ("Worst faces", ("worst.jpg",), _worst),
    ("Nearest real people", ("nearest.png",), _nearest),
)
"""Title, pictures, and the words that follow them."""


def _mean(values: Any) -> str:
    return "–" if values is None or not len(values) else f"{sum(values) / len(values):.2f}"
