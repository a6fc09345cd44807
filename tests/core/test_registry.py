"""Entries from outside: entry points of installed packages, and modules that a file names."""

from __future__ import annotations

import logging
import sys

import pytest
from facefoundry.core.errors import UserError
from facefoundry.core.registry import Registry, import_named
from offered import install


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path to install into; what is imported from it is forgotten again."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def table() -> Registry:
    """A registry of things, with `own` of ours in it."""
    things: Registry = Registry("odd thing", "facefoundry.core")
    things.register("own")(type("Own", (), {}))
    return things


def test_an_offer_is_listed_at_once_and_imported_when_asked_for(site):
    install(site, "fog-package", {"facefoundry.odd_things": {"fog": "fog:Fog"}}, fog="class Fog:\n    pass\n")
    things = table()
    assert things.group == "facefoundry.odd_things" and list(things) == ["fog", "own"]
    assert "fog" not in sys.modules
    assert things["fog"].__name__ == "Fog" and things["fog"] is sys.modules["fog"].Fog
    with pytest.raises(UserError, match="did you mean 'fog'.*known: fog, own"):
        things["foggy"]


def test_offers_of_another_group_and_broken_ones_that_nobody_asks_for_harm_nothing(site):
    install(site, "broken", {"facefoundry.odd_things": {"bad": "nowhere:Bad"}, "facefoundry.even_things": {"own": "nowhere:Own"}})
    things = table()
    assert list(things) == ["bad", "own"] and things["own"].__name__ == "Own"
    with pytest.raises(UserError, match="the odd thing 'bad' of the package broken cannot be loaded .nowhere:Bad: ModuleNotFoundError.*mend or uninstall"):
        things["bad"]


def test_a_name_belongs_to_whoever_has_it_first(site, caplog):
    install(site, "thief", {"facefoundry.odd_things": {"own": "thief:Own", "fog": "thief:Fog"}}, thief="raise SystemExit('never imported')\n")
    install(site, "fog-package", {"facefoundry.odd_things": {"fog": "fog:Fog"}}, fog="class Fog:\n    pass\n")
    things = table()
    with caplog.at_level(logging.WARNING, "facefoundry"):
        assert list(things) == ["fog", "own"]
    assert [record.getMessage() for record in caplog.records] == [
        "the package thief offers the odd thing 'fog', which fog-package has already: it is left out",
        "the package thief offers the odd thing 'own', which FaceFoundry has already: it is left out",
    ]
    assert things["own"].__name__ == "Own" and things["fog"].__module__ == "fog" and "thief" not in sys.modules


def test_an_offered_class_may_register_itself_too(site):
    install(site, "twice", {"facefoundry.odd_things": {"fog": "twice:Fog"}}, twice="import sys\nclass Fog:\n    pass\nsys.modules['twice_table'].register('fog')(Fog)\n")
    things = table()
    sys.modules["twice_table"] = things  # type: ignore[assignment]
    try:
        assert things["fog"].__name__ == "Fog"
    finally:
        del sys.modules["twice_table"]


def test_an_offer_whose_module_a_file_has_named_already_is_no_theft(site, caplog):
    install(site, "early", {"facefoundry.odd_things": {"early": "early_bird:Bird"}}, early_bird="class Bird:\n    pass\n")
    things = table()
    import_named(["early_bird"], "job.yaml")
    things.register("early")(sys.modules["early_bird"].Bird)
    with caplog.at_level(logging.WARNING, "facefoundry"):
        assert list(things) == ["early", "own"] and things["early"].__name__ == "Bird"
    assert not caplog.records


def test_modules_that_a_file_names(site):
    (site / "named_by_a_file.py").write_text("")
    import_named(["named_by_a_file"], "job.yaml, line 3")
    assert "named_by_a_file" in sys.modules
    import_named("a text is the checker's to refuse", "job.yaml")
    with pytest.raises(UserError, match="job.yaml, line 3: cannot import 'not_there' .*PYTHONPATH"):
        import_named(["not_there"], "job.yaml, line 3")
