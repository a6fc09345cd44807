"""The card of a dataset: Hugging Face YAML, and what an honest card of a face set says (method notes §2.3, §2.4).

Nothing is claimed that was not handed in: what nobody measured reads "not measured".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

UNMEASURED = "not measured"

_SECTIONS = {
    "summary", "license", "license_name", "license_chain", "training_data", "embedder", "leakage", "demographics", "contact", "citation", "command", "picture",
}  # fmt: skip

_TEXT = """\
# {title}

{picture}{summary}

{rows} faces of {identities} identities, 112x112 RGB, aligned by five points to the ArcFace template. {rejected} rejected faces are kept beside them, each with its reason.

```python
from datasets import load_dataset
faces = load_dataset("{{this folder or repository}}")
```

## Sources

- {made_of}
- Real data behind it: {training_data}
- Identity embedder behind it: {embedder}

## Structure

`default`: the kept faces. `rejected`: faces that a check or filter refused, `dropped` says why. Columns: `face_id` (identity/index),
`identity`, `image`, `seed` (the noise it was made from), `generator`, `origin`, `anchor` (identity embedding it was made from), `style`,
`landmarks_px`, `scores` (name and value, added by the steps), `split`, `source` (name of the input file), `dropped`.
`manifest.json` holds rows and SHA-256 of every shard; check with `facefoundry verify`.
{command}
## Figures

{figures}

## Leakage

Similarity to the real people of the training data: {leakage}

## Uses

Intended: research on face recognition, its training data, quality and bias measurement.
Refused: surveillance, re-identification, any attempt to link a face to a real person, decisions about people.

## Personal and sensitive information

{consent}
Take-down and questions: {contact}

## Bias, risks, limitations

- Demographics: {demographics}. Whatever is given here comes from classifiers and is a proxy, never a fact about a person.
- A recogniser trained on this set inherits the gaps of the data and of the embedder named above.
{limits}
## Licence

{license_chain}

{citation}"""

_SYNTHETIC = {
    "made_of": "Made by the generator `{generator}`: every face is computed, none is a photograph.",
    "consent": "No person sat for these faces, and none consented. Resemblance to a person is accidental, but synthetic does not mean free of risk:\n"
    "the generator and the embedder were trained on real faces, and a made face may resemble one of them.",
    "limits": "- Machine-made media: mark them as such wherever they are shown (EU AI Act, Art. 50).\n",
}
_REAL = {
    "made_of": "Photographs of real people, brought in by `{generator}`.",
    "consent": "These are biometric data of real people. Their consent is not recorded here; the terms of the source apply. Do not publish this folder.",
    "limits": "",
}
_MIXED = {
    "made_of": "Photographs of real people beside faces computed by `{generator}`; the column `origin` tells them apart.",
    "consent": _REAL["consent"],
    "limits": _SYNTHETIC["limits"],
}


def card_text(manifest: Mapping[str, Any], facts: Mapping[str, Any], *, tables: Sequence[str] = ()) -> str:
    """Return README.md.

    Args:
        manifest: title, generator, rows, identities, origins and shards, as in manifest.json.
        facts: text for the sections `summary, license, license_name, license_chain, training_data, embedder, leakage, demographics, contact,
            citation, command, picture` (path in the repository); every other entry is a row of the table of figures.
        tables: names of further tables under metadata/, one configuration each.
    """
    words = {name: facts.get(name, UNMEASURED if name in ("leakage", "demographics") else "not stated") for name in _SECTIONS}
    kind = _SYNTHETIC if "real" not in manifest["origins"] else _REAL if manifest["origins"] == ["real"] else _MIXED
    text = _TEXT.format(
        **{
            **words,
            "title": manifest["title"],
            "summary": facts.get("summary", "Identity-grouped faces in one folder, made and checked with FaceFoundry."),
            "picture": f"![examples]({facts['picture']})\n\n" if facts.get("picture") else "",
            "command": f"\nMade by: `{facts['command']}`\n" if facts.get("command") else "",
            "citation": f"## Citation\n\n{facts['citation']}\n" if facts.get("citation") else "",
            "license_chain": facts.get("license_chain", "Not stated. A set derived from research-only data or weights inherits their limits."),
            "rows": manifest["rows"]["data"],
            "rejected": manifest["rows"]["rejected"],
            "identities": manifest["identities"],
            "figures": _figure_table({name: value for name, value in facts.items() if name not in _SECTIONS}),
            "made_of": kind["made_of"].format(generator=manifest["generator"]),
            "consent": kind["consent"],
            "limits": kind["limits"],
        }
    )
    return f"---\n{yaml.safe_dump(_front_matter(manifest, facts, tables), sort_keys=False, allow_unicode=True)}---\n\n{text.rstrip()}\n"


def _front_matter(manifest: Mapping[str, Any], facts: Mapping[str, Any], tables: Sequence[str]) -> dict[str, Any]:
    rows = manifest["rows"]
    configs: list[dict[str, Any]] = [_config("default", "train", "data/*.parquet") | {"default": True}]
    if rows["rejected"]:
        configs.append(_config("rejected", "rejected", "rejected/*.parquet"))
    configs += [_config(name, "train", f"metadata/{name}.parquet") for name in tables]
    real = manifest["origins"] == ["real"]
    front = {
        "pretty_name": manifest["title"],
        "license": facts.get("license", "other"),
        "license_name": facts.get("license_name", "research-only"),
        "task_categories": ["image-classification"],
        "task_ids": ["multi-class-image-classification"],
        "annotations_creators": ["found" if real else "machine-generated"],
        "source_datasets": ["original"],
        "size_categories": [_size_category(rows["data"])],
        "tags": ["face-recognition", *([] if real else ["synthetic"]), "biometrics", "facefoundry"],
        "extra_gated_heading": "Before you use these faces",
        "extra_gated_fields": {
            "I will not use them for surveillance": "checkbox",
            "I will not use them for re-identification": "checkbox",
            "I will not try to link them to real persons": "checkbox",
        },
        "configs": configs,
    }
    if front["license"] != "other":
        front.pop("license_name")
    return front


def _config(name: str, split: str, files: str) -> dict[str, Any]:
    return {"config_name": name, "data_files": [{"split": split, "path": files}]}


def _size_category(rows: int) -> str:
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
    return next((name for bound, name in bounds if rows < bound), "10M<n<100M")


def _figure_table(figures: Mapping[str, Any]) -> str:
    if not figures:
        return f"None: {UNMEASURED}."
    lines = [f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in figures.items()]
    return "\n".join(["| figure | value |", "|---|---|", *lines])


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
