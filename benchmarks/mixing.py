"""What a mixed batch's targets say against what its pixels are, counted; one JSON line.

    python benchmarks/mixing.py

Each photo has one colour and a class of its own. For every form of mixing, one, three and flat heads, one crop and two
of unlike size: the correlation of the share of own pixels with the weight of the own class, and their largest distance.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from record import record

from multihead.crops import BODY, FACE
from multihead.heads import Head, crops, flat
from multihead.mixing import CutMix, InvertedCutMix, MixUp, mix

FACES, BODIES = FACE.resized(112, 112), BODY.resized(160, 96)
FORMS = {
    "box": CutMix(1),
    "strip": CutMix(1, shape="strip"),
    "half": CutMix(1, shape="half"),
    "mixup": MixUp(1, alpha=1),
    "inverted": InvertedCutMix(1),
}
COUNT = 8  # photos a batch
COLOURS = torch.tensor([[0.0, 255.0][number >> bit & 1] for number in range(COUNT) for bit in range(3)]).view(COUNT, 3)


def main(argv=None):
    args = _arguments(argv)
    numbers = {}
    for form, setting in FORMS.items():
        for name, heads in tables().items():
            numbers[f"{form}, {name}"] = found = compare(*measure(setting, heads, args.seeds))
            _claim(form, name, found)
    line = record("mixing", {"seeds": args.seeds, "photos": COUNT, "sizes": [FACES.size, BODIES.size]}, numbers)
    print(json.dumps(line))
    if args.out:
        Path(args.out).write_text(json.dumps(line) + "\n")
    return line


def tables():
    """Tables of heads, each with a class for each photo."""
    people = tuple(f"p{number}" for number in range(COUNT))
    found = {}
    for title, one, both in (("1 crop", (FACES,), (FACES,)), ("2 crops", (BODIES,), (FACES, BODIES))):
        found[f"1 head, {title}"] = (Head("mask", people, both),)
        found[f"3 heads, {title}"] = (
            Head("mask", people, both[:1]),
            Head("gender", people, one),
            Head("age", people, both),
        )
        found[f"flat, {title}"] = flat([Head(name, ("0", "1"), both) for name in ("mask", "gender", "age")])
    return found


def measure(setting, heads, seeds):
    """The share of own pixels and the weight of the own class (N,), over heads, mixed photos and seeds."""
    images = {crop: COLOURS.to(torch.uint8)[:, :, None, None].repeat(1, 1, *crop.size) for crop in crops(heads)}
    rows = {head.name: torch.eye(COUNT) for head in heads}
    shares, weights = [], []
    for seed in range(seeds):
        mixed, found = mix(setting, images, None, rows, heads, seed=seed, epoch=1)
        for head in heads:
            weight = found[head.name].diagonal()
            partner = (found[head.name] - torch.diag(weight)).argmax(1)
            changed = [(mixed[crop] != images[crop]).flatten(1).any(1) for crop in head.crops]
            moved = torch.stack([weight < 1, *changed]).any(0)
            share = torch.stack([_share(mixed[crop], partner) for crop in head.crops]).mean(0)
            shares, weights = [*shares, share[moved]], [*weights, weight[moved]]
    return torch.cat(shares), torch.cat(weights)


def _share(pixels, partner):
    """The own photo's part (B,) in mixed pixels (B, 3, H, W): where their mean lies between the two colours."""
    away = COLOURS - COLOURS[partner]  # (B, 3)
    mean = pixels.double().mean((2, 3))
    return ((mean - COLOURS[partner]) * away).sum(1) / away.pow(2).sum(1)


def compare(share, weight):
    """Correlation (None where all shares are alike), largest distance, and the number of photos."""
    both = torch.stack([share.double(), weight.double()])
    correlation = torch.corrcoef(both)[0, 1].item() if share.std() > 1e-6 else None
    return {"correlation": correlation, "largest_distance": (both[0] - both[1]).abs().max().item(), "n": len(share)}


def _claim(form, name, found):
    if form == "inverted":
        assert found["correlation"] < -0.9, (form, name, found)
    elif form == "half":
        assert found["largest_distance"] < 1e-6, (form, name, found)
    else:
        assert found["correlation"] >= 0.999, (form, name, found)


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "mixing.json"), help="'' for none")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
