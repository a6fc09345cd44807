"""The card of a dataset: Hugging Face YAML, and what an honest card of a face set says (method notes §2.3, §2.4).

Nothing is claimed that was not handed in: what nobody measured reads "not measured".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ..core.errors import UserError

UNMEASURED = "not measured"

REFUSED_USES = "surveillance, re-identification, any attempt to link a face to a real person, decisions about people"

TEXT_FACTS = (
    "summary", "license", "license_name", "license_link", "license_chain", "training_data", "embedder", "leakage", "demographics", "contact", "citation",
    "command", "picture", "language", "consent",
)  # fmt: skip
"""Facts that have their place in the card; every other one is a row of its table of figures."""

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

## Uses

Intended: research on face recognition, its training data, quality and bias measurement.
Refused: {refused}.

## Structure

| configuration | split | rows | files |
|---|---|--:|---|
{structure}

Columns of `default` and `rejected`: `face_id` (identity/index), `identity`, `image`, `seed` (the noise it was made from), `generator`, `origin`,
`anchor` (identity embedding it was made from), `style`, `landmarks_px`, `parts` (label image, of rendered faces), `scores` (name and value, added by
the steps), `split`, `source` (name of the input file), `dropped` (why a check or filter refused it). `identities`: images kept and rejected, mean and least of each score, anchor.
`pairs`: two face ids, `mated` (one identity or two), `fold` (nobody is in two). `manifest.json` holds rows and SHA-256 of every file; check
with `facefoundry verify`.
{command}
## Creation

No image was annotated by people: the identity of a face is the one it was {labelled}; all scores are a machine's.

### Figures

{figures}

### Leakage

Similarity to the real people of the training data: {leakage}

## Personal and sensitive information

{consent}
Take-down and questions: {contact}

## Bias, risks, limitations

- Demographics: {demographics}. Whatever is given here comes from classifiers and is a proxy, never a fact about a person.
- A recogniser trained on this set inherits the gaps of the data and of the embedder named above.
{limits}
## Recommendations

Report results on real test sets beside those on this set. Measure error rates by group on data with consent before you rely on a recogniser
trained on it. Say in your work that the faces are {kind}, and name the sources above.

## Licence

{license_chain}

{citation}"""

_SYNTHETIC = {
    "made_of": "Made by the generator `{generator}`: every face is computed, none is a photograph.",
    "consent": "No person sat for these faces, and none consented. Resemblance to a person is accidental, but synthetic does not mean free of risk:\n"
    "the generator and the embedder were trained on real faces, and a made face may resemble one of them.",
    "limits": "- Machine-made media: mark them as such wherever they are shown (EU AI Act, Art. 50).\n",
    "labelled": "made for",
    "kind": "synthetic",
}
_REAL = {
    "made_of": "Photographs of real people, brought in by `{generator}`.",
    "consent": "These are biometric data of real people. Their consent is not recorded here; the terms of the source apply. Do not publish this folder.",
    "limits": "",
    "labelled": "filed under in the source",
    "kind": "photographs",
}
_MIXED = {
    "made_of": "Photographs of real people beside faces computed by `{generator}`; the column `origin` tells them apart.",
    "consent": _REAL["consent"],
    "limits": _SYNTHETIC["limits"],
    "labelled": "made for, or filed under in the source",
    "kind": "partly synthetic",
}

_CONFIGURATIONS = (("default", "train", "data"), ("rejected", "rejected", "rejected"), ("identities", "train", "metadata"), ("pairs", "validation", "pairs"))
"""Name, split and folder."""


def kind_of(origins: Sequence[str]) -> dict[str, str]:
    """Return what the card says of a set with these origins: computed faces, photographs, or both."""
    return _SYNTHETIC if "real" not in origins else _REAL if list(origins) == ["real"] else _MIXED


def card_text(manifest: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return README.md.

    Args:
        manifest: title, generator, rows, identities, origins and shards, as in manifest.json.
        facts: text for `TEXT_FACTS` (`picture`: path in the repository; `demographics`: text, or a mapping, see `demographics_text`); every other
            entry is a row of the table of figures. `consent`: whose biometric data these are, where the usual sentence on made faces is not true.
    """
    kind, rows = kind_of(manifest["origins"]), manifest["rows"]
    text = _TEXT.format(
        title=manifest["title"], generator=manifest["generator"], rows=rows["data"], rejected=rows["rejected"], identities=manifest["identities"],
        refused=REFUSED_USES, structure="\n".join(f"| `{name}` | {split} | {count} | `{files}` |" for name, split, files, count, _ in configurations(manifest)),
        training_data=facts.get("training_data", "not stated"), embedder=facts.get("embedder", "not stated"), contact=facts.get("contact", "not stated"),
        leakage=facts.get("leakage", "not checked"), demographics=demographics_text(facts.get("demographics")),
        summary=facts.get("summary", "Identity-grouped faces in one folder, made and checked with FaceFoundry."),
        picture=f"![examples]({facts['picture']})\n\n" if facts.get("picture") else "",
        command=f"\nMade by: `{facts['command']}`\n" if facts.get("command") else "",
        citation=f"## Citation\n\n{facts['citation']}\n" if facts.get("citation") else "",
        license_chain=facts.get("license_chain", "Not stated. A set derived from research-only data or weights inherits their limits."),
        figures=_figure_table({name: value for name, value in facts.items() if name not in TEXT_FACTS}),
        **{name: value.format(generator=manifest["generator"]) if name == "made_of" else facts.get("consent", value) if name == "consent" else value for name, value in kind.items()},
    )  # fmt: skip
    return f"---\n{yaml.safe_dump(_front_matter(manifest, facts), sort_keys=False, allow_unicode=True)}---\n\n{text.rstrip()}\n"


def demographics_text(found: Any) -> str:
    """Return the sentence on groups: text as it is, or shares with the method that measured them.

    Args:
        found: None, text, or {"method": text, "error": text (optional), "groups": {group: share}}.

    Raises:
        UserError: a mapping without its method: a share nobody can check is no measurement.
    """
    if found is None or isinstance(found, str):
        return found or UNMEASURED
    if not isinstance(found, Mapping) or not found.get("method") or not isinstance(found.get("groups"), Mapping):
        raise UserError("the card's 'demographics' needs 'method' (which classifier, on what) and 'groups' ({name: share}); give both, or leave it out")
    error = f"; its error: {found['error']}" if found.get("error") else f"; its error: {UNMEASURED}"
    return f"proxies by {found['method']}{error}: {_shown(found['groups'])}"


def configurations(manifest: Mapping[str, Any]) -> list[tuple[str, str, str, int, int]]:
    """Return (name, split, pattern of files, rows, bytes) of every configuration that has files; each table under metadata/ is one."""
    found = []
    for name, split, part in _CONFIGURATIONS:
        entries = [entry for entry in manifest.get("shards", ()) if entry["path"].startswith(f"{part}/")]
        groups = {f"{part}/*.parquet": entries} if part != "metadata" else {entry["path"]: [entry] for entry in entries}
        for files, held in groups.items():
            if held:
                label = name if part != "metadata" else files.removeprefix("metadata/").removesuffix(".parquet")
                found.append((label, split, files, sum(entry["rows"] for entry in held), sum(entry["bytes"] for entry in held)))
    return found


def _front_matter(manifest: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    real, parts = list(manifest["origins"]) == ["real"], configurations(manifest)
    front = {
        "pretty_name": manifest["title"],
        **({"language": facts["language"]} if facts.get("language") else {}),
        "license": facts.get("license", "other"),
        "license_name": facts.get("license_name", "research-only"),
        "license_link": facts.get("license_link", "README.md#licence"),
        "task_categories": ["image-classification"],
        "task_ids": ["multi-class-image-classification"],
        "annotations_creators": ["found" if real else "machine-generated"],
        "source_datasets": ["original"],
        "size_categories": [_size_category(manifest["rows"]["data"])],
        "tags": ["face-recognition", *([] if real else ["synthetic"]), "biometrics", "facefoundry", "croissant"],
        "extra_gated_heading": "Before you use these faces",
        "extra_gated_prompt": f"These faces are for research. Refused uses: {REFUSED_USES}. The licence chain on the card binds you as well.",
        "extra_gated_fields": {
            "Name and affiliation": "text",
            "What I will use them for": "text",
            "I will not use them for surveillance": "checkbox",
            "I will not use them for re-identification": "checkbox",
            "I will not try to link them to real persons": "checkbox",
        },
        "configs": [_config(name, split, files) for name, split, files, _, _ in parts],
        "dataset_info": [_info(name, split, count, size) for name, split, _, count, size in parts],
    }  # fmt: skip
    if front["license"] != "other":
        del front["license_name"], front["license_link"]
    return front


def _config(name: str, split: str, files: str) -> dict[str, Any]:
    return {"config_name": name, "data_files": [{"split": split, "path": files}], **({"default": True} if name == "default" else {})}


def _info(name: str, split: str, rows: int, size: int) -> dict[str, Any]:
    """Sizes of a configuration; the files hold no compressed columns, so that both sizes are the files'."""
    return {"config_name": name, "splits": [{"name": split, "num_bytes": size, "num_examples": rows}], "download_size": size, "dataset_size": size}


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
