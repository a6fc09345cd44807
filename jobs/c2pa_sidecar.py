"""C2PA manifests for the shards of a dataset: a signed file beside each, `train-00000-of-00012.c2pa`, that says what made it and holds the shard's hash.

A manifest inside every 112×112 image would cost more bytes than the image and is lost when it is encoded anew, hence one for a whole shard, outside it.
Source: C2PA Technical Specification 2.x (actions `c2pa.created`, digital source types of the IPTC). Extra "c2pa"; the certificate is yours.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UserError, missing_extra
from ..core.files import write_bytes
from ..core.progress import track
from ..identity.dataset import read_manifest, shards_of
from .media_type import TRAINED

RENDERED = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicMedia"
"""IPTC NewsCode: created by an algorithm that was not trained on sampled content."""

SUFFIX = ".c2pa"
_KIND = "application/vnd.apache.parquet"


def sign_dataset(folder: Path, certificate: Path, key: Path, *, algorithm: str = "es256", timestamps: str | None = None) -> list[Path]:
    """Write a manifest beside every shard of kept rows and return their paths; older ones are replaced.

    Args:
        certificate: PEM, the signer's certificate first, then those that vouch for it.
        key: PEM, PKCS#8, not encrypted.
        algorithm: es256, es384, es512, ps256, ps384, ps512 or ed25519, as the key is.
        timestamps: address of an RFC 3161 server; None = the manifest says no time, and no network is needed.

    Raises:
        UserError: a dataset with real faces, a key or certificate that does not serve, or the library is not installed.
    """
    c2pa = _library()
    claim = _claim(read_manifest(folder))
    try:
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm.encode(), certificate.read_bytes(), key.read_bytes(), timestamps and timestamps.encode()))
        written = []
        for shard in track(shards_of(folder, "data"), "sign"):
            builder = c2pa.Builder(json.dumps({**claim, "title": shard.name}))
            builder.set_no_embed()
            with open(shard, "rb") as source:
                manifest = builder.sign(signer, _KIND, source, io.BytesIO())
            write_bytes(path_of(shard), manifest)
            written.append(path_of(shard))
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}; expected PEM files of a certificate chain and its key") from error
    except c2pa.C2paError as error:
        raise UserError(f"C2PA refused to sign with {certificate} and {key}: {error}; expected a chain whose first certificate may sign (extended key usage), its own key, and an algorithm that fits it (got {algorithm})") from error
    return written


def check_signatures(folder: Path) -> dict[str, str]:
    """Return for each shard of kept rows "valid", "trusted", "no manifest", or what is wrong with its manifest.

    Raises:
        UserError: no dataset there (nothing to check must not read as all well), or the library is not installed.
    """
    c2pa = _library()
    read_manifest(folder)
    return {shard.name: _state(c2pa, shard) for shard in track(shards_of(folder, "data"), "check")}


def path_of(shard: Path) -> Path:
    """Return where the manifest of a shard lies."""
    return shard.with_suffix(SUFFIX)


def _state(c2pa: Any, shard: Path) -> str:
    if not path_of(shard).is_file():
        return "no manifest"
    try:
        with open(shard, "rb") as source:
            reader = c2pa.Reader(_KIND, source, path_of(shard).read_bytes())
            state = reader.get_validation_state().lower()
            return state if state != "invalid" else f"invalid: {_failures(reader)}"
    except c2pa.C2paError as error:
        return f"invalid: {error}"


def _failures(reader: Any) -> str:
    found = (reader.get_validation_results() or {}).get("activeManifest", {}).get("failure", [])
    return ", ".join(item["code"] for item in found) or "no reason given"


def _claim(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a manifest says of the shard: which program made it, and by what kind of source."""
    origins: Sequence[str] = manifest["origins"]
    if "real" in origins:
        raise UserError("this dataset holds real faces; a manifest would call them machine-made. Sign datasets of generated or rendered faces")
    trained = any(origin.startswith("generated") for origin in origins)
    action = {"action": "c2pa.created", "digitalSourceType": TRAINED if trained else RENDERED, "parameters": {"org.facefoundry.origins": list(origins)}}
    version = manifest["versions"].get("facefoundry", "unknown")
    return {"claim_generator_info": [{"name": "FaceFoundry", "version": version}], "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]}


def _library() -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise missing_extra("c2pa-python", "c2pa", "a C2PA manifest") from error
    return c2pa
