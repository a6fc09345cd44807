"""JSON Schemas of the files a user writes: editors complete and check them while they are typed."""

from __future__ import annotations

from typing import Any

from ..core.config import Config
from ..core.errors import UserError, near_names
from ..core.registry import Registry

_PART = "_part"

DIALECT = "https://json-schema.org/draft/2020-12/schema"

KINDS = (
    "job", "generator", "id3", "morphface", "few-step", "recogniser", "distil", "quality", "fan", "afa",
    "privacy-dctdp", "privacy-duetface", "privacy-minusface", "privacy-partialface", "privacy-slerpface", "eyeseg", "tokenizer", "aigi",
)  # fmt: skip
"""The job file, and the training files of the verbs that learn."""


def schema(kind: str = "job") -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a kind of file.

    The generators and filters in it are those registered here, each with its own settings, flat beside `name` as a file writes them.

    Raises:
        UserError: an unknown kind.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind of file '{kind}'; {near_names(kind, KINDS)}")
    found = _job() if kind == "job" else _recipe(kind).model_json_schema()
    return {"$schema": DIALECT, "$id": f"facefoundry-{kind}.json", **found}


def _recipe(kind: str) -> type[Config]:
    """The model of a training file; what it needs is imported when it is asked for."""
    from ..consumers.aigi.train import AigiRecipe
    from ..consumers.privacy.protected import PRIVACY_METHODS
    from ..consumers.segmentation.train import EyeSegRecipe
    from ..consumers.tokenizer.train import TokenizerRecipe
    from ..generators.distill import FewStepRecipe
    from ..generators.id3_train import Id3Recipe
    from ..generators.morphface_train import MorphFaceRecipe
    from ..generators.train import GeneratorRecipe
    from ..quality.regressor import QualityRecipe
    from ..recognition.afa_train import AfaRecipe
    from ..recognition.distill import DistilRecipe
    from ..recognition.fan_train import FanRecipe
    from ..recognition.train import RecogniserRecipe

    if kind.startswith("privacy-"):
        return PRIVACY_METHODS[kind.removeprefix("privacy-")].Recipe
    models = {
        "generator": GeneratorRecipe, "id3": Id3Recipe, "morphface": MorphFaceRecipe, "few-step": FewStepRecipe, "recogniser": RecogniserRecipe, "distil": DistilRecipe,
        "quality": QualityRecipe, "fan": FanRecipe, "afa": AfaRecipe, "eyeseg": EyeSegRecipe, "tokenizer": TokenizerRecipe, "aigi": AigiRecipe,
    }  # fmt: skip
    return models[kind]


def _job() -> dict[str, Any]:
    """The job file as it is, or, where it says `extends`, with nothing required: what is not there comes from the other file."""
    from ..generators.registry import GENERATORS
    from ..quality.filters import FILTERS
    from .extends import KEY
    from .spec import JobSpec

    whole = JobSpec.model_json_schema()
    shared: dict[str, Any] = whole.pop("$defs")
    for name in ("Component", "Config"):  # how the program holds an entry; a file writes it flat
        del shared[name]
    whole["properties"]["generator"] = _choice(GENERATORS, shared)
    whole["properties"]["filters"]["items"] = _choice(FILTERS, shared)
    part = _relaxed(whole)
    part["properties"][KEY] = {"type": "string", "description": "A job file beside this one, or a recipe by its name; this file is laid over it."}
    return {"if": {"required": [KEY]}, "then": part, "else": whole, "$defs": shared | {f"{name}{_PART}": _relaxed(value) for name, value in shared.items()}}


def _relaxed(value: Any) -> Any:
    """Return a copy of a schema in which no key is required, with references to such copies."""
    if isinstance(value, dict):
        return {key: f"{item}{_PART}" if key == "$ref" else _relaxed(item) for key, item in value.items() if not (key == "required" and isinstance(item, list))}
    return [_relaxed(item) for item in value] if isinstance(value, list) else value


def _choice(registry: Registry, shared: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an entry of a registry: its bare name, or a mapping with the name and the settings of that entry."""
    entries = []
    for name in registry:
        entry = registry[name].model_json_schema()
        shared.update(entry.pop("$defs", {}))
        entry["properties"] = {**entry.get("properties", {}), "name": {"const": name}}
        entry["required"] = ["name", *(key for key in entry.get("required", ()) if key != "name")]
        entries.append(entry)
    return {"anyOf": [{"enum": list(registry)}, *entries]}
