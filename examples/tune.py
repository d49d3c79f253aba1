"""A search for the learning rate, the loss and the heads' crops, scored on people that a trial did not train on.

python examples/tune.py [PHOTOS [OUTPUT]]    # by default drawn people, and runs/tune-<name of PHOTOS>
"""

import multihead as mh
from multihead.losses import CrossEntropy, Focal
from multihead.study import Plan
from multihead.tune import search

LOSSES = {"crossentropy": CrossEntropy(), "focal": Focal(gamma=2)}
FIRST = {"lr": 1e-3, "loss": "crossentropy", "crops": "full"}  # the settings to beat


def main(root, out, epochs=3, trials=8, backbone="resnet10t", size=48):
    photos, held_out = mh.read(root).split(0.25, seed=0)  # the search never sees these people
    full, half = mh.FULL.resized(size), mh.FULL.resized(size // 2)
    crops = {"full": [full], "two sizes": [full, half]}

    def arm(trial):
        """The way to train that a trial tries; a complete trial gives the same again."""
        heads = [head.on(*crops[trial.suggest_categorical("crops", list(crops))]) for head in mh.HEADS]
        rate = trial.suggest_float("lr", 1e-4, 2e-2, log=True)
        losses = LOSSES[trial.suggest_categorical("loss", list(LOSSES))]
        recipe = mh.Recipe(epochs=epochs, optim=mh.AdamW(rate), losses=losses)
        return mh.Arm(lambda: mh.Model(backbone, heads=heads), recipe)

    # call it again to go on, or in several processes at once to go faster
    study = search(arm, photos, out, plan=Plan(folds=2, trials=trials), first=FIRST, say=print)
    first, best = study.trials[0], study.best_trial
    print(f"best settings: {best.params}")
    print(f"macro-F1 on the search's folds: {best.value:.3f}, the first settings' {first.value:.3f}")
    scores = {}
    for name, trial in {"best": best, "first": first}.items():
        chosen = arm(trial)
        model = chosen.model()
        mh.fit(model, photos, recipe=chosen.recipe)
        scores[name] = mh.evaluate(model, held_out).f1
    print(f"macro-F1 on people never searched on: {scores['best']:.3f}, the first settings' {scores['first']:.3f}")
    return scores


if __name__ == "__main__":
    from start import start

    start(main, people=60)
