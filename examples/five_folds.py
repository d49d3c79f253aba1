"""Five folds: every photo answered by the model that did not see its person, and the five models as one.

python examples/five_folds.py [PHOTOS [OUTPUT]]    # by default drawn people, and runs/five_folds-<name of PHOTOS>
"""

import multihead as mh
from multihead.ensemble import fit_folds, open_folds
from multihead.soup import average, refresh


def main(root, out, folds=5, epochs=6, backbone="resnet10t", size=64):
    photos, held_out = mh.read(root).split(0.2, seed=0)
    recipe = mh.Recipe(epochs=epochs, optim=mh.AdamW(4e-3))

    def model():
        return mh.Model(backbone, heads=[head.on(mh.FULL.resized(size)) for head in mh.HEADS])

    # call it again to go on after an interruption, or elsewhere with only=[3] to train one fold there
    scores = fit_folds(model, photos, recipe, out=out, folds=folds, say=print)
    pooled = scores.iloc[-1]
    print(f"out of fold: {pooled.macro_f1:.3f} [{pooled.macro_f1_low:.3f}, {pooled.macro_f1_high:.3f}] over people")
    models = open_folds(out).models()
    found = {f"fold {number}": mh.evaluate(one, held_out).f1 for number, one in enumerate(models)}
    found["ensemble"] = mh.evaluate(mh.Ensemble(models), held_out).f1
    found["soup"] = mh.evaluate(refresh(average(models), photos), held_out).f1  # the cost of one model
    for name, f1 in found.items():
        print(f"{name}: macro-F1 {f1:.3f} on people that no fold saw")
    return found


if __name__ == "__main__":
    from start import start

    start(main)
