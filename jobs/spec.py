"""The job file: everything that decides the bytes of a dataset, and (apart, unfingerprinted) how it is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, model_validator
from typing_extensions import Self

from ..core.config import Config
from ..core.errors import UserError
from ..core.registry import Registry, import_named
from ..identity.repulsion import Repulsion
from .executors import Executor, LocalExecutor
from .extends import read_job


_CENTRES_GO_WITH_FILTER = (
    "the filter 'leakage' and 'centres: real.safetensors' go together. No real people ship with FaceFoundry: write the centres of those you hold with "
    "`facefoundry centres` (identity.centres.write_centres), or leave out both (the anchors of the bundled prior were checked before shipping, the images are not)"
)


_LATER_KEYS = (("identities", "dim"), ("identities", "repulsion"), ("writer", "mark"), ("", "anchor_image"))


class IdentitySource(Config):
    """Who is in the dataset.

    Attributes:
        source: "prior": drawn from the anchor prior (the bundled one: from its pool of checked anchors); "gaussian": one Gaussian with the mean and
            covariance of the prior's centres; "uniform": the unit sphere; "embeddings": from a file of candidates, e.g. embeddings of
            unconditionally generated faces, thinned by both limits; "file": the anchors themselves, one a row, as they are.
        count: how many people.
        file: prior, gaussian: a prior of your own (.safetensors; null = bundled). embeddings, file: rows (.npy); they are normalised.
        dim: uniform only: numbers of an anchor; null = the sphere of the bundled prior's axes (81 axes in 128 numbers).
        centres: of real people in the space of the anchors: none of them may come within `leak_cosine` (facefoundry centres, or .npy).
        max_cosine: highest cosine between two people; null = 0.45, the bundled space's measured value; with "file": null = not checked.
        leak_cosine: lowest forbidden cosine to the centre of a real person; null = 0.58 (FMR = 1e-3 in the bundled space).
        repulsion: push the anchors apart before the limits are checked (identity/repulsion.py).
    """

    source: Literal["prior", "gaussian", "uniform", "embeddings", "file"] = "prior"
    count: int = Field(gt=0, le=100_000_000)
    file: Path | None = None
    max_cosine: float | None = Field(default=None, gt=-1.0, lt=1.0)
    leak_cosine: float | None = Field(default=None, gt=-1.0, lt=1.0)
    dim: int | None = Field(default=None, ge=2)
    centres: Path | None = None
    repulsion: Repulsion | None = None

    @model_validator(mode="after")
    def _keys_go_with_source(self) -> Self:
        if self.source in ("file", "embeddings") and self.file is None or self.source == "uniform" and self.file is not None:
            raise ValueError(f"'source: {self.source}' and 'file: anchors.npy' go together" if self.file is None else "'source: uniform' reads no 'file'; leave it out")
        if self.dim is not None and self.source != "uniform":
            raise ValueError(f"'dim' belongs to 'source: uniform'; 'source: {self.source}' brings its own")
        if self.repulsion is not None and self.source == "file":
            raise ValueError("'source: file' takes the anchors as they are; for 'repulsion' of given rows use 'source: embeddings'")
        return self


class Component(Config):
    """One entry of a registry with its settings; in a file it is written flat: `{name: uiface, guidance: 1.5}`."""

    name: str
    settings: SerializeAsAny[Config]

    def document(self) -> dict[str, Any]:
        """Return the flat form a job file holds."""
        return {**self.settings.model_dump(mode="json"), "name": self.name}


class Writer(Config):
    """How images lie on disk. JPEG leaves 8x8 block structure that privacy and detection methods would learn."""

    format: Literal["png", "jpeg"] = "png"
    quality: int = Field(default=95, ge=1, le=100)  # JPEG only
    shard_identities: int = Field(default=64, gt=0)  # identities in a shard: the unit of resuming
    mark: bool = False  # IPTC mark of machine-made media in every file (media_type.py); 0.5 kB an image, the pixels stay


class Engine(Config):
    """How the job runs. Left out of the fingerprint; `batch` and `threads` are pinned by the first run of a folder."""

    workers: int | None = Field(default=None, gt=0)  # null = one a core on a CPU, one a GPU
    batch: int = Field(default=8, gt=0)
    threads: int = Field(default=1, gt=0)  # CPU threads of a worker; processes scale better than threads on small networks
    executor: Executor = LocalExecutor()  # local, ray, or {name: slurm, partition: gpu}; executors.py has their settings
    store: str | None = None  # object store where workers without a common disk meet ("s3://bucket/faces"); --out is then a folder of this machine
    imports: tuple[str, ...] = ()  # modules of yours to import first, here and in every worker: they register generators, filters, embedders
    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    lease_s: float = Field(default=30.0, gt=0.0)  # a silent worker loses its shard after this
    max_failures: float = Field(default=0.5, ge=0.0, le=1.0)  # share of a shard's images that may fail before the job stops


class JobSpec(Config):
    """A dataset, described. Same fingerprint, same dataset."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]*$")
    seed: int = Field(default=0, ge=0)
    identities: IdentitySource
    per_identity: int = Field(gt=0, le=10_000)
    anchor_image: bool = False  # image 0 of everybody from the anchor itself, whatever the generator's sampler does to the others' (cone, negative)
    generator: Component
    judge: str = "dlib"  # embedder that scores and filters
    centres: Path | None = None  # of real people in the judge's space (identity.centres.write_centres, or .npy), for the leakage filter
    match_cosine: float = Field(default=0.58, gt=-1.0, lt=1.0)  # of the judge, from which two faces are one person: dlib, real FMR = 0.1 %
    filters: tuple[Component, ...] = ()
    refill: int = Field(default=0, ge=0, le=100)  # rounds in which set-aside and failed images are minted again; see `refill`
    writer: Writer = Writer()
    engine: Engine = Engine()

    @classmethod
    def parse(cls, values: Any, *, source: str = "job", lines: dict[tuple, int] | None = None) -> Self:
        """Check the mapping of a job file; generator and filters are checked against their registered settings.

        Raises:
            UserError: one line for each problem, with its line in the file and the near names.
        """
        values, problems, lines = dict(values), [], lines or {}
        _import(values.get("engine"), source=source, lines=lines)
        for key, registry in (("generator", _generators), ("filters", _filters)):
            if key in values:
                values[key], found = _components(values[key], registry(), path=(key,), source=source, lines=lines)
                problems += found
        try:
            spec = super().parse(values, source=source, lines=lines)
        except UserError as error:
            problems = [*str(error).splitlines(), *problems]
        if not problems and (spec.centres is None) == any(part.name.startswith("leakage") for part in spec.filters):
            problems = [f"{_place(source, lines, ('filters',))}: {_CENTRES_GO_WITH_FILTER}"]
        if problems:
            raise UserError("\n".join(problems))
        return spec

    @classmethod
    def read(cls, path: Path) -> tuple[dict[str, Any], dict[tuple, Any]]:
        """Return the mapping in a job file, laid over the file it `extends`, and the place of each key."""
        return read_job(path)

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a job file; relative files of anchors and centres are looked for beside it."""
        spec, beside = super().load(path, overrides), path.resolve().parent
        found = {key: value and beside / value for key in ("file", "centres") for value in [getattr(spec.identities, key)]}
        return spec.model_copy(update={"identities": spec.identities.model_copy(update=found), "centres": spec.centres and beside / spec.centres})

    def document(self, *, engine: bool = True) -> dict[str, Any]:
        """Return the mapping a job file would hold; `parse` of it gives this job back."""
        values = self.model_dump(mode="json", exclude={"generator", "filters", *(() if engine else ("engine",))})
        return {**values, "generator": self.generator.document(), "filters": [part.document() for part in self.filters]}

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that decides the bytes: the job without its engine section."""
        values = self.document(engine=False)
        del values["identities"]["file"], values["identities"]["centres"], values["centres"]  # their content counts, not where they lie; see `plan.materials`
        for group, key in _LATER_KEYS:  # a job that does not use them has the fingerprint it had before they were there
            held = values[group] if group else values
            if not held[key]:
                del held[key]
        if not self.refill:
            del values["refill"]  # folders begun before there was a refill go on
        return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _import(engine: Any, *, source: str, lines: dict[tuple, int]) -> None:
    """Import the modules a job file names before the file is checked."""
    if isinstance(engine, dict):
        import_named(engine.get("imports"), _place(source, lines, ("engine", "imports")))


def _generators() -> Registry:
    from ..generators.registry import GENERATORS

    return GENERATORS


def _filters() -> Registry:
    from ..quality.filters import FILTERS

    return FILTERS


def _components(value: Any, registry: Registry, *, path: tuple, source: str, lines: dict[tuple, int]) -> tuple[Any, list[str]]:
    """Return the value with mappings turned into components, and the problems met; other types are pydantic's to refuse."""
    if isinstance(value, (list, tuple)):
        pairs = [_components(item, registry, path=(*path, index), source=source, lines=lines) for index, item in enumerate(value)]
        return [part for part, _ in pairs], [problem for _, found in pairs for problem in found]
    values = {"name": value} if isinstance(value, str) else value
    if not isinstance(values, dict) or "name" not in values:
        return value, [] if not isinstance(values, dict) else [f"{_place(source, lines, path)}: '{path[0]}' has no 'name'"]
    settings = {key: item for key, item in values.items() if key != "name"}
    inner = {key[len(path) :]: line for key, line in lines.items() if key[: len(path)] == path and len(key) > len(path)}
    placeholder = Component(name=str(values["name"]), settings=Config())
    try:
        entry = registry[values["name"]]
    except UserError as error:
        return placeholder, [f"{_place(source, lines, (*path, 'name'))}: {error}"]
    try:
        return Component(name=values["name"], settings=entry.parse(settings, source=source, lines=inner)), []
    except UserError as error:
        return placeholder, str(error).splitlines()


def _place(source: str, lines: dict[tuple, int], path: tuple) -> str:
    known = [lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines]
    return f"{source}, line {known[0]}" if known else source


def bundled_job(name: str) -> Path:
    """Return the path of a job file that ships with the package, e.g. `bundled_job("demo-job.yaml")`."""
    return Path(str(resources.files("facefoundry") / "recipes" / name))


def load_job(path: Path, overrides: Sequence[str] = ()) -> JobSpec:
    """Load a job file with `a.b=c` overrides; a file that is not there is the user's mistake."""
    if not path.is_file():
        raise UserError(f"there is no job file {path}; write one (docs/jobs.md) or copy {bundled_job('demo-job.yaml')}")
    return JobSpec.load(path, overrides)
