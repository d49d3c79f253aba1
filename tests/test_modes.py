import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multihead import FULL, modes
from multihead.modes import (
    PIN,
    PRECISIONS,
    Mode,
    Pins,
    autocast,
    candidates,
    computes,
    machine,
    miscomputes,
    pinned,
    warn_of_precision,
)

MODES = st.builds(Mode, st.sampled_from(PRECISIONS), st.booleans(), st.booleans(), st.booleans())
CPU = torch.device("cpu")
SMALL = [FULL.resized(32, 64)]


@given(MODES)
def test_a_mode_is_its_text(mode):
    assert Mode.parse(str(mode)) == mode and Mode.parse(str(mode).replace(" ", ", ")) == mode


@given(MODES, st.builds(Pins, st.none() | st.sampled_from(PRECISIONS), st.none() | st.booleans()))
def test_what_is_pinned_stays(mode, pins):
    changed = pins.on(mode)
    assert pins.allow(changed) and changed.keep_memory == mode.keep_memory
    assert (changed == mode) == pins.allow(mode)


def test_modes_worth_timing_begin_with_the_plainest(monkeypatch):
    monkeypatch.setattr(modes, "computes", lambda device, precision: True)
    assert [str(mode) for mode in candidates(CPU)] == [
        "f32 keep_memory", "f32 channels_last keep_memory", "bf16 keep_memory", "bf16 channels_last keep_memory",
    ]  # fmt: skip
    assert {mode.precision for mode in candidates(torch.device("cuda"))} == set(PRECISIONS)
    monkeypatch.setattr(modes, "computes", lambda device, precision: precision == "f32")
    assert [str(mode) for mode in candidates(CPU)] == ["f32 keep_memory", "f32 channels_last keep_memory"]


def test_what_this_processor_imitates_is_known(monkeypatch, capsys):
    """Beside the processor's own flags, as the kernel lists them."""
    assert computes(CPU, "f32")
    flags = modes._cpuinfo("flags").split()
    if "avx512bw" in flags:
        assert computes(CPU, "bf16")
    elif "avx2" in flags and "avx_ne_convert" not in flags:
        assert not computes(CPU, "bf16") and not computes(CPU, "fp16")
    monkeypatch.setattr(modes, "computes", lambda device, precision: precision == "f32")
    warn_of_precision(CPU, Mode(), SMALL)
    assert capsys.readouterr().err == ""
    warn_of_precision(CPU, Mode("bf16"), SMALL)
    assert "bf16 is not computed by this processor but imitated" in capsys.readouterr().err


def test_bf16_of_small_crops_is_not_trusted_on_matrix_units(monkeypatch, capsys):
    monkeypatch.setattr(modes, "computes", lambda device, precision: True)
    large = [FULL.resized(96), FULL.resized(65, 80)]
    for units in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda units=units: units, raising=False)
        for crops in (SMALL, large, [*large, *SMALL]):
            wrong = units and crops is not large
            assert miscomputes(CPU, "bf16", crops) == wrong and not miscomputes(CPU, "f32", crops)
            assert any(mode.precision == "bf16" for mode in candidates(CPU, crops=crops)) != wrong
            warn_of_precision(CPU, Mode("bf16"), crops)
            assert ("may come out wrong" in capsys.readouterr().err) == wrong
    assert not miscomputes(torch.device("cuda"), "bf16", SMALL)


@pytest.mark.skipif(not computes(CPU, "bf16"), reason="this processor computes no bf16")
def test_bf16_that_is_trusted_is_right():
    """Convolutions with a stride whose output is one pixel wide, where freed memory holds nan."""
    layer = torch.nn.Conv2d(96, 96, 3, 2, 1, bias=False).bfloat16()
    maps = torch.randn(16, 96, 3, 2).bfloat16()  # as of a crop of 48 x 32 pixels, a sixteenth
    with torch.no_grad():
        wanted = torch.nn.functional.conv2d(maps.float(), layer.weight.float(), None, 2, 1)
        for _ in range(12):
            held = [torch.full((count,), float("nan")) for count in (1_000, 50_000, 1_000_000)]
            del held
            right = (layer(maps).float() - wanted).abs().max() < 0.5
            if not right:
                break
    assert right or miscomputes(CPU, "bf16", [FULL.resized(48, 32)])


@pytest.mark.parametrize(
    "text, words",
    [
        ("bf17", r"unknown word 'bf17'; did you mean 'bf16'"),
        ("channels_last", "names 0 precisions"),
        ("f32 bf16", "names 2 precisions"),
    ],
)
def test_what_is_no_mode_is_told(text, words, monkeypatch):
    monkeypatch.setenv(PIN, text)
    with pytest.raises(ValueError, match=words):
        pinned()


def test_the_environment_names_the_mode(monkeypatch):
    monkeypatch.setenv(PIN, "bf16, compiled")
    assert pinned() == Mode("bf16", channels_last=False, compiled=True, keep_memory=False)
    monkeypatch.setenv(PIN, " ")
    assert pinned() is None


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision is 'half'; expected one of f32, bf16, fp16"):
        Mode("half")


@pytest.mark.parametrize("precision, kind", [("f32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_passes_are_computed_in_the_precision(precision, kind):
    with autocast(CPU, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == kind


def test_a_machine_is_named_with_its_threads():
    assert machine(CPU).endswith(f"{torch.get_num_threads()} threads") and len(machine(CPU)) > 12
