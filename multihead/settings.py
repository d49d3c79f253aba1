"""What the command line's flags describe, and the photos, heads, model and device made of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multihead import flags, parsers
from multihead.options import between, choice, near, option, whole

if TYPE_CHECKING:
    from multihead.cache import Cache
    from multihead.heads import Head


EXTRA_HELP = "more folders or tables, for training only (default: none)"


@dataclass(frozen=True)
class Sources:
    """What the photos are read from, beside the positional folders and tables."""

    boxes: str | None = option(
        None, "CSV of `multihead scan` (default: faces are searched where a crop needs one)", metavar="FILE"
    )
    columns: Mapping[str, str] = option(
        None, "names of the table's columns, as person=person_id age=years (default: by name)", "", dict
    )
    labels: Mapping[str, str] = option(
        None, "words of the table's cells, as gender:V=female mask:?= (default: classes by name or index)", "", dict
    )
    people: str = option(
        "local",
        "person ids are a source's own (local), or name the same person in all sources",
        metavar="{local,global}",
    )


@dataclass(frozen=True)
class Network:
    """The model: backbone, weights, heads and crops."""

    model: str = option("resnet18", "backbone, any of timm's names", metavar="NAME")
    pretrained: bool = option(False, "download timm's weights of the backbone")
    pretrained_path: str | None = option(None, "file of timm weights for the backbone (default: none)", metavar="FILE")
    initial_checkpoint: str | None = option(
        None, "start from a timm or 18-way checkpoint, or a model folder (default: from the backbone)", metavar="PATH"
    )
    resize: tuple[int, ...] = option((224,), "height and width of the crops in pixels; one value is a square")
    heads: tuple[str, ...] = option((), "some of mask, gender, age (default all), and your own: tone=dark,light")
    flat: bool = option(False, "one head over all combinations (the 18-way baseline)")
    crops: tuple[str, ...] = option(
        ("full",), "what the heads read: face, body or full; for all (face), or each: mask=face age=face,body:160x112"
    )
    drop: float = option(0.0, "dropout before the heads")
    drop_path: float = option(0.0, "stochastic depth of the backbone")


@dataclass(frozen=True)
class Training:
    """Which photos train."""

    rows: str = option(
        "all", "training rows: all, or full (those that know all heads of the model)", metavar="{all,full}"
    )

    def __post_init__(self) -> None:
        choice("training", "rows", self.rows, ("all", "full"))


@dataclass(frozen=True)
class Session:
    """How a run is carried out; none of it changes the result, except the choice of validation photos."""

    output: str = option("runs/train", "run folder", short="-o")
    resume: bool = option(False, "go on where the run folder stands, with the flags (and DATA) of its args.yaml")
    val_share: float = option(0.2, "share of the people that validates where there is no split column; 0 for none")
    ignore_split: bool = option(False, "do not use the table's split column")
    extra: tuple[str, ...] = option((), EXTRA_HELP, metavar="DATA")
    workers: int = option(2, "loader processes", short="-j")
    device: str = option("auto", "cpu, cuda, or auto")

    def __post_init__(self) -> None:
        whole("run", "workers", self.workers, 0)
        between("run", "val_share", self.val_share, 0, 0.99)


@dataclass(frozen=True)
class Keeping:
    """Where decoded crops are kept between epochs and runs; it changes no pixel."""

    cache: bool = option(True, "keep decoded crops in files that runs share; without it, in memory")
    cache_folder: str | None = option(
        None, "folder of those files (default: in the user's cache folder)", metavar="DIR"
    )

    def opened(self) -> Cache:
        """The cache."""
        from multihead.cache import open_cache

        return open_cache(self.cache_folder or True if self.cache else False)


def named_heads(texts: Sequence[str]) -> tuple[Head, ...]:
    """Heads by name, or spelled out. Raises: ValueError for an unknown name, or what spells no head."""
    from multihead.heads import HEADS, base
    from multihead.spelling import parse_head

    ours = {head.name: head for head in HEADS}
    for text in texts:
        if "=" not in text and text not in ours:
            raise ValueError(
                f"unknown head {text!r}; expected some of {', '.join(ours)}{near(text, ours)}, or one of your "
                "own with its classes, as tone=dark,light"
            )
    return base([ours[text] if text in ours else parse_head(text) for text in texts or ours])


MIXES = ("cutmix", "mixup")


def add_mix_flags(parser: argparse.ArgumentParser) -> None:
    """timm's flags of mixing, each short for a part of --mix."""
    group = parser.add_argument_group("mixing, as timm names it")
    for name in MIXES:
        group.add_argument(f"--{name}", type=float, metavar="ALPHA", help=f"short for --mix '{name}(alpha=ALPHA)'")
    often = "how often a batch is mixed (default: that of the mix, as 0.5)"
    group.add_argument("--mixup-prob", type=float, help=often, action=parsers.Last)
    off = "first epoch without mixing (default: all mix)"
    group.add_argument("--mixup-off-epoch", type=int, help=off, action=parsers.Last)


def build_recipe(values: Mapping[str, Any]) -> Any:
    """The Recipe of parsed flags, timm's flags of mixing included.

    Raises: ValueError where two flags ask for different mixing, or a part of one for none.
    """
    import dataclasses

    from multihead.mixing import CutMix, MixUp
    from multihead.recipe import Recipe

    recipe = flags.build(Recipe, values)
    kinds = {"cutmix": CutMix, "mixup": MixUp}
    asked = [name for name in MIXES if values.get(name)]
    if len(asked) + (recipe.mix is not None) > 1:
        raise ValueError(f"--{' and --'.join([*asked, *(['mix'] if recipe.mix else [])])}: choose one")
    mix = kinds[asked[0]](alpha=values[asked[0]]) if asked else recipe.mix
    parts = {"prob": "mixup_prob", "off_epoch": "mixup_off_epoch"}
    given = {name: values[key] for name, key in parts.items() if values.get(key) is not None}
    if given and mix is None:
        raise ValueError("--mixup-prob and --mixup-off-epoch belong to --cutmix, --mixup or --mix")
    places, text = list(values), getattr(values.get("mix"), "given", ())  # of two that say the same, the later wins
    given = {
        name: value
        for name, value in given.items()
        if name not in text or places.index(parts[name]) > places.index("mix")
    }
    return dataclasses.replace(recipe, mix=dataclasses.replace(mix, **given) if given else mix)


def build_model(network: Network, say: Callable[[str], None]) -> Any:
    """The model of the flags, with its weights; says what an initial checkpoint gave."""
    from multihead.model import Model

    weights = network.pretrained_path or network.pretrained
    model = Model(network.model, build_heads(network), weights, drop=network.drop, drop_path=network.drop_path)
    if network.initial_checkpoint:
        from multihead.checkpoint import start_from

        say(f"{network.initial_checkpoint}: {start_from(model, network.initial_checkpoint)}")
    return model


def build_heads(network: Network) -> tuple[Head, ...]:
    """The table of heads that the flags describe. Raises: ValueError for an unknown head or crop."""
    from multihead.heads import HEADS, flat

    chosen = named_heads(network.heads)
    known = [head.name for head in (*HEADS, *chosen)]
    for name in (part.split("=")[0] for part in network.crops if "=" in part):
        if name not in known:
            raise ValueError(f"--crops of unknown head {name!r}; there are {', '.join(known)}{near(name, known)}")
    if len(network.resize) > 2 or min(network.resize) < 1:
        raise ValueError(
            f"--resize {' '.join(map(str, network.resize))}; expected height and width, or one side of a square"
        )
    given = dict(part.split("=", 1) for part in network.crops if "=" in part)
    common = next((part for part in network.crops if "=" not in part), "full")
    heads = tuple(head.on(*build_crops(given.get(head.name, common), network.resize)) for head in chosen)
    return flat(heads) if network.flat else heads


def build_crops(text: str, resize: Sequence[int]) -> list[Any]:
    """Crops from text such as "face,body:160x112"."""
    from multihead.crops import BODY, FACE, FULL

    known = {"face": FACE, "body": BODY, "full": FULL}
    found = []
    for part in text.split(","):
        name, _, size = part.partition(":")
        sides = size.lower().split("x") if size else [str(side) for side in resize]
        if name not in known or len(sides) > 2 or not all(side.isdigit() and int(side) for side in sides):
            raise ValueError(
                f"unknown crop {part!r}{near(name, known)}; "
                "expected face, body or full, with a size as in body:160x112 if you like"
            )
        found.append(known[name].resized(*(int(side) for side in sides)))
    return found


def device(name: str) -> Any:
    """The torch device of a name; under torchrun each process takes its own GPU.

    Raises: ValueError for a device that is not to be had.
    """
    import os

    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(name)
    try:
        torch.empty(1, device=name).cpu()
    except Exception as error:  # of an unknown name, or a kind, or a number, that this machine does not have
        raise ValueError(f"--device {name} is not to be had here; expected cpu, cuda (with a GPU), or auto") from error
    return torch.device(name)


def with_tta(model: Any, views: Sequence[str]) -> Any:
    """The model, answering with the mean over these views where some are named."""
    from multihead.tta import from_names

    return from_names(model, views) if views else model


def speaker(args: argparse.Namespace) -> Callable[[str], None]:
    """What a verb says with: print, or nothing with --quiet."""
    return silent if args.quiet else lambda text: print(text, flush=True)


def silent(text: str) -> None:
    """Say nothing."""
