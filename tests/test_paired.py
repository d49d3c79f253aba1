import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from multihead import paired
from multihead.heads import FLAT, HEADS, Head
from multihead.labels import encode
from multihead.metrics import score
from multihead.paired import compare, draws, macro_f1, table, tally

SMILE = (Head("smile", ("no", "yes")),)
METRICS = ["macro_f1", "mask_f1", "gender_f1", "age_f1"]
SEEDS = st.integers(0, 10**6)


def hot(joint, classes=2):
    """Joint probabilities (N, K) that answer just these classes."""
    return np.eye(classes)[np.asarray(joint)]


def random_case(rows=40, people=8, unknown=0.0, seed=0):
    """(labels (N, 3), groups (N,), a function that makes another model's probabilities) of drawn people."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, len(head.classes), rows) for head in HEADS], 1)
    right = encode(labels, HEADS)
    labels[rng.random(labels.shape) < unknown] = -1

    def model(skill=0.6):
        probs = rng.dirichlet(np.ones(18) / 2, rows) + (rng.random((rows, 1)) < skill) * hot(right, 18)
        return probs / probs.sum(1, keepdims=True)

    return labels, rng.integers(0, people, rows), model


def cell(frame, arm, metric="macro_f1"):
    return frame[(frame.arm == arm) & (frame.metric == metric)].iloc[0]


def errs(rng, count, share, spread, photos):
    """Wrong answers (people, photos) at this share, likelier for some people than for others."""
    person = np.clip(share + spread * rng.choice([-1, 1], (count, 1)), 0, 1)
    return rng.random((count, photos)) < person


# ---- one comparison


def test_compare_by_hand():
    labels, groups = np.array([[0], [0], [1], [1]]), np.array([7, 7, 3, 3])
    arms = {"a": [hot([0, 0, 1, 1]), hot([0, 0, 1, 0])], "b": [hot([0, 0, 0, 0])]}
    frame = compare(arms, labels, groups, SMILE, resamples=400)
    one_wrong = (4 / 5 + 2 / 3) / 2
    first, second = cell(frame, "a"), cell(frame, "b")
    assert first["mean"] == pytest.approx((1 + one_wrong) / 2) and second["mean"] == pytest.approx((2 / 3 + 0) / 2)
    assert first.high_seed == 1 and first.low_seed == pytest.approx(one_wrong)
    assert second.low_seed == second.high_seed == second["mean"]
    assert second.difference == pytest.approx(second["mean"] - first["mean"])
    assert (first.difference, first.low, first.high) == (0, 0, 0)
    # person 7 twice: both right; person 3 twice: a 1 and (0 + 2/3) / 2, b 0
    assert (first.mean_low, first.mean_high) == (pytest.approx((1 + 1 / 3) / 2), 1)
    assert (second.mean_low, second.mean_high, second.low, second.high) == (0, 1, pytest.approx(-2 / 3), 0)
    assert (first.seeds, second.seeds) == (2, 1) and (first.people, first.rows) == (2, 4)
    assert frame.arm.tolist() == ["a", "a", "b", "b"] and frame.metric.tolist() == ["macro_f1", "smile_f1"] * 2


@pytest.mark.parametrize("unknown", [0.0, 0.3])
@pytest.mark.parametrize("heads", [HEADS, FLAT])
def test_the_scores_are_those_of_metrics(heads, unknown):
    labels, groups, model = random_case(90, 10, unknown)
    arms = {"a": [model(), model(), model()], "b": [model(0.2)]}
    frame = compare(arms, labels, groups, heads, resamples=5)
    for arm, seeds in arms.items():
        found = [score(each, labels, heads) for each in seeds]
        wanted = {"macro_f1": [each.joint for each in found]}
        wanted |= {f"{head.name}_f1": [each.heads[head.name] for each in found] for head in HEADS}
        for metric, parts in wanted.items():
            row, scores = cell(frame, arm, metric), [part.f1 for part in parts]
            np.testing.assert_allclose(
                [row["mean"], row.low_seed, row.high_seed], [np.mean(scores), min(scores), max(scores)]
            )
            assert row.rows == parts[0].n


@settings(max_examples=15)
@given(SEEDS, st.sampled_from([0.0, 0.3]))
def test_the_intervals_agree_with_rows_written_out(seed, unknown):
    labels, groups, model = random_case(30, 6, unknown, seed)
    groups = np.unique(groups, return_inverse=True)[1]
    arms = {"a": [model(), model()], "b": [model(0.3), model(0.3)]}
    frame = compare(arms, labels, groups, HEADS, resamples=12, level=0.8, seed=seed)
    weights = np.concatenate(list(draws(groups.max() + 1, 12, seed))).astype(int)
    for metric, column in {"macro_f1": None, "gender_f1": 1}.items():
        truth = encode(labels, HEADS) if column is None else labels[:, column]
        drawn = {arm: [] for arm in arms}
        for times in weights:
            rows = np.repeat(np.arange(30), times[groups])
            rows = rows[truth[rows] >= 0]
            for arm, seeds in arms.items():
                picks = [p.argmax(1) if column is None else p.reshape(-1, 3, 2, 3).sum((1, 3)).argmax(1) for p in seeds]
                f1 = [
                    f1_score(truth[rows], each[rows], average="macro", zero_division=0) for each in picks if len(rows)
                ]
                drawn[arm].append(np.mean(f1) if f1 else math.nan)
        for arm, scores in drawn.items():
            row, paired_scores = cell(frame, arm, metric), np.subtract(scores, drawn["a"])
            np.testing.assert_allclose([row.mean_low, row.mean_high], np.nanquantile(scores, [0.1, 0.9]), atol=1e-12)
            np.testing.assert_allclose([row.low, row.high], np.nanquantile(paired_scores, [0.1, 0.9]), atol=1e-12)


def test_two_equal_arms_differ_by_exactly_nothing():
    labels, groups, model = random_case(60, 12, 0.2)
    probs = [model(), model()]
    frame = compare({"a": probs, "b": [each.copy() for each in probs]}, labels, groups, HEADS, resamples=200)
    assert (frame[["difference", "low", "high"]] == 0).all(axis=None)
    assert (frame.mean_low < frame["mean"]).all() and (frame["mean"] < frame.mean_high).all()


def test_pairing_narrows_the_interval():
    labels, groups, model = random_case(300, 60)
    base = model(0.5)
    other = base.copy()
    other[:10] = model(0.5)[:10]
    row = cell(compare({"a": [base], "b": [other]}, labels, groups, HEADS, resamples=300), "b")
    assert row.high - row.low < (row.mean_high - row.mean_low) / 3


def test_a_better_arm_is_found_better():
    labels, groups, model = random_case(400, 80)
    frame = compare({"weak": [model(0.3)], "strong": [model(0.7)]}, labels, groups, HEADS, resamples=300)
    strong = frame[frame.arm == "strong"]
    assert (strong.low > 0).all() and (strong.low < strong.difference).all() and (strong.difference < strong.high).all()


# ---- people


def test_people_give_wider_intervals_than_their_photos():
    labels, _, model = random_case(80, 1)
    arms = {"a": [np.repeat(model(), 5, 0)], "b": [np.repeat(model(), 5, 0)]}  # five photos, answered alike
    people, photos = np.repeat(np.arange(80), 5), np.arange(400)
    wide, narrow = (compare(arms, np.repeat(labels, 5, 0), each, HEADS, resamples=1000) for each in (people, photos))
    for low, high in (("low", "high"), ("mean_low", "mean_high")):
        width = [cell(each, "b", "mask_f1")[high] - cell(each, "b", "mask_f1")[low] for each in (wide, narrow)]
        assert width[0] / width[1] == pytest.approx(math.sqrt(5), rel=0.15)


def trial(seed, people, groups, photos=10, resamples=200):
    """Drawn answers of two models that err more on some people (30 % and 20 % of photos): the second's row."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, 2, people), photos)
    wrong = [errs(rng, people, share, 0.2, photos).ravel() for share in (0.3, 0.2)]
    arms = {name: [hot(np.where(each, 1 - labels, labels))] for name, each in zip("ab", wrong)}
    return cell(compare(arms, labels[:, None], groups(people, photos), SMILE, resamples=resamples), "b")


def test_the_intervals_hold_the_truth_as_often_as_they_say():
    def by_person(people, photos):
        return np.repeat(np.arange(people), photos)

    def by_photo(people, photos):
        return np.arange(people * photos)

    truth = trial(0, 50_000, by_person, resamples=1).difference
    assert truth == pytest.approx(0.1, abs=0.01)
    for groups, least, most in ((by_person, 0.89, 0.99), (by_photo, 0, 0.85)):  # photos pretend to know more
        rows = [trial(seed, 60, groups) for seed in range(1, 121)]
        assert least <= np.mean([row.low <= truth <= row.high for row in rows]) <= most


def test_a_row_of_unknown_person_is_a_person_of_its_own():
    labels, groups, model = random_case(30, 6)
    arms = {"a": [model()], "b": [model()]}
    groups[[20, 25]] = [-1, -1]
    alone = groups.copy()
    alone[[20, 25]] = [100, 101]
    pd.testing.assert_frame_equal(*(compare(arms, labels, each, HEADS, resamples=50) for each in (groups, alone)))
    assert compare(arms, labels, groups, HEADS, resamples=5).people[0] == len(set(alone))


@given(SEEDS)
def test_the_order_of_rows_does_not_matter(seed):
    labels, groups, model = random_case(25, 5, 0.2, seed)
    arms, order = {"a": [model()], "b": [model(), model()]}, np.random.default_rng(seed).permutation(25)
    moved = {arm: [each[order] for each in seeds] for arm, seeds in arms.items()}
    pd.testing.assert_frame_equal(
        compare(arms, labels, groups, HEADS, resamples=20),
        compare(moved, labels[order], groups[order], HEADS, resamples=20),
    )


@given(SEEDS)
def test_exchanged_arms_exchange_the_sign(seed):
    labels, groups, model = random_case(25, 5, 0.0, seed)
    one, two = [model(), model()], [model(0.3)]
    first = cell(compare({"a": one, "b": two}, labels, groups, HEADS, resamples=30), "b")
    back = cell(compare({"b": two, "a": one}, labels, groups, HEADS, resamples=30), "a")
    assert (first.difference, first.low, first.high) == pytest.approx((-back.difference, -back.high, -back.low))


def test_more_arms_do_not_change_the_others_nor_seeds_their_order():
    labels, groups, model = random_case(40, 8)
    arms = {"a": [model(), model()], "b": [model(), model()], "c": [model()]}
    whole = compare(arms, labels, groups, HEADS, resamples=30)
    few = compare({"a": arms["a"][::-1], "c": arms["c"]}, labels, groups, HEADS, resamples=30)
    pd.testing.assert_frame_equal(whole[whole.arm != "b"].reset_index(drop=True), few)
    assert whole.arm.tolist() == ["a"] * 4 + ["b"] * 4 + ["c"] * 4 and whole.metric.tolist() == METRICS * 3


def test_the_seed_and_the_level_are_heard():
    labels, groups, model = random_case(60, 12)
    arms = {"a": [model()], "b": [model()]}
    rows = [cell(compare(arms, labels, groups, HEADS, resamples=200, **more), "b")
            for more in ({}, {"seed": 0, "level": 0.95}, {"seed": 1}, {"level": 0.5})]  # fmt: skip
    assert rows[0].equals(rows[1]) and rows[0].low != rows[2].low
    assert rows[0].low < rows[3].low < rows[3].high < rows[0].high


# ---- what is not there


def test_rows_that_nobody_answered_are_left_out():
    labels, groups, model = random_case(30, 6)
    arms = {"a": [model()], "b": [model(), model()]}
    kept = ~np.isin(groups, [groups[0]]) & (np.arange(30) != 29)  # one whole person among them
    short = compare(
        {arm: [each[kept] for each in seeds] for arm, seeds in arms.items()}, labels[kept], groups[kept], HEADS
    )
    for each in (probs for seeds in arms.values() for probs in seeds):
        each[~kept] = np.nan
    pd.testing.assert_frame_equal(compare(arms, labels, groups, HEADS), short)


def test_a_head_without_labels_is_nan():
    labels, groups, model = random_case(30, 6)
    labels[:, 2] = -1
    frame = compare({"a": [model()], "b": [model()]}, labels, groups, HEADS, resamples=20)
    for metric, rows in {"macro_f1": 0, "age_f1": 0, "mask_f1": 30}.items():
        for arm in "ab":
            row = cell(frame, arm, metric)
            assert row.rows == rows and (row.people > 0) == (rows > 0)
            assert row.drop(["arm", "metric", "rows", "people", "seeds"]).isna().all() == (rows == 0)
    lines = table(frame).splitlines()
    assert lines[3].startswith("| b | - | - | 0.") and "macro_f1 (0 rows, 0 people)" in lines[0]


def test_one_person_gives_no_interval():
    labels, groups, model = random_case(10, 1)
    row = cell(compare({"a": [model()], "b": [model()]}, labels, groups, HEADS, resamples=20), "b")
    assert math.isfinite(row.difference) and row[["low", "high", "mean_low", "mean_high"]].isna().all()
    labels, groups = np.array([[0], [1], [-1], [-1]]), np.array([0, 0, 1, 2])  # two more of whom nothing is known
    row = cell(compare({"a": [hot([0, 1, 0, 1])]}, labels, groups, SMILE), "a")
    assert row.people == 1 and row["mean"] == 1 and math.isnan(row.low)


def test_resamples_without_a_row_to_score_are_left_out():
    labels, groups = np.array([[0], [1], *[[-1]] * 8]), np.arange(10)  # many resamples draw neither of the first two
    row = cell(compare({"a": [hot([0, 0] + [1] * 8)]}, labels, groups, SMILE), "a")
    assert row.people == 2 and (row.mean_low, row.mean_high) == (0, 1)


# ---- the parts


@pytest.mark.parametrize("chunk", [1, 40, 10**6])
def test_draws_are_people_with_replacement(chunk, monkeypatch):
    whole = np.concatenate(list(draws(20, 3000, seed=3)))
    monkeypatch.setattr(paired, "CHUNK", chunk * 20)
    parts = list(draws(20, 3000, seed=3))
    assert max(map(len, parts)) == min(chunk, 3000) and (np.concatenate(parts) == whole).all()
    assert whole.shape == (3000, 20) and (whole.sum(1) == 20).all()
    assert whole.mean(0) == pytest.approx(np.ones(20), abs=0.1)
    assert whole.var(0) == pytest.approx(np.full(20, 0.95), abs=0.15)  # multinomial: 1 - 1 / people


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 4), st.integers(0, 5)), min_size=1, max_size=30))
def test_tally_and_macro_f1_agree_with_scikit_learn(rows):
    people, labels, answers = np.array(rows).T
    counts = tally(people, labels, answers[None])
    assert counts.shape[:3] == (people.max() + 1, 1, 2)
    for person in range(people.max() + 1):
        chosen = (people == person) & (labels >= 0)
        if chosen.any():
            wanted = f1_score(labels[chosen], answers[chosen], average="macro", zero_division=0)
            assert macro_f1(counts[person])[0] == pytest.approx(wanted)
        else:
            assert math.isnan(macro_f1(counts[person])[0])


def test_many_people_take_seconds_and_little_memory():
    import tracemalloc
    from time import process_time

    rng, labels = np.random.default_rng(0), np.zeros((10_000, 3), int)
    arms = {name: [rng.random((10_000, 18)) for _ in range(5)] for name in "ab"}
    tracemalloc.start()
    began = process_time()
    compare(arms, labels, np.arange(10_000) // 2, HEADS, resamples=2000)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert process_time() - began < 15 and used < 150 * 2**20


# ---- the table


def test_table_by_hand():
    labels, groups = np.array([[0], [0], [1], [1]]), np.array([0, 0, 1, 1])
    arms = {"flat|18": [hot([0, 0, 1, 1]), hot([0, 0, 1, 0])], "heads": [hot([0, 0, 0, 0])]}
    frame = compare(arms, labels, groups, SMILE)
    lines = table(frame[frame.metric == "macro_f1"]).splitlines()
    assert lines == [
        r"| arm | macro_f1 (4 rows, 2 people) | difference to flat\|18 |",
        "| --- | ---: | ---: |",
        r"| flat\|18 | 0.8667 (0.7333-1.0000) | - |",
        "| heads | 0.3333 | -0.5333 [-0.6667, +0.0000] |",
    ]
    wide = table(frame).splitlines()
    assert len(wide) == 4 and {line.replace(r"\|", "").count("|") for line in wide} == {6}
    assert "smile_f1 (4 rows, 2 people)" in wide[0]


def test_a_table_without_intervals_shows_the_difference_alone():
    frame = compare({"a": [hot([0, 1])], "b": [hot([0, 0])]}, np.array([[0], [1]]), np.zeros(2, int), SMILE)
    assert table(frame).splitlines()[3].startswith("| b | 0.3333 | -0.6667 |")
    frame["difference"] *= -1
    assert table(frame).splitlines()[3].startswith("| b | 0.3333 | +0.6667 |")


# ---- refusals


def broken(change):
    """The arguments of a good comparison of 6 rows, changed."""
    labels, groups, model = random_case(6, 3)
    case = {"probs": {"a": [model()], "b": [model(), model()]}, "labels": labels, "groups": groups, "heads": HEADS}
    case["more"] = {"resamples": 5}
    change(case)
    more = case.pop("more")
    return compare(**case, **more)


def put(case, key, value):
    case[key] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: put(c, "probs", {}), r"needs arms with one matrix a seed, got \{\}"),
        (lambda c: put(c["probs"], "b", []), r"needs arms with one matrix a seed, got \{'a': 1, 'b': 0\}"),
        (lambda c: put(c["probs"]["b"], 1, np.ones((5, 18))), r"arm 'b', seed 1: probs have shape \(5, 18\); expected \(6, 18\)"),
        (lambda c: put(c["probs"]["b"], 0, np.ones((6, 17))), r"arm 'b', seed 0: probs have shape \(6, 17\)"),
        (lambda c: put(c["probs"], "a", np.ones((6, 18))), r"arm 'a', seed 0: probs have shape \(18,\)"),
        (lambda c: put(c["probs"]["b"][1], 4, np.nan), r"arm 'b', seed 1: row 4 is not answered, unlike in arm 'a', seed 0"),
        (lambda c: put(c["probs"]["a"][0], 2, np.nan), r"arm 'b', seed 0: row 2 is answered, unlike in arm 'a'"),
        (lambda c: put(c["probs"]["a"][0], (3, 1), np.nan), r"arm 'a', seed 0: row 3 of the probabilities is not finite"),
        (lambda c: put(c["probs"]["b"][0], (5, 1), np.inf), r"arm 'b', seed 0: row 5 of the probabilities is not finite"),
        (lambda c: put(c, "probs", {"a": [np.full((6, 18), np.nan)]}), "no row of 6 is answered"),
        (lambda c: c.update(labels=np.zeros((0, 3), int), groups=np.zeros(0, int), probs={"a": [np.zeros((0, 18))]}), "no row of 0 is answered"),
        (lambda c: put(c, "labels", np.zeros((6, 2), int)), r"labels have shape \(6, 2\); expected \(N, 3\)"),
        (lambda c: put(c["labels"], (1, 1), 2), "row 1: head 'gender' has label 2"),
        (lambda c: put(c, "groups", np.zeros(5, int)), r"groups have shape \(5,\), the answers 6 rows"),
        (lambda c: put(c, "groups", np.zeros(6)), "groups are float64; multihead.splits.groups numbers people"),
        (lambda c: put(c, "groups", ["ann"] * 6), r"groups are <U3; multihead\.splits\.groups numbers people"),
        (lambda c: put(c["groups"], 2, -2), "groups hold -2; expected person numbers from 0, or -1"),
        (lambda c: put(c["more"], "resamples", 0), "needs resamples >= 1 and 0 < level < 1, got 0 and 0.95"),
        (lambda c: put(c["more"], "level", 95), "needs resamples >= 1 and 0 < level < 1, got 5 and 95"),
        (lambda c: put(c["more"], "level", 0.0), "got 5 and 0.0"),
    ],
)  # fmt: skip
def test_compare_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        broken(change)


def test_the_case_that_is_broken_above_is_good():
    assert len(broken(lambda case: None)) == 8


def test_labels_of_a_table_go_by_their_names():
    rng = np.random.default_rng(0)
    arms = {"a": [rng.dirichlet(np.ones(18), 40)], "b": [rng.dirichlet(np.ones(18), 40)]}
    labels, groups, _ = random_case(40)
    table = pd.DataFrame(labels, columns=[head.name for head in HEADS])[["age", "mask", "gender"]]
    pd.testing.assert_frame_equal(
        compare(arms, table, groups, HEADS, resamples=20), compare(arms, labels, groups, HEADS, resamples=20)
    )
