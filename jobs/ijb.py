"""IJB-B and IJB-C end to end: loose crops aligned by the protocol's five points, features with the mirror image added, 1:1 and 1:N figures."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ..challenge.identification import two_galleries
from ..challenge.ijb import IjbProtocol, ijb_figures, read_gallery, read_ijb
from ..challenge.templates import pool_templates, template_rows
from ..core.errors import UserError
from ..core.images import decode, to_float
from ..core.progress import bar
from ..core.types import Embedder
from ..identity.trees import Tree, open_tree
from ..recognition.align import align_five

_BATCH = 64


def score_ijb(embedder: Embedder, root: Path, *, flip: bool = True, detector_weights: bool = True, keep_norms: bool = True) -> dict[str, float]:
    """Return the figures of an IJB folder (`meta/` and `loose_crop/`): TAR@FAR 1:1, and 1:N where the gallery lists are there.

    Raises:
        UserError: lists that do not fit, a missing or damaged image (named), or an embedder without raw features where norms are to be kept.
    """
    protocol = read_ijb(root)
    if keep_norms and not hasattr(embedder, "raw"):
        raise UserError(f"'{embedder.name}' gives unit rows only, but the official protocol keeps the features' norms (N1); pass --no-norms to score it as N0")
    feature_ND = embed_loose_crops(embedder, root / "loose_crop", protocol, flip=flip)
    figures = ijb_figures(protocol, feature_ND, detector_weights=detector_weights, keep_norms=keep_norms)
    return figures | _identification(root / "meta", protocol, feature_ND, detector_weights, keep_norms)


def embed_loose_crops(embedder: Embedder, crops: Path, protocol: IjbProtocol, *, flip: bool = True) -> np.ndarray:
    """Align and embed every image of the protocol; return raw features, float32 (N, D)."""
    feature = getattr(embedder, "raw", None) or embedder
    feature_ND = np.empty((len(protocol.image_N), embedder.dim), np.float32)
    with open_tree(crops) as tree, bar(f"embedding for {embedder.name}", len(feature_ND)) as step, torch.no_grad():
        faces = _aligned(tree, protocol)
        start = 0
        while batch := list(islice(faces, _BATCH)):
            image_BCHW = to_float(np.stack(batch))
            found_BD = feature(image_BCHW) + feature(image_BCHW.flip(3)) if flip else feature(image_BCHW)
            feature_ND[start : start + len(batch)] = found_BD.cpu().numpy()
            start += len(batch)
            step(len(batch))
    return feature_ND


def _aligned(tree: Tree, protocol: IjbProtocol) -> Iterator[np.ndarray]:
    def one(row: int) -> np.ndarray:
        try:
            return align_five(decode(tree.read(protocol.image_N[row])), protocol.landmark_N52[row])[0]
        except (UserError, ValueError) as error:
            raise UserError(f"{protocol.image_N[row]}: {error}") from error

    with ThreadPoolExecutor(max_workers=2) as pool:
        for start in range(0, len(protocol.image_N), 8 * _BATCH):
            yield from pool.map(one, range(start, min(start + 8 * _BATCH, len(protocol.image_N))))


def _identification(meta: Path, protocol: IjbProtocol, feature_ND: np.ndarray, detector_weights: bool, keep_norms: bool) -> dict[str, float]:
    galleries = [sorted(meta.glob(f"{protocol.name}_1N_gallery_{part}*.csv")) for part in ("G1", "G2")]
    probes = sorted(meta.glob(f"{protocol.name}_1N_probe_mixed*.csv"))
    if not all(galleries) or not probes:
        return {}
    id_T, template_TD = pool_templates(feature_ND, protocol.template_N, protocol.media_N, weight_N=protocol.detector_N if detector_weights else None, keep_norms=keep_norms)
    lists = [read_gallery(found[0]) for found in (*galleries, probes)]
    (first_GD, first_G), (second_GD, second_G), (probe_QD, probe_Q) = [(template_TD[template_rows(id_T, template)], subject) for template, subject in lists]
    return two_galleries(probe_QD, probe_Q, [(first_GD, first_G), (second_GD, second_G)])
