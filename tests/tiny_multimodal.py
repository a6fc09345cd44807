"""Tiny, randomly initialised Qwen2-VL and LLaVA as `save_pretrained` writes them; made without torchvision."""

from __future__ import annotations

import torch
from facefoundry.consumers.aigi.artifact import ArtifactConfig
from facefoundry.consumers.aigi.multimodal import MultimodalConfig
from facefoundry.consumers.aigi.tranx import TranXConfig

SMALL = MultimodalConfig(artifact=ArtifactConfig(widths=(8, 8), grid=4, side=56), tranx=TranXConfig(inner=8, heads=2, layers=1), view=56)


def tokenizer(special: list[str]):
    """A byte-level tokenizer that knows the two answers as words."""
    from transformers import Qwen2TokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocabulary, merges = {char: number for number, char in enumerate(sorted(bytes_to_unicode().values()))}, []
    for word in ("fake", "real"):
        for end in range(1, len(word)):
            merges.append((word[:end], word[end]))
            vocabulary.setdefault(word[: end + 1], len(vocabulary))
    made = Qwen2TokenizerFast(vocab=vocabulary, merges=merges)
    made.add_special_tokens({"additional_special_tokens": special})
    return made


def qwen(folder):
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    text = tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"])
    ids = {name: text.convert_tokens_to_ids(f"<|{word}|>") for name, word in (("image_token_id", "image_pad"), ("video_token_id", "video_pad"), ("vision_start_token_id", "vision_start"), ("vision_end_token_id", "vision_end"))}
    config = Qwen2VLConfig(
        text_config={"vocab_size": len(text), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}},
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2}, **ids,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    qwen_pictures().save_pretrained(folder)
    text.save_pretrained(folder)
    return folder


def qwen_pictures():
    """The image processor that needs no torchvision; faces of 56 pixels are 4 tokens, larger ones are made smaller."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, min_pixels=28 * 28, max_pixels=56 * 56)


def llava(folder):
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    text = tokenizer(["<image>", "<pad>"])
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14),
        text_config=LlamaConfig(vocab_size=len(text), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=512),
        image_token_id=text.convert_tokens_to_ids("<image>"), vision_feature_layer=-1,
    )  # fmt: skip
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    LlavaProcessor(image_processor=images, tokenizer=text, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1).save_pretrained(folder)
    return folder
