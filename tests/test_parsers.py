import argparse

import pytest

from multihead.parsers import Last, Parser, one_of, pair, span


def made():
    parser = Parser(prog="tool")
    parser.add_argument("--epochs", type=int, action=Last)
    parser.add_argument("--lr", type=float, action=Last)
    return parser


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("--epoch=3", "unknown argument '--epoch=3'; did you mean --epochs?"),
        ("--zzz", "unknown argument '--zzz'\n"),
        ("photos", "unknown argument 'photos'\n"),
    ],
)
def test_unknown_arguments_suggest_the_nearest(token, message, capsys):
    parser = made()
    _, rest = parser.parse_known_args([token])
    with pytest.raises(SystemExit) as ended:
        parser.refuse_unknown(rest)
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert parser.refuse_unknown([]) is None


@pytest.mark.parametrize("line", ["--epochs 3 --lr 1", "--lr 1 --epochs 3", "--lr 9 --epochs 3 --lr 1"])
def test_values_stand_in_the_order_of_the_flags_that_came_last(line):
    found = vars(made().parse_args(line.split()))
    assert found == {"epochs": 3, "lr": 1.0} and [*found][-1] == line.split()[-2].removeprefix("--")


def test_one_of():
    assert one_of(["full", "face"])("FACE") == "face"
    with pytest.raises(argparse.ArgumentTypeError, match="'fase' is none of full, face; did you mean 'face'"):
        one_of(["full", "face"])("fase")


def test_spans_and_pairs():
    assert span("57-59") == (57, 59) and span("40") == (40, 40)
    assert pair(float)("age=.5") == ("age", 0.5)
    for take, text in ((span, "old"), (pair(float), "age"), (pair(float), "age=much")):
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            take(text)
