"""Skin in the head's texture: a tone from two pigment axes, and detail (lips, brows, stubble, blemishes) from principal components of real skin.

A texture's density = tone's density + mean detail + coefficients · basis, so that detail darkens dark and light skin by the same share. Axes: B heads, A
components, H W height and width of the texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import zoom

from ..core.check import check
from ..core.errors import UserError
from ..core.files import bundled
from ..core.quantise import quantise_rows
from ..core.weights import load_weights, save_tensors
from .morphable import PARTS, MorphableHead
from .palette import HAIR, INNER, IRIS, draw
from .skin_colour import ToneModel, linear, srgb
from .style_maps import part_share
from .unwrap import Texels, fill

KIND = "albedo"
BUNDLED = "albedo-small.safetensors"
_BROW_HAIR = 0.45
"""How much of a brow's colour is the hair's; the rest is what the skin model says, in which brows are dark already."""

_CALMER, _REDNESS = 0.8, 0.5
"""Standard deviations of drawn coefficients and of drawn redness, of the people's own: the photographs' colour balance is part of theirs."""
_BROWN_DEG = 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class AlbedoModel:
    """Attributes:
    tone: of the skin.
    detail_HW3: mean detail, density.
    basis_AHW3: a coefficient of 1 is one standard deviation of people, density.
    licence: of the photographs it was learned from.
    """

    tone: ToneModel
    detail_HW3: np.ndarray
    basis_AHW3: np.ndarray
    licence: str

    def texture(
        self, head: MorphableHead, coefficients_BA: np.ndarray, tone_B2: np.ndarray, *, iris_B3: np.ndarray | None = None, hair_B3: np.ndarray | None = None, size: int = 256
    ) -> np.ndarray:
        """Return textures for `render`, (B, size, size, 3) float32, sRGB numbers in [0, 1].

        Args:
            head: whose chart it is; the model's was the bundled head's.
            tone_B2: typology angle in degrees (65 very light … -60 dark) and redness in standard deviations.
            iris_B3, hair_B3: sRGB (or one row for all); None = dark brown. `palette` has common ones.
        """
        count = check("coefficients_BA", coefficients_BA, f"B {len(self.basis_AHW3)}")["B"]
        check("tone_B2", tone_B2, f"{count} 2")
        detail_BHW3 = self.detail(coefficients_BA)
        scale = size / detail_BHW3.shape[1]
        if scale != 1:
            detail_BHW3 = zoom(detail_BHW3, (1, scale, scale, 1), order=1, grid_mode=True, mode="nearest")
        density_BHW3 = self.tone.density(tone_B2).astype(np.float32)[:, None, None] + detail_BHW3
        texture_BHW3 = srgb(np.exp(-density_BHW3).clip(0.0, 1.0)).astype(np.float32)
        part_HW = _parts(head, size)
        hair_B13 = np.broadcast_to(np.array([HAIR["dark brown"]]) if hair_B3 is None else hair_B3, (count, 3))[:, None].astype(np.float32)
        iris_B13 = np.broadcast_to(np.array([IRIS["dark brown"]]) if iris_B3 is None else iris_B3, (count, 3))[:, None].astype(np.float32)
        for name, colour in {**INNER, "iris": iris_B13, "hair": hair_B13}.items():
            texture_BHW3[:, part_HW == PARTS.index(name)] = np.asarray(colour, np.float32)
        brow_HW = part_HW == PARTS.index("brows")
        texture_BHW3[:, brow_HW] = (1 - _BROW_HAIR) * texture_BHW3[:, brow_HW] + _BROW_HAIR * hair_B13
        return texture_BHW3

    def detail(self, coefficients_BA: np.ndarray) -> np.ndarray:
        """Return the details, (B, H, W, 3) float32 density."""
        return self.detail_HW3 + np.tensordot(coefficients_BA.astype(np.float32), self.basis_AHW3, 1)

    def detailed(self, head: MorphableHead, colour_BV3: np.ndarray, coefficients_BA: np.ndarray) -> np.ndarray:
        """Return vertex colours, (B, V, 3) float32 sRGB numbers, with the detail of skin laid over colours that have none: for who colours heads by vertices.

        Skin is darkened or lightened by the detail's density as it stands; lips and brows by what of the detail is not in the mean (their own colour is in `colour_BV3`).
        """
        check("colour_BV3", colour_BV3, f"{len(coefficients_BA)} {len(head.mean_V3)} 3")
        place_V2 = head.uv_V2 * np.array(self.detail_HW3.shape[1::-1]) - 0.5
        column_V, row_V = place_V2.round().astype(int).clip(0, np.array(self.detail_HW3.shape[1::-1]) - 1).T
        bare_V = _bare(head)[:, None]
        detail_BV3 = self.detail_HW3[row_V, column_V] * bare_V + np.tensordot(coefficients_BA.astype(np.float32), self.basis_AHW3[:, row_V, column_V], 1)
        return srgb((linear(colour_BV3) * np.exp(-detail_BV3)).clip(0.0, 1.0)).astype(np.float32)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return coefficients of drawn people, (count, A): a little calmer than the people's own, cut at two deviations."""
        return _CALMER * rng.normal(size=(count, len(self.basis_AHW3))).clip(-2.0, 2.0)

    def sample(self, head: MorphableHead, rng: np.random.Generator, count: int, *, size: int = 256) -> np.ndarray:
        """Return textures of drawn people, (count, size, size, 3): tones spread evenly over the range, irises and hair from the palette.

        [C] Brown skins get the dark colours of it only, or grey hair.
        """
        coefficients_BA = self.draw(rng, count)
        tone_B2 = np.stack([rng.uniform(-55.0, 60.0, count), _REDNESS * rng.normal(size=count).clip(-2.0, 2.0)], -1)
        brown_B1 = tone_B2[:, :1] < _BROWN_DEG
        iris_B3 = np.where(brown_B1, draw({name: IRIS[name] for name in ("dark brown", "brown")}, rng, count), draw(IRIS, rng, count))
        hair_B3 = np.where(brown_B1, draw({name: HAIR[name] for name in ("black", "dark brown", "grey")}, rng, count), draw(HAIR, rng, count))
        return self.texture(head, coefficients_BA, tone_B2, iris_B3=iris_B3, hair_B3=hair_B3, size=size)


def save_albedo(path: Path, model: AlbedoModel, *, facts: dict[str, Any] | None = None) -> None:
    """Write a model: the texels that have any detail alone, the basis as int8 rows."""
    some_HW = np.abs(model.detail_HW3).max(2) + np.abs(model.basis_AHW3).max((0, 3)) > 0
    basis = torch.from_numpy(np.ascontiguousarray(model.basis_AHW3[:, some_HW], np.float32)).flatten(1)
    tensors = quantise_rows({"basis": basis}) | {"detail": torch.from_numpy(model.detail_HW3[some_HW].astype(np.float16)), "texels": torch.from_numpy(some_HW.copy())}
    tone = np.stack([model.tone.middle_3, model.tone.melanin_3, model.tone.haemoglobin_3])
    tensors["tone"] = torch.from_numpy(tone.astype(np.float32))
    save_tensors(path, tensors, kind=KIND, config={"licence": model.licence}, facts=facts)


def load_albedo(path: Path) -> AlbedoModel:
    """Read a model written by `save_albedo`.

    Raises:
        UserError: damaged or of another kind.
    """
    tensors, config, _ = load_weights(path, kind=KIND)
    try:
        some_HW, tone_33 = tensors["texels"].numpy().astype(bool), tensors["tone"].numpy().astype(np.float64)
        detail_HW3 = np.zeros((*some_HW.shape, 3), np.float32)
        detail_HW3[some_HW] = tensors["detail"].numpy()
        basis_AHW3 = np.zeros((len(tensors["basis"]), *detail_HW3.shape), np.float32)
        basis_AHW3[:, some_HW] = tensors["basis"].view(len(basis_AHW3), -1, 3).numpy()
        tone = ToneModel(middle_3=tone_33[0], melanin_3=tone_33[1], haemoglobin_3=tone_33[2])
        return AlbedoModel(tone=tone, detail_HW3=detail_HW3, basis_AHW3=basis_AHW3, licence=config["licence"])
    except (KeyError, RuntimeError, IndexError, ValueError) as error:
        raise UserError(f"{path} does not hold a whole albedo model ({error}); make it again with 'facefoundry head albedo'") from error


@lru_cache(maxsize=1)
def default_albedo() -> AlbedoModel:
    """Return the bundled model; its arrays are shared: do not write into them."""
    return load_albedo(bundled(BUNDLED))


@lru_cache(maxsize=4)
def _parts(head: MorphableHead, size: int) -> np.ndarray:
    """Parts at the texels, (size, size) uint8; empty texels as their nearest neighbour."""
    part_HW = Texels.of(head, size).part_HW
    return fill(part_HW[..., None], part_HW < 255)[..., 0]


@lru_cache(maxsize=4)
def _bare(head: MorphableHead) -> np.ndarray:
    """How much of the skin round a vertex is plain skin, (V,)."""
    return part_share(head)[:, PARTS.index("skin")]
