"""The verb tune: a search over the flags of `multihead train`, each combination checked by parsing it."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multihead import flag_files, flags
from multihead.arms import arm_parser, build_arm, complaining, split
from multihead.parts import tell_of_starts, training_photos
from multihead.recipe import Recipe
from multihead.settings import Keeping, build_recipe, speaker
from multihead.spaces import Axis, Span, read_space, spell_axis, suggest
from multihead.study import Plan, need_optuna
from multihead.workbench import add_training_flags, need_data

if TYPE_CHECKING:
    from multihead.ways import Arm

Changes = Mapping[str, Any]


def arm_of(args: argparse.Namespace, changes: Changes) -> Arm:
    """The way to train that the verb's flags describe with some changed; its `about` are all flags of a model and
    recipe, as `multihead train -c` reads them.

    Raises: ValueError where a flag refuses its value, or flags do not go together.
    """
    parser = arm_parser()
    words = {key: _words(value, parser, key) for key, value in changes.items()}
    tokens, _ = flag_files.yaml_tokens(words, parser, "space")
    told = vars(complaining(parser.parse_args, tokens)).items()
    changed = {key: value for key, value in told if value is not None}
    # after the verb's flags: of a spelled object and a flag of its field the later wins
    arm = build_arm({key: value for key, value in vars(args).items() if key not in changed} | changed)
    settings = {**arm.about, "rows": arm.rows, **flag_files.effective(Recipe, arm.recipe)}
    return dataclasses.replace(arm, about=settings)


def _words(value: Any, parser: argparse.ArgumentParser, key: str) -> Any:
    """The words of a text for a flag that takes several; spaces within brackets and around + and * part none."""
    several = any(action.dest == key and action.nargs == "+" for action in parser._actions)
    if not several or not isinstance(value, str):
        return value
    return split(re.sub(r"\s*([+*])\s*", r"\1", value.strip()), " ")


def check_space(space: Mapping[str, Axis], make: Callable[[Changes], Arm]) -> None:
    """Nothing where every choice, and both ends of every span, can be trained with, alone or with another key's.

    Raises: ValueError that names the key and what its flag says.
    """
    make({})  # the settings themselves
    for key, found in space.items():
        for value in _ends(found):
            complaint = _complaint(make, {key: value})
            others = ((other, with_) for other in space if other != key for with_ in _ends(space[other]))
            # --momentum is refused with adamw, but not with sgd
            if complaint and all(_complaint(make, {key: value, other: with_}) for other, with_ in others):
                raise ValueError(f"space: {key}: {complaint}")


def _ends(found: Axis) -> Sequence[Any]:
    return found.ends if isinstance(found, Span) else found


def _complaint(make: Callable[[Changes], Arm], changes: Changes) -> str:
    """What is wrong with these changes, "" where nothing is."""
    try:
        make(changes)
    except ValueError as error:
        return str(error)
    return ""


def unchanged(space: Mapping[str, Axis], make: Callable[[Changes], Arm]) -> tuple[dict[str, Any], list[str]]:
    """The parameters that change nothing, and the keys whose present value is not in the space."""
    base = make({})
    found = {key: next(_same(key, one, base, make), None) for key, one in space.items()}
    return {key: held[0] for key, held in found.items() if held}, [key for key, held in found.items() if not held]


def _same(key: str, found: Axis, base: Arm, make: Callable[[Changes], Arm]) -> Iterator[tuple[Any]]:
    """Each value (in a tuple) that makes the arm as it is."""
    value: Any = base.about.get(key)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    for one in ([value] if value in found else []) if isinstance(found, Span) else found:
        if not _complaint(make, {key: one}) and make({key: one}).identity() == base.identity():
            yield (one,)


# ---- tune


def tune(args: argparse.Namespace) -> int:
    """Search for the recipe, backbone and crops that score best on folds of people; goes on if repeated."""
    need_data(args)
    need_optuna()
    content = flag_files.read_yaml(args.config) if args.config else {}
    space, plan, say = read_space(content.get("space"), args.space), flags.build(Plan, vars(args)), speaker(args)

    def make(changes: Changes) -> Arm:
        return arm_of(args, changes)

    check_space(space, make)
    first, outside = unchanged(space, make)
    base = make({})
    photos, _ = training_photos(args, say, "searching on")
    from multihead.trials import ENOUGH, best_trial
    from multihead.tune import search

    say(f"searching {_told(space)}; {plan.folds} folds of {photos}")
    tell_of_starts([base.about.get("initial_checkpoint")], photos)
    if outside:
        say(f"{', '.join(outside)} as given is not in the space, so no trial shows the score of the settings as given")
    about = {**base.about, **{f"space: {key}": spell_axis(found) for key, found in space.items()}}
    study = search(
        lambda trial: make(suggest(trial, space)),
        photos,
        args.output,
        plan=plan,
        seed=build_recipe(vars(args)).seed,
        first=None if outside else first,
        about=about,
        cache=flags.build(Keeping, vars(args)).opened(),
        say=say,
    )
    trials, best = study.get_trials(deepcopy=False), best_trial(study)
    if best is None and sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials) >= plan.limit:
        raise ValueError(
            f"none of {len(trials)} trials could be trained to its end, as {args.output}/trials.csv tells; change the "
            "space, in another --output, or allow more --trials"
        )
    _conclude(args.output, best, trials, ENOUGH, say)
    return 0


def _told(space: Mapping[str, Axis]) -> str:
    return ", ".join(f"{key} {spell_axis(found)}" for key, found in space.items())


def _conclude(output: str, best: Any, trials: Sequence[Any], enough: int, say: Callable[[str], None]) -> None:
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if best is None:
        say(f"no trial is complete yet; wrote {output}: trials.csv; the same command goes on")
        return
    zero = next((trial for trial in complete if trial.number == 0), None)
    beside = f"; trial 0 {zero.value:.4f}" if zero else ""
    say(f"best of {len(complete)} complete trials: {best.value:.4f}, trial {best.number}{beside}")
    pictures = [name for name in ("history.png", "importance.png") if (Path(output) / name).is_file()]
    if len(pictures) < 2:
        say(f"importance.png needs {enough} complete trials of unlike scores")
    say(f"wrote {output}: trials.csv, best.yaml (for multihead train -c), {', '.join(pictures)}")


def tune_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead tune`."""
    parser.add_argument(
        "--space",
        nargs="+",
        default=[],
        metavar="FLAG=VALUES",
        help="as lr=1e-4..1e-2:log opt=adamw,madgrad (default: rates, smoothing, --aug and --loss)",
    )
    parser.add_argument("-o", "--output", default="runs/tune", help="folder (default runs/tune)")
    parser.add_argument("--ignore-split", action="store_true", help="do not use the table's split column")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (default auto)")
    flags.add_flags(parser, Plan, "search")
    flags.add_flags(parser, Keeping, "kept crops")
    add_training_flags(parser)
