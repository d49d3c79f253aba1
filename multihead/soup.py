"""Weight averaging: several models of one kind as one model, at the cost of one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multihead.batches import PhotoSet
from multihead.boxes import locate_faces
from multihead.data import Photos
from multihead.lanes import evenly
from multihead.loading import loader
from multihead.model import Model
from multihead.options import whole
from multihead.orders import in_order

Norm = nn.modules.batchnorm._BatchNorm


def average(models: Sequence[Model], weights: Sequence[float] | None = None) -> Model:
    """A model whose weights are the (weighted) mean of the models' weights; a uniform soup where all count alike.

    models: of one backbone and one table of heads, trained from the same starting weights, as `fit_folds` leaves them:
    means of models that started apart answer at random. Running statistics of batch norms are averaged too; `refresh`
    measures them anew, which is better. The first model's training prior is kept.

    Source: Wortsman et al. 2022, Model soups.

    Raises: ValueError for no model, models of unlike backbone, heads or pixel statistics, or weights that do not fit.
    """
    if not models:
        raise ValueError("a soup needs at least one model")
    for number, model in enumerate(models):
        if _kind(model) != _kind(models[0]):
            raise ValueError(
                f"model {number} is {model.backbone_name} with heads {[head.name for head in model.heads]}, model 0 "
                f"{models[0].backbone_name} with {[head.name for head in models[0].heads]}; weights can be averaged "
                "of one backbone, heads, crops, mean and std (an Ensemble votes over unlike models)"
            )
    shares = [1.0] * len(models) if weights is None else [float(weight) for weight in weights]
    if len(shares) != len(models) or not all(0 <= share < math.inf for share in shares) or not any(shares):
        raise ValueError(f"weights {weights} do not fit {len(models)} models; expected a number >= 0 each, not all 0")
    states = [model.state_dict() for model in models]
    mixed = {name: _mean([state[name] for state in states], shares) for name in states[0]}
    first = models[0]
    made = Model(
        first.backbone_name,
        first.heads,
        drop=first.rates["drop"],
        drop_path=first.rates["drop_path"],
        mean=first.mean,
        std=first.std,
        prior=first.prior,
    )
    made.load_state_dict(mixed)
    return made.to(next(first.parameters()).device).eval()


def greedy_soup(
    models: Sequence[Model], score: Callable[[Model], float], mend: Callable[[Model], Model] = lambda model: model
) -> tuple[Model, list[int]]:
    """(a soup, the numbers of the models in it): the best model, and each next one that does not lower the score.

    score: how good a model is on photos that none of the models was trained on. mend: what is done to each soup before
    it is scored, such as `refresh`. Source: Wortsman et al. 2022, algorithm 1.

    Raises: ValueError as `average`, or where no model has a score.
    """
    found = [score(model) for model in models]
    order = sorted((number for number in range(len(models)) if found[number] == found[number]), key=lambda n: -found[n])
    if not order:
        raise ValueError(f"none of {len(models)} models has a score; give photos with labels that none was trained on")
    chosen, best = [order[0]], found[order[0]]
    for number in order[1:]:
        tried = score(mend(average([models[each] for each in [*chosen, number]])))
        if tried >= best:
            chosen, best = [*chosen, number], tried
    made = average([models[number] for number in chosen])
    return (mend(made) if len(chosen) > 1 else made), sorted(chosen)


def refresh(model: Model, photos: Photos, *, batch_size: int = 64, workers: int = 0, missing: str = "full") -> Model:
    """The model, its batch norms' running statistics measured anew: their plain mean over batches of these training
    photos, in an order of chance and as alike in size as can be, `batch_size` at most.

    A model without batch norms is left as it is. Source: Izmailov et al. 2018, Averaging weights, 3.2.

    Raises: ValueError where fewer than two of the photos can be read, or batch_size is no whole number of 2 or more.
    """
    batch_size = whole("refresh", "batch_size", batch_size, 2)
    norms = [module for module in model.modules() if isinstance(module, Norm)]
    if not norms:
        return model
    held = PhotoSet(locate_faces(photos, model.crops, missing=missing).photos, model.heads, model.crops)
    device, seen = next(model.parameters()).device, 0
    model.eval()
    with _measured(norms), torch.inference_mode():
        order = np.random.default_rng(0).permutation(len(held))  # a batch of one person has less variance than all
        for batch in loader(held, in_order(order, evenly(len(held), 1, batch_size)), workers=workers):
            if len(batch.rows) > 1:  # one row has no variance
                moved = batch.to(device, channels_last=True)
                model(moved.images, moved.present)
                seen += len(batch.rows)
        if not seen:
            what = f"fewer than two of {len(photos)} photos can be read"
            raise ValueError(f"{what}; the statistics of the soup need training photos")
    return model


@contextlib.contextmanager
def _measured(norms: Sequence[Any]) -> Iterator[None]:
    """Batch norms that measure their statistics anew inside; an error leaves them as they were."""
    momenta = [norm.momentum for norm in norms]
    before = [{name: value.clone() for name, value in norm.state_dict().items()} for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative mean
            norm.train()
        yield
    except BaseException:
        for norm, state in zip(norms, before):
            norm.load_state_dict(state)
        raise
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
            norm.eval()


def _kind(model: Model) -> tuple[object, ...]:
    return model.backbone_name, model.heads, model.mean, model.std


def _mean(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The weighted mean; of whole numbers (counts of batches) the largest."""
    stack = torch.stack(list(values))
    if not stack.is_floating_point():
        return stack.amax(0)
    parts = torch.tensor(shares, dtype=torch.float64, device=stack.device) / sum(shares)
    return torch.tensordot(parts, stack.double(), 1).to(stack.dtype)
