"""DuetFace: the server gets the 54 small channels of each plane, the client keeps the ten large ones and sends where it looks.

Source: Mi et al., "DuetFace: collaborative privacy-preserving face recognition via channel splitting in the frequency domain", ACM MM 2022; figure and
public code (consumers.md §1). The 54 channels give the picture's luma back at 127 dB by least squares: this split hides a face from the eye, not from arithmetic.
Training shows the pictures to the provider; only queries are protected. Axes: B faces, C H W, G = 4 stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Self

from ...identity.sources import Faces
from ...recognition.backbones import BackboneConfig
from .draws import Draws
from .face_region import face_region
from .front_end import CHANNELS, LARGEST, forward_dct, inverse_dct, spread
from .protected import PRIVACY_METHODS, ClientPart, MethodSettings, PrivacyMethod, PrivacyRecipe, Protected
from .train import MapRecogniser, learn
from .wire import WireField

CLIENT_CHANNELS = (0, 1, 2, 3, 4, 5, 8, 9, 16, 24)
SERVER_CHANNELS = tuple(k for k in range(CHANNELS) if k not in CLIENT_CHANNELS)
STAGES = 4
_CLIENT_1K, _SERVER_1K = torch.tensor([CLIENT_CHANNELS]), torch.tensor([SERVER_CHANNELS])


class DuetFaceSettings(MethodSettings):
    """`release_compatible`: the client sends whole feature maps, and the server passes them through a 1×1 convolution drawn anew at every call.

    Attributes:
        client_width: factor on the channels of the client's MobileFaceNet.
        landmarks: find each face's region with dlib's landmarks; off = the median face's region for everybody.
    """

    client_width: float = Field(1.0, gt=0, le=4)
    landmarks: bool = True


class DuetFaceRecipe(PrivacyRecipe):
    """A training of DuetFace: the client's network alone first, then, with it frozen, the server's.

    Attributes:
        client_epochs: of the first training; its other settings are the recipe's. Published: 24, as the second.
    """

    method: DuetFaceSettings = DuetFaceSettings()
    client_epochs: float = Field(24.0, gt=0)


def client_backbone(settings: DuetFaceSettings, embed_dim: int = 512) -> BackboneConfig:
    """The client's network: MobileFaceNet."""
    return BackboneConfig(name="mobilefacenet", width=settings.client_width, embed_dim=embed_dim)


class ClientNetwork(MapRecogniser):
    """MobileFaceNet on the client's 30 channels; `taps` are four of its maps."""

    def __init__(self, settings: DuetFaceSettings) -> None:
        super().__init__(3 * len(CLIENT_CHANNELS), settings, client_backbone(settings))
        self.ends = stage_ends(self.network, 3 * len(CLIENT_CHANNELS), settings.side)

    def taps(self, map_BCHW: Tensor) -> list[Tensor]:
        """Return the last map of each of three resolutions, and the 512-channel map behind them (at 112: 28, 14, 7, 7 pixels)."""
        maps = run_stages(self.network, self.network.stem(self.prepare(map_BCHW)), self.ends)
        return [*maps, self.network.spread(maps[-1])]


class DuetFaceClient(ClientPart):
    """Splits the channels, and says by four masks where its own network is active inside the face."""

    settings: DuetFaceSettings

    def __init__(self, settings: DuetFaceSettings) -> None:
        super().__init__(settings)
        self.attention = ClientNetwork(settings)
        with torch.no_grad():
            self.attention.eval()
            zeros = torch.zeros(1, 3 * len(CLIENT_CHANNELS), settings.side, settings.side)
            self.tap_shapes = tuple(tuple(tap.shape[1:]) for tap in self.attention.taps(zeros))
        self.freeze()

    def freeze(self) -> None:
        """The client's network is ready when the server's training begins."""
        self.attention.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.attention.eval()  # frozen means its statistics, too
        return self

    @property
    def fields(self) -> tuple[WireField, ...]:
        """"coefficients": (162, side, side); "map_0" … "map_3": masks (1, h, w) in [0, 1], as released whole maps; "region": (1, side, side) of 0 and 1."""
        side, released = self.settings.side, self.settings.release_compatible
        sent = [self.number_field("coefficients", 3 * len(SERVER_CHANNELS), side, side, lo=-LARGEST, hi=LARGEST)]
        for g, (c, h, w) in enumerate(self.tap_shapes):
            sent.append(self.number_field(f"map_{g}", c, h, w, lo=-6e4, hi=6e4) if released else self.number_field(f"map_{g}", 1, h, w, lo=0.0, hi=1.0))
        return (*sent, WireField(name="region", shape=(1, side, side), dtype="|u1", lo=0, hi=1))

    def forward(self, image_BCHW: Tensor, draws: Draws) -> dict[str, Tensor]:
        small = self.seen(image_BCHW)
        with torch.no_grad():
            taps = self.attention.taps(forward_dct(small, _CLIENT_1K))
        region = face_region(image_BCHW, self.settings.side, landmarks=self.settings.landmarks)
        maps = taps if self.settings.release_compatible else [attention_mask(tap, region) for tap in taps]
        return {"coefficients": forward_dct(small, _SERVER_1K), **{f"map_{g}": one for g, one in enumerate(maps)}, "region": region}


class InteractiveBlock(nn.Module):
    """σ(S)·(1 + w·m): the server's map S, brightened where the client looks. w is learned and begins at 0; the sigmoid is there anyway."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, map_BCHW: Tensor, mask_B1HW: Tensor) -> Tensor:
        return torch.sigmoid(map_BCHW) * (1.0 + self.weight * mask_B1HW)


class DuetFaceServer(MapRecogniser):
    """The server's network with an interactive block behind each of its four resolutions."""

    def __init__(self, settings: DuetFaceSettings, backbone: BackboneConfig) -> None:
        super().__init__(3 * len(SERVER_CHANNELS), settings, backbone)
        self._released = settings.release_compatible
        self.ends = stage_ends(self.network, 3 * len(SERVER_CHANNELS), settings.side)
        # MobileFaceNet has halved the picture before its first block: its stem is the first stage.
        self._stem_is_a_stage = len(self.ends) == STAGES - 1
        self.blocks = nn.ModuleList(InteractiveBlock() for _ in range(STAGES))

    def forward(self, coefficients: Tensor, region: Tensor, **maps: Tensor) -> Tensor:
        x = self.network.stem(self.prepare(coefficients))
        blocks = iter([(block, maps[f"map_{g}"]) for g, block in enumerate(self.blocks)])

        def interact(x_BCHW: Tensor) -> Tensor:
            block, sent = next(blocks)
            mask = released_mask if self._released else resized_mask
            return block(x_BCHW, mask(sent, region, x_BCHW))

        x = interact(x) if self._stem_is_a_stage else x
        return self.network.tail(run_stages(self.network, x, self.ends, interact)[-1])


def attention_mask(map_BCHW: Tensor, region_B1HW: Tensor) -> Tensor:
    """Client map → mask in [0, 1], (B, 1, h, w): channel mean, scaled to [0, 1] in each picture, zero outside the face, scaled again.

    The paper's figure scales once, after the region; where a mean is negative that would light up what lies outside the face. A constant map gives 0.
    """
    inside = F.interpolate(region_B1HW, map_BCHW.shape[2:], mode="bilinear", align_corners=True)
    return min_max(min_max(map_BCHW.mean(1, keepdim=True)) * inside)


def min_max(map_BCHW: Tensor, floor: float = 1e-6) -> Tensor:
    """Scale each picture's map to [0, 1] over channels and pixels; `floor` keeps a constant map finite."""
    low, high = map_BCHW.amin((1, 2, 3), keepdim=True), map_BCHW.amax((1, 2, 3), keepdim=True)
    return (map_BCHW - low) / (high - low + floor)


def resized_mask(mask_B1HW: Tensor, region_B1HW: Tensor, like: Tensor) -> Tensor:
    """Bring a mask to the server map's size; it stays 0 wherever the region is 0."""
    size = like.shape[2:]
    mask = F.interpolate(mask_B1HW, size, mode="bilinear", align_corners=True)
    return mask * (F.interpolate(region_B1HW, size, mode="bilinear", align_corners=True) > 0)


def released_mask(map_BCHW: Tensor, region_B1HW: Tensor, like: Tensor) -> Tensor:
    """The public code: resize, a 1×1 convolution with new random weights at every call, channel mean, scale, region, scale (0/0 for a constant map)."""
    size = like.shape[2:]
    resized = F.interpolate(map_BCHW, size, mode="bilinear", align_corners=True)
    interface = nn.Conv2d(map_BCHW.shape[1], like.shape[1], 1).to(map_BCHW.device)
    mean = F.conv2d(resized, interface.weight.detach(), interface.bias.detach()).mean(1, keepdim=True)
    inside = F.interpolate(region_B1HW, size, mode="bilinear", align_corners=True)
    return min_max(min_max(mean, 0.0) * inside, 0.0)


def stage_ends(network: nn.Module, channels: int, side: int) -> tuple[int, ...]:
    """Return the number of blocks up to the end of each resolution of `network.blocks`."""
    was = network.training
    with torch.no_grad():
        x, sizes = network.eval().stem(torch.zeros(1, channels, side, side)), []
        for block in network.blocks:
            x = block(x)
            sizes.append(x.shape[2:])
    network.train(was)
    return tuple(n + 1 for n in range(len(sizes)) if n + 1 == len(sizes) or sizes[n + 1] != sizes[n])


def run_stages(network: nn.Module, x_BCHW: Tensor, ends: Sequence[int], after: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
    """Run `network.blocks` and return the map at the end of each stage; `after` changes it before the next stage sees it."""
    maps, start = [], 0
    for end in ends:
        x_BCHW = network.blocks[start:end](x_BCHW)
        x_BCHW = x_BCHW if after is None else after(x_BCHW)
        maps.append(x_BCHW)
        start = end
    return maps


class _ClientAlone(nn.Module):
    """The client's network as a recogniser of faces, for its own training."""

    def __init__(self, client: DuetFaceClient) -> None:
        super().__init__()
        self.client = client
        self.net = client.attention.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.net.train(mode)
        return self

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.net(forward_dct(self.client.seen(image_BCHW), _CLIENT_1K))


@PRIVACY_METHODS.register("duetface")
class DuetFace(PrivacyMethod):
    """162 channels, four masks and the face's region in place of a face."""

    name = "duetface"
    Settings, Recipe = DuetFaceSettings, DuetFaceRecipe
    client: DuetFaceClient

    @classmethod
    def build_client(cls, settings: DuetFaceSettings) -> DuetFaceClient:
        return DuetFaceClient(settings)

    @classmethod
    def build_server(cls, settings: DuetFaceSettings, backbone: BackboneConfig) -> DuetFaceServer:
        return DuetFaceServer(settings, backbone)

    @classmethod
    def tiny(cls) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            settings = DuetFaceSettings(side=16, client_width=0.125, landmarks=False)
            return cls(settings, BackboneConfig(embed_dim=16, width=0.125)).eval()

    @classmethod
    def train_on(cls, recipe: DuetFaceRecipe, faces: Faces, out: Path) -> Path:
        alone = recipe.model_copy(update={"epochs": recipe.client_epochs, "backbone": client_backbone(recipe.method)})
        first, _ = learn(alone, faces, out / "client", lambda: _ClientAlone(DuetFaceClient(recipe.method)))
        ready = first.network.net.state_dict()

        def network() -> DuetFace:
            method = cls(recipe.method, recipe.backbone)
            method.client.attention.load_state_dict(ready)
            return method

        found, facts = learn(recipe, faces, out / "server", network)
        return found.network.save(out, facts=facts)

    def channel_codes(self) -> list[tuple[int, ...]]:
        return [SERVER_CHANNELS]

    def view(self, protected: Protected) -> Tensor:
        return inverse_dct(spread(protected.tensors["coefficients"], _SERVER_1K.expand(len(protected), -1)))
