"""The common shape of a privacy method: a client part that turns faces into what may be sent, a server part that works with it, bytes between them.

Two kinds. "image" methods (DuetFace, PartialFace, DCTDP, MinusFace) send a protected representation of the picture, from which the server's
own network makes an embedding. "template" methods (SlerpFace) keep a protected template and compare against it. No method here is irreversible:
what attacks recover is measured by `attacks.py` and belongs on every card.
Axes: B faces, C H W, D embedding. Faces are float32 RGB in [-1, 1], (B, 3, 112, 112), aligned.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ...core.check import check
from ...core.config import Config
from ...core.errors import UserError
from ...core.registry import Registry
from ...core.weights import load_into, load_weights, save_weights
from ...identity.sources import Faces
from ...recognition.augment import AugmentConfig
from ...recognition.backbones import BackboneConfig
from ...recognition.train import RecogniserRecipe
from .draws import Draws, SecretDraws, TorchDraws
from .wire import Replays, WireField, pack, unpack

PRIVACY_METHODS: Registry[type[PrivacyMethod]] = Registry("privacy method", "facefoundry.consumers.privacy")
CLIENT_FILE, SERVER_FILE = "client.safetensors", "server.safetensors"
CLIENT_KIND, SERVER_KIND = "privacy-client", "privacy-server"


@dataclass(frozen=True, kw_only=True)
class Protected:
    """What leaves the client for B faces: tensors by name, first axis B. Secrets (rank, permutation, noise, key) are never in it."""

    method: str
    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))


class MethodSettings(Config):
    """What every method is told.

    Attributes:
        side: height and width in pixels at which the client works; below 112 it average-pools the face first (small trainings).
        release_compatible: do what the authors' public code does where that differs from the paper or is wrong; off = the fixed behaviour.
        half: send float16 numbers: half the bytes.
        standardise: the server first brings every channel to mean 0 and variance 1 (a normalisation without weights: over a batch, or over
            each face where a channel holds something else for each, as in PartialFace and MinusFace). The published networks have no such
            layer; trainings of a few hundred steps need it, because the channels' sizes differ by a factor of 1000.
    """

    side: Literal[16, 28, 56, 112] = 112
    release_compatible: bool = False
    half: bool = False
    standardise: bool = False


class PrivacyRecipe(RecogniserRecipe):
    """A training of an image method: the common recogniser's recipe, and the method's settings. Each method narrows `method`.

    The defaults are the published schedule (consumers.md §0.3): IR-18, ArcFace s = 64, m = 0.5, SGD, 0.1 → ÷10 at epochs 10, 18, 22 of 24.
    `backbone.channels` and `.side` are the method's to set; `init` does not apply.
    """

    method: MethodSettings = MethodSettings()
    backbone: BackboneConfig = BackboneConfig(name="ir-18", embed_dim=512, dropout=0.4)
    epochs: float = Field(24.0, gt=0)
    schedule: Literal["constant", "cosine", "poly", "step"] = "step"
    milestones: tuple[float, ...] = (10 / 24, 18 / 24, 22 / 24)
    warmup: float = Field(0.0, ge=0, lt=1)
    clip: float = Field(0.0, ge=0)
    augment: AugmentConfig = AugmentConfig(flip=0.5)

    @model_validator(mode="after")
    def _input_is_the_methods(self) -> Self:
        if self.init is not None or (self.backbone.channels, self.backbone.side, self.backbone.shrink) != (3, 112, 1):
            raise ValueError("a privacy method decides what its recogniser is fed: leave 'init', 'backbone.channels', 'backbone.side' and 'backbone.shrink' out and set 'method.side'")
        return self


class ClientPart(nn.Module):
    """What runs where the face is: forward(image_BCHW, draws) → named tensors that may be sent. `fields` is the contract of what crosses."""

    def __init__(self, settings: MethodSettings) -> None:
        super().__init__()
        self.settings = settings

    @property
    @abstractmethod
    def fields(self) -> tuple[WireField, ...]:
        """The arrays of a message, in order."""

    @abstractmethod
    def forward(self, image_BCHW: Tensor, draws: Draws) -> dict[str, Tensor]: ...

    def seen(self, image_BCHW: Tensor) -> Tensor:
        """Return the face at the method's own resolution, (B, 3, side, side) in [-1, 1]."""
        return F.avg_pool2d(image_BCHW, 112 // self.settings.side) if self.settings.side != 112 else image_BCHW

    def number_field(self, name: str, *shape: int, lo: float, hi: float) -> WireField:
        """Return a field of real numbers in the type the settings ask for."""
        return WireField(name=name, shape=shape, dtype="<f2" if self.settings.half else "<f4", lo=lo, hi=hi)


class PrivacyMethod(nn.Module):
    """A client part and a server part that were trained together.

    forward(image_BCHW) → raw embeddings (B, D) is the training path: clients are imitated with torch's generator, gradients pass.
    `protect` and `recognise` are the two sides as used; `Client` and `Server` put bytes between them.

    Attributes:
        name: key in `PRIVACY_METHODS`.
        kind: "image" or "template"; see the module.
        Settings, Recipe: what a user may set; `Recipe.method` is a `Settings`.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["image", "template"]] = "image"
    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    Recipe: ClassVar[type[PrivacyRecipe]] = PrivacyRecipe

    client: ClientPart
    server: nn.Module

    def __init__(self, settings: MethodSettings, backbone: BackboneConfig) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.client = self.build_client(settings)
        self.server = self.build_server(settings, backbone)

    @classmethod
    @abstractmethod
    def build_client(cls, settings: Any) -> ClientPart:
        """Return the client part with fresh weights."""

    @classmethod
    @abstractmethod
    def build_server(cls, settings: Any, backbone: BackboneConfig) -> nn.Module:
        """Return the server part with fresh weights: forward(**tensors) → raw embeddings (B, D)."""

    @classmethod
    @abstractmethod
    def train_on(cls, recipe: Any, faces: Faces, out: Path) -> Path:
        """Train on faces of known people and return the folder with both parts' files; a killed run goes on."""

    @classmethod
    def tiny(cls) -> Self:
        """Return a small method with random weights (faces are still 112×112), in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return cls(cls.Settings(side=16), BackboneConfig(embed_dim=16, width=0.125)).eval()

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.server(**self.client(image_BCHW, TorchDraws()))

    def protect(self, image_BCHW: Tensor, *, draws: Draws | None = None) -> Protected:
        """Client side: faces → what may be sent, with fresh secrets; `draws` is for tests.

        Raises:
            ValueError: other shape or range.
        """
        return protect(self.name, self.client, image_BCHW, draws)

    @torch.inference_mode()
    def recognise(self, protected: Protected) -> Tensor:
        """Server side: → unit embeddings, float32 (B, D)."""
        return F.normalize(self.server(**protected.tensors).float())

    def view(self, protected: Protected) -> Tensor:
        """Return what the server sees as a picture without any learning (attack A0), RGB in [0, 1], (B, 3, side, side)."""
        raise NotImplementedError(f"'{self.name}' has no picture of what it sends")

    def channel_codes(self) -> list[tuple[int, ...]]:
        """Return the ordered DCT channels a plane, 8u + v, of every secret draw the public parameters allow; empty where they are too many to list."""
        return []

    @property
    def bytes_per_face(self) -> int:
        """Size of the arrays of one face in a message."""
        return sum(field.row_bytes for field in self.client.fields)

    def save(self, folder: Path, *, facts: dict[str, Any]) -> Path:
        """Write client.safetensors and server.safetensors; each side needs its own file only."""
        config = {"method": self.name, "settings": self.settings.model_dump(mode="json"), "backbone": self.backbone.model_dump(mode="json")}
        save_weights(folder / CLIENT_FILE, self.client, kind=CLIENT_KIND, config=config, facts=facts)
        save_weights(folder / SERVER_FILE, self.server, kind=SERVER_KIND, config=config, facts=facts)
        return folder


def protect(name: str, client: ClientPart, image_BCHW: Tensor, draws: Draws | None = None) -> Protected:
    """Run a client part on checked faces."""
    check("image_BCHW", image_BCHW, "B 3 112 112", lo=-1.0, hi=1.0)
    with torch.inference_mode():
        return Protected(method=name, tensors=client(image_BCHW.float(), SecretDraws() if draws is None else draws))


def _part(path: Path, kind: str) -> tuple[str, nn.Module]:
    tensors, config, _ = load_weights(path, kind=kind)
    cls = PRIVACY_METHODS[str(config["method"])]
    settings = cls.Settings.parse(config["settings"], source=f"header of {path}")
    with torch.random.fork_rng(devices=[]):
        part = cls.build_client(settings) if kind == CLIENT_KIND else cls.build_server(settings, BackboneConfig.parse(config["backbone"], source=f"header of {path}"))
    load_into(part, tensors, path)
    return cls.name, part.eval().requires_grad_(False)


def load_method(folder: Path) -> PrivacyMethod:
    """Return both parts of a training, for measurements (a service loads one: `load_client`, `load_server`).

    Raises:
        UserError: a file is missing, damaged, or the two are of different methods or settings.
    """
    _, config, _ = load_weights(folder / CLIENT_FILE, kind=CLIENT_KIND)
    _, other, _ = load_weights(folder / SERVER_FILE, kind=SERVER_KIND)
    if config != other:
        raise UserError(f"{folder} holds a client part of '{config.get('method')}' and a server part of '{other.get('method')}' with other settings; take both files from one training")
    cls = PRIVACY_METHODS[str(config["method"])]
    with torch.random.fork_rng(devices=[]):
        method = cls(cls.Settings.parse(config["settings"], source=str(folder)), BackboneConfig.parse(config["backbone"], source=str(folder)))
    method.client, method.server = _part(folder / CLIENT_FILE, CLIENT_KIND)[1], _part(folder / SERVER_FILE, SERVER_KIND)[1]
    return method.eval()


class Client:
    """Runs where the face is. Holds no embedding, no gallery, no server weight.

    Args:
        key: shared by client and server to seal messages; None = unsealed.
    """

    def __init__(self, name: str, part: ClientPart, *, key: bytes | None = None, draws: Draws | None = None) -> None:
        self._name, self._part, self._key, self._draws = name, part.eval(), key, draws

    @classmethod
    def load(cls, path: Path, *, key: bytes | None = None) -> Self:
        """Read a client.safetensors."""
        name, part = _part(path, CLIENT_KIND)
        return cls(name, part, key=key)

    def request(self, image_BCHW: Tensor) -> bytes:
        """Protect faces with fresh secrets and return the message for the server."""
        sent = protect(self._name, self._part, image_BCHW, self._draws)
        arrays = {field.name: sent.tensors[field.name].cpu().numpy().astype(field.dtype) for field in self._part.fields}
        return pack(self._name, arrays, key=self._key)


class Server:
    """Runs at the provider: takes messages only.

    Args:
        fields: what the method sends; both sides know it (it is in the method's settings, not in the message).
        window_s: how old a message may be; within it none is taken twice.
    """

    def __init__(self, name: str, part: nn.Module, fields: tuple[WireField, ...], *, key: bytes | None = None, window_s: float = 300.0) -> None:
        self._name, self._part, self._fields, self._key = name, part.eval(), fields, key
        self._replays = Replays(window_s)

    @classmethod
    def load(cls, path: Path, *, key: bytes | None = None) -> Self:
        """Read a server.safetensors."""
        _, config, _ = load_weights(path, kind=SERVER_KIND)
        name, part = _part(path, SERVER_KIND)
        method = PRIVACY_METHODS[name]
        return cls(name, part, method.build_client(method.Settings.parse(config["settings"], source=str(path))).fields, key=key)

    def receive(self, data: bytes) -> Protected:
        """Check a message and return what it holds.

        Raises:
            UserError: see `wire.unpack` and `wire.Replays`.
        """
        message = unpack(data, self._name, self._fields, key=self._key)
        self._replays.check(message)
        return Protected(method=self._name, tensors={name: torch.from_numpy(np.array(array, np.float32)) for name, array in message.arrays.items()})

    @torch.inference_mode()
    def embed(self, data: bytes) -> Tensor:
        """Return the unit embeddings of the faces in a message, float32 (B, D)."""
        return F.normalize(self._part(**self.receive(data).tensors).float())


def split(method: PrivacyMethod, *, key: bytes | None = None) -> tuple[Client, Server]:
    """Return the two sides of a method held in memory."""
    return Client(method.name, method.client, key=key), Server(method.name, method.server, method.client.fields, key=key)
