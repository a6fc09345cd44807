"""FaceFoundry: identity-grouped synthetic face datasets, minted, filtered, trained on and scored."""

__version__ = "0.1.0"
