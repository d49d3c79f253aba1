import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multihead import modes
from multihead.modes import (
    PIN,
    PRECISIONS,
    Mode,
    Pins,
    autocast,
    candidates,
    computes,
    machine,
    pinned,
    warn_of_imitation,
)

MODES = st.builds(Mode, st.sampled_from(PRECISIONS), st.booleans(), st.booleans(), st.booleans())
CPU = torch.device("cpu")


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
    warn_of_imitation(CPU, Mode())
    assert capsys.readouterr().err == ""
    warn_of_imitation(CPU, Mode("bf16"))
    assert "bf16 is not computed by this processor but imitated" in capsys.readouterr().err


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
