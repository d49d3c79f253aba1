"""The two sides of a run, training and validation: photos located, crops kept, what is wrong with them, scores."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from multihead import ranks, teaching
from multihead.augment import Plain, members
from multihead.batches import Batch, PhotoSet
from multihead.boxes import locate_faces
from multihead.cache import Cache
from multihead.columns import where_labels_stand
from multihead.criteria import Criterion, criterion
from multihead.data import Photos
from multihead.evaluation import answers, scores
from multihead.heads import AGE_NUMBER, MASK, UNKNOWN, Head, base, crops, size
from multihead.labels import encode, joint
from multihead.loading import loader
from multihead.logs import LISTED, bar, watched
from multihead.losses import per_head
from multihead.masks import LABELS, DrawnMask, mask_classes
from multihead.metrics import Scores
from multihead.model import Model
from multihead.orders import Shuffled
from multihead.points import locate_points
from multihead.recipe import Recipe
from multihead.samplers import row_weights
from multihead.schedules import Plateau
from multihead.targets import Targets, band_rows, one_hot, teach

FEW = 3  # unreadable photos that are named where there are very many, and no others


class Ready:
    """Photos that can be read, with their crops kept where there is room: what one side of a run reads.

    training: whether the photos are changed as the recipe says. cache: where crops are kept; several runs may share it.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        photos: Photos,
        recipe: Recipe,
        *,
        training: bool,
        workers: int = 0,
        cache: Cache | None = None,
    ) -> None:
        cut = crops(heads)
        located = ranks.first_then_rest(lambda: locate_faces(photos, cut, missing=recipe.missing))
        self.photos, self.faceless, self.searched = located.photos, located.faceless, located.searched
        augment = recipe.augment if training else Plain()
        self.held = PhotoSet(
            self.photos,
            heads,
            cut,
            augment=augment,
            points=self._points(heads) if any(isinstance(part, DrawnMask) for part in members(augment)) else None,
            crop_drop=recipe.crop_drop if training else 0.0,
            seed=recipe.seed,
            cache=cache,
        )
        self.unreadable = self.held.fill(workers)
        bad = {row for row, _ in self.unreadable}
        self.rows = np.array([row for row in range(len(self.photos)) if row not in bad], np.int64)

    def _points(self, heads: Sequence[Head]) -> np.ndarray:
        """Face points (N, 5, 2) of the photos of bare faces, NaN for the others."""
        names = [head.name for head in base(heads)]
        bare = mask_classes(heads)[MASK.classes[-1]]
        label = self.photos.labels(heads)[:, names.index(MASK.name)]
        rows = np.flatnonzero(label == bare)
        with bar(len(rows), "face points", ranks.first() and watched()) as shown:
            return ranks.first_then_rest(lambda: locate_points(self.photos, rows, progress=shown.update))

    def batches(self, order: Shuffled, *, workers: int, device: torch.device) -> Iterable[Batch]:
        """The batches of an order, made ahead; anew, of the order's epoch, at every iteration."""
        # what is only copied together is not worth a process: one thread reads ahead, from slow disks too
        workers = min(1, workers) if self.held.gathers(self.rows) else workers
        return loader(self.held, order, workers=workers, pin=device.type == "cuda")

    def notes(self, what: str) -> list[str]:
        """What a user should know of these photos, a line each."""
        lines = []
        if self.faceless:
            lines.append(f"{what}: {len(self.faceless)} photos have no face, for example {self.faceless[0]}")
        alike = not len(self.rows) and len(self.unreadable) > LISTED  # as wrong paths are, all in the same way
        listed = FEW if alike else LISTED
        lines += [f"{what}: left out: {reason}" for _, reason in self.unreadable[:listed]]
        if len(self.unreadable) > listed:
            lines.append(f"{what}: left out: {len(self.unreadable) - listed} more, {len(self.unreadable)} in all")
        if what == "validation" and len(self.rows) and not (self.held.labels[self.rows] != UNKNOWN).any():
            lines.append(
                f"{what}: no photo has a label; without scores the last epoch is kept, and patience never ends"
            )
        return lines


def report(sides: Mapping[str, Ready]) -> None:
    """Say on standard error, once, what was searched, has no face, or cannot be read."""
    for what, ready in sides.items():
        if ready.searched:
            ranks.tell(f"{what}: searched {ready.searched} photos for faces")
        for note in ready.notes(what):
            ranks.say(note)


def check_labelled(train: Photos, model: Model, recipe: Recipe) -> None:
    """Nothing where there is a label to learn. Raises: ValueError, before anything is decoded."""
    if not (train.labels(model.heads) != UNKNOWN).any() and not recipe.distill:
        raise ValueError(
            f"none of {len(train)} training photos has a label for {[head.name for head in model.space]}; "
            + where_labels_stand(base(model.heads))
        )


def check_schedule(recipe: Recipe, valid: Photos | None) -> None:
    """Nothing where the schedule has the scores that it needs; warns of a warm-up that lasts all the training.

    Raises: ValueError.
    """
    if isinstance(recipe.schedule, Plateau) and (valid is None or recipe.select == "last" and not recipe.val_interval):
        raise ValueError("recipe: Plateau follows the validation score; give validation photos, scored every epoch")
    if (rising := getattr(recipe.schedule, "warmup_epochs", 0)) >= recipe.epochs:
        warnings.warn(
            f"the rate rises for {rising:g} epochs (warmup_epochs), and training has {recipe.epochs}: it never "
            f"comes to lr={recipe.optim.lr:g}; give more epochs, or a shorter warm-up",
            stacklevel=2,
        )


def check_sides(model: Model, train: Ready, recipe: Recipe) -> None:
    """Nothing where there is something to train on. Raises: ValueError."""
    known = (train.held.labels[train.rows] != UNKNOWN).any() or recipe.distill
    if not len(train.rows) or not known:
        raise ValueError(
            f"none of {len(train.photos)} training photos can be read and has a label for "
            f"{[head.name for head in model.space]}; {len(train.unreadable)} cannot be read"
        )


def stand(ready: Ready) -> str:
    """What a side of a run reads: a digest of its table, and how many of its photos can be read."""
    return f"{ready.photos.fingerprint()}, {len(ready.rows)} readable"


def scored(model: Model, side: Ready, *, workers: int, precision: str) -> Scores:
    """A model's scores on a side of a run, the same on every process; each answers its share of the photos."""
    ranks.share_buffers(model)
    mine = side.rows[ranks.rank() :: ranks.world()]
    workers = 0 if side.held.gathers(mine) else workers  # what is only copied is not worth a process
    gathered = ranks.gather(answers(model, side.held, mine, workers=workers, precision=precision))
    rows = np.concatenate([part[0] for part in gathered])
    probs = np.concatenate([part[1] for part in gathered])
    order = rows.argsort()
    unreadable = [*side.unreadable, *(item for part in gathered for item in part[2])]
    return scores(side.photos, model.heads, rows[order], probs[order], unreadable)


def prior(labels: np.ndarray, heads: Sequence[Head]) -> tuple[float, ...]:
    """The share of each joint class (K,) in training labels (N, heads): the product of the heads' shares where no row
    is fully known, even shares where a head has no label."""
    table = base(heads)
    whole = encode(labels, table)
    whole = whole[whole != UNKNOWN]
    if len(whole):
        shares = np.bincount(whole, minlength=size(table)) / len(whole)
    else:
        each = {}
        for column, head in enumerate(table):
            known = labels[:, column][labels[:, column] != UNKNOWN]
            counts = np.bincount(known, minlength=len(head.classes)) if len(known) else np.ones(len(head.classes))
            each[head.name] = (counts / counts.sum())[None]
        shares = joint(each, table)[0]
    return tuple(float(share) for share in shares)


def class_mass(train: Ready, targets: Targets) -> dict[str, torch.Tensor]:
    """Each head's training mass of each class {head: (C,)}; a mask that may be drawn counts by its probability, so that
    class weights know of classes that only drawn masks fill."""
    mass, mask, points = targets.mass(train.rows), train.held.mask, train.held.points
    if not mask or points is None:
        return mass
    able = train.rows[~np.isnan(points[train.rows]).any((1, 2))]
    bare = targets.mass(able)
    for state, share in (("worn", 1 - mask.incorrect), ("nose", mask.incorrect)):
        masked = targets.mass(able, train.held.drawn[LABELS[state]])
        mass = {name: mass[name] + mask.prob * share * (masked[name] - bare[name]) for name in mass}
    return mass


def head_criteria(model: Model, mass: Mapping[str, torch.Tensor], recipe: Recipe) -> dict[str, Criterion]:
    """{head: its criterion}, by the training mass (C,) of its classes; tells of heads without any."""
    if blank := [name for name, of in mass.items() if not of.sum() > 0]:
        ranks.say(
            f"no training photo has a label for {', '.join(blank)}: the model will answer by chance there; leave "
            "the head out, or name the column of its labels (columns=, --columns)"
        )
    losses = per_head(recipe.losses, model.heads)
    return {head.name: criterion(losses[head.name], head, mass[head.name], recipe.smoothing) for head in model.heads}


def target_rows(photos: Photos, heads: Sequence[Head], recipe: Recipe) -> Targets:
    """The target rows of training photos, as the recipe bands and teaches them; label smoothing is the losses'.

    Raises: ValueError where the recipe distils and no photo carries a teacher's answers, or age settings of the recipe
    meet heads without an age.
    """
    labels, rows = photos.labels(heads), {}
    table = base(heads)
    aged = recipe.age_edges or recipe.drop_zones or recipe.soft_bands
    if aged and not any(head.in_years for head in table):
        raise ValueError(
            f"recipe: age_edges, drop_zones and soft_bands need a head that bands the number age; got "
            f"{[head.name for head in table]}"
        )
    for column, head in enumerate(table):
        found = one_hot(torch.from_numpy(labels[:, column]), head)
        if head.edges:
            own = head.name == AGE_NUMBER or sum(other.in_years for other in table) == 1
            edges = recipe.age_edges if head.in_years and own else None
            drop, width = (recipe.drop_zones, recipe.soft_bands) if head.in_years else ((), None)
            found = band_rows(photos.numbers(head), labels[:, column], head, edges=edges, drop=drop, width=width)
        rows[head.name] = found
    made = Targets(tuple(heads), rows)
    if not recipe.distill:
        return made
    taught = teaching.soft_rows(photos, heads)
    if np.isnan(taught).all():
        raise ValueError(
            "recipe: distill needs photos with a teacher's answers (joint:0, ...), as of multihead label --soft"
        )
    return teach(made, taught, recipe.distill)


def training_order(side: Ready, heads: Sequence[Head], recipe: Recipe, accumulate: int = 1) -> Shuffled:
    """The order in which this process's share of the photos trains; accumulate: batches per step of the optimiser."""
    return Shuffled(
        side.rows,
        recipe.batch_size,
        accumulate=accumulate,
        seed=recipe.seed,
        rank=ranks.rank(),
        world=ranks.world(),
        weights=draw_weights(side, heads, recipe),
        count=recipe.epoch_photos,
    )


def objective(model: Model, side: Ready, recipe: Recipe) -> tuple[Targets, dict[str, Criterion]]:
    """(the target rows of all photos, {head: its criterion}) of a model that is to learn from a side, after which it
    has its prior. Raises: ValueError where there is nothing to train on."""
    check_sides(model, side, recipe)
    model.prior = prior(side.held.labels[side.rows].numpy(), model.heads)
    targets = target_rows(side.photos, model.heads, recipe)
    return targets, head_criteria(model, class_mass(side, targets), recipe)


def draw_weights(side: Ready, heads: Sequence[Head], recipe: Recipe) -> np.ndarray | None:
    """How often each readable row is drawn (n,), None where the recipe draws each once."""
    if recipe.sampler is None:
        return None
    chosen = side.photos[side.rows]
    return row_weights(recipe.sampler, chosen.labels(heads), heads, chosen.table.source.tolist())
