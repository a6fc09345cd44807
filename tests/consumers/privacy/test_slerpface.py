"""SlerpFace as used: enrol, store, match, revoke; and everything that must be refused."""

from __future__ import annotations

import hmac
import stat
import struct

import numpy as np
import pytest
import torch
from facefoundry.consumers.privacy.protected import PRIVACY_METHODS
from facefoundry.consumers.privacy.slerp import SlerpConfig
from facefoundry.consumers.privacy.slerp_features import VectorGroups
from facefoundry.consumers.privacy.slerp_template import Key, KeyStore, Template
from facefoundry.consumers.privacy.slerpface import SlerpFace, SlerpScheme
from facefoundry.core.errors import UserError


class Eyes:
    """An embedder of 32 numbers: pixel sums through a fixed matrix."""

    name, dim, differentiable = "eyes", 32, False

    def __init__(self) -> None:
        self._matrix = torch.randn(3 * 28 * 28, 32, generator=torch.Generator().manual_seed(0))

    def __call__(self, image_BCHW):
        small = torch.nn.functional.avg_pool2d(image_BCHW, 4).flatten(1)
        return torch.nn.functional.normalize(small @ self._matrix)


def faces(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def scheme() -> SlerpScheme:
    return SlerpScheme(VectorGroups(Eyes(), width=8))


def test_enrol_store_match(scheme, tmp_path):
    enrolled = scheme.enrol(faces())
    for number, (template, key) in enumerate(enrolled):
        read = Template.from_bytes(template.to_bytes())
        assert np.array_equal(read.value_GC, template.value_GC) and read.tag == template.tag
        score = scheme.match(faces(), template.to_bytes(), key)
        assert score.argmax() == number and score[number] == pytest.approx(1.0, abs=1e-5)
    assert len({key.secret for _, key in enrolled}) == 3 and len({template.template_id for template, _ in enrolled}) == 3


def test_key_is_not_in_the_template_nor_in_its_text(scheme):
    (template, key), *_ = scheme.enrol(faces(1))
    data = template.to_bytes()
    assert key.secret not in data and key.secret[:8] not in data and key.secret.hex() not in repr(key)
    spoken = key.directions(4, 8).astype("<f4").tobytes()
    assert not any(spoken[start : start + 8] in data for start in range(0, len(spoken), 4))


def test_keys_come_from_the_operating_system():
    state = np.random.get_state()[1].tolist(), torch.random.get_rng_state()
    torch.manual_seed(0)
    first = Key.new().secret
    torch.manual_seed(0)
    assert Key.new().secret != first
    torch.random.set_rng_state(state[1])
    direction = Key(b"k" * 32).directions(4000, 16)
    assert np.allclose(np.linalg.norm(direction, axis=1), 1) and np.array_equal(direction, Key(b"k" * 32).directions(4000, 16))
    assert np.abs(direction.mean(0)).max() < 0.02 and np.allclose((direction**2).mean(0), 1 / 16, atol=0.006)  # uniform on the sphere
    with pytest.raises(UserError, match="32 bytes, got 3"):
        Key(b"abc")


def test_wrong_key_is_refused_in_constant_time(scheme, monkeypatch):
    (template, _), (_, other) = scheme.enrol(faces(2))
    seen, real = [], hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: seen.append(1) or real(a, b))
    with pytest.raises(UserError, match="wrong key, or the template was changed"):
        scheme.match(faces(1), template, other)
    assert seen


def test_every_changed_byte_is_refused(scheme):
    (template, key), *_ = scheme.enrol(faces(1))
    data = template.to_bytes()
    for place in range(0, len(data), 3):
        changed = bytearray(data)
        changed[place] ^= 0x40
        with pytest.raises(UserError):
            scheme.match(faces(1), bytes(changed), key)


@pytest.mark.parametrize("cut", [1, 4, 40])
def test_truncated(scheme, cut):
    data = scheme.enrol(faces(1))[0][0].to_bytes()
    with pytest.raises(UserError, match="truncated"):
        Template.from_bytes(data[:-cut])
    with pytest.raises(UserError, match="truncated"):
        Template.from_bytes(data[: 4 + cut % 36])
    with pytest.raises(UserError, match="truncated or has bytes too many"):
        Template.from_bytes(data + b"x")


def test_other_version_magic_and_values(scheme):
    (template, key), *_ = scheme.enrol(faces(1))
    data = template.to_bytes()
    with pytest.raises(UserError, match="version 2, this software reads version 1"):
        Template.from_bytes(data[:4] + struct.pack("<H", 2) + data[6:])
    with pytest.raises(UserError, match="not a SlerpFace template"):
        Template.from_bytes(b"JPEG" + data[4:])
    for value in (np.nan, 9.0):
        changed = template.value_GC.copy()
        changed[template.kept_GC] = value
        with pytest.raises(UserError, match="out of range"):
            Template.from_bytes(Template.sealed(changed, template.kept_GC, scheme.config, key).to_bytes())


def test_settings_of_another_enrolment(scheme):
    (template, key), *_ = scheme.enrol(faces(1))
    with pytest.raises(UserError, match="alpha"):
        SlerpScheme(scheme.features, SlerpConfig(alpha=0.8)).match(faces(1), template, key)
    with pytest.raises(UserError, match="groups of 5"):
        VectorGroups(Eyes(), width=5)


def test_key_store_keeps_apart_and_revokes(scheme, tmp_path):
    templates = tmp_path / "templates"
    templates.mkdir()
    with pytest.raises(UserError, match="keep it elsewhere"):
        KeyStore(templates / "deep" / "keys.json", templates)
    path = tmp_path / "secret" / "keys.json"
    store = KeyStore(path, templates)
    (old, key), *_ = scheme.enrol(faces(1))
    store.put(old, key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyStore(path, templates).get(old).secret == key.secret
    store.revoke(old, "leaked on 2026-11-21")
    assert key.secret.hex() not in path.read_text()
    with pytest.raises(UserError, match="revoked \\(leaked on 2026-11-21\\)"):
        KeyStore(path, templates).get(old)
    (new, _), *_ = scheme.enrol(faces(1))
    with pytest.raises(UserError, match="no key for template"):
        store.get(new)
    path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        KeyStore(path, templates)


@pytest.mark.usefixtures("repeatable")
def test_renewed_template_scores_the_old_one_as_a_stranger():
    eyes = Eyes()
    scheme = SlerpScheme(VectorGroups(eyes, width=8))
    image = faces(1).expand(60, -1, -1, -1)
    first, second = (scheme.protect_groups(*scheme.features(image), [Key.new() for _ in image]) for _ in range(2))
    flat = [rows.template_BGC.reshape(60, -1) / np.linalg.norm(rows.template_BGC.reshape(60, -1), axis=1, keepdims=True) for rows in (first, second)]
    assert abs((flat[0] * flat[1]).sum(1).mean()) < 0.2


def test_common_interface_and_what_crosses():
    assert PRIVACY_METHODS["slerpface"] is SlerpFace
    method = SlerpFace.tiny()
    image = faces(2)
    sent = method.protect(image)
    assert set(sent.tensors) == {"template", "kept"} == {field.name for field in method.client.fields}
    assert sent.tensors["template"].shape == (2, method.client.groups, 16) and sent.tensors["kept"].dtype == torch.uint8
    again = method.protect(image).tensors["template"]
    assert not torch.equal(again, sent.tensors["template"])  # fresh keys each time
    assert method.recognise(sent).shape == (2, method.client.groups * 16)
    picture = method.view(sent)
    assert picture.shape[:2] == (2, 3) and 0 <= picture.min() and picture.max() <= 1
    raw = method(image)
    assert raw.requires_grad and torch.allclose(raw.norm(dim=1), torch.ones(2), atol=1e-5)
    (template, key), _ = method.scheme.enrol(image)
    assert method.scheme.match(image, template, key).argmax() == 0


def test_round_trip_on_disk(tmp_path):
    from facefoundry.consumers.privacy.protected import load_method

    method = SlerpFace.tiny()
    method.save(tmp_path, facts={})
    read = load_method(tmp_path)
    assert np.allclose(read.client.features(faces(1))[0], method.client.features(faces(1))[0], atol=1e-6)
