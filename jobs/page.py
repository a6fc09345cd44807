"""Pages for people: templates of this folder, pictures as data URIs; one file, nothing fetched."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from ..core.images import encode_jpeg


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of a page: a data URI, its short name, and a score to show."""

    uri: str
    note: str
    caption: str = ""
    rejected: bool = False


def render(template: str, values: Mapping[str, Any]) -> bytes:
    """Return a page; whatever users wrote is escaped."""
    from jinja2 import Environment, FunctionLoader

    loader = FunctionLoader(lambda name: (resources.files("facefoundry.jobs") / name).read_text(encoding="utf-8"))
    page = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return page.get_template(template).render(values).encode()


def picture_uri(image_HWC: np.ndarray) -> str:
    """Return uint8 RGB, (H, W, 3), as a JPEG data URI."""
    return f"data:image/jpeg;base64,{b64encode(encode_jpeg(image_HWC, 88)).decode()}"
