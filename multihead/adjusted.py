"""A model whose answers are corrected: a temperature for each head, then weights of the classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from multihead.calibrate import apply_temperatures, check_temperatures
from multihead.crops import Crop
from multihead.decoding import reweight
from multihead.evaluation import Classifier, check_classifier
from multihead.folders import described, save_members
from multihead.heads import Head, size


class Adjusted(nn.Module):
    """A model that answers with another's joint probabilities, tempered and reweighted; it predicts, is scored, saved
    and put into an `Ensemble` like any other.

    model: a model, an ensemble, a combination, or another Adjusted. temperatures: {head: T}, as of
    `multihead.fit_temperatures`. weights: (K,) positive numbers, one a joint class, as of
    `multihead.decoding.fit_weights`, fitted on the tempered probabilities since they come second. Weights move the
    answers, not the confidence: leave them out where probabilities are wanted.

    A mean over models is less sure than each of them, so the temperatures of single models belong inside it:
    `Ensemble([Adjusted(model, temperatures) for model in models])`.

    Raises: ValueError for a temperature that is not positive or of an unknown head, or weights that do not fit.

    >>> from multihead.heads import MASK
    >>> from multihead.model import Model
    >>> Adjusted(Model("test_resnet", [MASK]), {"mask": 1.5}, weights=[1, 2, 1]).to_dict()
    {'temperatures': {'mask': 1.5}, 'weights': [1.0, 2.0, 1.0]}
    """

    model: Classifier
    space: tuple[Head, ...]
    crops: tuple[Crop, ...]
    prior: tuple[float, ...] | None
    heads: tuple[Head, ...]  # only where the model has its own

    def __init__(
        self,
        model: Classifier,
        temperatures: Mapping[str, float] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_classifier(model)
        if temperatures is not None and not isinstance(temperatures, Mapping):
            raise TypeError(f"temperatures is {temperatures!r}; expected numbers by head, as {{'age': 1.4}}")
        self.model = model
        self.space, self.crops, self.prior = model.space, model.crops, getattr(model, "prior", None)
        if hasattr(model, "heads"):
            self.heads = model.heads
        self.temperatures = {name: float(value) for name, value in (temperatures or {}).items()}
        check_temperatures(self.temperatures, self.space)
        self.weights = tuple(map(float, [1.0] * size(self.space) if weights is None else weights))
        if len(self.weights) != size(self.space) or not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"weights {self.weights} do not fit; expected {size(self.space)} positive numbers")
        self.training = model.training

    def __repr__(self) -> str:
        """A line for itself, and one or more for its model."""
        each = ", ".join(f"{name} {value:.3g}" for name, value in self.temperatures.items())
        weighed = f"{min(self.weights):.3g} to {max(self.weights):.3g}" if set(self.weights) != {1.0} else "none"
        return described("Adjusted", f"temperatures: {each or 'none'}; class weights: {weighed}", [repr(self.model)])

    def probs(self, images: Mapping[Crop, Tensor], present: Tensor | None = None) -> Tensor:
        """Joint probabilities (B, K) in float64; images and present as the model takes them."""
        answer = self.model.probs(images, present).double()
        tempered = apply_temperatures(answer, self.temperatures, self.space)
        return reweight(tempered, answer.new_tensor(self.weights))

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data: temperatures {head: T} and weights (K,)."""
        return {"temperatures": self.temperatures, "weights": list(self.weights)}

    @classmethod
    def from_dict(cls, model: Classifier, settings: Mapping[str, Any]) -> Adjusted:
        """The model with the settings that `to_dict` wrote; other entries are not read.

        Raises: ValueError where one is missing, or does not fit the model.
        """
        if missing := {"temperatures", "weights"} - set(settings):
            raise ValueError(f"settings of an adjusted model lack {sorted(missing)}; expected what Adjusted.save wrote")
        return cls(model, settings["temperatures"], settings["weights"])

    def save(self, folder: str | Path) -> None:
        """Write the model as member0, and the settings; `multihead.load` opens it."""
        save_members(folder, "adjusted", [self.model], self.to_dict())
