"""Training a model on photos: plain torch, one process or many, exact after any interruption.

All randomness of a step comes from (seed, epoch, batch, rank), so a run that is killed and resumed ends with the same
bits as one that was not.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
import torch

from multihead import checkpoint, ranks
from multihead.augment import members, try_out
from multihead.balance import combine
from multihead.cache import Cache, open_cache
from multihead.criteria import criterion
from multihead.data import Photos, write_splits
from multihead.leaks import check_disjoint
from multihead.losses import per_head
from multihead.masks import DrawnMask, mask_classes
from multihead.model import Model, check_described
from multihead.modes import Mode
from multihead.optim import create_optimizer
from multihead.options import whole
from multihead.outputs import Claim, claim
from multihead.pseudo import check_not_pseudo
from multihead.recipe import Recipe
from multihead.runs import Run
from multihead.samplers import row_weights
from multihead.sides import Ready, check_labelled, check_schedule, report, target_rows
from multihead.teaching import is_taught

P = ParamSpec("P")


def epochs(
    model: Model,
    train: Photos,
    valid: Photos | None = None,
    recipe: Recipe = Recipe(),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    workers: int = 2,
    cache: bool | str | Path | Cache = True,
    progress: bool = False,
) -> Iterator[dict[str, Any]]:
    """Train, yielding one row an epoch: epoch, loss, lr, photos_per_s, and the validation scores.

    When it ends, `model` holds the kept weights (`recipe.select`; the moving average if there is one); a loop that is
    left before leaves it in training, with the weights of its last step (`out` has what was kept so far). out: a run
    folder for metrics.csv, metrics.json, splits.csv, checkpoints/ and model/; without it nothing is written. resume: go
    on where the folder's last checkpoint stands. progress: show a bar an epoch. cache: keep decoded crops in the user's
    cache folder (True), in another folder, or in memory only (False): see `multihead.cache`. Under torchrun every
    process calls this; the first one writes.

    Raises: LeakError where a person or file is on both sides; ValueError where nothing can be trained on, the loss is
    no number, or `resume` meets other photos or another recipe; FileExistsError where `out` holds a run, or another
    run is being trained into it.
    """
    run = prepare(model, train, valid, recipe, out=out, resume=resume, workers=workers, cache=cache)
    yield from run.epochs(progress)


def _all(rows: Callable[P, Iterator[dict[str, Any]]]) -> Callable[P, list[dict[str, Any]]]:
    @functools.wraps(rows, assigned=("__module__",))
    def fit(*args: P.args, **options: P.kwargs) -> list[dict[str, Any]]:
        """The rows of `epochs` (same arguments), of a run that goes on those that were still to come; the model then
        holds the kept weights."""
        return list(rows(*args, **options))

    fit.__qualname__ = fit.__name__
    return fit


fit = _all(epochs)


def prepare(
    model: Model,
    train: Photos,
    valid: Photos | None = None,
    recipe: Recipe = Recipe(),
    *,
    out: str | Path | Claim | None = None,
    resume: bool = False,
    workers: int = 2,
    cache: bool | str | Path | Cache = True,
    book: Path | None = None,
) -> Run:
    """The run that `epochs` carries out: photos found, decoded and checked, nothing trained yet.

    out: as `epochs` takes it, or a folder that is claimed already; it is released when the run's epochs end. cache: as
    `epochs` takes it, or a `Cache` that several runs on the same photos share. book: a file of the modes of runs that
    are compared, see `choices.training_choice`.
    """
    _check_kinds(model, train, valid, recipe)
    workers = whole("fit", "workers", workers, 0)
    ranks.start()
    if valid is not None:
        check_disjoint(train, valid)
        check_not_pseudo(valid, "validation")
    check_labelled(train, model, recipe)
    check_schedule(recipe, valid)
    check_recipe(model, train, recipe)  # else what is misspelled shows after all photos are searched and decoded
    if out is not None:
        check_described(model)
    if resume and out is None:
        raise ValueError("resume=True needs out=, the folder of the run to go on with")
    if not isinstance(out, Claim | None):
        out = claim(out, resume=resume, alone=ranks.first())
    try:
        return _prepared(model, (train, valid), recipe, out, workers, open_cache(cache), book)
    except BaseException:
        if out is not None:
            out.release()
        raise


def _prepared(
    model: Model,
    sides: tuple[Photos, Photos | None],
    recipe: Recipe,
    out: Claim | None,
    workers: int,
    cache: Cache | None,
    book: Path | None,
) -> Run:
    train, valid = sides
    ready = Ready(model.heads, train, recipe, training=True, workers=workers, cache=cache)
    held_out = {"training": False, "workers": workers, "cache": cache}
    ready_valid = None if valid is None else Ready(model.heads, valid, recipe, **held_out)  # type: ignore[arg-type]
    report({"training": ready} | ({} if ready_valid is None else {"validation": ready_valid}))
    last: Mapping[str, Any] | None = checkpoint.load(out.last) if out is not None and out.last else None
    mode = Mode.parse(last["mode"]) if last and "mode" in last else None
    run = Run(model, ready, ready_valid, recipe, out, workers, mode, book)
    if last:
        run.resume(last)
    if out is not None and ranks.first():
        write_splits(out.folder / "splits.csv", {"train": train} | ({} if valid is None else {"val": valid}))
    return run


def _check_kinds(model: object, train: object, valid: object, recipe: object) -> None:
    """Nothing where each argument is what training takes. Raises: TypeError; ValueError for no validation photos."""
    if not isinstance(model, Model):
        hint = "; an ensemble's members, or what was exported, are trained as models" if hasattr(model, "space") else ""
        raise TypeError(f"model is {type(model).__name__}; expected a multihead.Model{hint}")
    for name, photos in (("train", train), ("valid", valid)):
        if not isinstance(photos, Photos) and (name == "train" or photos is not None):
            raise TypeError(f"{name} is {type(photos).__name__}; expected photos, as multihead.read gives them")
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe is {type(recipe).__name__}; expected a multihead.Recipe, as Recipe(epochs=5)")
    if isinstance(valid, Photos) and not len(valid):
        raise ValueError("there are no validation photos; give some, or valid=None to train without")


def check_recipe(model: Model, photos: Photos, recipe: Recipe) -> None:
    """Nothing where the recipe fits the model and its training photos; nothing is read or trained.

    Raises: ValueError or KeyError as training would, for heads, losses, optimisers, samplers or targets that do not.
    """
    losses = per_head(recipe.losses, model.heads)
    for head in model.heads:
        criterion(losses[head.name], head, np.ones(len(head.classes)), recipe.smoothing)
    names = [head.name for head in model.heads]
    nothing = {name: torch.zeros(()) for name in names}
    combine(nothing, dict.fromkeys(names, False), recipe.head_weights)
    create_optimizer(model, recipe.optim, head_lr=recipe.head_lr, layer_decay=recipe.layer_decay)
    target_rows(photos, model.heads, recipe)
    if not recipe.distill and is_taught(photos):
        warnings.warn(
            "the training photos carry a teacher's answers (joint:0, ...), of which nothing is learned: set distill "
            "(--distill), their share in the targets",
            stacklevel=2,
        )
    if recipe.sampler is not None:
        row_weights(recipe.sampler, photos.labels(model.heads), model.heads, photos.table.source.tolist())
    if any(isinstance(part, DrawnMask) for part in members(recipe.augment)):
        mask_classes(model.heads)
    try_out(recipe.augment, [crop.size for crop in model.crops])
