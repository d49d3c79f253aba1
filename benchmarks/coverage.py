"""How often the intervals of `multihead.paired` hold the truth: on samples of simulated people, of whom all are known.

    python benchmarks/coverage.py [--people 60 200 540] [--samples 400]

Two models answer seven photos each (five with the mask worn, one incorrect, one without) of 40,000 people; each model
errs on people (gender and age, the same for most photos of one) and on photos (mask), both often on the same people.
Genders and ages are as frequent as among the competition's 2,700 training people, of whom 192 are 60 years old.
Of each sample `paired.compare` gives intervals for the second model's scores and for its difference to the
first. One JSON line: of each number of people and metric, the share of samples whose 95 % interval holds what the
models score on all people, with its own standard error; and the median width.
"""

import argparse
import json

import numpy as np
import pandas as pd
from record import record

import multihead as mh
from multihead import paired
from multihead.heads import size
from multihead.labels import encode

POPULATION = 40_000
STATES = np.array([0, 0, 0, 0, 0, 1, 2])  # of a person's seven photos
WOMEN, AGES = 0.61, (0.47, 0.46, 0.07)
SHARED = 0.8  # correlation of the two models' errors about a person


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, nargs="+", default=[60, 200, 540])
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    labels, answers = population(np.random.default_rng(args.seed))
    truth = true_scores(labels, answers)
    numbers = {str(people): covered(labels, answers, truth, people, args) for people in args.people}
    line = record("coverage", vars(args) | {"population": POPULATION, "true": truth}, numbers)
    print(json.dumps(line))
    return line


def population(rng):
    """(labels (P, 7, 3) of mask, gender and age, answers (models, P, 7): joint classes)"""
    gender = (rng.random(POPULATION) < WOMEN).astype(int)
    age = rng.choice(3, POPULATION, p=AGES)
    shape = (POPULATION, len(STATES))
    labels = np.stack(np.broadcast_arrays(STATES, gender[:, None], age[:, None]), -1)
    shared = rng.normal(size=(2, POPULATION))  # what is misleading about a person's gender and age

    def answered(scale, wrong_masks):
        own = SHARED * shared + (1 - SHARED**2) ** 0.5 * rng.normal(size=shared.shape)
        noise = 0.9 * own[:, :, None] + 0.45 * rng.normal(size=(2, *shape))  # of a person, and of a photo
        genders = 2 * gender[:, None] - 1 + scale * noise[0] > 0
        ages = np.digitize(age[:, None] + 0.85 * scale * noise[1], [0.5, 1.5])
        masks = np.where(rng.random(shape) < wrong_masks, rng.integers(0, 3, shape), STATES)
        return encode(np.stack([masks, genders, ages], -1).reshape(-1, 3), mh.HEADS).reshape(shape)

    return labels, np.stack([answered(0.7, 0.05), answered(0.6, 0.04)])


def compared(labels, answers, resamples, seed):
    """The row of each metric for the second model, of some people."""
    people = np.repeat(np.arange(len(labels)), len(STATES))
    probs = {str(arm): [np.eye(size(mh.HEADS))[each.ravel()]] for arm, each in enumerate(answers)}
    frame = paired.compare(probs, labels.reshape(-1, 3), people, mh.HEADS, resamples=resamples, seed=seed)
    return frame[frame.arm == "1"].set_index("metric")


def true_scores(labels, answers):
    """{metric: [the second model's score, its difference to the first's]} of all people"""
    found = compared(labels, answers, 1, 0)
    return {metric: [float(row["mean"]), float(row.difference)] for metric, row in found.iterrows()}


def covered(labels, answers, truth, people, args):
    """{metric: {"score" or "difference": share of intervals that hold the truth, its standard error, median width}}"""
    rng, rows = np.random.default_rng([args.seed, people]), []
    for number in range(args.samples):
        asked = rng.choice(POPULATION, people, replace=False)
        for metric, row in compared(labels[asked], answers[:, asked], args.resamples, number).iterrows():
            for what, place, low, high in (("score", 0, "mean_low", "mean_high"), ("difference", 1, "low", "high")):
                holds = row[low] <= truth[metric][place] <= row[high]
                rows.append({"metric": metric, "what": what, "holds": holds, "width": row[high] - row[low]})
    numbers = {}
    for (metric, what), group in pd.DataFrame(rows).groupby(["metric", "what"]):
        share = float(group.holds.mean())
        error = (share * (1 - share) / args.samples) ** 0.5
        numbers.setdefault(metric, {})[what] = {
            "covered": round(share, 4), "error": round(error, 4), "width": round(float(group.width.median()), 4)
        }  # fmt: skip
    return numbers


if __name__ == "__main__":
    main()
