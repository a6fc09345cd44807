"""The patch autoencoder against principal components computed the slow way."""

import numpy as np
import torch

from facefoundry.generators.autoencoder import PatchAutoencoder, PatchAutoencoderConfig


def smooth_faces(count: int = 24) -> torch.Tensor:
    torch.manual_seed(0)
    coarse = torch.rand(count, 3, 14, 14) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (112, 112), mode="bicubic").clamp(-1, 1)


def test_untrained_it_is_the_pca_of_the_patches():
    images = smooth_faces()
    network = PatchAutoencoder(PatchAutoencoderConfig(patch=14, channels=5, width=16, blocks=1))
    network.fit_basis(images)
    patches = torch.stack([image[:, r : r + 14, c : c + 14].flatten() for image in images for r in range(0, 112, 14) for c in range(0, 112, 14)]).double().numpy()
    centred = patches - patches.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    expected = patches.mean(0) + centred @ directions[:5].T @ directions[:5]
    with torch.no_grad():
        back = network.decode(network.encode(images))
    got = torch.stack([image[:, r : r + 14, c : c + 14].flatten() for image in back for r in range(0, 112, 14) for c in range(0, 112, 14)]).numpy()
    assert np.abs(got - expected).max() < 1e-3


def test_latents_have_unit_variance_on_average_and_keep_the_order_of_spread():
    images = smooth_faces()
    network = PatchAutoencoder(PatchAutoencoderConfig(patch=14, channels=5, width=16, blocks=1))
    network.fit_basis(images)
    latent = network.encode(images)
    assert latent.shape == (24, 5, 8, 8)
    spread = latent.std((0, 2, 3))
    assert torch.all(spread[:-1] >= spread[1:]) and 0.5 < latent.var() < 2
