import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multihead.augment import (
    CLAHE,
    Albumentations,
    Augment,
    BoxJitter,
    Cutout,
    Diary,
    Flip,
    Gentle,
    Grey,
    Plain,
    RandAugment,
)
from multihead.balance import DWA, Balance, Fixed, Uncertainty
from multihead.losses import CrossEntropy, Custom, Focal, Loss, Ordinal, SoftF1, Sum, SymmetricCrossEntropy
from multihead.masks import DrawnMask
from multihead.mixing import CutMix, InvertedCutMix, Mix, MixUp
from multihead.optim import MADGRAD, SGD, Adam, AdamW, Optim, Timm
from multihead.options import dataclasses_in
from multihead.samplers import Sampler, Shares, Weighted
from multihead.schedules import Constant, Cosine, CosineRestarts, Cyclic, OneCycle, Plateau, Schedule, Step
from multihead.spelling import parse, spell

share, number, positive = st.floats(0, 1), st.floats(0, 100), st.floats(1e-6, 1)
count = st.integers(1, 9)
smoothing = st.floats(0, 0.99)
cycle_mode = st.sampled_from(["triangular", "triangular2", "exp_range"])
interval = st.sampled_from(["batch", "epoch"])
words = st.sampled_from(["joint", "age", "it's", 'a "b"', "\\n", "ü", ""])

class_weights = st.one_of(
    st.none(), st.sampled_from(["inverse", "effective"]), st.lists(positive, min_size=1, max_size=3).map(tuple)
)
KINDS = {
    CrossEntropy: st.builds(CrossEntropy, class_weights, smoothing),
    Focal: st.builds(Focal, number, class_weights, smoothing),
    SoftF1: st.builds(SoftF1),
    Custom: st.builds(Custom, st.just("my.losses:poly"), class_weights),
    SymmetricCrossEntropy: st.builds(SymmetricCrossEntropy, number, number, class_weights),
    CutMix: st.builds(CutMix, share, positive, st.sampled_from(["box", "strip", "half"]), count),
    MixUp: st.builds(MixUp, share, positive, count),
    InvertedCutMix: st.builds(InvertedCutMix, share, positive, count),
    Weighted: st.builds(Weighted, words, number),
    Shares: st.builds(Shares, st.dictionaries(words, st.floats(0, 0.1), min_size=1, max_size=4)),
    Fixed: st.builds(Fixed),
    Uncertainty: st.builds(Uncertainty),
    DWA: st.builds(DWA, positive),
    Flip: st.builds(Flip, share),
    Diary: st.builds(Diary, share, share),
    Gentle: st.builds(Gentle, share, share, share, st.floats(0, 180), share),
    Plain: st.builds(Plain),
    RandAugment: st.builds(RandAugment, count, st.floats(0, 10), share),
    Cutout: st.builds(Cutout, share, positive),
    CLAHE: st.builds(CLAHE, share, positive),
    Grey: st.builds(Grey, share),
    BoxJitter: st.builds(BoxJitter, share, st.floats(0, 0.9)),
    Albumentations: st.builds(Albumentations, share.map(lambda p: f'{{"__class_fullname__": "ToGray", "p": {p}}}')),
    DrawnMask: st.builds(DrawnMask, share, share),
    AdamW: st.builds(AdamW, positive, share),
    Adam: st.builds(Adam, positive, share),
    SGD: st.builds(SGD, positive, share, share),
    MADGRAD: st.builds(MADGRAD, positive, share, share),
    Timm: st.builds(Timm, st.sampled_from(["lamb", "lookahead_adamw"]), positive, share, share),
    OneCycle: st.builds(OneCycle, share, interval),
    Cosine: st.builds(Cosine, number, share, interval),
    CosineRestarts: st.builds(CosineRestarts, positive, st.floats(1, 3), positive, share, number, interval),
    Step: st.builds(Step, number, count, share),
    Plateau: st.builds(Plateau, count, positive, share, share, number),
    Cyclic: st.builds(Cyclic, share, positive, positive, cycle_mode, positive, interval),
    Constant: st.builds(Constant, number),
}


def _nested(inner):
    terms = st.lists(st.tuples(inner, number), min_size=1, max_size=3).filter(lambda pairs: any(by for _, by in pairs))
    sums = terms.map(lambda pairs: Sum(tuple(loss for loss, _ in pairs), tuple(weight for _, weight in pairs)))
    return {Ordinal: st.builds(Ordinal, share, inner), Sum: sums}


leaves = st.one_of(*(KINDS[kind] for kind in (CrossEntropy, Focal, SoftF1, SymmetricCrossEntropy)))
losses = st.recursive(leaves, lambda inner: st.one_of(*_nested(inner).values()), max_leaves=4)
KINDS |= _nested(losses)
LOSSES = dataclasses_in(Loss)
FAMILIES = (Loss, Mix, Sampler, Balance, Augment, Optim, Schedule)


def some(union):
    """Any settings of a union's classes."""
    return st.one_of(*(KINDS[kind] for kind in dataclasses_in(union)))


def test_every_class_of_settings_is_tried():
    assert set(KINDS) == {kind for union in FAMILIES for kind in dataclasses_in(union)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_spelled_is_read_again(kind):
    classes = next(dataclasses_in(union) for union in FAMILIES if kind in dataclasses_in(union))

    @settings(max_examples=20)
    @given(KINDS[kind])
    def read_again(made):
        assert parse(spell(made), classes) == made

    read_again()


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (SGD(0.1), "sgd(lr=0.1)"),
        (SoftF1(), "softf1"),
        (CutMix(shape="half", off_epoch=2), "cutmix(shape='half', off_epoch=2)"),
        (Focal(class_weights=(1.0, 2.0)), "focal(class_weights=(1.0, 2.0,))"),
        (Ordinal(0.4, Focal(3.0)), "ordinal(share=0.4, loss=focal(gamma=3.0))"),
        (Sum((SoftF1(), Focal()), (0.4, 0.6)), "sum(losses=(softf1, focal,), weights=(0.4, 0.6,))"),
        (Shares({"web": 0.25}), "shares(shares={'web': 0.25})"),
    ],
)
def test_spell_by_hand(made, text):
    assert spell(made) == text


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("focal", Focal()),
        (" Focal() ", Focal()),
        ("soft_f1", SoftF1()),
        ("focal(3)", Focal(3)),
        ("focal(3, smoothing=.1)", Focal(3, None, 0.1)),
        ("focal(class_weights=inverse)", Focal(class_weights="inverse")),
        ("focal(class_weights=[1, 2, 3])", Focal(class_weights=(1, 2, 3))),
        ("focal(class_weights=none)", Focal()),
        ("ordinal(loss=softf1)", Ordinal(loss=SoftF1())),
        ("ordinal(.3, softf1 + focal(1))", Ordinal(0.3, Sum((SoftF1(), Focal(1)), (1.0, 1.0)))),
        ("0.4*softf1 + 0.6*focal(3)", Sum((SoftF1(), Focal(3)), (0.4, 0.6))),
        ("focal + softf1 + 2*crossentropy", Sum((Focal(), SoftF1(), CrossEntropy()), (1.0, 1.0, 2))),
        ("2*focal", Sum((Focal(),), (2,))),
        (".5*ordinal(loss=focal) + softf1", Sum((Ordinal(loss=Focal()), SoftF1()), (0.5, 1.0))),
    ],
)
def test_parse_by_hand(text, made):
    assert parse(text, LOSSES) == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("focl", "'focl': 'focl' is none of crossentropy, focal, .*; did you mean 'focal'"),
        ("ordinal(loss=focl(3))", "'focl' is none of .*; did you mean 'focal'"),
        ("zzz", "'zzz' is none of [a-z0-9, ]*$"),
        ("focal(gama=3)", "focal has no 'gama'; did you mean 'gamma'.; it has gamma, class_weights, smoothing"),
        ("focal(1, gamma=3)", "focal is given 'gamma' twice"),
        ("focal(1, 2, 3, 4)", "focal takes 3 values, got 4"),
        ("focal(gamma=much)", "gamma is 'much'; expected float"),
        ("focal(gamma=-much)", "-much is no number, word, tuple or setting"),
        ("focal(class_weights={**{}})", r"{\*\*{}} is no number, word, tuple or setting"),
        ("2*3*focal", r"2 \* 3 is no number, word, tuple or setting"),
        ("focal(gamma=-1)", "focal: gamma is -1; expected a number >= 0"),
        ("focal(", "cannot be read; expected a name as in crossentropy"),
        ("", "'' cannot be read"),
        ("3", "'3' cannot be read"),
        ("focal.gamma", "cannot be read"),
        ("focal - softf1", r"only \+ and \* join losses"),
        ("focal/2", r"only \+ and \* join losses"),
        ("-1*focal", "sum: weight is -1"),
        ("a*focal", "'a"),
        ("focal(gamma=1+1)", "1 \\+ 1 is no number, word, tuple or setting"),
        ("focal(**{'gamma': 3})", "focal has no ''"),
        ("focal(*[3])", r"\*\[3\] is no number"),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text, LOSSES)


def test_a_sum_needs_losses():
    with pytest.raises(ValueError, match="'adam \\+ sgd'"):
        parse("adam + sgd", dataclasses_in(Optim))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('x')",
        "focal(gamma=__import__('os').system('x'))",
        "focal(gamma=(lambda: 3)())",
        "focal(gamma=[made() for made in (print,)])",
        "print('x')",
        "(focal := 3)",
        "__import__('os').system('x')*focal",
        "focal(class_weights=(__import__('os').system('x'),))",
        "focal.__class__('x')",
    ],
)
def test_nothing_is_run(text, monkeypatch, capsys):
    def system(command):
        raise AssertionError(f"ran {command!r}")

    monkeypatch.setattr(os, "system", system)
    with pytest.raises(ValueError):
        parse(text, LOSSES)
    assert capsys.readouterr().out == ""
