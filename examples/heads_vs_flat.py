"""The multi-head model beside the flat 18-way model: same people, backbone, recipe and seed.

python examples/heads_vs_flat.py [PHOTOS]    # by default drawn people
"""

import torch

import multihead as mh


def main(root, epochs=8, backbone="resnet10t", size=96):
    train, valid = mh.read(root).split(0.2, seed=0)
    recipe = mh.Recipe(epochs=epochs, optim=mh.AdamW(4e-3), ema=mh.EMA(0.99))
    heads = [head.on(mh.FULL.resized(size)) for head in mh.HEADS]
    found = {}
    for name, table in {"heads": heads, "flat": mh.flat(heads)}.items():
        torch.manual_seed(recipe.seed)
        model = mh.Model(backbone, heads=table)
        mh.fit(model, train, valid, recipe)
        found[name] = mh.evaluate(model, valid)
        print(f"{name}\n{found[name]}")
    print(f"heads minus flat, macro-F1 over 18 classes: {found['heads'].f1 - found['flat'].f1:+.3f}")
    return found


if __name__ == "__main__":
    from start import start

    start(main)
