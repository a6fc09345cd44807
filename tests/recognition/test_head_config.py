"""Heads from outside: their own settings stand flat in the recipe, wrong ones are refused with the line; what a recipe imports decides nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from facefoundry.core.errors import UserError
from facefoundry.recognition.heads import HEADS, HeadConfig, MarginHead
from facefoundry.recognition.train import RecogniserRecipe


class Wide(MarginHead):
    """A head with a setting that ours do not have."""

    def __init__(self, *, scale: float = 64.0, width: float = 1.0) -> None:
        super().__init__(scale=scale)
        self.width = width

    def forward(self, cos_BI, label_B):
        return self.scale * cos_BI


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """`Wide`, registered for a test."""
    list(HEADS)
    monkeypatch.setattr(HEADS, "_entries", {**HEADS._entries, "wide": Wide})


def recipe(folder: Path, text: str) -> RecogniserRecipe:
    (folder / "recipe.yaml").write_text("batch: 4\n" + text)
    return RecogniserRecipe.load(folder / "recipe.yaml")


def test_its_own_settings_reach_it(tmp_path):
    head = recipe(tmp_path, "head: {name: wide, scale: 20, width: 3}\n").head
    assert (head.build().scale, head.build().width) == (20, 3)
    assert RecogniserRecipe.parse({"head": head.model_dump(mode="json")}).head == head
    assert "width" not in HeadConfig().model_dump()  # a recipe of ours says what it always said: begun trainings go on


@pytest.mark.parametrize(("text", "words"), [
    ("head: {name: wide, witdh: 3}", "line 2: head: the head 'wide' has no setting 'witdh'; did you mean 'width'"),
    ("head: {name: arcface, width: 3}", "line 2: head: the head 'arcface' has no setting 'width'"),
    ("head: {name: arcfase, margn: 3}", "line 2: head: unknown margin head 'arcfase'; did you mean 'arcface'"),
    ("imports: [no_such_module]", "line 2: cannot import 'no_such_module'"),
    ("imports: no_such_module", "line 2: 'imports' is 'no_such_module'"),
])  # fmt: skip
def test_mistakes(text, words, tmp_path):
    with pytest.raises(UserError, match=words):
        recipe(tmp_path, text)


def test_imports_decide_nothing(tmp_path, monkeypatch):
    (tmp_path / "brought_along.py").write_text("from facefoundry.recognition.heads import HEADS\nHEADS.register('brought')(type('Brought', (HEADS['softmax'],), {}))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = recipe(tmp_path, "imports: [brought_along]\nhead: {name: brought}\n")
    assert found.head.build().scale == HEADS["softmax"]().scale and found.imports == ("brought_along",)
    assert "imports" not in found.model_dump() and found.fingerprint() == recipe(tmp_path, "head: {name: brought}\n").fingerprint()
