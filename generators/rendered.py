"""Rendered faces: labelled images straight from the morphable head, with exact landmarks, part labels, pose, expression and light.

No photograph is behind them, so that their licence is the head's (the bundled one: CC0), and every label is exact: what segmentation, landmark and pose
networks train on. Idea of training on such faces: Wood et al., "Fake it till you make it", ICCV 2021. Axes: B images, V vertices, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from ..core.check import check, check_unit_rows
from ..core.config import Config
from ..core.face_style import FaceStyle
from ..core.files import weights_path
from ..core.seeds import numpy_rng
from ..core.template import SIDE, five_points
from ..core.types import FaceBatch
from ..styles_3dmm.accessories import Glasses, dress
from ..styles_3dmm.albedo import load_albedo
from ..styles_3dmm.camera import Camera, aligned_pose, arcface_camera
from ..styles_3dmm.gaze import turn_eyes
from ..styles_3dmm.morphable import MorphableHead, tiny
from ..styles_3dmm.render import Rendering, render
from . import rendered_people as draw
from .registry import GENERATORS

_CHUNK = 16
"""Heads are made this many at a time, the last ones filled up: a matrix product of one size rounds every row the same way."""

_JITTER = (0.02, 0.8, 1.0)
"""What an aligner of photos leaves of scale (share), place (px) and roll (degrees), one standard deviation each."""


@GENERATORS.register("rendered")
class RenderedConfig(Config):
    """Faces of the morphable head.

    Attributes:
        anchor_dim: length of the anchors; people are read from them by fixed random projections.
        shape: spread of the identity coefficients, 1 = the head's own population.
        yaw_deg, pitch_deg: standard deviations of the pose, cut at 2.5 of them.
        glasses, cover: shares of images with glasses and with a mask over mouth and nose (glasses belong to the person, covers to the image).
        blur, noise: shares of images out of focus; standard deviation of the sensor's noise, 1 = from black to white.
        supersample: samples a pixel along each axis.
        skin: detail of the skin: a learned model's weights ("albedo-small", CC BY 4.0), or nothing: drawn from plain laws.
    """

    name: Literal["rendered"] = "rendered"
    anchor_dim: int = Field(128, ge=1)
    shape: float = Field(1.0, ge=0, le=2)
    yaw_deg: float = Field(24.0, ge=0, le=36)
    pitch_deg: float = Field(9.0, ge=0, le=20)
    glasses: float = Field(0.22, ge=0, le=1)
    cover: float = Field(0.05, ge=0, le=1)
    blur: float = Field(0.25, ge=0, le=1)
    noise: float = Field(0.012, ge=0, le=0.2)
    supersample: int = Field(2, ge=1, le=4)
    skin: str = ""

    def build(self, device: torch.device) -> Rendered:
        """Return the generator with the bundled head; it works on the CPU whatever the device."""
        from ..styles_3dmm.head_file import default_head

        return Rendered(default_head(), self)

    @classmethod
    def tiny(cls, device: torch.device = torch.device("cpu")) -> Rendered:
        """An egg instead of a head; for tests only."""
        return Rendered(tiny(), cls(anchor_dim=16, supersample=1))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shots:
    """How the faces of a batch are shown, one row an image."""

    pose_B3: np.ndarray
    gaze_B2: np.ndarray
    expression_BE: np.ndarray
    light_B93: np.ndarray
    background_BHW3: np.ndarray
    covered_B: np.ndarray
    cover_B3: np.ndarray
    jitter_B4: np.ndarray
    distance_B: np.ndarray


class Rendered:
    """Identity anchors and seeds in, faces with their labels out."""

    name = "rendered"

    def __init__(self, head: MorphableHead, config: RenderedConfig) -> None:
        self.head, self.config, self.anchor_dim = head, config, config.anchor_dim
        self.dressed = dress(head)
        self.skin = load_albedo(weights_path(config.skin)) if config.skin else None

    def generate(self, anchor_BD: np.ndarray, seeds: Sequence[int]) -> FaceBatch:
        """Make one face for each anchor, (B, anchor_dim) unit rows, and seed; a row depends on its anchor and seed alone.

        Returns:
            A batch that knows styles, landmarks_px and parts (labels as in `accessories.LABELS`).
        """
        check("anchor_BD", anchor_BD, f"{len(seeds)} {self.anchor_dim}")
        check_unit_rows("anchor_BD", anchor_BD)
        made = [self._chunk(anchor_BD[start : start + _CHUNK], seeds[start : start + _CHUNK]) for start in range(0, len(seeds), _CHUNK)]
        image, style, landmark, part = (list(column) for column in zip(*made)) if made else ([], [], [], [])
        return FaceBatch(
            image_BCHW=torch.cat(image) if image else torch.empty(0, 3, SIDE, SIDE),
            seeds=tuple(seeds),
            passes_B=(0.0,) * len(seeds),
            styles=tuple(item for rows in style for item in rows),
            landmarks_px=np.concatenate(landmark) if landmark else np.empty((0, 5, 2), np.float32),
            parts=np.concatenate(part) if part else np.empty((0, SIDE, SIDE), np.uint8),
        )

    def _chunk(self, anchor_BD: np.ndarray, seeds: Sequence[int]) -> tuple[torch.Tensor, list[FaceStyle], np.ndarray, np.ndarray]:
        count, fill = len(seeds), _CHUNK - len(seeds)
        person = draw.people(np.concatenate([anchor_BD, np.repeat(anchor_BD[-1:], fill, 0)]), len(self.head.identity_KV3), self.config.shape)
        shot = self._shots([*seeds, *(seeds[-1],) * fill])
        picture, pose_B3 = self._draw(person, shot)
        image_BHW3 = np.stack([self._camera_effects(picture.colour[row], seeds[row]) for row in range(count)])
        styles = [
            FaceStyle(pose_deg=_plain(pose_B3[row]), expression=_plain(shot.expression_BE[row]), light=_plain(shot.light_B93[row]), shape=_plain(person.shape_BK[row]))
            for row in range(count)
        ]
        image_BCHW = torch.from_numpy(np.ascontiguousarray(image_BHW3.transpose(0, 3, 1, 2), np.float32)).mul_(2.0).sub_(1.0)
        return image_BCHW, styles, five_points(picture.landmark_px[:count]), picture.parts[:count]

    def _draw(self, person: draw.Person, shot: _Shots) -> tuple[Rendering, np.ndarray]:
        """Return the pictures and the poses they are shown in."""
        head, dressed = self.head, self.dressed
        vertices_BV3 = turn_eyes(head, head.vertices(person.shape_BK, shot.expression_BE), shot.gaze_B2)
        pose_B3 = aligned_pose(head, shot.pose_B3, vertices_BV3)
        camera = _shaken(arcface_camera(head, pose_B3, vertices_BV3), shot)
        pose_B3 = pose_B3 + shot.jitter_B4[:, 3:] * (0.0, 0.0, 1.0)
        glasses, frame_B3, lens_B3 = _glasses(person, self.config.glasses)
        worn_BX3 = dressed.vertices(draw.hair_volume(head, vertices_BV3, person), glasses, shot.covered_B)
        colour_BV3 = draw.colours(head, person)
        if self.skin is not None:
            colour_BV3 = self.skin.detailed(head, colour_BV3, draw.skin_code(person, self.skin))
        albedo_BX3 = dressed.colours(colour_BV3, frame_B3, lens_B3, shot.cover_B3)
        picture = render(
            dressed.head, worn_BX3, camera, pose_B3, albedo=albedo_BX3, light_B93=shot.light_B93, size_px=SIDE,
            background=shot.background_BHW3, supersample=self.config.supersample, layers=("colour",),
        )  # fmt: skip
        return picture, pose_B3

    def _shots(self, seeds: Sequence[int]) -> _Shots:
        rows = [self._shot(numpy_rng(seed, "shot")) for seed in seeds]
        names = ("pose_B3", "gaze_B2", "expression_BE", "light_B93", "background_BHW3", "covered_B", "cover_B3", "jitter_B4", "distance_B")
        return _Shots(**{name: np.stack(column) for name, column in zip(names, zip(*rows))})

    def _shot(self, rng: np.random.Generator) -> tuple:
        pose_3 = rng.normal(size=3).clip(-2.5, 2.5) * (self.config.yaw_deg, self.config.pitch_deg, 0.0)
        # People look about, and mostly back at the camera when their head is turned.
        gaze_2 = (rng.normal(size=2) * (9.0, 6.0) - rng.uniform(0, 0.7) * pose_3[:2]).clip(-28, 28)
        expression_E = draw.expression(rng, self.head, gaze_2)
        lamp, back = draw.light(rng), draw.background(rng, SIDE)
        covered, cover_3 = rng.random() < self.config.cover, rng.choice([(0.85, 0.88, 0.9), (0.45, 0.62, 0.78), (0.08, 0.08, 0.09), (0.75, 0.55, 0.6)])
        scale, place, roll = _JITTER
        jitter_4 = rng.normal(size=4) * (scale, place, place, roll)
        return pose_3, gaze_2, expression_E, lamp, back, covered, cover_3, jitter_4, rng.uniform(500.0, 2500.0)

    def _camera_effects(self, image_HW3: np.ndarray, seed: int) -> np.ndarray:
        """Focus, exposure and noise of a camera, from the image's seed."""
        rng = numpy_rng(seed, "camera")
        exposure, contrast = np.exp(rng.normal(0, 0.12)), rng.uniform(0.85, 1.1)
        if rng.random() < self.config.blur:
            spread_SS = draw.blur_matrix(round(float(rng.uniform(0.4, 1.5)), 1), SIDE)
            image_HW3 = draw.enlarge(spread_SS, image_HW3)
        noise_HW3 = rng.standard_normal((SIDE, SIDE, 3), np.float32) * np.float32(self.config.noise)
        return np.clip(((image_HW3 - 0.5) * contrast + 0.5) * exposure + noise_HW3, 0.0, 1.0)


def _shaken(camera: Camera, shot: _Shots) -> Camera:
    """The camera an aligner's small errors give, at the distance of the shot."""
    scale_B = camera.scale_B * np.exp(shot.jitter_B4[:, 0])
    return Camera.perspective(scale_B * shot.distance_B, shot.distance_B, camera.shift_B2 + shot.jitter_B4[:, 1:3])


def _glasses(person: draw.Person, share: float) -> tuple[Glasses, np.ndarray, np.ndarray]:
    """Glasses of the people who wear some, with the colours of frames and lenses."""
    rows = [numpy_rng("rendered", "glasses", round(float(seed) * 2**40)) for seed in person.traits["seed"]]
    drawn_BX = np.stack([rng.random(9) for rng in rows])
    worn, dark = drawn_BX[:, 0] < share, drawn_BX[:, 1] < 0.2
    glasses = Glasses(worn=worn, dark=dark, half_width=21 + 5 * drawn_BX[:, 2], half_height=14 + 8 * drawn_BX[:, 3], rim=0.8 + 2.6 * drawn_BX[:, 4] ** 2, square=2 + 3 * drawn_BX[:, 5])
    frame_B3 = drawn_BX[:, 6:7] ** 2 * (0.35 + 0.5 * drawn_BX[:, 6:9])
    return glasses, frame_B3, 0.03 + 0.08 * drawn_BX[:, 6:9]


def _plain(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.ravel(values))
