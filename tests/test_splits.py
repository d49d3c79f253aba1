import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from multihead.splits import deal, groups, majority, merge, shared

keys = st.lists(st.tuples(st.sampled_from(" abcdef"), st.sampled_from(" 123456")), min_size=1, max_size=15)


def components(*columns):
    """Groups by brute force: rows that share a key are joined until nothing changes."""
    number = list(range(len(columns[0])))
    for _ in number:
        for column in columns:
            for left in range(len(number)):
                for right in range(len(number)):
                    if column[left] == column[right] != "":
                        number[left] = number[right] = min(number[left], number[right])
    return number


def crowd(people=216, seed=0):
    """Rows like the competition's: seven photos a person (5 worn, 1 incorrect, 1 not worn), gender and age uneven."""
    rng = np.random.default_rng(seed)
    group, labels = [], []
    for person in range(people):
        gender, age = int(rng.random() < 0.6), int(rng.choice(3, p=[0.5, 0.42, 0.08]))
        group += [person] * 7
        labels += [(mask, gender, age) for mask in (0, 0, 0, 0, 0, 1, 2)]
    return np.array(group), np.array(labels)


# ---- groups


def test_groups_by_hand():
    # a chain: rows 0 and 1 share ann, rows 1 and 2 the file; row 4 has no key at all
    assert groups(["ann", "ann", "", "bo", ""], ["1", "2", "2", "3", ""]).tolist() == [0, 0, 0, 1, 2]
    assert groups(["", "", ""]).tolist() == [0, 1, 2]
    assert groups([]).tolist() == []


@given(keys)
def test_groups_agree_with_brute_force(rows):
    columns = [[row[0].strip() for row in rows], [row[1].strip() for row in rows]]
    found, wanted = groups(*columns), components(*columns)
    pairs = set(zip(found.tolist(), wanted))
    assert len(pairs) == len(set(found.tolist())) == len(set(wanted))  # the same up to numbering
    assert set(found.tolist()) == set(range(found.max() + 1))


def test_groups_of_a_long_chain():
    count = 20_000
    left = [str(row // 2) for row in range(count)]
    right = [str((row + 1) // 2) for row in range(count)]
    assert set(groups(left, right).tolist()) == {0}


# ---- kinds


def test_majority_by_hand():
    labels = np.array([[0, -1], [0, -1], [2, 1], [1, -1], [-1, -1]])
    assert majority(np.array([0, 0, 0, 1, 2]), labels) == [(0, 1), (1, -1), (-1, -1)]
    assert majority(np.array([0, 1]), np.empty((2, 0), int)) == [(), ()]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=4, max_size=30))
def test_majority_agrees_with_counting(rows):
    rows += [(group, -1) for group in range(4)]  # every group occurs
    group, label = np.array(rows).T
    for number, (kind,) in enumerate(majority(group, label[:, None])):
        known = Counter(label[(group == number) & (label >= 0)].tolist())
        assert known[kind] == max(known.values()) if known else kind == -1


def test_merge_drops_the_last_head_first():
    kinds = [(0, 0)] * 3 + [(0, 1)] + [(1, 0)] + [(1, 1)]
    assert merge(kinds, 2) == [(0, 0)] * 3 + [()] + [(1,)] * 2
    assert merge(kinds, 1) == kinds and merge([], 3) == []


# ---- deal


def test_deal_by_hand():
    # four people of two kinds into halves: one of each kind on each side
    parts = deal(np.array([0, 1, 2, 3]), np.array([[0], [0], [1], [1]]), (0.5, 0.5))
    assert parts[0] != parts[1] and parts[2] != parts[3]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 1), st.integers(-1, 2)), min_size=10, max_size=80),
    st.sampled_from([(0.8, 0.2), (0.5, 0.5), (0.25,) * 4, (0.6, 0.2, 0.2), (0.2,) * 5]),
    st.integers(0, 5),
)
def test_groups_stay_whole_parts_cover_and_seeds_reproduce(rows, shares, seed):
    rows += [(group, 0, 0) for group in range(10)]
    table = np.array(rows)
    parts = deal(table[:, 0], table[:, 1:], shares, seed)
    owners = defaultdict(set)
    for group, part in zip(table[:, 0].tolist(), parts.tolist()):
        owners[group].add(part)
    assert all(len(found) == 1 for found in owners.values())
    assert set(parts.tolist()) == set(range(len(shares)))  # no part is empty
    assert (deal(table[:, 0], table[:, 1:], shares, seed) == parts).all()


def test_another_seed_deals_another_way():
    group, labels = crowd(60)
    dealt = {tuple(deal(group, labels, (0.8, 0.2), seed).tolist()) for seed in range(5)}
    assert len(dealt) == 5


def test_the_numbering_and_order_of_rows_do_not_break_the_shares():
    group, labels = crowd(60)
    order = np.random.default_rng(0).permutation(len(group))
    parts = deal(group[order], labels[order], (0.8, 0.2))
    assert np.bincount(parts).tolist() == pytest.approx([336, 84], abs=14)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_share_is_met(share):
    group, labels = crowd()
    parts = deal(group, labels, (1 - share, share))
    assert (parts == 1).mean() == pytest.approx(share, abs=0.01)


def spread(parts, labels, count):
    """The largest distance of a class's share in a part from its share overall, over all heads."""
    worst = 0.0
    for column in labels.T:
        overall = np.bincount(column, minlength=3) / len(column)
        for part in range(count):
            here = np.bincount(column[parts == part], minlength=3) / (parts == part).sum()
            worst = max(worst, float(abs(here - overall).max()))
    return worst


@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")  # scikit-learn's, of rare combinations
@pytest.mark.parametrize("seed", range(3))
def test_folds_are_as_even_as_scikit_learns(seed):
    group, labels = crowd(seed=seed)
    parts = deal(group, labels, (0.2,) * 5, seed)
    codes = labels @ np.array([6, 3, 1])
    other = np.zeros(len(group), int)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(codes, codes, group)
    for number, (_, valid) in enumerate(folds):
        other[valid] = number
    assert np.bincount(parts).max() - np.bincount(parts).min() <= 7  # one person
    assert spread(parts, labels, 5) <= spread(other, labels, 5) + 7 / 301  # or one person worse
    assert spread(parts, labels, 5) < 0.04


def test_rare_kinds_reach_every_fold():
    group, labels = crowd(300, seed=4)
    parts = deal(group, labels, (0.2,) * 5)
    old = labels[:, 2] == 2
    assert np.bincount(parts[old & (labels[:, 0] == 2)], minlength=5).min() >= old.sum() // 7 // 5 - 1


def test_large_groups_do_not_tip_a_part():
    group = np.array([0] * 50 + list(range(1, 51)))
    parts = deal(group, np.zeros((100, 1), int), (0.5, 0.5))
    assert np.bincount(parts).tolist() == [50, 50]


def test_a_small_share_gets_the_smallest_group():
    group = np.repeat([0, 1, 2], [9, 3, 8])
    assert deal(group, np.zeros((20, 1), int), (0.95, 0.05)).tolist() == [0] * 9 + [1] * 3 + [0] * 8


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 1)), min_size=12, max_size=30), st.integers(0, 9))
def test_each_kind_is_shared_out_by_itself(people, seed):
    sizes, kinds = np.array([*people, (1, 0), (1, 0), (1, 1), (1, 1)]).T
    group = np.repeat(np.arange(len(sizes)), sizes)
    labels = kinds[group][:, None]
    parts = deal(group, labels, (0.5, 0.5), seed)
    for kind in (0, 1):
        here = np.bincount(parts[labels[:, 0] == kind], minlength=2)
        assert abs(here[0] - here[1]) <= sizes[kinds == kind].max()


def test_deal_refuses():
    group, labels = np.array([0, 0, 1]), np.zeros((3, 1), int)
    with pytest.raises(ValueError, match="2 people cannot be dealt into 3 parts; give more people or fewer parts"):
        deal(group, labels, (0.4, 0.3, 0.3))
    with pytest.raises(ValueError, match="0 people cannot be dealt into 2 parts"):
        deal(group[:0], labels[:0], (0.5, 0.5))
    with pytest.raises(ValueError, match=r"shares \(0.8, 0.3\) must be positive and sum to 1"):
        deal(group, labels, (0.8, 0.3))
    with pytest.raises(ValueError, match=r"shares \(1.0, 0.0\) must be positive"):
        deal(group, labels, (1.0, 0.0))


def test_shared_keys():
    assert shared(["b", "a", "", "c"], ["c", "a", ""]) == ["a", "c"]
    assert shared(["a"], []) == []


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("people", [4, 6, 7, 8, 11, 12, 13])
@pytest.mark.parametrize("photos", [1, 7])
def test_the_whole_has_its_share_where_no_kind_can(share, people, photos):
    """Six kinds of so many people each: rounded by itself every one of 8 would give 2 of 8 to validation, a quarter."""
    labels = np.array(list(itertools.product(range(2), range(3)))).repeat(people * photos, 0)
    group = np.arange(6 * people).repeat(photos)
    for seed in range(3):
        part = deal(group, labels, (1 - share, share), seed)
        assert abs(part.sum() / photos - share * 6 * people) <= 1  # of a person
        if people >= 1 / share:
            each = part.reshape(6, -1).sum(1) / photos
            assert (each >= 1).all() and (abs(each - share * people) <= 1).all()


def test_one_large_person_tips_no_other_kind():
    """What it has too much its own part lacks; the next kinds make up for half a person each at most."""
    sizes = [100] + [1] * 9 + [1] * 30
    kinds = np.array([0] * 10 + [1] * 10 + [2] * 10 + [3] * 10)
    group = np.arange(40).repeat(sizes)
    part = deal(group, kinds[group][:, None], (0.8, 0.2), 0)
    for kind in (1, 2, 3):
        assert 1 <= part[kinds[group] == kind].sum() <= 3


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2)), min_size=15, max_size=60), st.integers(2, 5))
def test_each_kind_reaches_each_part(people, parts):
    group = np.arange(len(people)).repeat([count for count, _ in people])
    labels = np.array([kind for _, kind in people])[group][:, None]
    part = deal(group, labels, (1 / parts,) * parts, 0)
    kinds = np.array([kind for _, kind in people])
    for kind in range(3):
        if (kinds == kind).sum() >= parts:  # else it is dealt together with others
            assert set(part[labels[:, 0] == kind]) == set(range(parts))
