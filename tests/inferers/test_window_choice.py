"""Windows chosen for a volume: few and large, evenly laid, and hardly anything computed twice."""

import itertools
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_unetpp import NestedUNet
from monai_unetpp.inferers import NestedSlidingWindowInferer, sliding_windows, window_memory
from monai_unetpp.inferers.window_choice import choose_windows, downsampling_of
from monai_unetpp.window_layout import most_window_voxels

SIZES = st.tuples(*[st.integers(1, 300)] * 3)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(size=SIZES, most=st.integers(2**17, 2**24), overlap=st.floats(0, 0.75))
def test_windows_cover_the_image_and_fit_and_compute_little_twice(size, most, overlap):
    grid = choose_windows(size, most, (16, 16, 8), overlap)
    assert grid.window_voxels <= most
    assert all(length % multiple == 0 for length, multiple in zip(grid.window_size, (16, 16, 8), strict=True))
    for starts, length, whole in zip(grid.starts, grid.window_size, grid.padded_size, strict=True):
        assert starts[0] == 0
        assert starts[-1] + length == whole
        gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
        assert all(gap <= length for gap in gaps)
        assert max(gaps, default=0) - min(gaps, default=0) <= 1
    plain = choose_windows(size, most, (16, 16, 8), 0)
    least = plain.window_voxels * len(plain.positions)
    assert grid.window_voxels * len(grid.positions) <= max(1.2 * math.prod(grid.padded_size), least)
    fewest = math.prod(grid.padded_size) / most
    assert len(grid.positions) >= fewest


@pytest.mark.parametrize("size", [(160, 200, 170), (512, 512, 600), (181, 217, 181), (1388, 1040)])
def test_no_more_than_a_fifth_is_computed_twice(size):
    grid = choose_windows(size, 2**20, (16,) * len(size), 0.5)
    assert grid.window_voxels * len(grid.positions) <= 1.2 * math.prod(grid.padded_size)


def test_an_image_that_fits_is_one_window():
    grid = choose_windows((30, 41, 20), 10**6, (8, 8, 4), 0.5)
    assert (grid.window_size, grid.starts) == ((32, 48, 20), ((0,), (0,), (0,)))


@pytest.mark.parametrize(
    "norm", ["instance", ("group", {"num_groups": 2}), ("batch", {"track_running_stats": False}), "batch", None]
)
def test_norms_that_mind_the_window_are_warned_of_once(norm, caplog):
    network = NestedUNet(2, 1, 2, features=(4, 4), norm=norm).eval()
    inferer = NestedSlidingWindowInferer("auto", runtime="torch", precision="fp32")
    for _ in range(2):
        inferer(torch.randn(1, 1, 8, 8), network)
    assert len(caplog.messages) == (norm not in ("batch", None))
    for message in caplog.messages:
        assert re.search("the network has .*Norm.*change every voxel. Leave auto out", message)


def test_downsampling_is_that_of_the_network():
    network = NestedUNet(3, 1, 2, features=(4, 4, 4), strides=[(2, 2, 1), 2])
    assert downsampling_of(network, 3) == (4, 4, 2)
    assert downsampling_of(network.prune("L1"), 3) == (2, 2, 1)
    assert downsampling_of(torch.neg, 2) == (1, 1)


def test_one_window_gives_what_the_network_gives_for_the_whole_image():
    network = NestedUNet(2, 1, 2, features=(4, 4, 4), norm="batch").eval()
    image = torch.randn(1, 1, 24, 32)
    inferer = NestedSlidingWindowInferer("auto", runtime="torch", precision="fp32")
    with torch.no_grad():
        torch.testing.assert_close(inferer(image, network), network(image))


def test_few_shapes_of_windows_are_compiled_for_many_images(monkeypatch):
    monkeypatch.setattr(sliding_windows, "most_window_voxels", lambda *_: 16**2)
    network = NestedUNet(2, 1, 2, features=(4, 4, 4), norm="batch").eval()
    inferer = NestedSlidingWindowInferer("auto", overlap=0.25, runtime="torch", precision="fp32", output="labels")
    for size in (25, 26, 27, 28):
        assert inferer(torch.randn(1, 1, size, 20), network).shape == (1, 1, size, 20)
    assert len(inferer._predictors) <= 2


def test_what_is_kept_fits_into_the_memory_together(monkeypatch):
    monkeypatch.setattr(sliding_windows, "most_window_voxels", lambda *_: 24**2)
    network = NestedUNet(2, 1, 2, features=(4, 4, 4), norm="batch").eval()
    inferer = NestedSlidingWindowInferer("auto", runtime="torch", precision="fp32")
    for size in (16, 20, 24):
        inferer(torch.randn(1, 1, size, 16), network)
    assert [predictor.window_shape for predictor in inferer._predictors.values()] == [(24, 16)]


def test_memory_is_asked_for_once_and_in_powers_of_two(monkeypatch):
    free = [2**24, 2**20]
    monkeypatch.setattr(window_memory, "free_memory_bytes", lambda device: free.pop(0))
    network = NestedUNet(2, 1, 2, features=(4, 4, 4), norm="batch").eval()
    inferer = NestedSlidingWindowInferer("auto", runtime="torch", precision="fp32")
    image = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(inferer(image, network), inferer(image, network))
    assert free == [2**20]
    assert most_window_voxels(2**25 - 10**6, 4) == most_window_voxels(2**24 + 10**6, 4) == 2**15
    assert most_window_voxels(2**24, 4, outputs=100) == 2**12
    assert most_window_voxels(None, 4) == 128**3
    assert most_window_voxels(0, 4) == 1


def test_logits_and_other_windows_of_a_batch_take_memory_too(monkeypatch):
    monkeypatch.setattr(window_memory, "free_memory_bytes", lambda device: 2**24)
    network = NestedUNet(2, 1, 20, features=(4, 4, 4), norm="batch").eval()
    settings = {"runtime": "torch", "precision": "fp32", "overlap": 0.0}
    image = torch.zeros(1, 1, 128, 128)

    def windows(**options):
        inferer = NestedSlidingWindowInferer("auto", **settings, **options)
        inferer(image, network)
        return math.prod(next(iter(inferer._predictors.values())).window_shape)

    alone = windows(levels="L1")
    assert windows(levels=["L1", "L2"]) < alone
    assert windows(levels="L1", sw_batch_size=4) < alone


class Greedy:
    """A network that runs out of memory for windows of more pixels than ``most``."""

    def __init__(self, most):
        self.most = most
        self.sizes = []

    def __call__(self, windows):
        self.sizes.append(windows[0, 0].numel())
        if self.sizes[-1] > self.most:
            raise MemoryError
        return torch.cat([windows, -windows], dim=1)


def test_windows_shrink_until_they_fit_and_stay_so_for_the_next_image(caplog):
    image, network = torch.randn(1, 1, 32, 32), Greedy(256)
    inferer = NestedSlidingWindowInferer("auto", overlap=0.0, mode="constant", runtime="torch", precision="fp32")
    torch.testing.assert_close(inferer(image, network), torch.cat([image, -image], dim=1))
    assert network.sizes[:2] == [1024, 512]
    assert max(network.sizes[2:]) <= 256
    assert "Not enough memory for windows of 32x32: trying " in caplog.text
    network.sizes.clear()
    inferer(image, network)
    assert max(network.sizes) <= 256


def test_windows_that_cannot_shrink_any_more_end_in_one_line():
    network = Greedy(0)
    inferer = NestedSlidingWindowInferer("auto", runtime="torch", precision="fp32", sw_batch_size=2)
    with pytest.raises(MemoryError, match=r"inputs must fit into memory, got \[1, 1, 32, 32\] with single windows"):
        inferer(torch.randn(1, 1, 32, 32), network)
    assert network.sizes == sorted(network.sizes, reverse=True)
    assert network.sizes[0] > network.sizes[-1]


def test_another_word_than_auto_is_refused():
    with pytest.raises(TypeError, match="roi_size must be integers, one for all axes or each, or 'auto'"):
        NestedSlidingWindowInferer("large")
