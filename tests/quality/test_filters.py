"""Every filter: a case made by hand, the contract, and bad settings."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.quality.filters import FILTERS, FilterInput, build_filter


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def people(count=10, shots=6, seed=0, dim=16):
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((count, dim))
    identity = np.repeat(np.arange(count), shots)
    embed = unit(centre[identity] + 0.8 * rng.standard_normal((count * shots, dim)))
    return FilterInput(
        embed_ND=embed,
        identity_N=identity,
        anchor_ND=unit(centre)[identity],
        image_hashes=tuple(f"{k:04d}" for k in range(count * shots)),
        real_centres=unit(rng.standard_normal((7, dim))),
    )


def test_names():
    assert list(FILTERS) == ["anchor_similarity", "balance", "centre_similarity", "duplicate", "identity_separation", "leakage", "leakage_identity", "sdd_fiqa"]
    with pytest.raises(UserError, match="did you mean 'leakage'"):
        build_filter({"name": "leekage"})
    with pytest.raises(UserError, match="'name' is missing"):
        build_filter({"below": 3})


def test_sdd_fiqa_by_label_and_by_share():
    data = people()
    result = build_filter({"name": "sdd_fiqa", "below": 20}).apply(data)
    label = result.scores["sdd_fiqa"]
    assert [reason is not None for reason in result.reasons] == (label < 20).tolist() and any(result.reasons)
    worst = int(np.argmin(label))
    assert result.reasons[worst] == "sdd_fiqa 0.0 < 20.0"
    share = build_filter({"name": "sdd_fiqa", "lowest_share": 0.1}).apply(data)
    assert sum(reason is not None for reason in share.reasons) == 6


@pytest.mark.parametrize(("share", "dropped"), [(0.1, 6), (0.29, 17), (0.5, 30), (0.01, 0)])
def test_sdd_fiqa_share_is_exact_where_labels_tie(share, dropped):
    data = people()
    wrong = np.arange(60) % 10  # six people under each name: the guard gives many of them the label 0
    data = FilterInput(embed_ND=data.embed_ND, identity_N=wrong)
    result = build_filter({"name": "sdd_fiqa", "lowest_share": share}).apply(data)
    label = result.scores["sdd_fiqa"]
    assert (label == 0).sum() > 6  # the lowest tenth are ties: comparing with a quantile would drop none
    cos = data.embed_ND @ data.embed_ND.T
    own = [np.mean([cos[i, j] for j in range(60) if wrong[j] == wrong[i] and j != i]) for i in range(60)]
    worst = sorted(range(60), key=lambda i: (label[i], own[i], i))[:dropped]
    assert {i for i, reason in enumerate(result.reasons) if reason} == set(worst) and len(worst) == dropped
    if dropped:
        assert result.reasons[worst[0]] == f"sdd_fiqa 0.0 (own cosine {own[worst[0]]:.3f}): rank 1 of 60, the lowest {dropped} go (share {share:g})"


def test_sdd_fiqa_share_counts_labelled_rows_and_falls_back_to_row_order():
    embed = unit([[1, 0, 0]] * 5 + [[0, 1, 0]] * 5 + [[0, 0, 1]])
    data = FilterInput(embed_ND=embed, identity_N=np.array([0] * 5 + [1] * 5 + [2]))
    reasons = build_filter({"name": "sdd_fiqa", "lowest_share": 0.3, "mode": "exact"}).apply(data).reasons
    # Ten labelled rows: identities 0 and 1 alike in all, so the earliest three go; the lone image has no label.
    assert [row for row, reason in enumerate(reasons) if reason] == [0, 1, 2]


def test_sdd_fiqa_keeps_what_has_no_label():
    data = people(5, 3)
    identity = data.identity_N.copy()
    identity[0] = 77
    result = build_filter({"name": "sdd_fiqa", "below": 100}).apply(FilterInput(embed_ND=data.embed_ND, identity_N=identity))
    assert result.reasons[0] is None and np.isnan(result.scores["sdd_fiqa"][0])


@pytest.mark.parametrize("settings", [{}, {"below": 10, "lowest_share": 0.1}, {"below": -1}, {"lowest_share": 1.0}, {"below": "much"}, {"below": 5, "mdoe": "pool"}])
def test_sdd_fiqa_bad_settings(settings):
    with pytest.raises(UserError):
        build_filter({"name": "sdd_fiqa", **settings}, source="job.yaml")


def test_anchor_similarity():
    data = FilterInput(embed_ND=unit([[1, 0], [1, 1], [0, 1]]), identity_N=np.zeros(3, int), anchor_ND=unit([[1, 0]] * 3))
    result = build_filter({"name": "anchor_similarity", "below": 0.5}).apply(data)
    assert result.reasons == [None, None, "anchor_similarity 0.000 < 0.500"]
    assert result.scores["anchor_similarity"] == pytest.approx([1, 0.7071, 0], abs=1e-4)
    with pytest.raises(UserError, match="needs the anchors"):
        build_filter({"name": "anchor_similarity", "below": 0.5}).apply(FilterInput(embed_ND=data.embed_ND, identity_N=data.identity_N))


def test_duplicate_pixels_across_identities_and_near_duplicates():
    embed = unit([[1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0.01, 0], [1, 0.02, 0], [0, 0, 1]])
    data = FilterInput(embed_ND=embed, identity_N=np.array([0, 0, 1, 0, 1, 1]), image_hashes=("a", "b", "a", "c", "d", "e"))
    only_pixels = build_filter({"name": "duplicate"}).apply(data).reasons
    assert only_pixels == [None, None, "duplicate: same pixels as row 0 (identity 0)", None, None, None]
    near = build_filter({"name": "duplicate", "above": 0.99}).apply(data).reasons
    assert near[3] is not None and near[3].endswith("cosine to row 0 (identity 0)") and near[3].startswith("duplicate 1.0000 > 0.9900")
    assert near[4] is None  # its twin in identity 1 is dropped already, the others are other people
    anywhere = build_filter({"name": "duplicate", "above": 0.99, "within_identity": False}).apply(data).reasons
    assert anywhere[4] is not None and anywhere[5] is None


def test_duplicate_blocks_equal_the_double_loop(monkeypatch):
    import facefoundry.quality.filters as module

    monkeypatch.setattr(module, "_BLOCK", 7)
    data = people(8, 6, dim=4)
    dropped = [False] * len(data)
    for row in range(len(data)):
        for earlier in range(row):
            if data.identity_N[row] == data.identity_N[earlier] and not dropped[earlier] and float(data.embed_ND[row] @ data.embed_ND[earlier]) > 0.95:
                dropped[row] = True
    assert any(dropped)
    assert [reason is not None for reason in build_filter({"name": "duplicate", "above": 0.95}).apply(data).reasons] == dropped


def test_duplicate_needs_something_to_compare():
    data = people()
    with pytest.raises(UserError, match="neither image hashes nor"):
        build_filter({"name": "duplicate"}).apply(FilterInput(embed_ND=data.embed_ND, identity_N=data.identity_N))


def test_leakage():
    data = people()
    centres = data.real_centres.copy()
    centres[4] = data.embed_ND[11]
    result = build_filter({"name": "leakage", "above": 0.95}).apply(FilterInput(embed_ND=data.embed_ND, identity_N=data.identity_N, real_centres=centres))
    assert result.reasons[11] == "leakage 1.000 > 0.950: real centre 4" and sum(reason is not None for reason in result.reasons) == 1
    assert result.scores["leakage"] == pytest.approx((data.embed_ND @ centres.T).max(axis=1), abs=1e-6)
    with pytest.raises(UserError, match="needs centres of real people"):
        build_filter({"name": "leakage", "above": 0.9}).apply(FilterInput(embed_ND=data.embed_ND, identity_N=data.identity_N))
    with pytest.raises(UserError, match="3 dimensions, the embeddings 16"):
        build_filter({"name": "leakage", "above": 0.9}).apply(FilterInput(embed_ND=data.embed_ND, identity_N=data.identity_N, real_centres=unit(np.eye(3))))


def test_bad_input_is_refused_at_the_door():
    data = people()
    broken = data.embed_ND.copy()
    broken[9] = np.nan
    with pytest.raises(UserError, match="row 9: nan"):
        FilterInput(embed_ND=broken, identity_N=data.identity_N)
    with pytest.raises(UserError, match="anchors"):
        FilterInput(embed_ND=data.embed_ND, identity_N=data.identity_N, anchor_ND=broken)
    with pytest.raises(UserError, match="2 image hashes for 60 images"):
        FilterInput(embed_ND=data.embed_ND, identity_N=data.identity_N, image_hashes=("a", "b"))


def test_centre_similarity_is_a_band():
    embed = unit([[1, 0.2, 0], [1, -0.2, 0], [0, 0, 1], [0, 1, 1], [1, 0, 1]])
    data = FilterInput(embed_ND=embed, identity_N=np.array([0, 0, 1, 1, 1]))
    result = build_filter({"name": "centre_similarity", "below": 0.9, "above": 0.97}).apply(data)
    for row, members in enumerate([[0, 1], [0, 1], [2, 3, 4], [2, 3, 4], [2, 3, 4]]):
        centre = embed[members].mean(axis=0)
        cos = float(embed[row] @ centre / np.linalg.norm(centre))
        assert result.scores["centre_similarity"][row] == pytest.approx(cos, abs=1e-6)
        assert (result.reasons[row] is not None) == (cos < 0.9 or cos > 0.97)
    assert result.reasons[0] == "centre_similarity 0.981 > 0.970" and any("<" in (reason or "") for reason in result.reasons)
    for bad in ({}, {"below": 0.5, "above": 0.4}):
        with pytest.raises(UserError):
            build_filter({"name": "centre_similarity", **bad})


def test_identity_separation_drops_whole_identities_in_order():
    angle = np.deg2rad([0, 1, 30, 31, 60, 59])
    embed = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    result = build_filter({"name": "identity_separation", "above": 0.8}).apply(FilterInput(embed_ND=embed, identity_N=np.array([7, 7, 8, 8, 9, 9])))
    # 8 collides with 7 and goes; 9 collides with 8 only, so it stays.
    assert [reason is not None for reason in result.reasons] == [False, False, True, True, False, False]
    assert result.reasons[2] == "identity_separation 0.866 >= 0.800: identity 8 collides with identity 7" and result.refused == {8}


def test_balance_caps_and_needs_a_least():
    data = FilterInput(embed_ND=unit(np.random.default_rng(0).standard_normal((9, 4))), identity_N=np.array([0, 1, 0, 0, 0, 2, 1, 1, 0]))
    reasons = build_filter({"name": "balance", "most": 3, "least": 2}).apply(data).reasons
    assert [row for row, reason in enumerate(reasons) if reason] == [4, 5, 8]
    assert reasons[5] == "balance 1 < 2: identity 2 has too few images" and reasons[8] == "balance: identity 0 has its 3 images"
    with pytest.raises(UserError, match="no identity would be kept"):
        build_filter({"name": "balance", "most": 2, "least": 3})


def test_perceptual_duplicates_ask_for_the_cosine_too():
    embed = unit([[1, 0], [1, 0.1], [0, 1], [1, 0]])
    hashes = np.array([0, 3, 1, 2**40 - 1], np.uint64)
    data = FilterInput(embed_ND=embed, identity_N=np.array([0, 1, 1, 0]), perceptual_N=hashes)
    assert build_filter({"name": "duplicate", "hash_bits": 4}).apply(data).reasons == [None, "duplicate: hash 2 of 64 bits and cosine 0.9950 from row 0 (identity 0)", None, None]
    with pytest.raises(UserError, match="no perceptual hashes"):
        build_filter({"name": "duplicate", "hash_bits": 4}).apply(FilterInput(embed_ND=embed, identity_N=np.zeros(4, int)))
    with pytest.raises(UserError, match="2 perceptual hashes for 4"):
        FilterInput(embed_ND=embed, identity_N=np.zeros(4, int), perceptual_N=hashes[:2])


def test_subset_keeps_rows_together():
    data = people()
    part = data.subset(np.array([5, 2]))
    assert part.image_hashes == ("0005", "0002") and np.array_equal(part.embed_ND, data.embed_ND[[5, 2]]) and np.array_equal(part.anchor_ND, data.anchor_ND[[5, 2]])
