"""Qwen2-VL's processor without its videos: prompt and pictures → what the model reads; needs no torchvision.

transformers' own Qwen2VLProcessor cannot be made without a video processor, and that one wants torchvision. Tokenizer and image processor (its PIL backend, on
every machine, so that a picture is the same numbers with torchvision and without) are transformers'; here each picture's one token is repeated as often as
the model makes tokens of it. Token ids, pixels and grids are those of Qwen2VLProcessor bit for bit (tests). Axes: B pictures, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

IMAGE_TOKEN = "<|image_pad|>"


class PictureProcessor:
    """The part of Qwen2VLProcessor that pictures need.

    Args:
        image_processor, tokenizer: of transformers, e.g. Qwen2VLImageProcessorPil and Qwen2TokenizerFast.
        chat_template: in Jinja; None = the prompt is written without one.
    """

    def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str | None) -> None:
        self.image_processor, self.tokenizer, self.chat_template = image_processor, tokenizer, chat_template

    def __call__(self, images: Sequence[np.ndarray], text: Sequence[str], return_tensors: str = "pt") -> Any:
        """Return a BatchFeature with input_ids and attention_mask (B, L), pixel_values, image_grid_thw (B, 3).

        Args:
            images: uint8 HWC, one for each place in the texts, in order.
            text: prompts in which IMAGE_TOKEN stands once for each picture; of one length, once the places are filled.
        """
        from transformers import BatchFeature

        seen = self.image_processor(images=list(images), return_tensors=return_tensors)
        merged = self.image_processor.merge_size**2
        counts = [int(grid_3.prod()) // merged for grid_3 in seen["image_grid_thw"]]
        words = self.tokenizer(filled(text, counts), return_tensors=return_tensors)
        return BatchFeature({**words, **seen})

    def apply_chat_template(self, messages: Sequence[dict[str, Any]], *, add_generation_prompt: bool = False) -> str:
        """Return one conversation as the model's prompt."""
        return self.tokenizer.apply_chat_template(list(messages), chat_template=self.chat_template, add_generation_prompt=add_generation_prompt, tokenize=False)

    @classmethod
    def load(cls, folder: Path) -> PictureProcessor:
        """Read tokenizer, image processor and chat template of a model's folder.

        Raises:
            OSError, ValueError: transformers', of missing or damaged files.
        """
        from transformers import AutoImageProcessor, AutoTokenizer, ProcessorMixin

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        images = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
        about, _ = ProcessorMixin.get_processor_dict(folder, local_files_only=True)  # knows chat_template.jinja and the older chat_template.json
        return cls(images, tokenizer, about.get("chat_template") or tokenizer.chat_template)


def filled(text: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Return the prompts with each IMAGE_TOKEN repeated by its picture's count.

    Raises:
        ValueError: more or fewer places than pictures.
    """
    places = sum(line.count(IMAGE_TOKEN) for line in text)
    if places != len(counts):
        raise ValueError(f"the prompts have {places} places for {len(counts)} pictures; expected {IMAGE_TOKEN} once for each picture")
    left, lines = iter(counts), []
    for line in text:
        first, *rest = line.split(IMAGE_TOKEN)
        lines.append(first + "".join(IMAGE_TOKEN * next(left) + part for part in rest))
    return lines
