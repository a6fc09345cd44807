"""Training that begins from trained weights: fine-tuning of an own or an imported recogniser.

A margin head over random class centres would first tear a trained network apart; the centres therefore start at the mean embedding of each class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.files import sha256_file
from ..core.images import to_float
from ..core.progress import track
from ..core.weights import load_into, load_weights
from .backbones import BackboneConfig
from .checkpoint import KIND

IMAGES_MOST = 4
"""Images of a class that its first centre is the mean of."""


def begin_from(path: Path, network: nn.Module, config: BackboneConfig) -> str:
    """Load a recogniser's weights into a fresh network and return the file's SHA-256.

    Raises:
        UserError: no recogniser, or one of another shape than `config` (names the settings that differ).
    """
    tensors, held, _ = load_weights(path, kind=KIND)
    theirs = BackboneConfig.parse(held, source=f"header of {path}").model_dump(exclude={"dropout"})
    ours = config.model_dump(exclude={"dropout"})
    differing = [f"{key} {theirs[key]} (the recipe: {ours[key]})" for key in ours if ours[key] != theirs[key]]
    if differing:
        raise UserError(f"init: {path} has {', '.join(differing)}; set the recipe's 'backbone' to what the file holds")
    load_into(network, tensors, path)
    return sha256_file(path)


def class_means(network: nn.Module, image_NHWC: np.ndarray, label_N: np.ndarray, batch: int = 64) -> Tensor:
    """Return the mean unit embedding of each class's first images, (I, D); the network is left in the mode it was in.

    Args:
        label_N: class of each image, each of 0 ... I - 1 at least once.
    """
    order = np.argsort(label_N, kind="stable")
    start_I = np.searchsorted(label_N[order], np.arange(label_N.max() + 1))
    place_N = np.arange(len(order)) - start_I[label_N[order]]
    row_M = order[place_N < IMAGES_MOST]
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        parts = [F.normalize(network(to_float(image_NHWC[row_M[start : start + batch]])).float()) for start in track(range(0, len(row_M), batch), "class centres")]
    network.train(was_training)
    embed_MD = torch.cat(parts).clone()
    label_M = torch.from_numpy(label_N[row_M])
    total_ID = torch.zeros(len(start_I), embed_MD.shape[1]).index_add_(0, label_M, embed_MD)
    return F.normalize(total_ID)
