"""A run that stops half-way and goes on ends with the same weights, bit by bit, as one that never stopped.

python examples/resume.py [PHOTOS]    # by default drawn people
"""

import hashlib
import tempfile
from pathlib import Path

import torch

import multihead as mh


def main(root, epochs=4, backbone="resnet10t", size=64):
    train, valid = mh.read(root).split(0.2, seed=0)
    recipe = mh.Recipe(epochs=epochs, optim=mh.MADGRAD(1e-3), ema=mh.EMA(0.99), grad_accum_steps=2, recovery_interval=2)

    def run(out, stop_after=None):
        torch.manual_seed(recipe.seed)
        model = mh.Model(backbone, heads=[head.on(mh.FULL.resized(size)) for head in mh.HEADS])
        for row in mh.epochs(model, train, valid, recipe, out=out, resume=True):
            if row["epoch"] == stop_after:
                return None  # as if the machine had gone down
        return hashlib.sha256((Path(out) / "model" / "model.safetensors").read_bytes()).hexdigest()

    with tempfile.TemporaryDirectory() as folder:
        whole = run(f"{folder}/whole")
        run(f"{folder}/halves", stop_after=epochs // 2)
        halves = run(f"{folder}/halves")
    print(f"uninterrupted {whole[:16]}, resumed {halves[:16]}, equal: {whole == halves}")
    return whole, halves


if __name__ == "__main__":
    from start import start

    start(main)
