"""Batches and losses for a training loop of one's own, in plain torch: what `fit` reads and what it minimises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from multihead import ranks
from multihead.balance import Fixed, combine
from multihead.batches import Batch
from multihead.cache import Cache, open_cache
from multihead.data import Photos
from multihead.loading import drawn_from
from multihead.model import Model
from multihead.options import whole
from multihead.recipe import Recipe
from multihead.sides import Ready, check_labelled, objective, report, training_order
from multihead.steps import Part, part_of
from multihead.train import check_recipe


class Batches:
    """Training photos in batches, an epoch at every iteration, and the loss of the answers for one of them.

    Faces are found where a crop needs one, crops decoded once and kept, photos drawn, changed and mixed, and unknown
    labels left out of the loss, all as by `fit` with a recipe, of which count here: batch_size, epoch_photos, sampler,
    augment, mix, crop_drop, missing, losses, head_weights, smoothing, age_edges, drop_zones, soft_bands, distill and
    seed. The optimiser, its schedule, precision, and what is kept are the loop's own. Under torchrun each process gets
    its share of a batch.

    A batch has `images` {Crop: uint8 (B, 3, H, W)} and `present` (B, crops), as `Model` takes them, and `targets`
    {head: (B, classes)}, whose rows sum to 0 where a label is unknown; all on the model's device. `epoch` is the number
    of the last epoch that was begun: set it to go on elsewhere. The model gets its prior here, as in `fit`.

        batches = mh.Batches(model, photos, mh.Recipe(batch_size=16))
        for epoch in range(3):
            for batch in batches:
                loss = batches.loss(model(batch.images, batch.present), batch)

    workers, cache: as `epochs` takes them.

    Raises: ValueError or KeyError where `fit` would, for photos without labels and recipes that do not fit the model;
    ValueError for a balance that is learned or follows the losses.
    """

    def __init__(
        self,
        model: Model,
        photos: Photos,
        recipe: Recipe = Recipe(),
        *,
        workers: int = 2,
        cache: bool | str | Path | Cache = True,
    ) -> None:
        if not isinstance(recipe.balance, Fixed):
            raise ValueError(f"recipe: balance is {recipe.balance!r}, which fit alone can follow; expected Fixed()")
        workers = whole("Batches", "workers", workers, 0)
        ranks.start()
        check_labelled(photos, model, recipe)
        check_recipe(model, photos, recipe)
        self.model, self.recipe, self.epoch = model, recipe, 0
        self.side = Ready(model.heads, photos, recipe, training=True, workers=workers, cache=open_cache(cache))
        report({"training": self.side})
        self.targets, self.criteria = objective(model, self.side, recipe)
        self.order, self.workers = training_order(self.side, model.heads, recipe), workers
        self._batches: Iterable[Batch] | None = None

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.order.steps

    def __iter__(self) -> Iterator[Part]:
        """The batches of the next epoch. Raises: ValueError where a photo can no longer be read."""
        self.epoch += 1
        self.order.epoch = self.epoch
        device = next(self.model.parameters()).device
        targets = self.targets.to(device)
        if self._batches is None:  # kept, as its processes are
            self._batches = self.side.batches(self.order, workers=self.workers, device=device)
        with drawn_from(self._batches) as drawn:
            for number, batch in enumerate(drawn):
                if batch.unreadable:
                    raise ValueError(f"a photo can no longer be read: {batch.unreadable[0][1]}; put it back")
                place = number * ranks.world() + ranks.rank()
                yield part_of(batch.to(device), targets, self.recipe, self.epoch, place)

    def loss(self, logits: Mapping[str, Tensor], batch: Part) -> Tensor:
        """The loss (scalar) of a model's answers {head: logits (B, classes)} for a batch: the weighted mean over the
        heads of which a label is known in it, zero with a zero gradient where none is.

        Raises: KeyError for a head without logits, ValueError for logits of another shape.
        """
        if lacking := [name for name in self.criteria if name not in logits]:
            raise KeyError(f"no logits for heads {lacking}; got {sorted(logits)}, expected what the model gives")
        each = {name: criterion(logits[name], batch.targets[name]) for name, criterion in self.criteria.items()}
        known = dict(zip(each, torch.stack([batch.targets[name].sum() > 0 for name in each]).tolist()))
        return combine(each, known, self.recipe.head_weights)
