"""Other quality scores, one function each, to compare with: larger is better in all of them. Axes: N images, D embedding, F features, T passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.check import check
from ..core.errors import UserError
from ..core.seeds import derive_seed
from .embeddings import checked_embeddings

_BATCH = 256


def embedding_norm(raw_ND: np.ndarray) -> np.ndarray:
    """Return the length of the embedding before it is normalised, float32, (N,).

    The idea of MagFace (CVPR 2021), whose training makes the length mean quality; of another network it is a by-product, no promise.
    """
    check("raw_ND", raw_ND, "N D")
    return np.linalg.norm(np.asarray(raw_ND, np.float32), axis=1)


def sharpness(image_NHWC: np.ndarray, *, shrink: int = 1) -> np.ndarray:
    """Return the variance of the 4-neighbour Laplacian of the luminance (0..255, Rec. 601), float32, (N,).

    Args:
        image_NHWC: uint8 RGB, (N, H, W, 3).
        shrink: average-pool by this factor before (2 or 4 look past noise of single pixels).
    """
    check("image_NHWC", image_NHWC, "N H W 3")
    result_N, weight_C = np.empty(len(image_NHWC), np.float32), torch.tensor([0.299, 0.587, 0.114])
    for begin in range(0, len(image_NHWC), _BATCH):
        grey_BHW = torch.tensor(image_NHWC[begin : begin + _BATCH]).float() @ weight_C  # a copy: decoded images may be read-only
        grey_BHW = F.avg_pool2d(grey_BHW[:, None], shrink)[:, 0]
        centre_BHW = grey_BHW[:, 1:-1, 1:-1]
        laplacian_BHW = grey_BHW[:, :-2, 1:-1] + grey_BHW[:, 2:, 1:-1] + grey_BHW[:, 1:-1, :-2] + grey_BHW[:, 1:-1, 2:] - 4.0 * centre_BHW
        result_N[begin : begin + _BATCH] = laplacian_BHW.flatten(1).var(1, unbiased=False).numpy()
    return result_N


def ser_fiq(feature_NF: np.ndarray, head: Callable[[Tensor], Tensor], *, passes: int = 100, dropout: float = 0.5, seed: int = 0) -> np.ndarray:
    """Return 2 / (1 + exp(d)), d = mean distance of the embeddings of `passes` passes with dropout; in (0, 1], float32, (N,).

    Terhörst et al., "SER-FIQ", CVPR 2020 (formula as in the released code, recognition.md §7.6, without its rescaling).

    Args:
        feature_NF: input of the last layers, e.g. `Features.penultimate`.
        head: the last layers: (B, F) → raw embeddings, (B, D). Networks without dropout get it on their input, which is where the paper has it.
        dropout: share of the features set to 0 in each pass; the rest is scaled up.
        seed: of the masks; they are the same for every image, so that scores do not depend on the batch.
    """
    check("feature_NF", feature_NF, "N F")
    if passes < 2 or not 0 < dropout < 1:
        raise UserError(f"SER-FIQ with {passes} passes and dropout {dropout}; expected at least 2 passes and a dropout between 0 and 1")
    generator = torch.Generator().manual_seed(derive_seed(seed, "ser-fiq"))
    mask_TF = (torch.rand((passes, feature_NF.shape[1]), generator=generator) >= dropout).float() / (1.0 - dropout)
    pair_TT = torch.ones(passes, passes).triu(1).bool()
    result_N = np.empty(len(feature_NF), np.float32)
    with torch.inference_mode():
        for row, feature_F in enumerate(torch.from_numpy(np.ascontiguousarray(feature_NF, np.float32))):
            unit_TD = F.normalize(head(feature_F * mask_TF))
            distance = (2.0 - 2.0 * (unit_TD @ unit_TD.T)[pair_TT]).clamp_min(0.0).sqrt().mean()
            result_N[row] = 2.0 * torch.sigmoid(-distance)
    return result_N


def certainty_ratio(embed_ND: np.ndarray, identity_N: np.ndarray) -> np.ndarray:
    """Return CCS / (NNCCS + 1), float32, (N,): cosine to the own centre over that to the nearest other one; NaN for identities with one image.

    The training target of CR-FIQA (Boutros et al., CVPR 2023) in the form of the paper as recalled in recognition.md §7.6; the released code
    divides by NNCCS itself, which explodes near 0. Centres are means of the other images here, not class weights of a margin head: a
    reconstruction for comparison, to be learned by `regressor` like any label.
    """
    embed_ND, identity_N = checked_embeddings(embed_ND, identity_N)
    _, index_N, count_I = np.unique(identity_N, return_inverse=True, return_counts=True)
    if count_I.size < 2:
        raise UserError("the certainty ratio compares with other identities, but there is only one; expected at least two identities")
    sum_ID = np.zeros((count_I.size, embed_ND.shape[1]), np.float32)
    np.add.at(sum_ID, index_N, embed_ND)
    centre_ID = sum_ID / np.linalg.norm(sum_ID, axis=1, keepdims=True).clip(1e-12)
    others_ND = sum_ID[index_N] - embed_ND  # the image itself would draw a small identity's centre to it
    own_N = np.einsum("nd,nd->n", embed_ND, others_ND) / np.linalg.norm(others_ND, axis=1).clip(1e-12)
    nearest_N = np.empty(len(embed_ND), np.float32)
    for begin in range(0, len(embed_ND), _BATCH):
        rows = np.arange(begin, min(begin + _BATCH, len(embed_ND)))
        cos_RI = embed_ND[rows] @ centre_ID.T
        cos_RI[np.arange(rows.size), index_N[rows]] = -np.inf
        nearest_N[rows] = cos_RI.max(axis=1)
    return np.where(count_I[index_N] >= 2, own_N / (nearest_N + 1.0).clip(1e-6), np.nan).astype(np.float32)
