import copy

import pytest
import torch
from facenet_pytorch import MTCNN
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from multihead.nets import Nets, Pool, Slopes, build_nets


@pytest.fixture(scope="module")
def plain():
    nets = MTCNN(keep_all=True)
    return Nets(nets.pnet, nets.rnet, nets.onet)


@pytest.fixture(scope="module")
def ours():
    return build_nets()


def pixels(*shape):
    made = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).float()
    return made.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("name", "size"), [("first", (12, 12)), ("first", (31, 44)), ("second", (24,) * 2), ("last", (48,) * 2)]
)
def test_nets_give_what_facenet_s_give(plain, ours, name, size):
    """On (pixel - 127.5) / 128; the fourth channel has no meaning."""
    images = pixels(5, 4, *size)
    with torch.inference_mode():
        found = getattr(ours, name)(images)
        expected = getattr(plain, name)((images[:, :3] - 127.5) / 128)
    assert len(found) == len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@given(st.data())
def test_pools_are_torch_s(data):
    size = data.draw(st.sampled_from([2, 3]))
    shape = [data.draw(st.integers(1, most)) for most in (3, 9)] + [data.draw(st.integers(size - 1, 13)) for _ in "hw"]
    seeded = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    maps = torch.randn(shape, generator=seeded)
    maps[torch.rand(shape, generator=seeded) < 0.01] = torch.nan
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = maps.contiguous(memory_format=layout)
        expected = nn.functional.max_pool2d(laid, size, 2, ceil_mode=True)
        assert torch.equal(Pool(size)(laid).nan_to_num(9), expected.nan_to_num(9))


@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 9))
def test_slopes_are_torch_s(channels, height, width):
    seeded = torch.Generator().manual_seed(0)
    maps, weight = (torch.randn(shape, generator=seeded) for shape in ((2, channels, height, width), (channels,)))
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = maps.contiguous(memory_format=layout)
        assert torch.equal(Slopes(weight)(laid), nn.functional.prelu(laid, weight))


def test_maps_stay_channels_last(ours):
    """Between any two layers: a copy would cost as much as a layer."""
    seen = []
    watched = copy.deepcopy(ours.first)
    for part in watched.children():
        part.register_forward_hook(lambda module, given, made: seen.append(made))
    with torch.inference_mode():
        watched(pixels(2, 4, 40, 30))
    assert len(seen) == 8 and all(made.is_contiguous(memory_format=torch.channels_last) for made in seen)


def test_what_torch_is_slow_at_is_put_otherwise(ours):
    kinds = [[type(part).__name__ for part in net.modules()] for net in ours]
    assert not {"MaxPool2d"} & {kind for net in kinds for kind in net}
    assert [net.count("Pool") for net in kinds] == [1, 2, 3]
    assert [net.count("Slopes") for net in kinds] == [1, 1, 0]  # 10 and 28 channels
