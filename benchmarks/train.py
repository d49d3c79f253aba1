"""A training step in the mode that is chosen when a long run starts, beside the plain one: eager, f32, glibc's
thresholds.

    python benchmarks/train.py [--models resnet18 tf_efficientnet_lite0 ...]

One JSON line: for each backbone the chosen mode and how many times as fast it is; each side in a process of its own.
What choosing and compiling take is not in it; --steps says how long a run is ahead, as only long ones are compiled.
"""

import argparse
import json
import statistics

import pairs
from record import record

MODELS = ("resnet18", "tf_efficientnet_lite0", "efficientnet_b0", "mobilenetv3_small_100", "vit_tiny_patch16_224")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("-b", "--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    about = {"size": arguments.size, "batch": arguments.batch_size, "steps": arguments.steps, **pairs.surroundings()}
    numbers = {name: compare(name, arguments) for name in arguments.models}
    ratios = [each["faster"]["ratio"] for each in numbers.values()]
    middle = statistics.median(ratios)
    print(json.dumps(record("train", about, {"backbones": numbers, "median": middle, "least": min(ratios)})))
    assert middle >= 1.6, f"the chosen modes are {middle:.2f} times as fast; expected 1.6"
    assert min(ratios) >= 0.98, "a chosen mode slows a backbone"


def compare(name, arguments):
    """The chosen mode of a backbone, milliseconds of a step of both sides, and their ratio."""
    settings = {"backbone": name, "size": arguments.size, "batch_size": arguments.batch_size}
    sides = {"plain": pairs.Side(plain, settings), "chosen": pairs.Side(chosen, {**settings, "steps": arguments.steps})}
    times = pairs.measure(sides, arguments.rounds, warm=2)
    for side in sides.values():
        side.close()
    return {
        "mode": sides["chosen"].about,
        "ms": {each: round(1000 * statistics.median(times[each])) for each in times},
        "faster": pairs.faster(times["chosen"], times["plain"]),
    }


def plain(backbone, size, batch_size):
    """A step as torch does it by default."""
    from multihead.modes import Mode

    return _step(backbone, size, batch_size, 0, Mode(channels_last=False, keep_memory=False))


def chosen(backbone, size, batch_size, steps):
    """A step in the mode that is timed to be the fastest; what was remembered of this machine is not used."""
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        return _step(backbone, size, batch_size, steps, None)


def _step(backbone, size, batch_size, steps, mode):
    import torch

    import multihead as mh
    from multihead.choices import training_choice
    from multihead.criteria import criterion
    from multihead.losses import CrossEntropy
    from multihead.timing import Steps

    crop = mh.FULL.resized(size)
    model = mh.Model(backbone, heads=[head.on(crop) for head in mh.HEADS])
    losses = {head.name: criterion(CrossEntropy(), head, torch.ones(len(head.classes))) for head in mh.HEADS}
    if mode is None:
        mode = training_choice(model, losses, mh.AdamW(), batch_size=batch_size, steps=steps).mode
    work = Steps(model, losses, mh.AdamW(), batch_size).of(mode)
    work.about = str(mode)
    return work


if __name__ == "__main__":
    main()
