"""What an evaluation needs to know of a method, whatever its kind: how faces are enrolled and compared, and what the server or the database sees.

Three kinds: no protection (the baseline), methods that send a protected picture, SlerpFace's templates. Axes: N faces, P pairs, G groups, C numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.images import to_float
from ...core.training import data_digest
from ...core.types import Embedder
from ...recognition.embedder import embed_faces
from .attacks.hill_climbing import Oracle
from .attacks.training import Observe
from .draws import TorchDraws
from .protected import Protected, PrivacyMethod
from .slerp import match_rows
from .slerp_template import Key
from .slerpface import Rows, SlerpScheme, group_faces, template_picture

_BATCH = 32


class Subject(ABC):
    """A method under attack.

    Attributes:
        name: of method and recogniser; kind: "plain", "image" or "template".
        uses: name of the recogniser inside, which must not judge.
        bytes_per_face: what is sent or stored of one face.
        codes: DCT channels of every secret draw, where the method sends such channels; else empty.
        side: height and width of the pictures of its channels.
    """

    name: str
    kind: str
    uses: str
    bytes_per_face: int
    codes: list[tuple[int, ...]] = []
    side: int = 112

    @abstractmethod
    def probe(self, image_NHWC: np.ndarray) -> Any:
        """Return what the comparison uses of uint8 faces: arrays with first axis N."""

    @abstractmethod
    def enrol(self, probe: Any) -> Any:
        """Return what is stored, with its secrets, of probes; fresh secrets each time."""

    @abstractmethod
    def verify(self, enrolled: Any, row_P: np.ndarray, probe: Any, probe_row_P: np.ndarray) -> np.ndarray:
        """Score probes against enrolled rows, (P,); larger = same person."""

    @abstractmethod
    def observe(self, image_NHWC: np.ndarray, seed: int | None = None) -> Tensor:
        """Return what the server or the database sees of faces, (N, …); a seed imitates clients repeatably, None draws real secrets."""

    def picture(self, seen: Tensor) -> Tensor | None:
        """Return what is seen as a picture without any attack, RGB in [0, 1], (N, 3, H, W); None where it is no picture."""
        return None

    def fingerprint(self, image_NHWC: np.ndarray) -> str:
        """Return what tells this method with these weights from any other, from a look at some faces: an attack is never resumed against another."""
        return data_digest(np.frombuffer(self.name.encode(), np.uint8), self.observe(image_NHWC, 0).numpy())


class PlainSubject(Subject):
    """No protection: the server stores embeddings."""

    kind = "plain"

    def __init__(self, embedder: Embedder) -> None:
        self._embedder, self.name, self.uses = embedder, f"unprotected ({embedder.name})", embedder.name
        self.bytes_per_face = 4 * embedder.dim

    def probe(self, image_NHWC: np.ndarray) -> np.ndarray:
        """Unit embeddings of uint8 faces, (N, D)."""
        return embed_faces(self._embedder, image_NHWC)

    def enrol(self, probe: np.ndarray) -> np.ndarray:
        return probe

    def verify(self, enrolled: np.ndarray, row_P: np.ndarray, probe: np.ndarray, probe_row_P: np.ndarray) -> np.ndarray:
        return np.einsum("pd,pd->p", enrolled[row_P], probe[probe_row_P])

    def observe(self, image_NHWC: np.ndarray, seed: int | None = None) -> Tensor:
        return torch.from_numpy(self.probe(image_NHWC))


class ImageSubject(Subject):
    """A method whose client sends a protected picture and whose server makes the embedding."""

    kind = "image"

    def __init__(self, method: PrivacyMethod) -> None:
        if method.kind != "image":
            raise UserError(f"'{method.name}' keeps templates; it is evaluated as such")
        self._method, self.name, self.uses = method.eval(), method.name, f"{method.name} server"
        self.bytes_per_face, self.side, self.codes = method.bytes_per_face, method.settings.side, method.channel_codes()

    def probe(self, image_NHWC: np.ndarray) -> np.ndarray:
        """The server's unit embeddings of protected uint8 faces, (N, D)."""
        parts = [self._method.recognise(self._method.protect(to_float(part))) for part in _parts(image_NHWC)]
        return torch.cat(parts).numpy()

    enrol = PlainSubject.enrol
    verify = PlainSubject.verify

    def observe(self, image_NHWC: np.ndarray, seed: int | None = None) -> Tensor:
        draws = None if seed is None else TorchDraws(torch.Generator().manual_seed(seed))
        parts = [self._main(self._method.protect(to_float(part), draws=draws)) for part in _parts(image_NHWC)]
        return torch.cat(parts)

    def picture(self, seen: Tensor) -> Tensor | None:
        parts = [self._method.view(Protected(method=self._method.name, tensors={self._main_name: part})) for part in seen.split(_BATCH)]
        return torch.cat(parts).clamp(0, 1).float()

    @property
    def _main_name(self) -> str:
        return self._method.client.fields[0].name

    def _main(self, protected: Protected) -> Tensor:
        return protected.tensors[self._main_name]


class TemplateSubject(Subject):
    """SlerpFace over some source of groups."""

    kind = "template"

    def __init__(self, scheme: SlerpScheme) -> None:
        self.scheme, self.uses = scheme, scheme.features.name
        groups, width = scheme.features.groups, scheme.features.width
        self.name = f"slerpface ({scheme.features.name}, {groups}x{width})"
        many, few = scheme.config.drops(width)
        kept = groups // 2 * (width - many) + (groups - groups // 2) * (width - few)
        self.bytes_per_face = 66 + 4 * kept + -(-groups * width // 8)

    def probe(self, image_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Groups, (N, G, C), and weights, (N, G), of uint8 faces."""
        return group_faces(self.scheme.features, image_NHWC)

    def enrol(self, probe: tuple[np.ndarray, np.ndarray], keys: list[Key] | None = None) -> Rows:
        return self.scheme.protect_groups(*probe, keys or [Key.new() for _ in probe[0]])

    def verify(self, enrolled: Rows, row_P: np.ndarray, probe: tuple[np.ndarray, np.ndarray], probe_row_P: np.ndarray) -> np.ndarray:
        found = [np.empty(0)]
        for start in range(0, len(row_P), 8192):  # the rows of all pairs at once would fill the memory
            part, mine = enrolled.rows(row_P[start : start + 8192]), probe_row_P[start : start + 8192]
            found.append(match_rows(part.template_BGC, part.kept_BGC, probe[0][mine], probe[1][mine], part.key_BGC, self.scheme.config))
        return np.concatenate(found)

    def observe(self, image_NHWC: np.ndarray, seed: int | None = None) -> Tensor:
        # There is no seeded enrolment: every look at a face is under a fresh key.
        return torch.from_numpy(self.enrol(self.probe(image_NHWC)).template_BGC).flatten(1)

    def fingerprint(self, image_NHWC: np.ndarray) -> str:
        settings = f"{self.name} {self.scheme.config.fingerprint()}"  # templates themselves are new every time
        return data_digest(np.frombuffer(settings.encode(), np.uint8), *self.probe(image_NHWC))

    def picture(self, seen: Tensor) -> Tensor | None:
        return template_picture(seen.unflatten(1, (self.scheme.features.groups, self.scheme.features.width)))


def attacker_view(subject: Subject, image_NHWC: np.ndarray, probe: Any | None) -> Observe:
    """Return how the attacker looks at faces of its own in a training: the method run on them, other secrets every time.

    Args:
        probe: of these faces, where the recogniser need not be run again at every step (templates, plain embeddings); None for pictures.
    """
    if probe is None:
        return subject.observe
    row_of = {image.tobytes(): row for row, image in enumerate(image_NHWC)}

    def observe(batch_BHWC: np.ndarray, seed: int) -> Tensor:
        row_B = np.array([row_of[image.tobytes()] for image in batch_BHWC])
        if isinstance(subject, TemplateSubject):
            return torch.from_numpy(subject.enrol((probe[0][row_B], probe[1][row_B])).template_BGC).flatten(1)
        return torch.from_numpy(probe[row_B])

    return observe


def verifier(subject: Subject, enrolled: Any) -> Oracle:
    """Return what an attacker can ask: faces and the row each is compared with → scores. The features of faces asked again at once are kept."""
    last: list[Any] = [None, None]

    def ask(image_NHWC: np.ndarray, row_N: np.ndarray) -> np.ndarray:
        if last[0] is not image_NHWC:
            last[:] = image_NHWC, subject.probe(image_NHWC)
        return subject.verify(enrolled, row_N, last[1], np.arange(len(image_NHWC)))

    return ask


def _parts(image_NHWC: np.ndarray) -> list[np.ndarray]:
    return [image_NHWC[start : start + _BATCH] for start in range(0, len(image_NHWC), _BATCH)]
