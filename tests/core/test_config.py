"""Settings files: what a user gets to read when one is wrong."""

import pytest
from pydantic import Field

from facefoundry.core.config import Config
from facefoundry.core.errors import UserError


class Inner(Config):
    guidance: float = Field(1.0, ge=0)


class Outer(Config):
    count: int = Field(ge=1)
    sampler: Inner = Inner()


def load(tmp_path, text, overrides=()):
    (tmp_path / "job.yaml").write_text(text)
    return Outer.load(tmp_path / "job.yaml", overrides)


def test_unknown_key_names_the_line_and_the_near_names(tmp_path):
    with pytest.raises(UserError, match=r"job.yaml, line 3: unknown key 'sampler.guidnce'; did you mean 'guidance'"):
        load(tmp_path, "count: 2\nsampler:\n  guidnce: 3\n")


def test_wrong_type_negative_count_and_missing_key_name_line_and_value(tmp_path):
    with pytest.raises(UserError, match=r"line 1: 'count' is 'many'"):
        load(tmp_path, "count: many\n")
    with pytest.raises(UserError, match=r"line 1: 'count' is -2.*greater than or equal to 1"):
        load(tmp_path, "count: -2\n")
    with pytest.raises(UserError, match="'count' is missing"):
        load(tmp_path, "sampler: {}\n")


def test_not_yaml_not_a_mapping_not_there(tmp_path):
    with pytest.raises(UserError, match="not valid YAML"):
        load(tmp_path, "count: [1\n")
    with pytest.raises(UserError, match="expected a mapping"):
        load(tmp_path, "- 1\n")
    with pytest.raises(UserError, match="cannot read"):
        Outer.load(tmp_path / "absent.yaml")


def test_overrides_are_laid_over_and_checked(tmp_path):
    assert load(tmp_path, "count: 2\n", ["sampler.guidance=2.5", "count=7"]) == Outer(count=7, sampler=Inner(guidance=2.5))
    with pytest.raises(UserError, match="expected key.subkey=value"):
        load(tmp_path, "count: 2\n", ["count"])


def test_fingerprint_depends_on_values_not_on_order(tmp_path):
    first = load(tmp_path, "count: 2\nsampler: {guidance: 1.5}\n").fingerprint()
    assert first == load(tmp_path, "sampler:\n  guidance: 1.5\ncount: 2\n").fingerprint()
    assert first != load(tmp_path, "count: 3\nsampler: {guidance: 1.5}\n").fingerprint()
