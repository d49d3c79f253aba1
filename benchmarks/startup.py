"""Seconds until `import multihead` and `multihead --help` are done, each in a new process; one JSON line.

    python benchmarks/startup.py

With compiled modules, as an installation has them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from record import record

COMMANDS = {
    "python alone": ["-c", "pass"],
    "import multihead": ["-c", "import multihead"],
    "multihead --help": ["-m", "multihead", "--help"],
    "multihead train --help": ["-m", "multihead", "train", "--help"],
}
BOUNDS = {"import multihead": 0.15, "multihead --help": 0.3, "multihead train --help": 0.3}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    times = {name: [] for name in COMMANDS}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for number in range(rounds + 1):
        for name, words in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, env=environment)
            if number:  # the first compiles
                times[name].append(time.perf_counter() - started)
    found = {name: [round(part, 3) for part in statistics.quantiles(each, n=4)] for name, each in times.items()}
    print(json.dumps(record("startup", {"rounds": rounds}, {"seconds, quartiles": found})))
    for name, bound in BOUNDS.items():
        assert found[name][1] < bound, f"{name} takes {found[name][1]} s; expected under {bound}"


if __name__ == "__main__":
    main()
