"""TranX in a frozen multimodal model of transformers (Qwen2-VL, Qwen2.5-VL, LLaVA): artifact tokens and fused image tokens in the picture's place of the prompt.

Source: TranX-Adapter's released code (consumers.md §8), in our words. transformers is imported late: `pip install 'facefoundry[multimodal]'`. Weights come from
a folder of the disk, as safetensors; nothing is fetched. Axes: B images, N artifact tokens, M image tokens of the model, L tokens of the prompt, D its width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...core.config import Config
from ...core.errors import UserError, missing_extra, near_names
from ...core.images import to_uint8
from ...core.weights import load_into, load_weights, read_safetensors, save_weights
from .artifact import ArtifactBranch, ArtifactConfig
from .metrics import answer_score
from .mrope import image_positions
from .picture_processor import PictureProcessor
from .tranx import TranX, TranXConfig, entropy_share

KIND = "aigi-multimodal"
FAMILIES = ("llava", "qwen2_vl", "qwen2_5_vl")
QUESTION = "Is this picture real or fake? Answer with one word."


class MultimodalConfig(Config):
    """The adapter and what surrounds it.

    Attributes:
        artifact: the expert; the released one sees 224 pixels.
        tranx: sizes; `release_compatible` reaches the expert's tokens and the score of an answer, too.
        semantic_head: "linear": a learned logit a token (Qwen); "text": cosine with a text embedding (LLaVA).
        text_embedding: file of the second (.safetensors, one vector named "embedding"): named here, never looked for in the working directory.
        view: side of the picture the model sees, after a centre crop.
        answers: the words for real and fake.
    """

    artifact: ArtifactConfig = ArtifactConfig(side=224)
    tranx: TranXConfig = TranXConfig()
    semantic_head: Literal["linear", "text"] = "linear"
    text_embedding: Path | None = None
    view: int = Field(256, ge=8)
    question: str = QUESTION
    answers: tuple[str, str] = ("real", "fake")


class TextHead(nn.Module):
    """Logit = cosine between a token, brought to the text's width, and the embedding of "a manipulated photo"; the cosine is the logit, as released."""

    def __init__(self, dim: int, embedding_T: Tensor) -> None:
        super().__init__()
        self.bring = nn.Linear(dim, len(embedding_T), bias=False)
        self.register_buffer("embedding_T", F.normalize(embedding_T.float(), dim=0))

    def forward(self, token_BMD: Tensor) -> Tensor:
        return (F.normalize(self.bring(token_BMD), dim=-1) @ self.embedding_T)[..., None]


class Adapter(nn.Module):
    """What is trained, and the frozen expert.

    forward(picture (B, 3, H, W) in [-1, 1], image tokens (B, M, D)) → (B, N + M, D)
    """

    def __init__(self, dim: int, config: MultimodalConfig) -> None:
        super().__init__()
        compatible = config.tranx.release_compatible
        self.expert = ArtifactBranch(config.artifact.model_copy(update={"release_compatible": compatible})).requires_grad_(False)
        self.project = nn.Linear(self.expert.width, dim)
        self.semantic_head: nn.Module = nn.Linear(dim, 1) if config.semantic_head == "linear" else TextHead(dim, _text_embedding(config))
        self.tranx = TranX(dim, config.tranx)

    def train(self, mode: bool = True) -> Adapter:
        """Keep the expert in evaluation mode."""
        super().train(mode)
        self.expert.eval()
        return self

    def forward(self, image_BCHW: Tensor, semantic_BMD: Tensor) -> Tensor:
        token_BNC, logit_BN = self.expert(image_BCHW)
        fused = self.tranx(self.project(token_BNC), semantic_BMD, logit_BN, self.semantic_head(semantic_BMD)[..., 0])
        return torch.cat((fused.artifact_BND, fused.semantic_BMD), 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """What the language model gets: embeddings (B, L, D), places (3, B, L) or None, and where artifact tokens stand."""

    embed_BLD: Tensor
    position_3BL: Tensor | None
    start: int
    artifacts: int


class MultimodalDetector:
    """A frozen multimodal model with TranX; `load_multimodal` makes it.

    Args:
        model, processor: of transformers, e.g. LlavaForConditionalGeneration and its processor; of Qwen's families a `PictureProcessor`.
    """

    def __init__(self, model: Any, processor: Any, config: MultimodalConfig) -> None:
        if model.config.model_type not in FAMILIES:
            raise UserError(f"a model of the kind '{model.config.model_type}' came; {near_names(model.config.model_type, FAMILIES)}")
        self.model, self.processor, self.config = model.eval().requires_grad_(False), processor, config
        self.dim = int(model.get_input_embeddings().embedding_dim)
        self.adapter = Adapter(self.dim, config)
        self.answer_ids = tuple(processor.tokenizer.encode(word, add_special_tokens=False)[0] for word in config.answers)
        if self.answer_ids[0] == self.answer_ids[1]:
            raise UserError(f"the answers {config.answers} begin with the same token; choose words that differ from the start")

    def logits(self, image_BCHW: Tensor) -> Tensor:
        """Return the logits of the answer's first token, (B, vocabulary), for pictures in [-1, 1] of any one size."""
        prompt = self.prompt(image_BCHW)
        return self._run(prompt).logits[:, -1].float()

    def fake_probability(self, image_BCHW: Tensor) -> np.ndarray:
        """Return P("fake") / (P("fake") + P("real")), (B,); as released, where asked for, the hard answer."""
        with torch.inference_mode():
            probability_BV = self.logits(image_BCHW).softmax(-1).cpu().double().numpy()
        real_B, fake_B = (probability_BV[:, answer] for answer in self.answer_ids)
        return answer_score(fake_B, real_B, release_compatible=self.config.tranx.release_compatible)

    def dilution(self, image_BCHW: Tensor) -> Tensor:
        """Entropy of the answer's attention over the artifact tokens over ln N, mean of layers and heads, (B,); needs eager attention."""
        prompt = self.prompt(image_BCHW)
        seen = self._run(prompt, attentions=True).attentions
        if not seen or seen[0] is None:
            raise UserError("the model keeps its attention to itself; load it with attention='eager'")
        return torch.stack([entropy_share(layer[:, :, -1, prompt.start : prompt.start + prompt.artifacts].float()).mean(1) for layer in seen]).mean(0)

    def prompt(self, image_BCHW: Tensor) -> Prompt:
        """Lay the fused tokens into the prompt: before the picture's slots those of the artifacts, in the slots the image tokens."""
        inputs = self.processor(images=list(to_uint8(semantic_view(image_BCHW, self.config.view))), text=[self._text()] * len(image_BCHW), return_tensors="pt").to(self.model.device)
        ids_BL, grid_B3 = inputs["input_ids"], inputs.get("image_grid_thw")
        extra = {} if grid_B3 is None else {"image_grid_thw": grid_B3}
        with torch.no_grad():
            features = self.model.get_image_features(pixel_values=inputs["pixel_values"], **extra)
            # Since transformers 5 an output with fields, before that the features themselves.
            semantic_BMD = torch.stack(list(getattr(features, "pooler_output", features))).to(self.model.dtype)
            embed_BLD = self.model.get_input_embeddings()(ids_BL)
        slots = torch.nonzero(ids_BL[0] == self._image_token())[:, 0]
        if len(slots) != semantic_BMD.shape[1] or int(slots[-1] - slots[0]) != len(slots) - 1:
            raise UserError(f"the prompt has {len(slots)} places for {semantic_BMD.shape[1]} image tokens; model and processor do not belong together")
        start, end = int(slots[0]), int(slots[-1]) + 1
        own = next(self.adapter.parameters())  # float32, whatever the model is stored in
        fused = self.adapter(image_BCHW.to(own), semantic_BMD.to(own)).to(embed_BLD)
        artifacts = fused.shape[1] - len(slots)
        embed_BLD = torch.cat((embed_BLD[:, :start], fused, embed_BLD[:, end:]), 1)
        position = None
        if grid_B3 is not None:
            merge, side = self.model.config.vision_config.spatial_merge_size, self.config.artifact.grid
            grids = [(side, side), (int(grid_B3[0, 1]) // merge, int(grid_B3[0, 2]) // merge)]
            position = image_positions(start, grids, ids_BL.shape[1] - end).to(ids_BL.device)[:, None].expand(-1, len(ids_BL), -1)
        return Prompt(embed_BLD=embed_BLD, position_3BL=position, start=start, artifacts=artifacts)

    def _run(self, prompt: Prompt, *, attentions: bool = False) -> Any:
        mask_BL = torch.ones(prompt.embed_BLD.shape[:2], dtype=torch.long, device=prompt.embed_BLD.device)
        return self.model(inputs_embeds=prompt.embed_BLD, attention_mask=mask_BL, position_ids=prompt.position_3BL, output_attentions=attentions, use_cache=False)

    def _image_token(self) -> int:
        return int(getattr(self.model.config, "image_token_id", None) or self.model.config.image_token_index)

    def _text(self) -> str:
        """The question behind the picture, in the model's own chat form where its processor has one."""
        content = [{"type": "image"}, {"type": "text", "text": self.config.question}]
        if getattr(self.processor, "chat_template", None):
            return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        token = self.processor.tokenizer.convert_ids_to_tokens(self._image_token())
        around = ("<|vision_start|>", "<|vision_end|>") if self.model.config.model_type.startswith("qwen") else ("", "\n")
        return f"{around[0]}{token}{around[1]}{self.config.question} "


class AnswerObjective(nn.Module):
    """forward(pictures, 1 for fake) → cross-entropy of the answer's first token over the vocabulary; `.network` is the adapter. For `run_loop`."""

    def __init__(self, detector: MultimodalDetector) -> None:
        super().__init__()
        self.network, self._detector = detector.adapter, detector

    def forward(self, image_BCHW: Tensor, fake_B: Tensor) -> dict[str, Tensor]:
        logit_BV = self._detector.logits(image_BCHW)
        answer_2 = torch.tensor(self._detector.answer_ids, device=logit_BV.device)
        right = (logit_BV[:, answer_2].argmax(1) == fake_B.long()).float().mean()
        return {"loss": F.cross_entropy(logit_BV, answer_2[fake_B.long()]), "accuracy": right.detach()}


def semantic_view(image_BCHW: Tensor, side: int) -> Tensor:
    """Centre crop to the short side, then `side`×`side` (bicubic, antialiased)."""
    short = min(image_BCHW.shape[2:])
    top, left = ((length - short) // 2 for length in image_BCHW.shape[2:])
    return F.interpolate(image_BCHW[:, :, top : top + short, left : left + short], (side, side), mode="bicubic", antialias=True).clamp(-1, 1)


def load_multimodal(folder: Path, config: MultimodalConfig, *, adapter: Path | None = None, dtype: str = "auto", device: torch.device | None = None, attention: Literal["sdpa", "eager"] = "sdpa") -> MultimodalDetector:
    """Load a model and its processor from a folder as `save_pretrained` writes them, frozen, with a fresh adapter or a trained one.

    Args:
        adapter: file of `save_adapter`; it must fit `config`.
        dtype: "auto" (as stored), "bfloat16", "float32", ...; the adapter is float32.

    Raises:
        UserError: transformers is missing, no such folder, a model of another family, pickled weights.
    """
    try:
        from transformers import AutoModelForImageTextToText, AutoProcessor
    except ImportError as error:
        raise missing_extra("transformers", "multimodal", "a multimodal detector") from error
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{folder} holds no config.json; expected the folder of a multimodal model (config, safetensors, processor files)")
    try:
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, attn_implementation=attention, local_files_only=True, use_safetensors=True)
        # One image backend everywhere, so that a picture is the same numbers with torchvision and without.
        processor = PictureProcessor.load(folder) if model.config.model_type.startswith("qwen") else AutoProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{folder} cannot be read as a multimodal model of transformers: {error}") from error
    detector = MultimodalDetector(model.to(device or "cpu"), processor, config)
    if adapter is not None:
        tensors, _, _ = load_weights(adapter, kind=KIND)
        load_into(detector.adapter, tensors, adapter)
    detector.adapter.to(detector.model.device).eval()
    return detector


def save_adapter(path: Path, detector: MultimodalDetector, *, facts: dict[str, Any]) -> None:
    """Write the adapter (the model itself stays where it is)."""
    save_weights(path, detector.adapter, kind=KIND, config=detector.config.model_dump(mode="json"), facts={**facts, "model": detector.model.config.model_type, "dim": detector.dim})


def _text_embedding(config: MultimodalConfig) -> Tensor:
    if config.text_embedding is None:
        raise UserError("semantic_head: text needs text_embedding, a .safetensors file with one vector named 'embedding'; write it with the text encoder of your vision tower")
    tensors: dict[str, Tensor] = read_safetensors(config.text_embedding)[1]
    if "embedding" not in tensors or tensors["embedding"].ndim != 1:
        raise UserError(f"{config.text_embedding} holds {', '.join(tensors) or 'nothing'}; expected one vector named 'embedding'")
    return tensors["embedding"]
