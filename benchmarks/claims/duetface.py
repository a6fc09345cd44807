"""DuetFace's claim: 54 small channels a plane and four masks recognise like the face, and do not show it.

Run: `python benchmarks/claims/duetface.py --minted DATASET --work runs/claims/privacy`.
"""

from __future__ import annotations

import torch
from evidence import Effect
from privacy_methods import Attacked, Study, options, run_claim

from facefoundry.consumers.privacy.duetface import DuetFace


def attention(study: Study, method: DuetFace, on: Attacked) -> tuple[list[Effect], list[str]]:
    """What the four learned weights of the masks are."""
    weights = ", ".join(f"{float(block.weight.detach()):.2f}" for block in method.server.blocks)
    with torch.inference_mode():
        size = sum(parameter.numel() for parameter in method.client.parameters())
    return [], [f"Learned weights of the client's masks (they begin at 0): {weights}. The client's network has {size:,} parameters."]


if __name__ == "__main__":
    run_claim(
        options("duetface", __doc__, looks=19200).parse_args(),
        claim="Mi et al. 2022: the server's 54 channels a plane with the client's attention recognise within about a point of the unprotected network, and give neither picture nor person back.",
        title="DuetFace",
        published="Paper: LFW 99.82 % (ArcFace 99.77 %). Later U-Net attacks on it: SSIM 0.866, 19.88 dB, 96.5 % verification of recovered faces. The linear attack is in no paper; on one 112×112 face it gives the luma back at 127 dB.",
        more=attention,
    )
