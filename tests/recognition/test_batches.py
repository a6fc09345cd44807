"""Steps for pair losses and for two sources: who is in them, who is not, and that a step depends on its number alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.identity.sources import Faces
from facefoundry.recognition.augment import AugmentConfig
from facefoundry.recognition.batches import Batches, JointBatches
from facefoundry.recognition.branches import DdlConfig, HardBranch, listed_rows
from facefoundry.recognition.mixing import MixConfig, source_counts

OWNER = np.repeat(np.arange(9), [5, 4, 4, 6, 1, 2, 4, 1, 4])


def batches(rows: int = 12, each: int = 4, **changes) -> Batches:
    image_NHWC = np.zeros((len(OWNER), 112, 112, 3), np.uint8)
    image_NHWC[:] = np.arange(len(OWNER))[:, None, None, None]
    settings = {"batch": rows, "seed": 3, "changes": AugmentConfig(flip=0), "groups_N": OWNER, "each": each} | changes
    return Batches(image_NHWC, (torch.from_numpy(OWNER), torch.arange(len(OWNER))), **settings)


def test_groups_hold_one_identity_and_no_identity_twice():
    for step in range(30):
        row_P4 = batches().rows(step).reshape(3, 4)
        owner_P4 = OWNER[row_P4]
        assert (owner_P4 == owner_P4[:, :1]).all() and len(set(owner_P4[:, 0])) == 3
        for rows, owner in zip(row_P4, owner_P4[:, 0]):
            assert len(set(rows)) == min(4, (OWNER == owner).sum())
            assert owner not in (4, 7), "an identity with one image has no pair"


def test_all_images_and_identities_get_their_turn():
    drawn = np.concatenate([batches().rows(step) for step in range(200)])
    paired = np.isin(OWNER, (4, 7), invert=True)
    assert set(drawn) == set(np.flatnonzero(paired))
    counts = np.bincount(OWNER[drawn], minlength=9)[[0, 1, 2, 3, 5, 6, 8]]
    assert counts.min() > 0.8 * counts.max()


def test_any_step_can_be_asked_first_and_processes_keep_groups_whole():
    one = batches(16)
    rows = [batches(16).rows(step) for step in range(5)]
    assert all(np.array_equal(one.rows(step), rows[step]) for step in (4, 0, 2))
    shares = [batches(16)(2, rank, 2) for rank in range(2)]
    assert sorted(torch.cat([share[2] for share in shares]).tolist()) == sorted(rows[2].tolist())
    for image, owner, index in shares:
        assert (owner.reshape(-1, 4) == owner.reshape(-1, 4)[:, :1]).all()
        assert torch.equal(((image[:, 0, 0, 0] + 1) * 127.5).round().long(), index)


def test_what_cannot_be_grouped_is_refused():
    with pytest.raises(UserError, match="7 identities have two images or more, but a step of 24 rows in groups of 3 needs 8"):
        batches(24, 3)
    with pytest.raises(UserError, match="a multiple of 5"):
        batches(12, 5)
    with pytest.raises(UserError, match="2 processes cannot share 12 rows of a step in groups of 4"):
        batches()(0, 0, 2)


def test_joint_steps_keep_their_order_and_pools():
    low = (OWNER < 3).astype(np.int64)
    joint = JointBatches([batches(5, 1, groups_N=None, times_N=low), batches(4, 2, times_N=1 - low)])
    assert joint.steps_per_epoch == 13 // 5
    for step in range(8):
        _, owner, _ = joint(step)
        assert (owner[:5] < 3).all() and (owner[5:] >= 3).all() and owner[5] == owner[6] != owner[7] == owner[8]


def test_shares_of_two_sources():
    assert source_counts(None, 64) == [64] and source_counts(MixConfig(data="x", share=0.25), 64) == [48, 16]
    with pytest.raises(UserError, match="mix.share 0.001 of 64 rows is 0"):
        source_counts(MixConfig(data="x", share=0.001), 64)


def faces() -> Faces:
    paths = tuple(f"p{owner}/{row}.png" for row, owner in enumerate(OWNER))
    image_NHWC = np.zeros((len(OWNER), 112, 112, 3), np.uint8)
    return Faces(image_NHWC=image_NHWC, identity_N=OWNER.astype(np.int32), names=tuple(f"p{i}" for i in range(9)), paths=paths)


def test_listed_hard_faces_leave_the_easy_branch(tmp_path):
    hard = {0, 1, 3, 5, 6, 9, 10, 14, 15}
    (tmp_path / "hard.txt").write_text("\n".join(faces().paths[row] for row in hard) + "\n\n")
    config = DdlConfig(pairs=3, hard=(HardBranch(faces=tmp_path / "hard.txt"), HardBranch()))
    easy, listed, any_face = config.parts(faces(), OWNER, 1)
    for step in range(20):
        assert not set(easy.rows(step)) & hard and set(listed.rows(step)) <= hard
    assert set(np.concatenate([any_face.rows(step) for step in range(60)])) & hard
    assert config.rows == 18


def test_a_bad_list_is_a_user_error(tmp_path):
    (tmp_path / "hard.txt").write_text("p0/0.png\nnobody/1.png\n")
    with pytest.raises(UserError, match="names 1 faces that the data does not have, e.g. nobody/1.png; expected paths such as p0/0.png"):
        listed_rows(tmp_path / "hard.txt", faces().paths)
    with pytest.raises(UserError, match="cannot read the list of hard faces"):
        listed_rows(tmp_path / "none.txt", faces().paths)
