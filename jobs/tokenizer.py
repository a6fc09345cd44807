"""What the verbs `tokenizer train`, `encode` and `decode` do: faces → tokens (a file, and columns of a dataset) → faces, with figures and a strip to look at.

Axes: N faces, H W positions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Features, Value

from ..consumers.tokenizer.autoregressive_train import tokens_of, train_token_model
from ..consumers.tokenizer.figures import measure
from ..consumers.tokenizer.glotok import BOOKS, GloTok, load_glotok
from ..consumers.tokenizer.train import TokenizerRecipe, train_tokenizer
from ..consumers.tokenizer.usage import usage
from ..core.errors import UserError
from ..core.files import sha256_file, weights_path, write_atomic, write_bytes, write_json
from ..core.images import encode_png, to_uint8
from ..core.progress import track
from ..identity.dataset import MANIFEST, FaceDataset, finalise, read_manifest, shards_of
from ..identity.parquet import open_parquet
from ..identity.records import VERSION_KEY
from ..identity.shards import write_table
from ..identity.sources import Faces, load_faces
from .contact_sheet import sheet

COLUMNS = ("token_sem", "token_vis")
"""Names of the two grids in files and datasets, consumers.md §11."""

TOKENS, STRIP, REPORT = "tokens.npz", "strip.png", "report.json"


def train_on(recipe: TokenizerRecipe, faces: Faces, out: Path) -> dict[str, Path]:
    """Train the tokenizer and, where the recipe asks for one, the autoregressive model over its tokens; return the files."""
    paths = {"tokenizer": train_tokenizer(recipe, faces.image_NHWC, out)}
    if recipe.model is not None:
        paths["token model"] = train_token_model(recipe.model, paths["tokenizer"], faces.image_NHWC, faces.identity_N, out / "model", names=faces.names)
    return paths


def encode_faces(source: Path, weights: str, out: Path, *, rows: int = 12) -> dict[str, Any]:
    """Write `out/tokens.npz`, `strip.png` (faces above, reconstructions below), `report.json` and, of a dataset folder, `dataset/` with the tokens as columns.

    Returns:
        What is in report.json: figures of the reconstructions and use of the books.

    Raises:
        UserError: `out` holds files already, or what `load_faces` and `load_glotok` refuse.
    """
    must_be_new(out)
    tokenizer, _ = load_glotok(weights)
    faces, made_by = load_faces(source), sha256_file(weights_path(str(weights)))
    token_N2HW = tokens_of(tokenizer, faces.image_NHWC)
    arrays = dict(zip(COLUMNS, token_N2HW.swapaxes(0, 1)), path=np.array(faces.paths), identity=faces.identity_N, tokenizer=np.array(made_by))
    write_atomic(out / TOKENS, lambda temporary: _save_npz(temporary, arrays))
    found = measure(lambda image_BCHW: tokenizer.decode(tokenizer.encode(image_BCHW)), faces.image_NHWC)
    shown = min(rows, len(faces))
    pair_NHWC = np.concatenate([faces.image_NHWC[:shown], found.image_NHWC[:shown]])
    write_bytes(out / STRIP, encode_png(sheet(pair_NHWC, [list(range(shown)), list(range(shown, 2 * shown))])))
    use = {name: asdict(usage(token_N2HW[:, book], len(tokenizer.rows(book)))) for book, name in enumerate(BOOKS)}
    report = {"tokenizer": str(weights), "tokenizer_sha256": made_by, "features": "mobilefacenet-small", **found.summary(), "usage": use, "tokens": str(out / TOKENS), "strip": str(out / STRIP)}
    if source.is_dir() and shards_of(source, "data"):
        report["dataset"] = str(write_columns(source, out / "dataset", dict(zip(faces.paths, token_N2HW)), {"tokenizer": made_by}))
    write_json(out / REPORT, report)
    return report


def decode_tokens(source: Path, weights: str, out: Path, *, rows: int = 12, batch: int = 64) -> dict[str, Any]:
    """Write `out/<name>.png` for each row of tokens, and `out/strip.png`; return what was done.

    Args:
        source: a .npz of `encode`, the folder that holds it, or a dataset folder with the columns.

    Raises:
        UserError: `out` holds files already, no tokens there, or tokens of another tokenizer.
    """
    must_be_new(out)
    tokenizer, _ = load_glotok(weights)
    held, made_by = read_tokens(source), sha256_file(weights_path(str(weights)))
    if held.tokenizer and held.tokenizer != made_by:
        raise UserError(f"the tokens of {source} were made by another tokenizer ({held.tokenizer[:12]}…) than {weights} ({made_by[:12]}…); decode them with that one")
    first: list[np.ndarray] = []
    for begin in track(range(0, len(held.names), batch), "decoding"):
        image_NHWC = _drawn(tokenizer, held.token_N2HW[begin : begin + batch])
        first.extend(image_NHWC[: max(0, rows - len(first))])
        for name, image_HWC in zip(held.names[begin : begin + batch], image_NHWC):
            write_bytes(out / _inside(name), encode_png(image_HWC))
    write_bytes(out / STRIP, encode_png(sheet(np.stack(first), [list(range(len(first)))])))
    return {"faces": len(held.names), "folder": str(out), "strip": str(out / STRIP)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens of named faces: (N, 2, H, W), names, and the SHA-256 of the tokenizer ("" where unknown)."""

    token_N2HW: np.ndarray
    names: Sequence[str]
    tokenizer: str


def read_tokens(source: Path) -> Tokens:
    """Read what `encode_faces` wrote: a .npz, the folder that holds it, or a dataset folder with the columns.

    Raises:
        UserError: nothing of that there, or it is damaged.
    """
    place = source / TOKENS if (source / TOKENS).is_file() else source
    if place.is_dir() and (shards := shards_of(place, "data")):
        return _tokens_of_dataset(place, shards)
    try:
        with np.load(place, allow_pickle=False) as held:
            return Tokens(token_N2HW=np.stack([held[name] for name in COLUMNS], 1), names=held["path"].tolist(), tokenizer=str(held["tokenizer"]))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{source} holds no tokens that can be read ({error}); expected {TOKENS} of `facefoundry tokenizer encode`, or a dataset folder with the columns {', '.join(COLUMNS)}") from error


def write_columns(source: Path, out: Path, token_of: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Path:
    """Copy a dataset folder to `out` with the tokens of its kept faces as columns (null where a face has none); return `out`.

    Args:
        token_of: by face_id, (2, H, W).
        facts: lines for the card; "tokenizer" tells whose tokens they are.

    Raises:
        UserError: the source is no finished dataset, or has such columns already.
    """
    manifest = read_manifest(source)
    for shard in shards_of(source, "data"):
        table = open_parquet(shard).read()
        if taken := sorted(set(COLUMNS) & set(table.column_names)):
            raise UserError(f"{source} has the column {taken[0]} already; take the dataset it was made from")
        write_table(out / shard.relative_to(source), _with_tokens(table, token_of))
    for shard in shards_of(source, "rejected"):
        write_bytes(out / shard.relative_to(source), shard.read_bytes())
    finalise(out, title=manifest["title"], generator=manifest["generator"], facts={**manifest["facts"], **facts})
    return out


def _with_tokens(table: pa.Table, token_of: Mapping[str, np.ndarray]) -> pa.Table:
    about = Features.from_arrow_schema(table.schema) | {name: [[Value("uint16")]] for name in COLUMNS}
    for book, name in enumerate(COLUMNS):
        cells = [token_of[face][book].tolist() if face in token_of else None for face in table.column("face_id").to_pylist()]
        table = table.append_column(name, pa.array(cells, pa.list_(pa.list_(pa.uint16()))))
    described = Features(about).arrow_schema.metadata  # so that datasets.load_dataset knows the new columns
    return table.replace_schema_metadata({**described, VERSION_KEY: table.schema.metadata[VERSION_KEY]})


def _tokens_of_dataset(folder: Path, shards: Sequence[Path]) -> Tokens:
    tables = [open_parquet(shard) for shard in shards]
    if missing := [name for name in COLUMNS if name not in tables[0].schema_arrow.names]:
        raise UserError(f"{folder} is a dataset without the column {missing[0]}; write it with: facefoundry tokenizer encode {folder} --weights W --out OUT")
    table = pa.concat_tables([file.read(columns=["face_id", *COLUMNS]) for file in tables])
    table = table.filter(pc.is_valid(table.column(COLUMNS[0])))
    token_N2HW = np.stack([np.array(table.column(name).to_pylist(), np.uint16) for name in COLUMNS], 1)
    facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["facts"] if (folder / MANIFEST).is_file() else {}
    return Tokens(token_N2HW=token_N2HW, names=table.column("face_id").to_pylist(), tokenizer=str(facts.get("tokenizer", "")))


@torch.inference_mode()
def _drawn(tokenizer: GloTok, token_N2HW: np.ndarray) -> np.ndarray:
    return to_uint8(tokenizer.decode_tokens(torch.from_numpy(token_N2HW.astype(np.int64))))


def _inside(name: str) -> str:
    """A face's name as a PNG's path below the folder; a name that leads out of it is refused."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"the name {name!r} leads out of the output folder; the token file is damaged or not to be trusted")
    return str(path.with_suffix(".png"))


def _save_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def must_be_new(out: Path) -> None:
    """Refuse a place where there is something already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty folder; choose a new one")
