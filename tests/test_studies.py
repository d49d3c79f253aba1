"""Every study of examples/studies/ is a comparison that could start: nothing is trained here."""

import re
from itertools import combinations
from pathlib import Path

import pytest
import timm
import yaml
from test_arms import arms_of

from multihead import cli
from multihead.arms import changes
from multihead.heads import HEADS, base, space
from multihead.settings import build_heads

STUDIES = sorted((Path(__file__).parents[1] / "examples" / "studies").glob("*.yaml"))


def network(arm):
    return arm.model.args[0]


def test_there_are_studies():
    assert len(STUDIES) >= 9


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_makes_arms_that_can_be_compared(path):
    arms = arms_of("-c", path)
    assert list(arms) == [str(name) for name in yaml.safe_load(path.read_text())["arms"]] and len(arms) > 1
    assert {space(build_heads(network(arm))) for arm in arms.values()} == {space(base(HEADS))}
    for (one, left), (other, right) in combinations(arms.items(), 2):
        assert left.identity() != right.identity(), f"{one} and {other} are the same"
    assert all(timm.is_model(network(arm).model) for arm in arms.values())
    assert len({(arm.recipe.epochs, arm.recipe.epoch_photos) for arm in arms.values()}) == 1  # the same effort


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_its_head_says_how_to_run_it(path):
    text = path.read_text()
    head, command = re.match(r"# (\w[^\n]+\.)\n(?:# .*\n)*?#   multihead (.+)\n", text).groups()
    tokens = command.split()
    verb = cli._parse(cli._parser(tokens), tokens)
    assert verb.verb == "compare" and Path(verb.config).name == path.name and verb.data == ["DATA"]
    assert Path(verb.output).name == path.stem and head
    assert changes(yaml.safe_load(text), verb.vary)
    backbones = {arm.get("model") for arm in yaml.safe_load(text)["arms"].values()}
    assert not (verb.pretrained_path and len(backbones) > 1), "a file of weights is one backbone's"
