from dataclasses import FrozenInstanceError
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multihead.crops import BODY, FACE, FULL
from multihead.heads import AGE, FLAT, GENDER, HEADS, MASK, Head, base, crops, flat, size, space
from multihead.labels import bands, class_index, decode, encode, joint, marginals

KINDS = {"numpy": np.array, "torch": torch.tensor}


def table(*sizes):
    """A table of heads h0, h1, ... with so many classes each."""
    return tuple(Head(f"h{i}", tuple(f"c{j}" for j in range(n))) for i, n in enumerate(sizes))


TABLES = [HEADS, FLAT, table(2), table(5), table(2, 4), table(4, 3, 2, 2), (*flat(table(2, 3)), GENDER)]
tables = st.lists(st.integers(2, 4), min_size=1, max_size=4).map(lambda sizes: table(*sizes))


def rows(heads):
    """Every combination of the heads' classes, first head slowest."""
    return list(product(*(range(len(head.classes)) for head in base(heads))))


def random_probs(heads, count=5, seed=0):
    rng = np.random.default_rng(seed)
    return {head.name: rng.dirichlet(np.ones(len(head.classes)), count) for head in heads}


# ---- heads


def test_the_competitions_heads():
    assert [(head.name, head.classes) for head in HEADS] == [
        ("mask", ("worn", "incorrect", "not_worn")),
        ("gender", ("male", "female")),
        ("age", ("<30", "30-59", ">=60")),
    ]
    assert AGE.edges == (30, 60) and MASK.edges is None and MASK.crops == (FULL,)


def test_a_head_is_frozen_and_hashable():
    with pytest.raises(FrozenInstanceError):
        MASK.name = "other"
    assert {MASK: 1}[Head("mask", ("worn", "incorrect", "not_worn"))] == 1


def test_on_changes_the_crops_alone():
    moved = AGE.on(FACE, BODY)
    assert moved.crops == (FACE, BODY) and (moved.name, moved.classes, moved.edges) == ("age", AGE.classes, (30, 60))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "my head"}, "head name 'my head' must be letters"),
        ({"name": ""}, "head name ''"),
        ({"classes": ("a",)}, r"classes \('a',\); expected two or more"),
        ({"classes": ("a", "b", "a")}, "expected two or more unlike names"),
        ({"classes": ("a", "A")}, "expected two or more unlike names"),
        ({"classes": ("a", "none")}, "names a class 'none', which tables read as missing"),
        ({"classes": ("a", "NaN")}, "names a class 'NaN'"),
        ({"classes": ("-1", "1")}, "names a class '-1'"),
        ({"crops": ()}, "expected one or more unlike crops"),
        ({"crops": (FACE, FACE)}, "expected one or more unlike crops"),
        ({"edges": (1, 2)}, "expected 1 rising numbers"),
        ({"classes": ("a", "b", "c"), "edges": (60, 30)}, "expected 2 rising numbers"),
    ],
)
def test_a_head_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Head(**({"name": "h", "classes": ("a", "b")} | arguments))


def test_flat_lists_the_combinations_first_head_slowest():
    (head,) = flat(HEADS)
    assert head.name == "mask_gender_age" and head.parts == HEADS and flat(HEADS) == FLAT
    assert head.classes == tuple("/".join(names) for names in product(*(part.classes for part in HEADS)))
    assert head.classes[15] == "not_worn/female/<30"
    assert flat([MASK.on(FACE), GENDER.on(BODY), AGE.on(FACE, BODY)])[0].crops == (FACE, BODY)
    assert flat([Head("site", ("/", "/a/"))])[0].classes == ("/", "/a/")  # as they are
    assert flat(MASK) == flat([MASK]) and flat(MASK)[0].parts == (MASK,)


def test_one_crop_is_a_head_on_that_crop():
    assert Head("mask", MASK.classes, FACE) == MASK.on(FACE)


def test_base_takes_flat_heads_apart():
    assert base(FLAT) == HEADS and base(MASK) == (MASK,) and base([*flat([MASK, GENDER]), AGE]) == HEADS
    with pytest.raises(ValueError, match=r"heads \['mask', 'mask'\] repeat a name"):
        base([MASK, MASK.on(FACE)])


def test_space_forgets_crops_and_edges():
    assert space(FLAT) == space([MASK.on(FACE), GENDER.on(BODY), AGE]) == space(HEADS)
    assert space([GENDER, MASK]) != space([MASK, GENDER])
    assert space([AGE])[0].edges is None


def test_size_and_crops():
    assert [size(heads) for heads in TABLES] == [18, 18, 2, 5, 8, 48, 12]
    assert crops([MASK.on(FACE), GENDER.on(BODY, FACE), AGE]) == (FACE, BODY, FULL)


# ---- encode and decode


@pytest.mark.parametrize("wrong", [np.nan, 1.5, 3.0, -2.0])
def test_a_label_that_is_no_class_is_refused(wrong):
    labels = np.array([[0, 1, 2], [2, 0, wrong]])
    with pytest.raises(ValueError, match=rf"row 1: head 'age' has label {wrong}; expected -1 to 2"):
        encode(labels)
    with pytest.raises(ValueError, match="row 1: head 'age' has label"):
        encode(torch.from_numpy(labels))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", TABLES, ids=lambda heads: "-".join(head.name for head in heads))
def test_encode_and_decode_agree_with_every_combination(kind, heads):
    make, every = KINDS[kind], rows(heads)
    codes = encode(make(every), heads)
    assert type(codes) is type(make([0])) and codes.tolist() == list(range(size(heads)))
    labels = decode(make(list(range(size(heads)))), heads)
    assert type(labels) is type(codes) and [tuple(row) for row in labels.tolist()] == every


@pytest.mark.parametrize("kind", KINDS)
def test_the_competitions_class_is_mask_times_6_plus_gender_times_3_plus_age(kind):
    labels = KINDS[kind](rows(HEADS))
    assert (encode(labels) == labels[:, 0] * 6 + labels[:, 1] * 3 + labels[:, 2]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_anywhere_is_unknown(kind):
    make = KINDS[kind]
    labels = make([[-1, 1, 2], [2, -1, 0], [2, 1, -1], [-1, -1, -1], [2, 1, 2]])
    before = labels.tolist()
    assert encode(labels).tolist() == [-1, -1, -1, -1, 17]
    assert labels.tolist() == before
    assert decode(make([17, -1])).tolist() == [[2, 1, 2], [-1, -1, -1]]


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows(kind):
    make = KINDS[kind]
    assert encode(make(np.empty((0, 3), int))).tolist() == []
    assert tuple(decode(make(np.empty(0, int))).shape) == (0, 3)
    assert tuple(decode(make([-1, 0]), ()).shape) == (2, 0)


@given(st.data(), tables)
def test_decode_undoes_encode_and_encode_decode(data, heads):
    codes = np.array(data.draw(st.lists(st.integers(-1, size(heads) - 1), max_size=20)), int)
    assert encode(decode(codes, heads), heads).tolist() == codes.tolist()
    assert encode(decode(torch.from_numpy(codes), heads), heads).tolist() == codes.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_encode_and_decode_refuse(kind):
    make = KINDS[kind]
    with pytest.raises(ValueError, match=r"shape \(1, 2\); expected \(N, 3\) for \['mask', 'gender', 'age'\]"):
        encode(make([[0, 1]]))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        encode(make([0, 1, 2]))
    with pytest.raises(ValueError, match="row 1: head 'gender' has label 2; expected -1 to 1"):
        encode(make([[0, 1, 2], [0, 2, 2]]))
    with pytest.raises(ValueError, match="row 0: head 'age' has label -2"):
        encode(make([[0, 1, -2]]))
    with pytest.raises(ValueError, match="joint classes run from 0 to 18; expected -1 to 17"):
        decode(make([0, 18]))
    with pytest.raises(ValueError, match="from -2 to 3"):
        decode(make([-2, 3]))


# ---- joint and marginals


def test_joint_by_hand():
    heads = table(2, 2)
    found = joint({"h0": np.array([[0.25, 0.75]]), "h1": np.array([[0.1, 0.9]])}, heads)
    np.testing.assert_allclose(found, [[0.025, 0.225, 0.075, 0.675]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", TABLES, ids=lambda heads: "-".join(head.name for head in heads))
def test_joint_and_marginals_agree_with_brute_force(kind, heads):
    parts = random_probs(heads)
    found = joint({name: KINDS[kind](part) for name, part in parts.items()}, heads)
    wanted = [
        [np.prod([parts[head.name][row, index] for head, index in zip(heads, place)]) for place in rows_of(heads)]
        for row in range(5)
    ]
    np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-12)
    halves = marginals(found, heads)
    assert list(halves) == [head.name for head in base(heads)]
    for column, head in enumerate(base(heads)):
        assert type(halves[head.name]) is type(found)
        for index in range(len(head.classes)):
            chosen = [code for code, labels in enumerate(rows(heads)) if labels[column] == index]
            expected = np.asarray(found)[:, chosen].sum(1)
            np.testing.assert_allclose(np.asarray(halves[head.name])[:, index], expected, atol=1e-12)


def rows_of(heads):
    return list(product(*(range(len(head.classes)) for head in heads)))


@given(tables, st.integers(0, 10**6))
def test_joint_sums_to_one_and_its_marginals_are_the_parts(heads, seed):
    parts = random_probs(heads, seed=seed)
    whole = joint(parts, heads)
    np.testing.assert_allclose(whole.sum(1), 1)
    for name, part in marginals(whole, heads).items():
        np.testing.assert_allclose(part, parts[name], atol=1e-12)


def test_a_flat_heads_probabilities_are_joint_already():
    probs = np.random.default_rng(0).dirichlet(np.ones(18), 4)
    np.testing.assert_array_equal(joint({"mask_gender_age": probs}, FLAT), probs)
    assert list(marginals(probs, FLAT)) == ["mask", "gender", "age"]


def test_gradients_pass_through_joint_and_marginals():
    logits = {head.name: torch.randn(3, len(head.classes), requires_grad=True) for head in HEADS}
    whole = joint({name: part.softmax(1) for name, part in logits.items()}, HEADS)
    marginals(whole)["age"][:, 0].sum().backward()
    assert logits["age"].grad.abs().sum() > 0
    torch.testing.assert_close(logits["mask"].grad, torch.zeros(3, 3), atol=1e-6, rtol=0)


def test_joint_and_marginals_refuse():
    parts = random_probs(HEADS)
    with pytest.raises(KeyError, match="no probabilities for head 'age'; got"):
        joint({"mask": parts["mask"], "gender": parts["gender"]}, HEADS)
    with pytest.raises(ValueError, match=r"head 'age' expects \(N, 3\), got \(5, 2\)"):
        joint(parts | {"age": parts["gender"]}, HEADS)
    with pytest.raises(ValueError, match="at least one head"):
        joint({}, ())
    with pytest.raises(ValueError, match=r"shape \(5, 3\); expected \(N, 18\)"):
        marginals(parts["mask"])


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_have_no_joint_probabilities(kind):
    parts = {head.name: KINDS[kind](np.zeros((0, len(head.classes)))) for head in HEADS}
    assert tuple(joint(parts, HEADS).shape) == (0, 18)


# ---- bands and cells


def test_bands_count_the_edges_at_or_below():
    years = np.array([0, 29.99, 30, 59.5, 60, 130, np.nan])
    assert bands(years, (30, 60)).tolist() == [0, 0, 1, 1, 2, 2, -1]
    assert bands(np.array([]), (30, 60)).tolist() == []


@given(st.lists(st.floats(0, 130) | st.just(float("nan")), max_size=20), st.sets(st.integers(1, 129), max_size=5))
def test_bands_agree_with_counting(years, edges):
    wanted = [-1 if np.isnan(number) else sum(edge <= number for edge in edges) for number in years]
    assert bands(np.array(years), sorted(edges)).tolist() == wanted


@pytest.mark.parametrize(
    ("value", "index"),
    [("worn", 0), (" Not_Worn ", 2), ("INCORRECT", 1), ("2", 2), ("1.0", 1), (1.0, 1), (np.int64(2), 2), (0, 0)]
    + [(blank, -1) for blank in ("", "  ", None, float("nan"), "NaN", "None", "<NA>", "-1", -1, -1.0)],
)
def test_class_index_reads_names_numbers_and_blanks(value, index):
    assert class_index(MASK, value) == index


@given(tables, st.data())
def test_class_index_finds_every_class(heads, data):
    head = data.draw(st.sampled_from(heads))
    index = data.draw(st.integers(0, len(head.classes) - 1))
    forms = (head.classes[index], head.classes[index].upper(), str(index), float(index))
    assert {class_index(head, form) for form in forms} == {index}


@pytest.mark.parametrize("value", ["3", "1.5", "-2", "mask", "inf", True])
def test_class_index_names_head_value_and_classes(value):
    with pytest.raises(ValueError, match="is no class of head 'mask'; expected 0 or worn, 1 or incorrect, 2 or not_w"):
        class_index(MASK, value)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.int32, torch.int8, torch.uint8, torch.int32])
def test_a_joint_class_needs_more_room_than_its_labels(kind):
    heads = [Head("who", tuple(f"p{number}" for number in range(100))), Head("smile", ("no", "yes"))]
    labels = np.array([[99, 1], [70, 0]])
    given = torch.tensor(labels, dtype=kind) if isinstance(kind, torch.dtype) else labels.astype(kind)
    assert encode(given, heads).tolist() == [199, 140]
    assert decode(encode(given, heads), heads).tolist() == labels.tolist()
    assert decode(given[:, 0], heads).tolist() == [[49, 1], [35, 0]]


@pytest.mark.parametrize("name", ["joint", "macro"])
def test_a_head_is_not_named_like_the_joint_score(name):
    with pytest.raises(ValueError, match=f"head name '{name}' is a column of the tables of photos, answers and scores"):
        Head(name, ("no", "yes"))


def test_the_text_of_heads_stays():
    """Checkpoints are of the same run where the text of the model's heads is: a run begun before goes on after."""
    assert repr(AGE).endswith("edges=(30, 60), parts=())")


def test_names_in_place_of_numbers_are_told():
    names = pd.DataFrame({"mask": ["worn", "incorrect"], "gender": ["male", "female"], "age": ["<30", ">=60"]})
    for labels in (names, names.astype(object), names.to_numpy(), names.to_numpy().astype(str)):
        with pytest.raises(ValueError, match=r"labels hold 'worn'; expected numbers, .* multihead.read\(table, heads="):
            encode(labels)
    with pytest.raises(ValueError, match="labels hold 'worn/male/<30'; expected numbers"):
        decode(pd.Series(["worn/male/<30"]))
    with pytest.raises(ValueError, match="labels hold b'worn'; expected numbers"):
        encode(names.to_numpy().astype(bytes))
    texts = pd.DataFrame({"mask": ["0", "2"], "gender": ["1", "nan"], "age": ["1", "-1"]})  # as of a CSV read as text
    assert encode(texts).tolist() == encode(texts.to_numpy()).tolist() == [4, -1]
    mixed = pd.DataFrame({"mask": [0, 2], "gender": [1.0, None], "age": pd.array([1, None], "Int64")})
    assert encode(mixed).tolist() == [4, -1] and decode(pd.array([4, None], "Int64")).tolist() == [[0, 1, 1], [-1] * 3]


def test_other_words_are_known_only_beside_their_opposite():
    """An m of m and other may be anything."""
    with pytest.raises(ValueError, match="'m' is no class of head 'sex'; expected 0 or male, 1 or other, or a blank"):
        class_index(Head("sex", ("male", "other")), "m")
    assert class_index(Head("sex", ("female", "other", "male")), "m") == 2


def test_joint_and_marginals_take_frames_and_lists():
    probs = np.random.default_rng(0).dirichlet(np.ones(18), 5)
    wanted = marginals(probs, HEADS)
    for table in (pd.DataFrame(probs), probs.tolist()):
        for name, found in marginals(table, HEADS).items():
            np.testing.assert_allclose(found, wanted[name])
    again = joint({name: pd.DataFrame(rows) for name, rows in wanted.items()})
    np.testing.assert_allclose(again, joint(wanted))
    np.testing.assert_allclose(joint({name: rows.tolist() for name, rows in wanted.items()}), joint(wanted))


def test_joint_of_unlike_numbers_of_rows():
    rows = {"mask": np.full((1, 3), 1 / 3), "gender": np.full((2, 2), 1 / 2), "age": np.full((2, 3), 1 / 3)}
    with pytest.raises(ValueError, match="head 'gender' has 2 rows, the heads before it 1"):
        joint(rows)


@pytest.mark.parametrize("ask", [lambda: encode([[0]], "mask"), lambda: decode(0, "mask")])
def test_a_text_is_no_table_of_heads(ask):
    with pytest.raises(TypeError, match="heads is the text 'mask'"):
        ask()
