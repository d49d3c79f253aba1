"""Three models of one head each, combined into one joint distribution, which votes together with a flat model.

python examples/three_models.py [PHOTOS]    # by default drawn people
"""

import multihead as mh


def main(root, epochs=8, backbone="resnet10t", size=96):
    train, valid = mh.read(root).split(0.2, seed=0)
    recipe = mh.Recipe(epochs=epochs, optim=mh.AdamW(4e-3), ema=mh.EMA(0.99))
    full = mh.FULL.resized(size)
    members = [mh.Model(backbone, heads=[head.on(full)]) for head in mh.HEADS]
    flat = mh.Model(backbone, heads=mh.flat([head.on(full) for head in mh.HEADS]))
    for model in [*members, flat]:
        mh.fit(model, train, valid, recipe)
    three = mh.combine(members)
    both = mh.Ensemble([three, flat])
    found = {name: mh.evaluate(model, valid).f1 for name, model in {"three": three, "flat": flat, "both": both}.items()}
    for name, f1 in found.items():
        print(f"{name}: macro-F1 {f1:.3f}")
    return found


if __name__ == "__main__":
    from start import start

    start(main)
