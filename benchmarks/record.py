"""The line that every benchmark prints: what was measured, where, with what."""

import datetime
import importlib.metadata
import os
import platform
import subprocess

PACKAGES = ("torch", "timm", "facenet-pytorch", "opencv-python-headless", "numpy")


def record(name, settings, numbers):
    """A dict for one JSON line: benchmark, date, commit, machine, versions, settings, numbers."""
    here = os.path.dirname(os.path.abspath(__file__))
    commit = subprocess.run(["git", "-C", here, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    machine = {"cores": len(os.sched_getaffinity(0)), "processor": _processor(), "python": platform.python_version()}
    machine["kind"] = kind()
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        "benchmark": name,
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip() + _changed(here) or None,
        "machine": machine,
        "versions": versions,
        "settings": settings,
        "numbers": numbers,
    }


def _changed(here):
    """ "-dirty" where the code is not the commit's: results that a run writes do not count."""
    asked = ["git", "-C", here, "status", "--porcelain", "--", "..", ":(exclude)results", ":(exclude)../README.md"]
    return "-dirty" if subprocess.run(asked, capture_output=True, text=True).stdout.strip() else ""


def kind():
    """What kind of processor this is, as far as speed goes: "avx512-bf16-amx", "avx2"; a folder of results each."""
    import torch

    from multihead.modes import computes, matrix_units

    found = torch.backends.cpu.get_cpu_capability().lower().replace(" ", "-")
    return found + ("-bf16" if computes(torch.device("cpu"), "bf16") else "") + ("-amx" if matrix_units() else "")


def photos_under(data, start):
    """The photos of a table, those whose path in it starts so."""
    import multihead as mh

    photos = mh.read(data)
    return photos[photos.table["name"].str.startswith(start).to_numpy()] if start else photos


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
