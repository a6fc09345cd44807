"""SlerpFace's stored things: the template (for the database), the key (kept elsewhere), the store of keys.

Template file, little-endian: magic "FFSL" | version u16 | groups u16 | width u16 | alpha f4 | beta f4 | id 16 bytes | which numbers are kept, a bit
each | the kept numbers, f4 | tag 32 bytes. The tag is HMAC-SHA256 under a key derived from the template's own: a wrong key and a changed template are
both refused before anything is compared. Lengths of the groups are their weights. What is in the clear anyway: the weights and the kept places.
Axes: G groups, C numbers of a group.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ...core.files import json_bytes, write_atomic
from .slerp import SlerpConfig

MAGIC, VERSION, TAG_BYTES, ID_BYTES, SECRET_BYTES = b"FFSL", 1, 32, 16, 32
_HEAD = struct.Struct("<4sHHHff16s")


class Key:
    """A secret of 32 bytes; the group directions follow from it. Its text form does not show it.

    Raises:
        UserError: another number of bytes.
    """

    __slots__ = ("secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise UserError(f"a key has {SECRET_BYTES} bytes, got {len(secret)}; take it from the key store, or make one with Key.new()")
        self.secret = bytes(secret)

    @classmethod
    def new(cls) -> Key:
        """Return a fresh key from the operating system's secure generator."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    def __repr__(self) -> str:
        return "Key(…)"

    def directions(self, groups: int, width: int) -> np.ndarray:
        """Return the unit key of each group, float64 (G, C): normalised N(0, I) draws (Box-Muller on SHAKE-256 of the secret)."""
        pairs = -(-groups * width // 2)
        stream = hashlib.shake_256(b"facefoundry slerpface directions 1" + self.secret).digest(16 * pairs)
        bits_2P = (np.frombuffer(stream, "<u8") >> np.uint64(11)).astype(np.float64).reshape(2, pairs)
        radius_P = np.sqrt(-2.0 * np.log((bits_2P[0] + 1.0) * 2.0**-53))
        angle_P = 2.0 * np.pi * bits_2P[1] * 2.0**-53
        normal_GC = np.concatenate((radius_P * np.cos(angle_P), radius_P * np.sin(angle_P)))[: groups * width].reshape(groups, width)
        return normal_GC / np.linalg.norm(normal_GC, axis=1, keepdims=True)

    def seal(self, body: bytes) -> bytes:
        """Return the tag of a template's bytes."""
        return hmac.digest(hmac.digest(self.secret, b"facefoundry slerpface seal 1", "sha256"), body, "sha256")


@dataclass(frozen=True, kw_only=True)
class Template:
    """What the database holds of one face. Not the key, and no name of it: the key store finds the key by the template's random id.

    Attributes:
        value_GC: rotated groups, float32, 0 where dropped; the length of a group is its weight, the lengths sum to 1.
        kept_GC: which numbers are stored.
    """

    template_id: bytes
    value_GC: np.ndarray
    kept_GC: np.ndarray
    alpha: float
    beta: float
    tag: bytes

    @classmethod
    def sealed(cls, value_GC: np.ndarray, kept_GC: np.ndarray, config: SlerpConfig, key: Key) -> Template:
        """Return a template with a fresh id, sealed with its key."""
        bare = cls(template_id=secrets.token_bytes(ID_BYTES), value_GC=value_GC.astype(np.float32), kept_GC=kept_GC, alpha=config.alpha, beta=config.beta, tag=b"")
        return cls(**{**vars(bare), "tag": key.seal(bare.body)})

    @property
    def body(self) -> bytes:
        """Everything but the tag."""
        head = _HEAD.pack(MAGIC, VERSION, *self.value_GC.shape, self.alpha, self.beta, self.template_id)
        return head + np.packbits(self.kept_GC).tobytes() + self.value_GC[self.kept_GC].astype("<f4").tobytes()

    def to_bytes(self) -> bytes:
        """Return the file."""
        return self.body + self.tag

    @classmethod
    def from_bytes(cls, data: bytes) -> Template:
        """Read a template.

        Raises:
            UserError: not a template, another version, truncated or too long, or values out of range.
        """
        if data[:4] != MAGIC:
            raise UserError(f"not a SlerpFace template: {len(data)} bytes beginning with {bytes(data[:4])!r}, expected {MAGIC!r}")
        if len(data) < 6 or (version := int.from_bytes(data[4:6], "little")) == VERSION and len(data) < _HEAD.size:
            raise UserError(f"the template is truncated: {len(data)} bytes end inside its header of {_HEAD.size}; read the file again or enrol again")
        if version != VERSION:
            raise UserError(f"the template has version {version}, this software reads version {VERSION}; enrol the face again")
        _, _, groups, width, alpha, beta, template_id = _HEAD.unpack_from(data)
        mask_bytes = -(-groups * width // 8)
        kept_GC = np.unpackbits(np.frombuffer(data[_HEAD.size : _HEAD.size + mask_bytes], np.uint8), count=None)[: groups * width].astype(bool)
        expected = _HEAD.size + mask_bytes + 4 * int(kept_GC.sum()) + TAG_BYTES
        if kept_GC.size != groups * width or len(data) != expected:
            raise UserError(f"the template is truncated or has bytes too many: {len(data)}, its header says {expected}; read the file again or enrol again")
        value_GC = np.zeros((groups, width), np.float32)
        kept_GC = kept_GC.reshape(groups, width)
        value_GC[kept_GC] = np.frombuffer(data[_HEAD.size + mask_bytes : -TAG_BYTES], "<f4")
        _check_values(value_GC, alpha, beta)
        return cls(template_id=template_id, value_GC=value_GC, kept_GC=kept_GC, alpha=alpha, beta=beta, tag=bytes(data[-TAG_BYTES:]))

    def check_key(self, key: Key) -> None:
        """Raise UserError unless the template was sealed with this key and not changed since; compares in constant time."""
        if not hmac.compare_digest(key.seal(self.body), self.tag):
            raise UserError(f"template {self.template_id.hex()}: wrong key, or the template was changed; take the key that the key store holds for this template")

    def check_config(self, config: SlerpConfig, groups: int, width: int) -> None:
        """Raise UserError unless the template was made with these settings."""
        came = (*self.value_GC.shape, round(self.alpha, 5), round(self.beta, 5))
        wanted = (groups, width, round(config.alpha, 5), round(config.beta, 5))
        if came != wanted:
            raise UserError(f"the template was made with (groups, width, alpha, beta) = {came}, this verifier uses {wanted}; use the settings of the enrolment, or enrol again")


class KeyStore:
    """Keys by template id, in a file of their own that only its owner can read. Never in the folder of the templates.

    Revoking deletes the key: the template can then be matched by nobody, and the person enrols again under a new one.

    Args:
        path: JSON file; made on the first write.
        templates: folder of the templates.

    Raises:
        UserError: a file inside the folder of the templates (one leak would take both), or a damaged file.
    """

    def __init__(self, path: Path, templates: Path) -> None:
        if templates.resolve() in path.resolve().parents:
            raise UserError(f"the key store {path} lies in the folder of the templates {templates}; keep it elsewhere: one leaked folder would give up both (D_sys is then 1)")
        self._path = path
        self._held: dict[str, dict[str, str]] = {"keys": {}, "revoked": {}}
        if path.is_file():
            try:
                held = json.loads(path.read_text())
                self._held = {part: {str(name): str(value) for name, value in held[part].items()} for part in self._held}
            except (OSError, ValueError, KeyError, AttributeError) as error:
                raise UserError(f"the key store {path} cannot be read ({type(error).__name__}); bring back its last copy: without it no template can be matched") from error

    def put(self, template: Template, key: Key) -> None:
        """Keep the key of a template."""
        self._held["keys"][template.template_id.hex()] = key.secret.hex()
        self._write()

    def get(self, template: Template) -> Key:
        """Return the key of a template.

        Raises:
            UserError: revoked, or never seen here.
        """
        name = template.template_id.hex()
        if name in self._held["revoked"]:
            raise UserError(f"template {name} was revoked ({self._held['revoked'][name]}); enrol the person again")
        if name not in self._held["keys"]:
            raise UserError(f"the key store {self._path} has no key for template {name}; use the store of its enrolment")
        return Key(bytes.fromhex(self._held["keys"][name]))

    def revoke(self, template: Template, reason: str = "no reason given") -> None:
        """Delete a template's key and remember that it was revoked."""
        self.get(template)
        del self._held["keys"][template.template_id.hex()]
        self._held["revoked"][template.template_id.hex()] = reason
        self._write()

    def _write(self) -> None:
        write_atomic(self._path, self._put)

    def _put(self, path: Path) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(json_bytes(self._held))


def _check_values(value_GC: np.ndarray, alpha: float, beta: float) -> None:
    total = float(np.linalg.norm(value_GC.astype(np.float64), axis=1).sum()) if np.isfinite(value_GC).all() else float("nan")
    if not (0 < alpha < 1 and 0 <= beta < 1 and abs(total - 1.0) < 1e-3):
        raise UserError(f"the template holds values out of range: its group lengths sum to {total:.4g}, expected 1; alpha {alpha:.3g} and beta {beta:.3g}, expected shares; enrol the face again")
