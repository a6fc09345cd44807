"""The same networks as other trainers define them, so that their weights fit: insightface's and CurricularFace's.

insightface (arcface_torch): a strided shortcut is always a convolution; the last normalisation learns an offset (`affine`), its scale stays 1 there.
CurricularFace's own repository (from face.evoLVe): no normalisation between a block's first convolution and its PReLU.
insightface's MobileFaceNet: twice (four times) the channels between blocks, the table's inside them.
"""

from __future__ import annotations

from torch import nn

from .backbones import BACKBONES, scaled
from .ir import ImprovedResNet
from .mobilefacenet import Bottleneck, MobileFaceNet


class InsightfaceResNet(ImprovedResNet):
    """See above."""

    pooled = False


@BACKBONES.register("iresnet-18")
class IResNet18(InsightfaceResNet):
    """24.03 M parameters, 2.61 GMAC."""

    units = (2, 2, 2, 2)


@BACKBONES.register("iresnet-34")
class IResNet34(InsightfaceResNet):
    """34.14 M parameters, 4.46 GMAC."""

    units = (3, 4, 6, 3)


@BACKBONES.register("iresnet-50")
class IResNet50(InsightfaceResNet):
    """43.59 M parameters, 6.31 GMAC."""

    units = (3, 4, 14, 3)


@BACKBONES.register("iresnet-100")
class IResNet100(InsightfaceResNet):
    """65.16 M parameters, 12.09 GMAC."""

    units = (3, 13, 30, 3)


@BACKBONES.register("iresnet-200")
class IResNet200(InsightfaceResNet):
    """118.83 M parameters, 23.42 GMAC."""

    units = (6, 26, 60, 6)


class EvolveResNet(ImprovedResNet):
    """See above."""

    middle_norm = False


@BACKBONES.register("ir-50-evolve")
class Evolve50(EvolveResNet):
    """6.30 GMAC."""

    units = (3, 4, 14, 3)


@BACKBONES.register("ir-100-evolve")
class Evolve100(EvolveResNet):
    """12.08 GMAC."""

    units = (3, 13, 30, 3)


@BACKBONES.register("ir-se-50-evolve")
class EvolveSE50(EvolveResNet):
    """6.30 GMAC; also the network of many published identity losses."""

    units = (3, 4, 14, 3)
    squeeze = True


@BACKBONES.register("mbf")
class InsightfaceMobileFaceNet(MobileFaceNet):
    """2.06 M parameters, 0.4375 GMAC."""

    wider = 2


@BACKBONES.register("mbf-large")
class InsightfaceMobileFaceNetLarge(MobileFaceNet):
    """6.315 M parameters, 1.816 GMAC; two residual blocks in the place of the grouped convolution."""

    repeats = (8, 12, 4)
    wider = 4

    def _second(self, channels: int, width: float) -> nn.Module:
        return nn.Sequential(*(Bottleneck(channels, scaled(128, width), channels, stride=1, residual=True) for _ in range(2)))
