"""Time a photo and peak memory of `multihead scan` and `multihead predict` on 1,000, 10,000 and 100,000 photos.

    python benchmarks/scaling.py --data DATA/bootlike [--yunet FILE.onnx] [--counts 1000 10000 100000]

One JSON line. The photos are links to 200 of DATA's, resized to 192x256 (width x height); the model is a small one that
reads the face crop, so that the run ends: what grows with the number of photos does not depend on it. The time a photo
is without the start, which is that of a run of 32 photos; medians of as many runs as bring 20,000 photos, three to
nine, one of 100,000. Memory is the largest peak of the process (VmHWM).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pairs
from record import record

UNLIKE = 200  # photos that are not links
FEW = 32  # photos of a run that shows what the start takes
RUN = """
import sys
from multihead.cli import main
code = main(sys.argv[1:])
lines = open("/proc/self/status").read().splitlines()
print("PEAK", next(line for line in lines if line.startswith("VmHWM")).split()[1], file=sys.stderr)
sys.exit(code)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--yunet", help="YuNet's ONNX file (default: MTCNN)")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        numbers = measure(arguments, Path(folder))
    about = {"counts": arguments.counts, "detector": "yunet" if arguments.yunet else "mtcnn", **pairs.surroundings()}
    print(json.dumps(record("scaling", about, numbers)))
    for verb, found in numbers.items():
        growth = found[-1]["peak_mb"] - found[0]["peak_mb"]
        assert growth < 50, f"{verb}: memory grows by {growth} MB"
        slower = found[-1]["ms_a_photo_after_start"] / found[0]["ms_a_photo_after_start"]
        assert slower < 1.1, f"{verb}: a photo takes {slower:.2f} times as long among many"


def measure(arguments, folder):
    """{verb: [{photos, seconds, ms a photo, peak memory}]}"""
    import multihead as mh
    from multihead.images import image_files

    crop = mh.FACE.resized(64)
    mh.Model("test_resnet", heads=[head.on(crop) for head in mh.HEADS]).save_pretrained(folder / "model")
    sources = make_photos(image_files(arguments.data), folder / "photos")
    detector = ["--detector", arguments.yunet] if arguments.yunet else []
    verbs = {
        "scan": lambda photos, out: ["scan", photos, "-o", f"{out}.boxes.csv", *detector, "-q"],
        "predict": lambda photos, out: ["predict", str(folder / "model"), photos, "-o", f"{out}.csv", *detector, "-q"],
    }
    found = {verb: [] for verb in verbs}
    few = link(sources, folder / "few", FEW)
    run(verbs["predict"](str(few), folder / "warm"))  # remembers the mode
    for count in arguments.counts:
        links = link(sources, folder / f"links{count}", count)
        for verb, words in verbs.items():
            rows = []
            for turn in range(min(9, max(3, 20_000 // count)) if count < 100_000 else 1):
                start, _ = run(words(str(few), folder / f"few{count}-{turn}"))
                rows.append((start, *run(words(str(links), folder / f"out{count}-{turn}"))))
            start, seconds = (statistics.median(column) for column in list(zip(*rows))[:2])
            found[verb].append({
                "photos": count, "runs": len(rows), "seconds": round(seconds, 1), "start_seconds": round(start, 1),
                "ms_a_photo_after_start": round(1000 * (seconds - start) / (count - FEW), 3),
                "peak_mb": round(max(peak for *_, peak in rows) / 1024, 1),
            })  # fmt: skip
            print(verb, found[verb][-1], file=sys.stderr)
    return found


def make_photos(files, folder):
    """Paths of small copies of some photos."""
    import cv2

    from multihead.images import read_image, write_jpeg

    chosen = [files[place] for place in np.linspace(0, len(files) - 1, UNLIKE).astype(int)]
    for number, file in enumerate(chosen):
        write_jpeg(cv2.resize(read_image(file), (192, 256), interpolation=cv2.INTER_AREA), folder / f"{number:03}.jpg")
    return sorted(folder.iterdir())


def link(sources, folder, count):
    """A folder of `count` links to the sources, a thousand to a folder."""
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(sources[number % len(sources)], path)
    return folder


def run(words):
    """(seconds, peak kilobytes) of a verb in a process of its own."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    return seconds, int(done.stderr.split("PEAK")[1].split()[0])


if __name__ == "__main__":
    main()
