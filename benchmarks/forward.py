"""Answers of a model on pixels that are there: ours as `predict` gives them, beside timm as it is usually called.

    python benchmarks/forward.py [--model tf_efficientnet_lite0] [--size 224]

One JSON line: photos a second of each side and how many times as fast ours is; heads beside the flat model in a
training step and in answers; two crops beside one. Each side of answers runs in a process of its own, theirs with
glibc's own thresholds.
"""

import argparse
import json

import cost
import pairs
from record import record

PHOTOS = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=30, help="of heads and flat, in answers and training steps")
    arguments = parser.parse_args()
    about = {"model": arguments.model, "size": arguments.size, "photos": PHOTOS, **pairs.surroundings()}
    numbers = {"answers": answers(arguments), **shared_backbone(arguments)}
    print(json.dumps(record("forward", about, numbers)))
    assert numbers["answers"]["ours"]["faster"]["ratio"] >= 5, "answers less than 5 times as fast as timm's"
    for what, found in numbers["heads to flat, times as long"].items():
        assert found["interval"][0] <= 1, f"{what}: three heads cost more than one"
    for what, found in numbers["two crops to one, times as long"].items():
        assert found["ratio"] <= 2.15, f"{what}: two crops cost {found['ratio']} times"
    assert numbers["passes a photo"] == {"flat": 1, "heads": 1, "two crops": 2}, "a crop was read twice"


def answers(arguments):
    """{side: photos a second, and how many times as fast as the first}."""
    import torch

    from multihead.modes import computes

    settings = {"backbone": arguments.model, "size": arguments.size}
    sides = {
        "timm eager": pairs.Side(timm_eager, settings),
        "timm eager, thresholds raised": pairs.Side(timm_eager, settings | {"thresholds": True}),
        "ours f32": pairs.Side(ours, settings | {"precision": "f32"}),
        "ours": pairs.Side(ours, settings),
    }
    if computes(torch.device("cpu"), "bf16"):
        sides["timm channels_last bf16, thresholds raised"] = pairs.Side(timm_tuned, settings)
    times = pairs.measure(sides, arguments.rounds)
    first = times["timm eager"]
    found = {
        name: {"photos_per_s": round(PHOTOS / sorted(each)[len(each) // 2], 1), "faster": pairs.faster(each, first)}
        for name, each in times.items()
    }
    found["ours"]["mode"] = sides["ours"].about
    for side in sides.values():
        side.close()
    return found


def timm_eager(backbone, size, thresholds=False):
    """What a user writes: a classifier of 18 classes, float images, batches of 32."""
    import timm
    import torch

    if thresholds:
        from multihead.speed import keep_memory

        keep_memory()
    model = timm.create_model(backbone, num_classes=18).eval()
    images = torch.rand(32, 3, size, size)

    def work():
        with torch.inference_mode():
            for _ in range(PHOTOS // 32):
                model(images).softmax(1)

    return work


def timm_tuned(backbone, size):
    """timm by a user who knows how: bf16 autocast, channels_last, the allocator told to keep memory."""
    import timm
    import torch

    from multihead.speed import keep_memory

    keep_memory()
    model = timm.create_model(backbone, num_classes=18).eval().to(memory_format=torch.channels_last)
    images = torch.rand(32, 3, size, size).contiguous(memory_format=torch.channels_last)

    def work():
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            for _ in range(PHOTOS // 32):
                model(images).softmax(1)

    return work


def ours(backbone, size, precision=None):
    """The model's part of `predict`: uint8 crops in, joint probabilities out, in lanes."""
    import numpy as np
    import torch

    import multihead as mh
    from multihead.lanes import in_lanes, lane_count
    from multihead.modes import Pins
    from multihead.pipeline import CHUNK, batch_answers
    from multihead.prepared import prepared
    from multihead.speed import keep_memory

    keep_memory()
    crop = mh.FULL.resized(size)
    model = mh.Model(backbone, heads=[head.on(crop) for head in mh.HEADS]).eval()
    lanes, rows = lane_count(), CHUNK["cpu"]
    share = max(1, torch.get_num_threads() // lanes)
    torch.set_num_threads(share)
    fast, (choice,) = prepared(model, rows, Pins(precision))
    photo = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    chunks = [[([photo], [True])] * rows] * (PHOTOS // rows)

    def work():
        for _ in in_lanes(lambda chunk: batch_answers(fast, chunk), chunks, lanes, share):
            pass

    work.about = str(choice.mode)
    return work


def shared_backbone(arguments):
    """Heads beside flat in a training step and in answers, two crops beside one in answers: all in one process."""
    import multihead as mh
    from multihead.speed import keep_memory

    keep_memory()
    full, face = mh.FULL.resized(arguments.size), mh.FACE.resized(arguments.size)
    tables = {
        "flat": mh.flat([head.on(full) for head in mh.HEADS]),
        "heads": [head.on(full) for head in mh.HEADS],
        "two crops": [mh.MASK.on(face), mh.GENDER.on(full), mh.AGE.on(face, full)],
    }
    models = {name: mh.Model(arguments.model, heads=table) for name, table in tables.items()}
    kinds = {"training step": cost.step, "answer": cost.answer}
    times = {(what, name): [] for what in kinds for name in models}
    for number in range(arguments.pairs + 1):
        for name in list(models) if number % 2 else list(models)[::-1]:
            for what, work in kinds.items():
                seconds = work(models[name])
                if number:  # the first round warms up
                    times[what, name].append(seconds)
    # times as long as: the other way round than times as fast
    longer = {what: pairs.faster(times[what, "flat"], times[what, "heads"]) for what in kinds}
    crops = {what: pairs.faster(times[what, "heads"], times[what, "two crops"]) for what in kinds}
    return {
        "heads to flat, times as long": longer,
        "two crops to one, times as long": crops,
        "passes a photo": {name: _passes(model) for name, model in models.items()},
    }


def _passes(model):
    """How many images go through the backbone for each photo, counted."""
    import torch

    counted = []
    hook = model.backbone.register_forward_pre_hook(lambda _, inputs: counted.append(len(inputs[0])))
    with torch.inference_mode():
        model.eval().probs({crop: torch.zeros(2, 3, *crop.size, dtype=torch.uint8) for crop in model.crops})
    hook.remove()
    return sum(counted) / 2


if __name__ == "__main__":
    main()
