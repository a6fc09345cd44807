"""One evaluation end to end with toy recognisers: who may judge whom, what the rows say, what the files hold, the page."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from facefoundry.consumers.privacy.attacks.embedding_map import MapSettings
from facefoundry.consumers.privacy.attacks.hill_climbing import ClimbSettings
from facefoundry.consumers.privacy.attacks.unet_recovery import UnetSettings
from facefoundry.consumers.privacy.dctdp import Dctdp, DctdpSettings
from facefoundry.consumers.privacy.duetface import DuetFace
from facefoundry.consumers.privacy.evaluation import EvaluationSettings, Tools, evaluate
from facefoundry.consumers.privacy.linkability import draw_pairs, linkage
from facefoundry.consumers.privacy.slerp_features import VectorGroups
from facefoundry.consumers.privacy.slerpface import SlerpScheme
from facefoundry.consumers.privacy.subjects import ImageSubject, PlainSubject, TemplateSubject, verifier
from facefoundry.core.errors import UserError
from facefoundry.core.types import FaceBatch
from facefoundry.identity.sources import Faces
from facefoundry.jobs.privacy_evaluation import load_subject, some_people, table_rows, write_evaluation
from facefoundry.jobs.privacy_page import compare_methods
from facefoundry.recognition.backbones import BackboneConfig

pytestmark = pytest.mark.usefixtures("repeatable")
DIM = 32
QUICK = EvaluationSettings(
    targets=60, climbed=3, pairs=200, linear_faces=30, gallery=10, unet=UnetSettings(steps=0), reader=MapSettings(steps=5, batch=16), climb=ClimbSettings(rounds=1, each=2)
)  # fmt: skip


class Toy:
    """A recogniser and generator of pictures whose first DIM pixels of the first two rows are the identity, seen with a little noise by each judge."""

    dim, anchor_dim, differentiable = DIM, DIM, False

    def __init__(self, name: str) -> None:
        self.name = name
        self._turn = torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(len(name))))[0]

    def __call__(self, image_BCHW):
        return torch.nn.functional.normalize(image_BCHW[:, 0, :8, :DIM].mean(1) @ self._turn + 1e-6)

    def generate(self, anchor_BD, seeds):
        image = torch.zeros(len(seeds), 3, 112, 112)
        image[:, :, :8, :DIM] = (torch.as_tensor(anchor_BD, dtype=torch.float32) @ self._turn.T)[:, None, None]
        return FaceBatch(image_BCHW=image.clamp(-1, 1), seeds=tuple(seeds), passes_B=(1.0,) * len(seeds))


def people(count: int, each: int, seed: int) -> Faces:
    rng = np.random.default_rng(seed)
    identity_N = np.repeat(np.arange(count, dtype=np.int32), each)
    row_ND = rng.standard_normal((count, DIM))[identity_N] + 0.35 * rng.standard_normal((count * each, DIM))
    image = np.full((len(row_ND), 112, 112, 3), 128, np.uint8)
    image[:, :8, :DIM] = np.clip(128 + 25 * row_ND, 0, 255).astype(np.uint8)[:, None, :, None]
    names = tuple(f"{seed}-{i:03d}" for i in range(count))
    return Faces(image_NHWC=image, identity_N=identity_N, names=names, paths=tuple(f"{names[i]}/{n}" for n, i in enumerate(identity_N)), failed=())


@pytest.fixture(scope="module")
def sides() -> tuple[Faces, Faces]:
    return people(60, 3, 1), people(70, 2, 2)


@pytest.fixture(scope="module")
def tools() -> Tools:
    return Tools(judge=Toy("judge"), guide=Toy("guide!"), generator=Toy("guide!"))


def subjects() -> dict:
    inside = Toy("in")
    return {"plain": PlainSubject(inside), "template": TemplateSubject(SlerpScheme(VectorGroups(inside, width=8)))}


@pytest.fixture(scope="module")
def evaluated(sides, tools, tmp_path_factory, known_secrets) -> dict:
    found = {}
    for kind, subject in subjects().items():
        folder = tmp_path_factory.mktemp(kind)
        with known_secrets():  # the figures move with the keys that were drawn
            values, pictures = evaluate(subject, *sides, tools, QUICK, folder)
        values["data"] = "toys"
        write_evaluation(values, pictures, folder)
        found[kind] = (values, pictures, folder)
    return found


def rate(values: dict, name: str, figure: str = "other_photo") -> float:
    return next(row["found"][figure] for row in values["attacks"] if row["name"].startswith(name))


def test_protection_shows_in_the_figures(evaluated):
    plain, template = evaluated["plain"][0], evaluated["template"][0]
    assert rate(plain, "A5") > 0.9 and rate(template, "A5") < 0.5  # a plain embedding is the face; a template without its key is not
    assert rate(template, "A5", "cosine") < rate(template, "A7", "cosine") < rate(plain, "A5", "cosine")  # with the key much comes back
    assert plain["accuracy"]["auc"] > template["accuracy"]["auc"] > 0.85
    assert plain["unlinkability"]["as stored"]["d_sys"] > 0.9 and plain["revocability"] is None
    states = template["unlinkability"]
    assert states["keys secret"]["d_sys"] < 0.35 < states["keys leaked"]["d_sys"] and states["key of a person used again"]["d_sys"] > 0.75
    assert states["keys secret, by weights"]["d_sys"] < 0.05 and not states["keys secret"]["resolved"]
    assert template["revocability"]["genuine_with_revoked_key"] < 0.05 < template["revocability"]["genuine"]


def test_noise_averages_out_over_queries(sides, tools, tmp_path):
    """A8: sixteen queries leave a quarter of the noise; DuetFace draws nothing, so asking again tells nothing."""
    method = Dctdp(DctdpSettings(side=16, epsilon=0.3), BackboneConfig(embed_dim=16, width=0.125)).eval()
    method.client.measure(sides[1].image_NHWC)
    found = {}
    for subject in (ImageSubject(method), ImageSubject(DuetFace.tiny())):
        values, _ = evaluate(subject, *sides, Tools(judge=Toy("judge"), guide=tools.guide, generator=None), QUICK, tmp_path)
        found[subject.name] = {row["name"][:2]: row["psnr_db"] for row in values["attacks"]}
    assert found["dctdp"]["A8"] > found["dctdp"]["A1"] + 4 and "A8" not in found["duetface"]


def test_energy_weights_link_whatever_the_keys_are(sides):
    subject = TemplateSubject(SlerpScheme(VectorGroups(Toy("in"), width=8, weights="energy")))
    states, _ = linkage(subject, sides[0], subject.probe(sides[0].image_NHWC), 0)
    assert states["keys secret, by weights"]["d_sys"] > 0.4


def test_files_and_table(evaluated):
    from facefoundry.core.images import decode_file

    values, pictures, folder = evaluated["template"]
    assert json.loads((folder / "evaluation.json").read_text())["method"] == values["method"]
    assert list(pictures)[:2] == ["original", "what is stored"]
    lines = (folder / "table.csv").read_text().splitlines()
    assert len(lines) == 1 + len(values["attacks"]) and lines[0].startswith("method,attack,knows,psnr_db")
    assert decode_file(folder / "strip.png").shape[1] == 116 * len(pictures) + 4
    assert any(name == "linear gate" for name, _ in table_rows(values))


def test_page_compares_and_needs_no_network(evaluated, tmp_path):
    page = tmp_path / "page.html"
    found = compare_methods([evaluated[kind][2] for kind in ("plain", "template")], page)
    text = page.read_text()
    assert [row["kind"] for row in found["methods"]] == ["plain", "template"]
    assert "http" not in text.replace("http://www.w3.org", "") and "data:image/jpeg;base64" in text and "width=device-width" in text
    assert "none of these methods may be called irreversible" in text
    with pytest.raises(UserError, match="none of these is of the unprotected model"):
        compare_methods([evaluated["template"][2]], page)
    with pytest.raises(UserError, match="holds no evaluation"):
        compare_methods([tmp_path], page)


def test_who_may_not_judge_or_attack(sides, tools, tmp_path):
    subject = subjects()["plain"]
    with pytest.raises(UserError, match="is inside the method and cannot judge"):
        evaluate(subject, *sides, Tools(judge=Toy("in"), guide=tools.guide, generator=None), QUICK, tmp_path)
    with pytest.raises(UserError, match="both victims and attackers"):
        evaluate(subject, sides[0], sides[0], tools, QUICK, tmp_path)
    with pytest.raises(UserError, match="two photos"):
        evaluate(subject, people(60, 1, 5), sides[1], tools, QUICK, tmp_path)


def test_attack_is_not_resumed_against_another_method(sides):
    image = sides[0].image_NHWC[:2]
    prints = [subject.fingerprint(image) for subject in (*subjects().values(), PlainSubject(Toy("other")))]
    assert len(set(prints)) == 3 and prints[1] == subjects()["template"].fingerprint(image)


def test_verifier_compares_with_the_row_asked_for(sides):
    subject, image = subjects()["template"], sides[0].image_NHWC[::3][:4]
    ask = verifier(subject, subject.enrol(subject.probe(image)))
    score = np.stack([ask(image, np.full(4, row)) for row in range(4)])
    assert (score.argmax(1) == np.arange(4)).all() and np.allclose(np.diag(score), 1, atol=1e-5)


def test_pairs_are_what_they_say():
    identity = np.array([3, 3, 1, 1, 1, 0])
    pair, same = draw_pairs(identity, 50, 0)
    assert same.sum() == 1 + 3 and ((identity[pair[:, 0]] == identity[pair[:, 1]]) == same).all()
    assert (pair[:, 0] != pair[:, 1]).all()


def test_some_people_are_whole_and_apart(sides):
    halves = [some_people(sides[0], 1000, 0, half=half) for half in (0, 1)]
    assert not set(halves[0].names) & set(halves[1].names) and sum(len(half) for half in halves) == len(sides[0])
    few = some_people(sides[0], 20, 0)
    assert 15 <= len(few) <= 24 and (np.bincount(few.identity_N) == 3).all()


def test_names_of_methods(tmp_path):
    with pytest.raises(UserError, match="unknown method 'slerp'"):
        load_subject("slerp", "dlib")
    with pytest.raises(UserError, match="is no folder"):
        load_subject("slerpface", str(tmp_path / "nothing"))
