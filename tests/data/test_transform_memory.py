"""How much memory transforms and sliding windows take beyond their input, measured in one process of its own."""

import ctypes

import numpy as np
import pytest
import torch
from forked import memory_measured_in_forks
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Spacingd

from monai_unetpp.data import BlockwiseSpacingd, InvertProbabilitiesd, StandardizeIntensityd, find_surround
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.measuring.memory import PeakMemory, measure_in_new_processes

pytestmark = pytest.mark.slow

SHAPE = (160, 160, 160)

# of malloc.h
M_MMAP_THRESHOLD = -3


def rise(work, *arguments):
    """How far the peak rises over what is in use before, in bytes, and what the work returns."""
    memory = PeakMemory("cpu")
    result = work(*arguments)
    return memory.bytes(), result


class FourLevels:
    """A network for what little it computes."""

    levels = ("L1", "L2", "L3", "L4")

    def __call__(self, x):
        return self.forward_levels(x, ["L4"])["L4"]

    def forward_levels(self, x, levels):
        return {level: torch.cat([x, -x, x - 0.5], 1) for level in levels}


def measure():
    """The rises of all of them, by name."""
    # what is freed goes back to the system at once, so that the order of the work does not matter
    assert ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**18)
    # a fork counts the pages of a library once it has used them
    rises_of((32, 32, 32))
    return rises_of(SHAPE)


def rises_of(shape):
    """The same for volumes of one shape."""
    image = torch.rand(1, *shape)
    rises = {"standardization": rise(StandardizeIntensityd("image"), {"image": image})[0]}
    inside, border = torch.zeros(1, *shape), shape[0] // 4
    inside[:, border:-border, border:-border, border:-border] = torch.rand([size // 2 for size in shape]) - 0.5
    rises["surround"] = rise(find_surround, inside)[0]
    for name, transform_class in (("ours", BlockwiseSpacingd), ("theirs", Spacingd)):
        transform = transform_class("image", (1.0, 1.0, 1.0))
        image = MetaTensor(torch.rand(1, *shape), affine=np.diag([0.8, 0.9, 1.1, 1]))
        rises[f"{name}: there"], prepared = rise(transform, {"image": image})
        labels = MetaTensor(torch.ones(prepared["image"].shape, dtype=torch.uint8))
        back = Invertd("pred", transform, orig_keys="image")
        rises[f"{name}: back"] = rise(back, {"image": prepared["image"], "pred": labels})[0]
    coarse = Compose([BlockwiseSpacingd("image", (6.0, 6.0, 6.0))])
    prepared = coarse({"image": MetaTensor(torch.rand(1, *shape), affine=torch.eye(4))})["image"]
    logits = MetaTensor(torch.rand(24, *prepared.shape[1:])).copy_meta_from(prepared)
    invert = InvertProbabilitiesd("pred", coarse, "image")
    rises["24 classes"] = rise(invert, {"image": prepared, "pred": logits})[0]
    inferer = NestedSlidingWindowInferer(
        16, 1, levels=FourLevels.levels, output="labels", runtime="torch", precision="fp32"
    )
    rises["labels of four levels"] = rise(inferer, torch.rand(1, 1, *shape), FourLevels())[0]
    return rises


@pytest.fixture(scope="module")
def volumes():
    """The rises in units of one volume in single precision."""
    with memory_measured_in_forks():
        rises = measure_in_new_processes(measure, {"transforms": []}, remedy="free some")["transforms"]
    return {name: size / (4 * np.prod(SHAPE)) for name, size in rises.items()}


def test_standardization_takes_one_further_volume(volumes):
    assert volumes["standardization"] < 1.9


def test_the_surround_takes_some_bytes_per_voxel(volumes):
    assert volumes["surround"] < 2.5


def test_resampling_takes_less_than_monais(volumes):
    """Beyond the result, ours takes about 100 MB for any size; MONAI's 60 bytes for each voxel."""
    assert max(volumes["ours: there"], volumes["ours: back"]) < 8
    assert min(volumes["theirs: there"], volumes["theirs: back"]) > 10


def test_inversion_does_not_grow_with_the_number_of_classes(volumes):
    """24 maps on the input's grid, in single precision alone, would take 24 volumes."""
    assert volumes["24 classes"] < 16


def test_the_label_maps_of_four_levels_take_little_more_than_their_bytes(volumes):
    """Four maps of a byte per voxel are one volume; the sums of a slab would be more than another one."""
    assert volumes["labels of four levels"] < 1.7
