"""How the passes of a model are computed: precision, memory format, compiled or not, and what freed memory becomes.

A mode changes the speed and the last digits, never what is computed. `multihead.choices` times which one is fastest.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from multihead.options import near

if TYPE_CHECKING:
    import torch

    from multihead.crops import Crop

PRECISIONS = ("f32", "bf16", "fp16")
NARROW = 64  # pixels: see miscomputes
AMP = {"bfloat16": "bf16", "float16": "fp16"}  # timm's names of precisions, and ours


def decided_precision(amp: bool | None, amp_dtype: str) -> str | None:
    """The precision that a user's --amp and --amp-dtype decide; None where --amp says nothing.

    >>> decided_precision(True, "float16"), decided_precision(False, "float16"), decided_precision(None, "float16")
    ('fp16', 'f32', None)
    """
    return None if amp is None else AMP[amp_dtype] if amp else "f32"


PIN = "MULTIHEAD_MODE"  # the environment variable that names the mode of every run and answer of a process


@dataclass(frozen=True)
class Mode:
    """One way to compute passes.

    precision: "f32", "bf16" or "fp16" (16 bits where torch's autocast holds them safe). channels_last: memory format.
    compiled: the backbone goes through torch.compile. fused: convolutions compute their activations, in answers on a
    processor (`multihead.fusing`). keep_memory: glibc keeps freed memory (`speed.keep_memory`).

    Raises: ValueError for another precision.

    >>> str(Mode("bf16")), Mode.parse("f32 compiled").channels_last
    ('bf16 channels_last keep_memory', False)
    """

    precision: str = "f32"
    channels_last: bool = True
    compiled: bool = False
    fused: bool = False
    keep_memory: bool = True

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"mode: precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}")

    def __str__(self) -> str:
        return " ".join([self.precision, *(name for name in _FLAGS if getattr(self, name))])

    @classmethod
    def parse(cls, text: str) -> Mode:
        """The mode of a text such as "bf16 channels_last keep_memory"; what is not named is off.

        Raises: ValueError for an unknown word, or not exactly one precision.
        """
        words = text.replace(",", " ").split()
        for word in words:
            if word not in (*PRECISIONS, *_FLAGS):
                raise ValueError(f"mode {text!r}: unknown word {word!r}{near(word, (*PRECISIONS, *_FLAGS))}")
        named = [word for word in words if word in PRECISIONS]
        if len(named) != 1:
            raise ValueError(f"mode {text!r} names {len(named)} precisions; expected one of {', '.join(PRECISIONS)}")
        return cls(named[0], **{name: name in words for name in _FLAGS})


_FLAGS = ("channels_last", "compiled", "fused", "keep_memory")


@dataclass(frozen=True)
class Pins:
    """What the user has decided of a mode; None is left to be timed."""

    precision: str | None = None
    channels_last: bool | None = None
    compiled: bool | None = None

    def allow(self, mode: Mode) -> bool:
        """Whether the mode is as the user has decided."""
        return all(want is None or want == getattr(mode, name) for name, want in vars(self).items())

    def on(self, mode: Mode) -> Mode:
        """The mode, changed where the user has decided otherwise."""
        return replace(mode, **{name: want for name, want in vars(self).items() if want is not None})


def check_pins(pins: object) -> None:
    """Nothing for `Pins`. Raises: TypeError for anything else, as a mode's text."""
    if not isinstance(pins, Pins):
        raise TypeError(f"pins is {pins!r}; expected multihead.modes.Pins, as Pins('f32')")


def pinned() -> Mode | None:
    """The mode that the environment variable MULTIHEAD_MODE names, None without one.

    Raises: ValueError for a text that is no mode.
    """
    text = os.environ.get(PIN, "").strip()
    return Mode.parse(text) if text else None


def candidates(device: torch.device, answers: bool = False, crops: Sequence[Crop] = ()) -> list[Mode]:
    """The modes worth timing on a device for training steps, or for answers; the plainest first.

    crops: what the model sees; without them all sizes are taken for large enough.
    """
    halves = ("bf16", "fp16") if device.type == "cuda" else ("bf16",)
    small = [each for each in halves if usable(device, each, crops)]
    modes = [Mode(precision, last) for precision in ("f32", *small) for last in (False, True)]
    if answers and device.type == "cpu":
        modes += [replace(mode, fused=True) for mode in modes if mode.channels_last]
    return modes


def usable(device: torch.device, precision: str, crops: Sequence[Crop]) -> bool:
    """Whether the device computes passes of these crops in a precision by itself, and right."""
    return computes(device, precision) and not miscomputes(device, precision, crops)


def computes(device: torch.device, precision: str) -> bool:
    """Whether the device computes in a precision by itself; where torch has to imitate it, as bf16 on a processor
    without AVX-512, a pass takes up to several hundred times as long."""
    import torch

    if precision == "f32" or device.type not in ("cpu", "cuda"):
        return True
    if device.type == "cuda":  # half precision is older than any GPU that torch still knows
        return precision == "fp16" or torch.cuda.is_bf16_supported(including_emulation=False)
    asked = getattr(torch.ops.mkldnn, f"_is_mkldnn_{precision}_supported", None)  # not public; oneDNN is what computes
    return asked is None or bool(asked())


def miscomputes(device: torch.device, precision: str, crops: Sequence[Crop]) -> bool:
    """Whether passes of these crops may come out wrong in a precision, here.

    On matrix units (AMX) oneDNN's convolutions with a stride read memory that nobody wrote where their output is one
    pixel wide: numbers differ from pass to pass, up to nan; wider outputs are right. Backbones that divide sides by 32
    or 64 come to such maps. Source: found with torch 2.15; `tests/test_modes.py` has the convolution.
    """
    if precision != "bf16" or device.type != "cpu" or all(min(crop.size) > NARROW for crop in crops):
        return False
    return matrix_units()


def matrix_units() -> bool:
    """Whether this processor multiplies matrices of 8 and 16 bits by units of their own (AMX)."""
    import torch

    asked = getattr(torch.cpu, "_is_amx_tile_supported", None)  # not public; newer torch has get_capabilities too
    return asked is not None and bool(asked())


def warn_of_precision(device: torch.device, mode: Mode, crops: Sequence[Crop]) -> None:
    """Say, on standard error, that a mode which somebody has decided is imitated here, or may come out wrong."""
    if not computes(device, mode.precision):
        print(
            f"{mode.precision} is not computed by this processor but imitated, up to several hundred times as slow as "
            "f32: leave out --amp (amp=, Pins, MULTIHEAD_MODE)",
            file=sys.stderr,
        )
    elif miscomputes(device, mode.precision, crops):
        print(
            f"{mode.precision} may come out wrong on this processor (AMX) for crops with a side of {NARROW} pixels or "
            "less: leave out --amp (amp=, Pins, MULTIHEAD_MODE), or take larger crops",
            file=sys.stderr,
        )


def machine(device: torch.device) -> str:
    """The name of the processor or GPU, what it can do, and how many threads compute: what timings are good for."""
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    name = _cpuinfo("model name") or platform.processor() or platform.machine()  # in a cloud, that of many unlike ones
    able = torch.backends.cpu.get_cpu_capability() + (" AMX" if matrix_units() else "")
    return f"{name}, {able}, {torch.get_num_threads()} threads"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """The context in which passes are computed in a precision; nothing for f32."""
    import torch

    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    if precision == "f32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=kinds[precision])


def _cpuinfo(name: str) -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith(name)), "")
    except OSError:
        return ""
