"""A run of training: its epochs, what is kept of them, and the files that it leaves; goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from multihead import checkpoint, ranks
from multihead.balance import epoch_weights
from multihead.choices import training_choice
from multihead.criteria import Criterion
from multihead.files import write_text
from multihead.identity import check_identity
from multihead.loading import drawn_from
from multihead.logs import Events, bar, write_rows
from multihead.metrics import Scores, selection_of
from multihead.model import Model
from multihead.modes import Mode, Pins, decided_precision, warn_of_precision
from multihead.options import to_dict
from multihead.outputs import Claim
from multihead.recipe import Recipe
from multihead.schedules import rate
from multihead.sides import Ready, objective, scored, stand, training_order
from multihead.steps import Stepper


class Run:
    """One training in progress: the weights, the optimiser, and how far they are."""

    def __init__(
        self,
        model: Model,
        train: Ready,
        valid: Ready | None,
        recipe: Recipe,
        claim: Claim | None,
        workers: int,
        mode: Mode | None = None,
        book: Path | None = None,
    ) -> None:
        targets, criteria = objective(model, train, recipe)
        self.train, self.valid, self.recipe, self.workers = train, valid, recipe, workers
        self.claim, self.folder = claim, None if claim is None else claim.folder
        self.order = training_order(train, model.heads, recipe, recipe.grad_accum_steps)
        if mode:  # of the checkpoint, which may be another machine's
            warn_of_precision(next(model.parameters()).device, mode, model.crops)
        self.steps = Stepper(model, criteria, targets, recipe, mode or self._choose(model, criteria, book))
        self.epoch, self.batch = 1, 0  # the next batch of this process
        self.losses: dict[str, float] = {}
        self.rows: list[dict[str, Any]] = []
        self.taken: list[tuple[float, float]] | None = None  # (rate, loss) of each step, where somebody asks
        self.course: Callable[[int], float] | None = None  # the rate of each step, in place of the schedule's
        self.best: dict[str, Any] = {"score": float("-inf"), "epoch": 0}
        self.kept: dict[str, torch.Tensor] | None = None
        self.last_scores: Scores | None = None
        self.kept_scores: Scores | None = None

    def _choose(self, model: Model, criteria: Mapping[str, Criterion], book: Path | None) -> Mode:
        """The mode of this run's steps, the same on every process; says which, and why, where it was timed."""
        recipe = self.recipe
        steps = recipe.epochs * self.order.steps * recipe.grad_accum_steps
        sizes: dict[str, Any] = {"batch_size": self.order.batch_size, "steps": steps}
        shared: dict[str, Any] = {"book": book, "like": f"{recipe.epochs} epochs, {recipe.epoch_photos} photos"}
        choice = training_choice(model, criteria, recipe.optim, **sizes, pins=pins(recipe), **shared)
        choice = ranks.gather(choice)[0]
        if choice.seconds:
            ranks.tell(f"speed: {choice}")
        return choice.mode

    @property
    def model(self) -> Model:
        """The model that is trained."""
        return self.steps.model

    def epochs(self, progress: bool) -> Iterator[dict[str, Any]]:
        """Train the epochs that are left, a row each, then keep the weights that the recipe selects; the folder is
        released at the end, however that comes."""
        try:
            yield from self._epochs(progress)
        finally:
            if self.claim is not None:
                self.claim.release()

    def _epochs(self, progress: bool) -> Iterator[dict[str, Any]]:
        writes = self.folder is not None and ranks.first()
        events: Events | None = None
        batches = self.train.batches(self.order, workers=self.workers, device=self.steps.device)
        try:
            while self.epoch <= self.recipe.epochs and not self._exhausted():
                row = self._epoch(batches, progress)
                self.rows.append(row)
                self.epoch, self.batch, self.losses = self.epoch + 1, 0, {}
                if writes:
                    write_rows(self.folder / "metrics.csv", self.rows)  # type: ignore[operator]
                    events = events or Events(self.folder, self.epoch - 1)  # type: ignore[arg-type]
                    events.add(row)
                    self._save([])
                yield row
        finally:  # also where the caller leaves, or is interrupted, while the backbone is frozen
            self.steps.thaw()
            if events:
                events.close()
        self._finish(writes)

    def _exhausted(self) -> bool:
        patience, scored = self.recipe.patience, [row["epoch"] for row in self.rows if "selected_by" in row]
        if patience is None or not scored or self.best["epoch"] == 0:  # nothing had a score yet
            return False
        return scored[-1] - self.best["epoch"] >= patience

    def _epoch(self, batches: Any, progress: bool) -> dict[str, Any]:
        started, first = time.perf_counter(), self.batch
        self._train_epoch(batches, progress)
        seconds = time.perf_counter() - started
        done = (self.order.steps * self.order.accumulate - first) * self.order.batch_size * ranks.world()
        row: dict[str, Any] = {"epoch": self.epoch, "lr": self._rate(self.order.steps - 1)}
        row |= self._mean_losses()
        row["photos_per_s"] = done / seconds
        row |= self._validate()
        row["seconds"] = time.perf_counter() - started
        return row

    def _mean_losses(self) -> dict[str, float]:
        """The epoch's mean loss, and each head's over the steps that know it, of all processes."""
        gathered = ranks.gather(self.losses)
        names = dict.fromkeys(name for part in gathered for name in part if not name.startswith("n "))
        sums = {name: sum(part.get(name, 0.0) for part in gathered) for name in names}
        counts = {name: sum(part.get(f"n {name}", 0.0) for part in gathered) for name in names}
        return {name: sums[name] / counts[name] for name in names}

    def _train_epoch(self, batches: Any, progress: bool) -> None:
        self.order.epoch, self.order.skip = self.epoch, self.batch
        self.steps.train(frozen=self.epoch <= self.recipe.freeze_epochs)
        weights = epoch_weights(self.recipe.balance, self.rows, [head.name for head in self.model.heads])
        weights = {
            name: weights.get(name, 1.0) * self.recipe.head_weights.get(name, 1.0)
            for name in dict.fromkeys([*weights, *self.recipe.head_weights])
        }
        last = self.rows[-1] if self.rows else {}
        shown = bar(len(self.order) * self.order.batch_size, f"epoch {self.epoch}/{self.recipe.epochs}", progress)
        if "macro_f1" in last:
            shown.set_postfix(f1=f"{last['macro_f1']:.3f}")
        with shown, drawn_from(batches) as rest:
            while parts := list(islice(rest, self.recipe.grad_accum_steps)):
                losses = self.steps.gradient(parts, self.epoch, self.batch, weights)
                self.batch += len(parts)
                self._count(losses)
                self._step()
                shown.update(sum(len(part.rows) for part in parts))

    def _count(self, losses: Mapping[str, float]) -> None:
        """Add a step's losses to the epoch's sums; "n <name>" is how many steps went into a sum."""
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value
            self.losses[f"n {name}"] = self.losses.get(f"n {name}", 0.0) + 1
        if self.taken is not None:
            self.taken.append((self._rate(self.batch // self.recipe.grad_accum_steps - 1), losses["loss"]))

    def _step(self) -> None:
        step = self.batch // self.recipe.grad_accum_steps - 1  # within the epoch, from 0
        self.steps.update(self._rate(step), (self.epoch - 1) * self.order.steps + step + 1)
        inside = step + 1 < self.order.steps
        if inside and (step + 1) % self.recipe.recovery_interval == 0 and self.folder is not None:
            losses = ranks.gather(self.losses)
            if ranks.first():
                self._save(losses)

    def _rate(self, step: int) -> float:
        whole = (self.epoch - 1) * self.order.steps + step
        if self.course is not None:
            return self.course(whole)
        steps, epochs = self.order.steps * self.recipe.epochs, self.recipe.epochs
        history = [selection_of(row) for row in self.rows]
        return rate(self.recipe.schedule, self.recipe.optim.lr, whole, steps, epochs, history=history)

    def _validate(self) -> dict[str, Any]:
        """Scores of this epoch as columns of its row; keeps the weights if they are the best, or the last."""
        interval = self.recipe.val_interval or (1 if self.recipe.select == "best" else self.recipe.epochs)
        due = self.epoch % interval == 0 or self.epoch == self.recipe.epochs
        if self.valid is None or not len(self.valid.rows) or not due:
            return {}
        found = self._scores(self.steps.scored, self.valid)
        value, name = found.selection
        row: dict[str, Any] = {"macro_f1": found.f1, "accuracy": found.accuracy, "selected_by": name}
        row |= {f"{head}_f1": part.f1 for head, part in found.heads.items()}
        self.last_scores = found
        if self.recipe.select == "best" and value > self.best["score"]:  # never with NaN
            self.best = {"score": value, "epoch": self.epoch}
            self._keep(found)
        return row

    def _scores(self, model: Model, valid: Ready) -> Scores:
        return scored(model, valid, workers=self.workers, precision=self.steps.mode.precision)

    def _keep(self, found: Scores | None) -> None:
        self.kept_scores = found
        self.kept = {name: value.detach().cpu().clone() for name, value in self.steps.scored.state_dict().items()}
        if self.folder is not None and ranks.first():
            content = {"model": self.kept, "epoch": self.epoch, "score": self.best["score"]}
            checkpoint.save(self.folder / "checkpoints" / "best.pt", content)

    def _finish(self, writes: bool) -> None:
        if self.recipe.select == "last" or self.kept is None:
            self.epoch -= 1
            ranks.share_buffers(self.steps.scored)  # scoring shares them, where there was any
            self._keep(self.last_scores)
        self.model.load_state_dict(self.kept)  # type: ignore[arg-type]
        self.model.eval()
        if self.valid is not None and len(self.valid.rows) and self.kept_scores is None:
            # a resume trained nothing better; the model itself, no moving average, holds the kept weights now
            self.kept_scores = self._scores(self.model, self.valid)
        if writes:
            self.model.save_pretrained(self.folder / "model")  # type: ignore[operator]
            if self.kept_scores is not None:
                text = json.dumps(self.kept_scores.to_dict(), indent=2)
                write_text(self.folder / "metrics.json", text + "\n")  # type: ignore[operator]
        ranks.wait()

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a resumed run to be the same run."""
        return {
            "recipe": to_dict(self.recipe),
            "photos": stand(self.train),
            "validation photos": None if self.valid is None else stand(self.valid),
            "model": repr((self.model.backbone_name, self.model.heads, self.model.rates)),
            "processes": ranks.world(),
        }

    def _save(self, losses: Sequence[Mapping[str, float]]) -> None:
        """Write the checkpoint; losses: the sums of an unfinished epoch, of each process."""
        state = {
            "identity": self._identity(),
            **self.steps.state(),
            "epoch": self.epoch,
            "batch": self.batch,
            "losses": list(losses),
            "rows": self.rows,
            "best": self.best,
            "mode": str(self.steps.mode),
        }
        checkpoint.save(self.folder / "checkpoints" / "last.pt", state)  # type: ignore[operator]

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go back to the folder's last checkpoint.

        Raises: ValueError where it is of other photos, another model or recipe.
        """
        assert self.folder is not None
        path = self.folder / "checkpoints" / "last.pt"
        check_identity(state.get("identity"), self._identity(), path)
        self.steps.load_state(state)
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.losses = state["losses"][ranks.rank()] if state["losses"] else {}
        self.rows, self.best = state["rows"], state["best"]
        if self.best["epoch"]:
            self.kept = checkpoint.kept_weights(self.folder / "checkpoints" / "best.pt", self.best["epoch"])


def pins(recipe: Recipe) -> Pins:
    """What the recipe decides of how steps are computed."""
    return Pins(decided_precision(recipe.amp, recipe.amp_dtype), recipe.channels_last, recipe.torchcompile)
