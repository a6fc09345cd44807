"""croissant.json: what a dataset folder holds, in MLCommons Croissant 1.0 with the Responsible-AI vocabulary, readable without our code.

Nothing is claimed that the manifest and its facts do not say. Files are named by patterns relative to croissant.json, so that the description
holds for the folder and for the repository alike. Spec: docs.mlcommons.org/croissant (1.0; RAI 1.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..core.errors import UserError
from ..identity.card import REFUSED_USES, configurations, demographics_text, kind_of
from ..identity.parquet import open_parquet

CROISSANT = "croissant.json"
CONFORMS_TO = ("http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0")

_TERMS = (
    "citeAs", "column", "conformsTo", "data", "dataType", "examples", "extract", "field", "fileProperty", "fileObject", "fileSet", "format", "includes",
    "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "separator", "source",
    "subField", "transform",
)  # fmt: skip
_SPECIAL = {"conformsTo": "dct:conformsTo", "data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "examples": {"@id": "cr:examples", "@type": "@json"}}
_SPACES = {"@vocab": "https://schema.org/", "sc": "https://schema.org/", "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/", "dct": "http://purl.org/dc/terms/"}
_CONTEXT = {"@language": "en", **_SPACES, **{name: _SPECIAL.get(name, f"cr:{name}") for name in _TERMS}}


def croissant(folder: Path, manifest: Mapping[str, Any], *, repo: str, published: str) -> dict[str, Any]:
    """Return the JSON-LD of a dataset folder; only footers of its Parquet files are read.

    Args:
        manifest: what manifest.json holds; its facts fill the Responsible-AI entries.
        repo: owner/name on the Hub.
        published: date, YYYY-MM-DD.
    """
    facts, url, parts = manifest.get("facts", {}), f"https://huggingface.co/datasets/{repo}", configurations(manifest)
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": list(CONFORMS_TO),
        "name": manifest["title"],
        "description": _description(manifest),
        "url": url,
        "license": facts.get("license") or f"{facts.get('license_name', 'research-only')}; {url}#licence",
        "creator": {"@type": "sc:Organization", "name": repo.split("/")[0]},
        "datePublished": published,
        "version": "1.0.0",
        "citeAs": facts.get("citation") or f"{manifest['title']}, {published[:4]}, made with FaceFoundry. {url}",
        "keywords": ["faces", "face recognition", "biometrics", *([] if list(manifest["origins"]) == ["real"] else ["synthetic"])],
        "distribution": [{"@type": "cr:FileSet", "@id": f"{name}-files", "encodingFormat": "application/x-parquet", "includes": files} for name, _, files, _, _ in parts],
        "recordSet": [_record_set(folder, name, files, rows) for name, _, files, rows, _ in parts],
        **{f"rai:{name}": value for name, value in responsible_ai(manifest).items() if value},
    }


def responsible_ai(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of the RAI vocabulary that the facts of a manifest fill, without their prefix."""
    facts, kind = manifest.get("facts", {}), kind_of(manifest["origins"])
    demographics = demographics_text(facts.get("demographics"))
    return {
        "dataCollection": kind["made_of"].format(generator=manifest["generator"]),
        "dataCollectionType": ["Machine-generated"] if kind["kind"] == "synthetic" else ["Others"],
        "dataCollectionRawData": f"Real data behind the generator: {facts['training_data']}" if facts.get("training_data") else None,
        "dataCollectionMissingData": f"{facts['failed']} images failed and are not in the set." if "failed" in facts else None,
        "dataPreprocessingProtocol": ["112x112 RGB, aligned by five points to the ArcFace template."],
        "dataManipulationProtocol": f"Filters in their order: {facts['filters']}. What they refused is kept in the configuration 'rejected'." if facts.get("filters") else None,
        "dataAnnotationProtocol": f"No annotation by people: the identity of a face is the one it was {kind['labelled']}.",
        "machineAnnotationTools": [f"embedder: {facts['embedder']}"] if facts.get("embedder") else None,
        "dataUseCases": ["Research on face recognition, its training data, quality and bias measurement.", f"Refused: {REFUSED_USES}."],
        "dataBiases": [f"Demographics: {demographics}.", "The gaps of the generator's training data and of the embedder are inherited."],
        "dataLimitations": [f"Leakage of real people: {facts.get('leakage', 'not checked')}", str(facts.get("license_chain", "The licence chain is not stated."))],
        "dataSocialImpact": f"A made face may resemble a real person. {kind['limits'].removeprefix('- ').strip()}".strip(),
        "personalSensitiveInformation": [kind["consent"].replace("\n", " ")],
        "dataReleaseMaintenancePlan": f"Take-down and questions: {facts['contact']}" if facts.get("contact") else None,
    }


def problems_of(path: Path) -> list[str] | None:
    """Check a Croissant file with mlcroissant; return its errors (empty: valid), or None where mlcroissant is not installed."""
    try:
        from mlcroissant import Dataset, ValidationError
    except ImportError:
        return None
    try:
        issues = Dataset(jsonld=path).metadata.ctx.issues
    except ValidationError as error:
        return str(error).splitlines()
    return sorted(issues.errors)


def _description(manifest: Mapping[str, Any]) -> str:
    rows = manifest["rows"]
    made = kind_of(manifest["origins"])["made_of"].format(generator=manifest["generator"])
    return f"{rows['data']} faces of {manifest['identities']} identities, 112x112 RGB; {rows['rejected']} rejected ones beside them. {made}"


def _record_set(folder: Path, name: str, files: str, rows: int) -> dict[str, Any]:
    first = min(folder.glob(files), default=None)
    if first is None:
        raise UserError(f"{folder} has no {files}, which its manifest lists; check it with: facefoundry verify {folder}")
    fields = [_field(name, column) for column in open_parquet(first).schema_arrow]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": f"{rows} rows.", "field": [field for field in fields if field]}


def _field(name: str, column: pa.Field) -> dict[str, Any] | None:
    """Describe a column: numbers, texts, truth values, lists of numbers, images; nested columns are left to the card."""
    image = column.name == "image" and pa.types.is_struct(column.type)
    inner = column.type.value_type if pa.types.is_list(column.type) else column.type
    kind = "sc:ImageObject" if image else _data_type(inner)
    if kind is None:
        return None
    source: dict[str, Any] = {"fileSet": {"@id": f"{name}-files"}, "extract": {"column": column.name}, **({"transform": {"jsonPath": "bytes"}} if image else {})}
    repeated = {"repeated": True} if inner is not column.type else {}
    return {"@type": "cr:Field", "@id": f"{name}/{column.name}", "name": column.name, "dataType": kind, "source": source, **repeated}


def _data_type(kind: pa.DataType) -> str | None:
    tests = ((pa.types.is_boolean, "sc:Boolean"), (pa.types.is_integer, "sc:Integer"), (pa.types.is_floating, "sc:Float"), (pa.types.is_string, "sc:Text"))
    return next((name for test, name in tests if test(kind)), None)
