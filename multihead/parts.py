"""The photos that a verb of the command line reads, their parts, and which of them train."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from multihead import flags
from multihead.logs import tell
from multihead.settings import Session, Sources, Training, named_heads

if TYPE_CHECKING:
    from multihead.data import Photos
    from multihead.heads import Head

HELD_OUT = "the table's split column holds them out, so leave them out of --extra"


def read_sources(
    args: argparse.Namespace, sources: Sequence[str] | None = None, heads: Sequence[Head] | None = None
) -> Photos:
    """The photos of the verb's folders and tables."""
    from multihead.reading import read

    chosen = flags.build(Sources, vars(args))
    options = {"boxes": chosen.boxes, "columns": chosen.columns, "labels": chosen.labels, "people": chosen.people}
    return read(list(sources or args.data), heads=_asked(args) if heads is None else heads, **options)


def _asked(args: argparse.Namespace) -> tuple[Head, ...]:
    """The heads that labels are read for: ours, or those of the flags where some are the user's own."""
    from multihead.heads import HEADS

    spelled = tuple(getattr(args, "heads", None) or ())
    return named_heads(spelled) if any("=" in text for text in spelled) else HEADS


def scored_part(photos: Photos, asked: str | None = None) -> tuple[str, Photos]:
    """The part of a table that scores a model, and its rows: the one asked for, else val of the split column, else test
    of it, else "all"."""
    present = set(photos.table.split)
    part = asked or next((name for name in ("val", "test") if name in present), "all")
    return part, photos if part == "all" else photos.part(part)


def parts(args: argparse.Namespace, session: Session, seed: int) -> tuple[Photos, Photos | None]:
    """Training and validation photos: the split column's, and where it names none, a share of the people."""
    from multihead.leaks import check_disjoint

    photos = read_sources(args)
    marked = (photos.table.split != "").any() and not session.ignore_split
    valid: Photos | None = None
    held_out: list[Photos] = []
    if marked:
        named = photos.with_columns(split=photos.table.split.replace("", "train")).parts()
        photos, valid = named.get("train", photos[:0]), named.get("val")
        held_out = [part for name, part in named.items() if name != "train"]
    training = photos
    if valid is None and session.val_share:
        if marked:
            told = (
                f"the split column names no val: {session.val_share:g} of its people validate; --val-share 0 for none"
            )
            tell(f"note: {told}")
        training, valid = photos.split(session.val_share, seed=seed)
    for source in session.extra:
        more = _extra(args, [source], session.ignore_split)
        for part in held_out:
            check_disjoint(more, part, HELD_OUT)
        training = training + more
    return training, valid


def training_photos(
    args: argparse.Namespace, say: Callable[[str], None], what: str = "folds of"
) -> tuple[Photos, Photos | None]:
    """The photos that folds are made of, and those of --extra: the train part of a split column, with the rows that it
    leaves blank, unless it is ignored. what: is said before "the train part".

    Raises: LeakError where a person or file is in two parts, or an extra photo is of people that are held out.
    """
    from multihead.leaks import check_disjoint

    photos = read_sources(args)
    extra = _extra(args, args.extra, args.ignore_split) if getattr(args, "extra", None) else None
    if not (photos.table.split != "").any() or args.ignore_split:
        return photos, extra
    named = photos.with_columns(split=photos.table.split.replace("", "train")).parts()
    say(f"{what} the train part of the split column; --ignore-split takes all")
    for name, part in named.items():
        if name != "train" and extra is not None:
            check_disjoint(extra, part, HELD_OUT)
    if "train" not in named:
        raise ValueError(f"the split column holds {sorted(named)} and no train; --ignore-split takes all photos")
    return named["train"], extra


def _extra(args: argparse.Namespace, sources: Sequence[str], ignore_split: bool) -> Photos:
    """More training photos: where their split column names a train part, that; others are held out there."""
    photos = read_sources(args, sources)
    free = photos.table.split.isin(["", "train"]).to_numpy()
    if ignore_split or free.all() or not (photos.table.split == "train").any():
        return photos
    kept = photos[free]
    told = f"of --extra {' '.join(sources)} the {len(kept)} rows that its split column does not hold out"
    tell(f"note: {told}; --ignore-split takes all {len(photos)}")
    return kept


def tell_of_starts(starts: Iterable[Any], scored: Photos, which: str = "") -> None:
    """Say on stderr which of the photos that are scored trained the weights that training begins with."""
    from multihead import ranks
    from multihead.trained import seen_before

    for told in dict.fromkeys(told for start in starts for told in seen_before(start, scored)):
        ranks.say(f"note: {which}{told}")


def chosen_rows(photos: Photos, training: Training, heads: Sequence[Head]) -> Photos:
    """The photos that may train a model of these heads. Raises: ValueError where none is left."""
    from multihead.heads import UNKNOWN

    if training.rows == "all":
        return photos
    kept = photos[(photos.labels(heads) != UNKNOWN).all(1)]
    if not len(kept):
        raise ValueError("--rows full: no training photo knows all heads of the model")
    return kept
