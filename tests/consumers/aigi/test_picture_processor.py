"""Qwen2-VL's pictures and prompts without torchvision, against transformers' own processor where there is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from facefoundry.consumers.aigi.multimodal import load_multimodal
from facefoundry.consumers.aigi.picture_processor import IMAGE_TOKEN, PictureProcessor, filled
from facefoundry.core.errors import UserError
from facefoundry.core.files import write_json
from tiny_multimodal import SMALL, llava, qwen, qwen_pictures, tokenizer

pytest.importorskip("transformers", reason="transformers (extra: multimodal) is not installed")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MESSAGES = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "real or fake?"}]}]


def pictures(*sizes):
    return [np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8) for number, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = qwen(tmp_path_factory.mktemp("qwen"))
    write_json(folder / "chat_template.json", {"chat_template": TEMPLATE})  # as the published folders have it
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    return PictureProcessor.load(folder)


def test_each_place_is_as_long_as_its_picture():
    assert filled([f"a{IMAGE_TOKEN}b", "c", f"{IMAGE_TOKEN}{IMAGE_TOKEN}"], [2, 1, 3]) == [f"a{2 * IMAGE_TOKEN}b", "c", 4 * IMAGE_TOKEN]
    with pytest.raises(ValueError, match="1 places for 2 pictures"):
        filled([IMAGE_TOKEN], [1, 1])


def test_tokens_are_patches_over_the_merge(ours):
    """56×56 pixels at most: 56 px of 14 = 4×4 patches, merged in twos, 4 tokens; 28×56 px: 2."""
    found = ours(images=pictures((56, 56)), text=[f"x{IMAGE_TOKEN}y"])
    assert found["image_grid_thw"].tolist() == [[1, 4, 4]] and found["pixel_values"].shape == (16, 3 * 2 * 14 * 14)
    assert (found["input_ids"] == ours.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)).sum() == 4
    assert ours(images=pictures((28, 56)), text=[IMAGE_TOKEN])["input_ids"].tolist() == [[ours.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)] * 2]


def test_patch_holds_its_pixels_normalised(ours):
    """First patch, first of its two equal moments, red: the picture's corner, (x / 255 - mean) / deviation of CLIP."""
    picture = pictures((56, 56))[0]
    patch = ours(images=[picture], text=[IMAGE_TOKEN])["pixel_values"][0].reshape(3, 2, 14, 14)
    np.testing.assert_allclose(patch[0, 0], (picture[:14, :14, 0] / 255 - 0.48145466) / 0.26862954, atol=1e-5)
    assert torch.equal(patch[:, 0], patch[:, 1])


def test_chat_template_of_the_older_file_and_of_the_tokenizer(ours, tmp_path):
    prompt = ours.apply_chat_template(MESSAGES, add_generation_prompt=True)
    assert prompt == f"<|im_start|>user\n<|vision_start|>{IMAGE_TOKEN}<|vision_end|>real or fake?<|im_end|>\n<|im_start|>assistant\n"
    bare = qwen(tmp_path / "bare")
    assert PictureProcessor.load(bare).chat_template is None
    text = tokenizer([IMAGE_TOKEN])
    text.chat_template = TEMPLATE
    text.save_pretrained(bare)
    assert PictureProcessor.load(bare).apply_chat_template(MESSAGES, add_generation_prompt=True) == prompt


@pytest.mark.parametrize("name", ["Qwen2VLProcessor", "Qwen2_5_VLProcessor"])
def test_bit_for_bit_as_transformers(ours, tmp_path, name):
    pytest.importorskip("torchvision", reason="transformers' own processor of Qwen2-VL, to compare with, wants torchvision")
    import transformers

    theirs = getattr(transformers, name)(image_processor=qwen_pictures(), tokenizer=ours.tokenizer, video_processor=transformers.Qwen2VLVideoProcessor(), chat_template=TEMPLATE)
    text = [theirs.apply_chat_template(MESSAGES, add_generation_prompt=True)] * 3
    assert text[0] == ours.apply_chat_template(MESSAGES, add_generation_prompt=True)
    images = pictures((112, 112), (256, 256), (57, 60))  # resized, resized, rounded: 4 tokens each
    wanted = theirs(images=images, text=list(text), return_tensors="pt")
    theirs.save_pretrained(tmp_path)  # one processor_config.json instead of the published two files
    for processor in (ours, PictureProcessor.load(tmp_path)):
        found = processor(images=images, text=text)
        assert processor.chat_template == TEMPLATE and wanted["image_grid_thw"].tolist() == [[1, 4, 4]] * 3
        for key in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw"):
            assert found[key].dtype == wanted[key].dtype and torch.equal(found[key], wanted[key]), key
    fast = transformers.Qwen2VLImageProcessor(patch_size=14, merge_size=2, min_pixels=28 * 28, max_pixels=56 * 56)(images=images, return_tensors="pt")
    assert torch.equal(fast["image_grid_thw"], wanted["image_grid_thw"])
    assert (fast["pixel_values"] - wanted["pixel_values"]).abs().max() < 2.5 / 255 / 0.26  # torchvision rounds a resized pixel otherwise, by a step or two


ALONE = """
import sys; sys.modules["torchvision"] = None; sys.path.insert(0, {tests!r})
import numpy as np, torch
from facefoundry.consumers.aigi.multimodal import load_multimodal
from tiny_multimodal import SMALL
torch.manual_seed(0)
image = torch.rand((2, 3, 112, 112), generator=torch.Generator().manual_seed(1)) * 2 - 1
np.save({out!r}, load_multimodal({folder!r}, SMALL, dtype="float32").fake_probability(image))
"""


@pytest.mark.parametrize("family", [qwen, llava])
def test_without_torchvision_the_same_answers(family, tmp_path):
    place = family(tmp_path / "model")
    torch.manual_seed(0)
    here = load_multimodal(place, SMALL, dtype="float32").fake_probability(torch.rand((2, 3, 112, 112), generator=torch.Generator().manual_seed(1)) * 2 - 1)
    tests = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", ALONE.format(tests=tests, out=str(tmp_path / "alone.npy"), folder=str(place))], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "alone.npy"), here)


def test_damaged_folder_is_a_users_mistake(tmp_path):
    place = qwen(tmp_path)
    (place / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        load_multimodal(place, SMALL)
