"""The verb folds: a model a fold, and every photo answered by the model that did not see its person."""

from __future__ import annotations

import argparse
import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multihead import flag_files, flags
from multihead.parts import tell_of_starts, training_photos
from multihead.recipe import Recipe
from multihead.settings import (
    EXTRA_HELP,
    Keeping,
    Network,
    Sources,
    Training,
    build_model,
    build_recipe,
    device,
    silent,
    speaker,
)
from multihead.trained import STARTED_IN
from multihead.workbench import add_training_flags, need_data

if TYPE_CHECKING:
    import pandas as pd


def folds(args: argparse.Namespace) -> int:
    """Train a model a fold (its last epoch), people whole; score every photo by the one that did not see it."""
    need_data(args)
    import yaml

    from multihead import ranks
    from multihead.ensemble import fit_folds
    from multihead.files import write_text
    from multihead.heads import size as joint_classes

    values, out = vars(args), Path(args.output)
    network, rows, recipe = flags.build(Network, values), flags.build(Training, values), build_recipe(values)
    ranks.start()
    say = speaker(args) if ranks.first() else silent
    photos, extra = training_photos(args, say)
    say(f"{photos} in {f'the folds of column {args.fold_column}' if args.fold_column else f'{args.folds} folds'}")
    tell_of_starts([network.initial_checkpoint], photos)
    make = functools.partial(build_model_on, network, args.device)
    found = fit_folds(
        make,
        photos,
        recipe,
        out=out,
        folds=args.folds,
        column=args.fold_column,
        only=args.fold,
        extra=extra,
        rows=rows.rows,
        about=flag_files.effective(Network, network),
        processes=args.processes,
        workers=args.workers,
        cache=flags.build(Keeping, values).opened(),
        say=say,
    )
    if ranks.first() and not (out / "args.yaml").exists():
        settings = flag_files.effective(Network, network) | flag_files.effective(Recipe, replace(recipe, select="last"))
        settings |= flag_files.effective(Sources, flags.build(Sources, values)) | flag_files.effective(Training, rows)
        own = {"fold_column": args.fold_column} if args.fold_column else {"folds": args.folds}
        own |= {"extra": args.extra, "ignore_split": args.ignore_split}
        settings = {"data": args.data, **{name: value for name, value in own.items() if value}, **settings}
        settings[STARTED_IN] = str(Path.cwd())
        write_text(out / "args.yaml", yaml.safe_dump(settings, sort_keys=False))
    if found is not None:
        say(_table(found, joint_classes(photos.heads)))
        say(f"wrote {out}: photos.csv, oof.csv, scores.csv and a run folder a fold")
    return 0


def _table(found: pd.DataFrame, classes: int) -> str:
    """The scores of folds, each with its interval, as text; classes: how many joint classes there are."""
    import pandas as pd

    metrics = [name.removesuffix("_low") for name in found.columns if name.endswith("_low")]
    shown: dict[str, Any] = {"": found.part, "photos": found.photos, "all known": found.n, "people": found.people}
    for name in metrics:
        rows = found[[name, f"{name}_low", f"{name}_high"]].astype(float).to_numpy()
        title = f"{classes} classes" if name == "macro_f1" else name.removesuffix("_f1")
        shown[title] = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in rows]
    return pd.DataFrame(shown).to_string(index=False)


def build_model_on(network: Network, place: str) -> Any:
    """The model of the flags on a device."""
    return build_model(network, silent).to(device(place))


def folds_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead folds`."""
    parser.add_argument("-o", "--output", default="runs/folds", help="folder (default runs/folds)")
    parser.add_argument("--folds", type=int, default=5, help="parts by person (default 5)")
    parser.add_argument(
        "--fold-column",
        metavar="COLUMN",
        help="column of the table that names each row's fold (default: they are dealt)",
    )
    parser.add_argument(
        "--fold", type=int, nargs="+", help="only these folds now, from 0; others elsewhere or later (default: all)"
    )
    parser.add_argument("--processes", type=int, default=1, help="folds trained at a time (default 1)")
    parser.add_argument("--extra", nargs="+", default=[], metavar="DATA", help=EXTRA_HELP)
    parser.add_argument("--ignore-split", action="store_true", help="do not use the table's split column")
    parser.add_argument("-j", "--workers", type=int, default=0, help="loader processes of a fold (default 0)")
    flags.add_flags(parser, Keeping, "kept crops")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (default auto)")
    add_training_flags(parser)
