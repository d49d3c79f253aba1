"""Which mode is fastest for a model on this machine: a few timed passes on a copy, remembered for the next time."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from multihead import ranks
from multihead.criteria import Criterion
from multihead.files import cache_folder, locked, turn, write_text
from multihead.model import Model
from multihead.modes import Mode, Pins, candidates, machine, pinned, usable, warn_of_precision
from multihead.optim import Optim
from multihead.speed import keep_memory, kept
from multihead.timing import Steps, answers, apart, fastest, pixels

LEAST = 64  # steps of a run below which timing costs more than it saves
COMPILE_FROM = 1800.0  # seconds of training that must be ahead before a compilation is tried
COMPILE_GAIN = 1.05  # times as fast that compiled steps must be: what compiling takes of so long a training
COMPILE_ROUNDS = 7  # steps that are timed of both sides
TIMED = 16  # photos of the passes that are timed for answers, as many as `predict` answers together


@dataclass(frozen=True)
class Choice:
    """A mode; how it was found: "given", "usual", "timed" or "remembered"; and {mode: seconds} where it was timed."""

    mode: Mode
    found: str
    seconds: Mapping[Mode, float] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{self.mode} ({self.found}"
        if self.mode in self.seconds:
            plain = next(iter(self.seconds))
            text += f": {self.seconds[self.mode]:.3g} s against {self.seconds[plain]:.3g} s for {plain}"
        return text + ")"


def training_choice(
    model: Model,
    criteria: Mapping[str, Criterion],
    optim: Optim,
    *,
    batch_size: int,
    steps: int,
    pins: Pins = Pins(),
    book: Path | None = None,
    like: str = "",
) -> Choice:
    """The fastest mode for the training steps of a model, of those that `pins` leave open; model and random numbers
    stay as they are.

    criteria: {head: loss}. steps: how many are ahead: of a short run nothing is timed. book: a file of the runs of one
    comparison: the first of them chooses for all that train a backbone on the same crops and batches, on this kind of
    device, and are `like` it, as in their epochs; but not a precision that is not `usable` here.
    """
    if pinned() is not None or book is None:
        return _training_choice(model, criteria, optim, batch_size, steps, pins)
    device = next(model.parameters()).device
    decided = (f"{name} {value}" for name, value in vars(pins).items())
    key = "; ".join([*_sizes(model, batch_size), device.type, like, *decided])
    mode = _stands(book).get(key)
    choice = Choice(mode or Mode(), "the comparison's")
    if mode is None:
        choice = _training_choice(model, criteria, optim, batch_size, steps, pins)
        mode = _settle(book, key, choice.mode)
    if pins.precision is None and not usable(device, mode.precision, model.crops):
        return _training_choice(model, criteria, optim, batch_size, steps, pins)
    return choice if mode == choice.mode else Choice(mode, "the comparison's")


def _training_choice(
    model: Model, criteria: Mapping[str, Criterion], optim: Optim, batch_size: int, steps: int, pins: Pins
) -> Choice:
    device = next(model.parameters()).device
    plain = Mode(keep_memory=False, channels_last=False)
    open_ = _open(candidates(device, False, model.crops), pins)
    given = pinned()
    if given is not None or not open_ or len(open_) == 1 and pins.compiled is not None:
        decided = pins.on(given or (open_ or [Mode()])[0])
        warn_of_precision(device, decided, model.crops)
        return Choice(decided, "given")
    if steps < LEAST:  # whatever is remembered: the same run is computed alike on the first day and on the second
        return Choice(pins.on(Mode()), "usual")
    key = _key("train", model, device, batch_size)
    seconds = _remembered(key)
    found = "remembered" if set(open_) <= set(seconds) else "timed"
    if found == "timed":
        with apart(device):
            run = Steps(model, criteria, optim, batch_size)
            if pins.allow(plain) and not kept():
                seconds |= fastest({plain: run.of(plain)})
            keep_memory()
            seconds |= fastest({mode: run.of(mode) for mode in open_})
        _remember(key, seconds)
    allowed = {mode: value for mode, value in seconds.items() if mode == plain and pins.allow(plain) or mode in open_}
    if not any(map(math.isfinite, allowed.values())):
        return Choice(pins.on(Mode()), "usual")
    chosen = pins.on(min(allowed, key=lambda mode: allowed[mode]))
    if pins.compiled is None and steps * allowed[replace(chosen, compiled=False)] >= COMPILE_FROM:
        both = _compiled(model, criteria, optim, batch_size, chosen)
        if COMPILE_GAIN * both[replace(chosen, compiled=True)] <= both[chosen] < math.inf:
            chosen, allowed = replace(chosen, compiled=True), allowed | both
    return Choice(chosen, found, allowed)


def _compiled(
    model: Model, criteria: Mapping[str, Criterion], optim: Optim, batch_size: int, chosen: Mode
) -> dict[Mode, float]:
    """{mode: seconds} of the chosen mode as it is and compiled, timed in turn: timed apart, the rest of the machine
    decides between them."""
    modes = (chosen, replace(chosen, compiled=True))
    device = next(model.parameters()).device
    key = _key("train compiled", model, device, batch_size)
    seconds = _remembered(key)
    if not set(modes) <= set(seconds):
        ranks.tell(
            "speed: compiling, to see whether that pays; it may take minutes (or --torchcompile, --no-torchcompile)"
        )
        if chosen.keep_memory:
            keep_memory()
        with apart(device):
            run = Steps(model, criteria, optim, batch_size)
            seconds = fastest({mode: run.of(mode) for mode in modes}, COMPILE_ROUNDS, hopeless=math.inf)
        _remember(key, seconds)
    return {mode: seconds.get(mode, math.inf) for mode in modes}


def answering_choice(model: Model, ready: Callable[[Mode], Model], batch_size: int, pins: Pins = Pins()) -> Choice:
    """The fastest mode for the answers of a model; ready: a copy of it that computes in a mode."""
    device = next(model.parameters()).device
    open_ = _open(candidates(device, not pins.compiled, model.crops), pins)
    given = pinned()
    if given is not None or len(open_) < 2:
        decided = pins.on(given or (open_ or [Mode()])[0])
        warn_of_precision(device, decided, model.crops)
        return Choice(decided, "given")
    batch_size = min(batch_size, TIMED)
    kind = next(model.parameters()).dtype
    key = _key("answer" if kind == torch.float32 else f"answer in {kind}", model, device, batch_size)
    seconds = _remembered(key)
    found = "remembered" if set(open_) <= set(seconds) else "timed"
    if found == "timed":
        with apart(device):
            images = pixels(model.crops, batch_size, device)
            seconds |= fastest({mode: answers(mode, ready, images, device) for mode in open_})
        if any(map(math.isfinite, seconds.values())):  # else something was wrong that may pass
            _remember(key, seconds)
    seconds = {mode: value for mode, value in seconds.items() if mode in open_}
    if not any(map(math.isfinite, seconds.values())):
        return Choice(pins.on(Mode()), "usual")
    return Choice(pins.on(min(seconds, key=lambda mode: seconds[mode])), found, seconds)


def _open(modes: list[Mode], pins: Pins) -> list[Mode]:
    """Those that the user's decisions allow; compiled or not is for later."""
    return [mode for mode in modes if pins.allow(replace(mode, compiled=bool(pins.compiled)))]


def _key(what: str, model: Model, device: torch.device, batch_size: int) -> str:
    return "; ".join([what, *_sizes(model, batch_size), machine(device), f"torch {torch.__version__}"])


def _sizes(model: Model, batch_size: int) -> list[str]:
    crops = ", ".join(f"{crop.size[0]}x{crop.size[1]}" for crop in model.crops)
    return [model.backbone_name, crops, f"batch {batch_size}"]


def _stands(book: Path) -> dict[str, Mode]:
    """What a comparison has chosen so far; an unreadable book is written anew."""
    try:
        return {key: Mode.parse(text) for key, text in json.loads(book.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _settle(book: Path, key: str, mode: Mode) -> Mode:
    """The mode that stands in the book under a key, this one where none does yet; processes agree on the first."""
    with turn(book.with_suffix(".lock")):
        known = _stands(book)
        if key not in known:
            known[key] = mode
            write_text(book, json.dumps({name: str(each) for name, each in known.items()}, indent=1))
        return known[key]


_KNOWN: dict[tuple[Path, str], dict[Mode, float]] = {}  # of this process, where the file cannot be written


def _remembered(key: str) -> dict[Mode, float]:
    """{mode: seconds} of earlier timings on this machine, infinite for what is not supported; empty without any."""
    try:
        found = json.loads(_file().read_text())[key]
        return {Mode.parse(text): float(value) for text, value in found.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return dict(_KNOWN.get((_file(), key), {}))


def _remember(key: str, seconds: Mapping[Mode, float]) -> None:
    _KNOWN[_file(), key] = dict(seconds)
    with contextlib.suppress(OSError):  # a folder that cannot be written costs the timing again, no more
        _file().parent.mkdir(parents=True, exist_ok=True)
        with locked(_file().with_suffix(".lock")) as mine:
            if mine:  # else another process writes what it timed; this one's is timed again some day
                _write(key, seconds)


def _write(key: str, seconds: Mapping[Mode, float]) -> None:
    try:
        known = json.loads(_file().read_text())
        known = known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        known = {}
    known[key] = {str(mode): value for mode, value in seconds.items()}
    write_text(_file(), json.dumps(known, indent=1))


def _file() -> Path:
    return cache_folder() / "modes.json"
