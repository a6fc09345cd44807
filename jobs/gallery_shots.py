"""The pictures of docs/gallery.md: which verb makes each, with which options. The command the page prints is written from the options that make it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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


def set_command() -> str:
    """Return the line that makes the set."""
    return f"facefoundry run recipes/{SET_JOB} --out {SET} " + " ".join(f"--set '{option}'" for option in SET_OPTIONS)
