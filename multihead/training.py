"""The verb train: a run folder from flags, photos and a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from multihead import flags, workbench
from multihead.flag_files import effective
from multihead.logs import watched
from multihead.parts import chosen_rows, parts, tell_of_starts
from multihead.recipe import Recipe
from multihead.settings import (
    Keeping,
    Network,
    Session,
    Sources,
    Training,
    build_heads,
    build_model,
    build_recipe,
    device,
    silent,
    speaker,
)
from multihead.trained import STARTED_IN


def train(args: argparse.Namespace) -> int:
    """Train a model on labelled photos; leaves a run folder with the model, its scores and its checkpoints."""
    workbench.need_data(args)
    values = vars(args)
    network, session = flags.build(Network, values), flags.build(Session, values)
    keeping = flags.build(Keeping, values)
    recipe, rows = build_recipe(values), flags.build(Training, values)
    import torch
    import yaml

    from multihead import ranks
    from multihead.files import write_text
    from multihead.logs import line
    from multihead.outputs import claim
    from multihead.train import prepare

    ranks.start()
    say = speaker(args) if ranks.first() else silent
    training, valid = parts(args, session, recipe.seed)
    training = chosen_rows(training, rows, build_heads(network))
    say(f"training on {training}")
    say(f"validating on {valid}" if valid is not None else "no photos validate")
    if valid is not None:
        tell_of_starts([network.initial_checkpoint], valid, "validation: ")
    torch.manual_seed(recipe.seed)
    model = build_model(network, say).to(device(session.device))
    held = claim(session.output, resume=session.resume, alone=ranks.first())
    try:
        if ranks.first() and held.last is None:
            settings = effective(Network, network) | effective(Session, session) | effective(Recipe, recipe)
            settings |= effective(Sources, flags.build(Sources, values)) | effective(Training, rows)
            settings |= effective(Keeping, keeping)
            settings = {"data": args.data, **{key: value for key, value in settings.items() if key != "resume"}}
            settings[STARTED_IN] = str(Path.cwd())  # what the names of photos and other files are relative to
            write_text(held.folder / "args.yaml", yaml.safe_dump(settings, sort_keys=False))
        options = {"workers": session.workers, "cache": keeping.opened(), "resume": session.resume}
        for row in prepare(model, training, valid, recipe, out=held, **options).epochs(not args.quiet and watched()):
            say(line(row))
    finally:
        held.release()
    _train_report(held.folder, say)
    return 0


def _train_report(folder: Path, say: Callable[[str], None]) -> None:
    import json

    if (folder / "metrics.json").is_file():
        scores = json.loads((folder / "metrics.json").read_text())
        heads = ", ".join(f"{name} {_number(head['macro_f1'])}" for name, head in scores["heads"].items())
        say(f"kept model: macro-F1 {_number(scores['macro_f1'])} on {scores['n']} photos ({heads})")
    names = ("model", "checkpoints", "metrics.csv", "metrics.json", "splits.csv", "args.yaml")
    say(f"wrote {folder}: {', '.join(name for name in names if (folder / name).exists())} and event files")


def train_arguments(parser: argparse.ArgumentParser) -> None:
    flags.add_flags(parser, Session, "run")
    flags.add_flags(parser, Keeping, "kept crops")
    workbench.add_training_flags(parser)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
