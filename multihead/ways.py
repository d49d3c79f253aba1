"""Ways to train that are tried on the same folds: how each makes its models, its recipe, and the rows it trains on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from multihead.data import Photos
from multihead.heads import UNKNOWN, Head, base, space
from multihead.hiding import hide_labels
from multihead.model import Model
from multihead.options import between, choice, to_dict
from multihead.recipe import Recipe
from multihead.train import check_recipe


@dataclass(frozen=True)
class Arm:
    """One way to train: how the model is made (called anew for every fold and seed, after seeding), the recipe (its
    seed is set by the run), and the training rows: "all", or "full", those that know all heads of the models.

    model may make several models of unlike heads: each is trained by itself, and they answer as `multihead.combine`
    would. hidden: share of the training photos' labels that is hidden, each by itself (validation keeps all). about:
    whatever else tells this arm from another, kept with its results.
    """

    model: Callable[[], Model | Sequence[Model]]
    recipe: Recipe = Recipe()
    rows: str = "all"
    hidden: float = 0.0
    about: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.model, Model) or not callable(self.model):
            raise TypeError(
                f"arm: model is {type(self.model).__name__}; expected a function that makes a model anew for each fold "
                "and seed, as lambda: Model('resnet18')"
            )
        if not isinstance(self.recipe, Recipe):
            raise TypeError(f"arm: recipe is {type(self.recipe).__name__}; expected a multihead.Recipe")
        choice("arm", "rows", self.rows, ("all", "full"))
        between("arm", "hidden", self.hidden, 0, 1)
        if self.recipe.patience is not None:
            raise ValueError("arm: patience stops on the rows that score the arm; leave it out and fix the epochs")
        if self.recipe.missing == "skip":
            raise ValueError("arm: missing='skip' leaves photos out; every photo must be answered: use 'full'")

    def models(self) -> list[Model]:
        """The models, made anew."""
        made = self.model()
        found = list(made) if isinstance(made, Iterable) else [made]
        if strange := [each for each in found if not isinstance(each, Model)]:
            raise TypeError(f"arm: model made {strange[0]!r:.80}; expected a multihead.Model, or several")
        return found

    def chosen(self, photos: Photos, seed: int = 0, heads: Sequence[Head] | None = None) -> Photos:
        """Those of the photos that this arm trains models of these heads on (default: of all that the photos were read
        for), with the labels it may see."""
        photos = hide_labels(photos, self.hidden, seed=seed)
        return photos if self.rows == "all" else photos[(photos.labels(heads) != UNKNOWN).all(1)]

    def settled(self, seed: int) -> Recipe:
        """The recipe with this seed, scored every epoch for the curves, its last epoch kept."""
        return replace(self.recipe, seed=seed, select="last", val_interval=self.recipe.val_interval or 1)

    def identity(self) -> dict[str, object]:
        """What must be the same for kept results to be this arm's."""
        plain = {"recipe": to_dict(self.recipe), "rows": self.rows, "about": dict(self.about)}
        return plain | ({"hidden": self.hidden} if self.hidden else {})


def check_arm(arm: object) -> None:
    """Nothing for an `Arm`. Raises: TypeError for anything else, as a model."""
    if not isinstance(arm, Arm):
        raise TypeError(f"an arm is {arm!r:.80}; expected multihead.Arm(model, recipe), whose model a call makes anew")


def heads_of(arm: Arm, photos: Photos) -> tuple[Head, ...]:
    """The heads that an arm answers; nothing is trained. Raises: ValueError where it could not be trained."""
    check_arm(arm)
    models = made_anew(arm)
    for model in models:
        try:
            check_recipe(model, photos, arm.recipe)
        except KeyError as error:
            raise ValueError(error.args[0]) from error
    return base([head for model in models for head in model.heads])


def made_anew(arm: Arm) -> list[Model]:
    """The models of an arm. Raises: ValueError where two calls give the same: each run would go on with the weights of
    the one before, which has seen its people."""
    models, others = arm.models(), arm.models()
    weights, again = ({id(part) for model in made for part in model.parameters()} for made in (models, others))
    if weights & again:
        raise ValueError(
            "model= gives the same weights when it is called again, so that each run would go on where the one before "
            "ended; make the model inside the call, as model=lambda: Model('resnet18')"
        )
    return models


def same_space(arms: Mapping[str, Arm], photos: Photos) -> tuple[Head, ...]:
    """The heads that all arms answer. Raises: ValueError that names the arm that answers others, or cannot be run."""
    table: tuple[Head, ...] | None = None
    for name, arm in arms.items():
        try:
            heads = heads_of(arm, photos)
        except (ValueError, KeyError, ImportError) as error:
            raise ValueError(f"arm {name!r}: {error.args[0]}") from error
        table = table or heads
        if space(heads) != space(table):
            names = [[head.name for head in each] for each in (heads, table)]
            raise ValueError(f"arm {name!r} answers {names[0]}, the first arm {names[1]}; compare arms of equal heads")
    assert table is not None
    return table
