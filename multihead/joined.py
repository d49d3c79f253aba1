"""Several models as one: a mean over equal joint spaces, and a product over disjoint heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from multihead.adjusted import Adjusted
from multihead.configs import read_config
from multihead.crops import Crop
from multihead.evaluation import check_classifier
from multihead.files import read_json
from multihead.folders import described, save_members
from multihead.heads import Head, base, space
from multihead.model import Model
from multihead.options import choice
from multihead.runtimes import Exported, is_exported
from multihead.tta import TTA

Member: TypeAlias = "Model | Ensemble | Combined | Adjusted | TTA | Exported"


TIE = 1e-6  # shares of votes that differ by less are tied


class Ensemble(nn.Module):
    """The members' vote over one joint space: soft, the weighted mean of their joint probabilities (not the product of
    mean heads), or hard, the weighted share of members whose likeliest joint class it is.

    members: models of equal joint space (multi-head, flat, combined, adjusted) of any backbone, crops and sizes, or a
    torch module of yours with `space`, `crops` and `probs`; each distinct crop is read once. weights: one positive
    number each, by default equal; they are scaled to sum to one.
    voting: "soft" or "hard". A tie of a hard vote goes to the class of the higher weighted mean probability.

    Raises: ValueError for no member, unequal spaces or bands, weights that do not fit, or another voting.
    """

    space: tuple[Head, ...]
    heads: tuple[Head, ...]
    crops: tuple[Crop, ...]
    prior: tuple[float, ...] | None

    def __init__(
        self, members: Sequence[Member], weights: Sequence[float] | None = None, *, voting: str = "soft"
    ) -> None:
        super().__init__()
        if isinstance(members, nn.Module):
            raise TypeError(f"members is a {type(members).__name__}; expected a list of models, as Ensemble([a, b])")
        if not members:
            raise ValueError("Ensemble needs at least one member")
        for member in members:
            check_classifier(member)
        choice("ensemble", "voting", voting, ("soft", "hard"))
        self.voting = voting
        self.members = nn.ModuleList(members)
        self.space = space(members[0].space)
        for number, member in enumerate(members):
            if space(member.space) != self.space:
                same = set(space(member.space)) == set(self.space)
                why = "the order of the heads is another" if same else "multihead.combine joins models of unlike heads"
                raise ValueError(
                    f"member {number} answers {_describe(member.space)}, member 0 {_describe(self.space)}; "
                    f"an ensemble needs equal joint spaces ({why})"
                )
        self.heads = _joined_heads(members, self.space)
        given = [1.0] * len(members) if weights is None else [float(weight) for weight in weights]
        if len(given) != len(members) or not all(0 < weight < math.inf for weight in given):
            raise ValueError(f"weights {weights} do not fit {len(members)} members; expected a positive number each")
        self.weights = tuple(weight / sum(given) for weight in given)
        self.crops = tuple(dict.fromkeys(crop for member in members for crop in member.crops))
        self.prior = _mean_prior(members, self.weights)

    def __repr__(self) -> str:
        """A line for itself, and one or more a member, with its weight."""
        names = ", ".join(head.name for head in self.space)
        members = [f"{weight:.3g} {member!r}" for weight, member in zip(self.weights, self.members)]
        return described("Ensemble", f"{self.voting} voting on {names}; weights and members:", members)

    def probs(self, images: Mapping[Crop, Tensor], present: Tensor | None = None) -> Tensor:
        """Joint probabilities (B, K), of a hard vote the shares of votes, in float64 where the device knows it; each
        member reads its crops."""
        mean = votes = torch.zeros(())
        for member, weight in zip(self.members, self.weights):
            row = _member_probs(self, member, images, present)  # type: ignore[arg-type]
            if self.voting == "hard" and row.device.type != "mps":  # which knows no f64
                row = row.double()  # what breaks a tie is less than float32 can hold
            mean = mean.to(row) + weight * row
            votes = votes.to(row) + weight * nn.functional.one_hot(row.argmax(1), row.shape[1]).to(row)
        return mean if self.voting == "soft" else (votes + TIE * mean) / (1 + TIE)

    def save(self, folder: str | Path) -> None:
        """Write the members as member0, member1, ..., the weights and the voting; `multihead.load` opens it."""
        save_members(folder, "ensemble", self.members, {"weights": list(self.weights), "voting": self.voting})


class Combined(nn.Module):
    """Models of different heads as one model over all their heads; made by `combine`."""

    space: tuple[Head, ...]
    heads: tuple[Head, ...]
    crops: tuple[Crop, ...]
    prior: tuple[float, ...] | None

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        if isinstance(members, nn.Module):
            raise TypeError(f"models is a {type(members).__name__}; expected a list of models, as combine([a, b])")
        if not members:
            raise ValueError("combine() needs at least one model")
        for member in members:
            check_classifier(member)
        self.members = nn.ModuleList(members)
        self.space = base([head for member in members for head in member.space])
        self.heads = _joined_heads(members, self.space)
        self.crops = tuple(dict.fromkeys(crop for member in members for crop in member.crops))
        priors = [prior for prior in map(_prior, members) if prior is not None]
        self.prior = _product_prior(priors) if len(priors) == len(members) else None

    def __repr__(self) -> str:
        """A line for itself, and one or more a member."""
        names = ", ".join(head.name for head in self.space)
        return described("Combined", f"{names} of:", map(repr, self.members))

    def probs(self, images: Mapping[Crop, Tensor], present: Tensor | None = None) -> Tensor:
        """Joint probabilities (B, K): the product of the members' own, first member slowest."""
        product: Tensor | None = None
        for member in self.members:
            part = _member_probs(self, member, images, present)  # type: ignore[arg-type]
            product = part if product is None else (product[:, :, None] * part[:, None, :]).flatten(1)  # (B, K so far)
        assert product is not None
        return product

    def save(self, folder: str | Path) -> None:
        """Write the members as member0, member1, ...; `multihead.load` opens it."""
        save_members(folder, "combined", self.members, {})


def combine(models: Sequence[Member]) -> Combined:
    """One model of several whose heads differ, for example three single-head models: its joint distribution is the
    product of theirs, in the order given.

    Raises: ValueError where two of them answer the same head.
    """
    return Combined(models)


def load(folder: str | Path) -> Member:
    """The model, ensemble, combination, adjusted or exported model of a folder, ready to answer; nothing in the folder
    is run.

    Raises: FileNotFoundError or ValueError where it is no such folder; ImportError where an exported model needs a
    package that is not installed.
    """
    folder = home(folder)
    listed = folder / "ensemble.json"
    if not listed.is_file():
        if is_exported(folder):
            return Exported(folder)
        return Model.from_pretrained(_own(folder))
    content = read_json(listed)
    makers: dict[str, Callable[[list[Any]], Any]] = {
        "ensemble": lambda members: Ensemble(members, content["weights"], voting=content.get("voting", "soft")),
        "combined": Combined,
        "adjusted": lambda members: Adjusted.from_dict(members[0], content),
        "tta": lambda members: TTA(members[0], **content["views"]),
    }
    if not isinstance(content, dict) or content.get("kind") not in makers or not content.get("members"):
        raise ValueError(f"{listed} is not of a multihead ensemble; expected what Ensemble.save wrote")
    made: Member = makers[content["kind"]]([load(folder / name) for name in content["members"]])
    return made.eval()


def home(folder: str | Path) -> Path:
    """The folder that `load` reads: of a run that of its model, else the folder itself."""
    folder = Path(folder)
    if (folder / "ensemble.json").is_file() or (folder / "config.json").exists() or not (folder / "model").is_dir():
        return folder
    return home(folder / "model")


def _own(folder: Path) -> Path:
    if (folder / "fold0").is_dir():
        raise FileNotFoundError(
            f"{folder} holds folds, not one model; multihead ensemble makes one of them, or name one, as its fold0"
        )
    if not (folder / "config.json").is_file() and (folder / "checkpoints" / "last.pt").is_file():
        raise FileNotFoundError(
            f"{folder} is a run that has not ended; go on with it: multihead train --resume -o {folder}, or resume=True"
        )
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} is no model folder; expected config.json (save_pretrained), ensemble.json, or model/ of a run"
        )
    read_config(folder)  # what is wrong with it is told here, not by the hub's reader
    return folder


def _joined_heads(members: Sequence[Member], table: Sequence[Head]) -> tuple[Head, ...]:
    """The heads of a table with the bands of the members, and the crops from which any of them reads each.

    Raises: ValueError where members of one name band unlike.
    """
    named = [(number, head) for number, member in enumerate(members) for head in _parts(member)]
    heads = []
    for name in (head.name for head in table):
        mine = [(number, head) for number, head in named if head.name == name]
        banded = [(number, head) for number, head in mine if head.edges] or mine
        first, shown = banded[0]
        for number, head in banded:
            if (head.edges, head.number) != (shown.edges, shown.number):
                one, other = (f"at {each.edges} of {each.number}" for each in (head, shown))
                raise ValueError(
                    f"member {number} bands {name} {one}, member {first} {other}: these are other classes, however "
                    "they are named"
                )
        heads.append(shown.on(*dict.fromkeys(crop for _, head in mine for crop in head.crops)))
    return tuple(heads)


def _parts(member: Member) -> list[Head]:
    """The base heads of a member, each with the crops that it is answered from: for a flat head's parts, its own."""
    heads = getattr(member, "heads", member.space)
    return [part.on(*head.crops) for head in heads for part in (head.parts or (head,))]


def _member_probs(
    whole: Ensemble | Combined, member: Member, images: Mapping[Crop, Tensor], present: Tensor | None
) -> Tensor:
    """A member's probabilities, with the columns of `present` that are its crops."""
    if present is not None:
        present = present[:, [whole.crops.index(crop) for crop in member.crops]]
    return member.probs(images, present)


def _prior(member: Member) -> tuple[float, ...] | None:
    return getattr(member, "prior", None)  # a module of the user's own may have none


def _mean_prior(members: Sequence[Member], weights: Sequence[float]) -> tuple[float, ...] | None:
    priors = [_prior(member) for member in members]
    if None in priors:
        return None
    return tuple(sum(weight * share for weight, share in zip(weights, shares)) for shares in zip(*priors))  # type: ignore[call-overload, misc]


def _product_prior(priors: Sequence[Sequence[float]]) -> tuple[float, ...]:
    product = [1.0]
    for prior in priors:
        product = [left * right for left in product for right in prior]
    return tuple(product)


def _describe(table: Sequence[object]) -> str:
    return str([(head.name, head.classes) for head in table])  # type: ignore[attr-defined]
