"""What contenders cost: parameters, backbone passes, time per photo and memory of a training step and of an answer."""

import multiprocessing
import statistics
import time
from pathlib import Path

import torch

import multihead as mh
from multihead.balance import combine
from multihead.criteria import criterion
from multihead.losses import CrossEntropy
from multihead.optim import create_optimizer
from multihead.targets import targets

ROWS = 32  # photos a batch


def measure(arms, pairs):
    """{name: its cost}: medians over rounds in which every contender has its turn, and ratios to the first one."""
    models = {name: arm.models() for name, arm in arms.items()}
    times = {name: {"train_step": [], "answer": []} for name in models}
    for round_ in range(pairs + 1):
        for name in list(models) if round_ % 2 else list(models)[::-1]:
            taken = {"train_step": sum(map(step, models[name])), "answer": sum(map(answer, models[name]))}
            if round_:  # the first round warms up
                for what, seconds in taken.items():
                    times[name][what].append(seconds)
    first = next(iter(times))
    return {
        name: {
            "parameters": sum(p.numel() for model in models[name] for p in model.parameters()),
            "passes": sum(len(model.crops) for model in models[name]),
            "memory_mb": _memory(arms[name]),
            "device": str(next(models[name][0].parameters()).device),
            **{what: _time(times[name][what], times[first][what]) for what in ("train_step", "answer")},
        }
        for name in models
    }


def table(costs):
    """The costs as a Markdown table; ratios to the first contender with their quartiles."""
    lines = ["| | passes a photo | parameters | training step | answer | peak memory of training |", "|---" * 6 + "|"]
    for name, found in costs.items():
        cells = [name, str(found["passes"]), f"{found['parameters'] / 1e6:.2f} M"]
        for what in ("train_step", "answer"):
            part = found[what]
            ratio = f"{part['ratio']:.2f} ({part['quartiles'][0]:.2f}-{part['quartiles'][1]:.2f})"
            cells.append(f"{1e3 * part['seconds']:.2f} ms a photo, {ratio}")
        lines.append("| " + " | ".join([*cells, f"{found['memory_mb']:.0f} MB"]) + " |")
    return "\n".join(lines)


def _time(mine, others):
    ratios = [one / other for one, other in zip(mine, others)]
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    spread = {"ratio": quartiles[1], "quartiles": [quartiles[0], quartiles[2]], "rounds": len(ratios)}
    return {"seconds": statistics.median(mine) / ROWS} | spread


def _batch(model):
    generator = torch.Generator().manual_seed(0)
    shape = {crop: (ROWS, 3, *crop.size) for crop in model.crops}
    place = next(model.parameters()).device
    return {
        crop: torch.randint(0, 256, shape[crop], dtype=torch.uint8, generator=generator).to(place) for crop in shape
    }


def step(model):
    """Seconds of one training step."""
    model.train()
    place = next(model.parameters()).device
    optimizer, images = create_optimizer(model, mh.AdamW(0.0)), _batch(model)
    rows = targets(torch.zeros(ROWS, len(model.space), dtype=torch.int64), model.heads)
    rows = {name: row.to(place) for name, row in rows.items()}
    losses = {head.name: criterion(CrossEntropy(), head, torch.ones(len(head.classes))) for head in model.heads}
    started = _now(place)
    logits = model(images)
    each = {name: losses[name](logits[name], rows[name]) for name in logits}
    combine(each, dict.fromkeys(each, True), {}).backward()
    optimizer.step()
    return _now(place) - started


def answer(model):
    """Seconds of one batch of answers."""
    model.eval()
    place, images = next(model.parameters()).device, _batch(model)
    started = _now(place)
    with torch.inference_mode():
        model.probs(images).cpu()
    return _now(place) - started


def _now(place):
    if place.type == "cuda":
        torch.cuda.synchronize(place)
    return time.perf_counter()


def _memory(arm):
    """Peak MB of three training steps of a contender, models one after the other, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return max(pool.apply(_peak, (arm, number)) for number in range(len(arm.models())))


def _peak(arm, number):
    model = arm.models()[number]
    place = next(model.parameters()).device
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far, of importing
    before = 0 if place.type == "cuda" else _kilobytes("VmRSS") / 2**10
    for _ in range(3):
        step(model)
    after = torch.cuda.max_memory_allocated(place) / 2**20 if place.type == "cuda" else _kilobytes("VmHWM") / 2**10
    return after - before


def _kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])
