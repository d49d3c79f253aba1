"""Runs every benchmark of speed, one after the other, and leaves their results, README's table and the pictures.

    make bench DATA="--data DIR --pretrained-path FILE --yunet FILE"
    python benchmarks/bench.py [--only forward train]

Results stand in results/speed/, in a folder for each kind of processor. Without photos those that need none run:
forward, train, and loader on drawn people. Run it on an idle machine; it takes an hour on two cores. A claim that does
not hold here is said at the end, and its figures are kept.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import limits
import readme
from record import kind

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "speed"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with bootlike/, mask_scenes/ and index.csv")
    parser.add_argument("--pretrained-path", type=Path, help="timm weights of tf_efficientnet_lite0")
    parser.add_argument("--yunet", type=Path, help="YuNet's ONNX file")
    parser.add_argument("--trained", type=Path, help="model folder that export takes instead of training one")
    parser.add_argument("--only", nargs="+", help="names of benchmarks")
    arguments = parser.parse_args()
    failed, chosen = [], commands(arguments)
    if unknown := set(arguments.only or ()) - set(chosen):
        parser.error(f"--only {' '.join(sorted(unknown))}: expected some of {', '.join(chosen)}")
    for name, words in chosen.items():
        if arguments.only and name not in arguments.only:
            continue
        if words is None:
            print(f"{name}: left out, it needs --data (export also --pretrained-path)")
            continue
        if problem := run(name, words):
            failed.append(f"{name}: {problem}")
    limits.draw(RESULTS / kind())
    readme.main()
    print("\n".join(["", *(failed or ["every claim holds"])]))
    return 1 if failed else 0


def commands(arguments):
    """{benchmark: its words, None where something is missing}"""
    data, yunet = arguments.data, ["--yunet", str(arguments.yunet)] if arguments.yunet else []
    photos = None if data is None else ["--data", str(data / "bootlike")]
    weights = arguments.pretrained_path
    trained = ["--trained", str(arguments.trained)] if arguments.trained else []
    table = None if data is None or weights is None else ["--data", str(data / "index.csv")]
    return {
        "faces": None if data is None else ["--data", str(data), *yunet],
        "loader": photos or [],
        "startup": [],
        "forward": [],
        "train": [],
        "predict": photos and [*photos, *yunet],
        "export": table and [*table, "--only-under", "bootlike/", "--pretrained-path", str(weights), *trained],
        "scaling": photos and [*photos, *yunet],
    }


def run(name, words):
    """Run a benchmark and keep its line; why it failed, "" if it did not."""
    started, kept = time.perf_counter(), RESULTS / kind() / f"{name}.json"
    kept.unlink(missing_ok=True)  # what was measured before must not stand for a run that failed
    with tempfile.TemporaryDirectory() as folder:
        more = ["--output", str(Path(folder) / "exports")] if name == "export" else []
        command = [sys.executable, str(HERE / f"{name}.py"), *words, *more]
        done = subprocess.run(command, capture_output=True, text=True)
    print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if lines:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(json.loads(lines[-1])) + "\n")
    said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
    errors = [line for line in said if re.match(r"[\w.]*(Error|Interrupt)\b", line)]  # warnings may come after them
    return (errors or said)[-1] if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
