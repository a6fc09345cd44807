"""Generators that are guided by an embedder are handed the way to load one; the others are built as ever."""

from types import SimpleNamespace

from facefoundry.jobs.steps import build_generator
from facefoundry.recognition.embedder import load_embedder


def test_only_a_guided_generator_is_handed_the_loader():
    plain = SimpleNamespace(build=lambda device: ("plain", device))
    guided = SimpleNamespace(guide="mobilefacenet-small", build=lambda device, load: ("guided", device, load))
    assert build_generator(plain, "cpu") == ("plain", "cpu")
    assert build_generator(guided, "cpu") == ("guided", "cpu", load_embedder)
