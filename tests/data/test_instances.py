"""One label per object: counted by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_unetpp.data import SplitInstances, SplitInstancesd


def discs(*centres: tuple[int, int], radius: float = 10, shape: tuple[int, int] = (64, 48)) -> torch.Tensor:
    grid = np.indices(shape)
    inside = [np.hypot(grid[0] - x, grid[1] - y) <= radius for x, y in centres]
    return torch.from_numpy(np.logical_or.reduce(inside)[None].astype(np.uint8))


def count(labels: torch.Tensor, **options: float) -> int:
    return int(SplitInstances(**options)(labels).max())


def test_apart_and_touching() -> None:
    assert count(discs((15, 15), (45, 30))) == 2
    touching = discs((20, 20), (37, 20))
    numbered = SplitInstances()(touching)
    assert int(numbered.max()) == 2
    assert ((numbered > 0) == (touching > 0)).all()  # splitting takes no pixel away
    assert numbered[0, 20, 20] != numbered[0, 37, 20]
    sizes = numbered.flatten().bincount()[1:]
    assert abs(int(sizes[0] - sizes[1])) < 0.1 * int(sizes.sum())


@pytest.mark.parametrize("edge_mm", [1.0, 0.25e-3, 1e-6])
def test_pixels_of_any_size_split_alike(edge_mm: float) -> None:
    touching = MetaTensor(discs((20, 20), (37, 20)), affine=np.diag([edge_mm, edge_mm, 1.0]))
    assert count(touching) == 2


def test_how_deep_a_notch_splits() -> None:
    # radius 10, centres 12 apart: the neck is sqrt(100 - 36) = 8 wide on each side, a fifth less
    near = discs((20, 20), (32, 20))
    assert count(near, depth=0.1) == 2
    assert count(near, depth=0.4) == 1


def test_one_elongated_object_stays_whole() -> None:
    bar = torch.zeros(1, 40, 20, dtype=torch.uint8)
    bar[0, 3:37, 8:13] = 1
    assert count(bar) == 1


def test_small_objects_are_removed_and_the_others_numbered_without_gaps() -> None:
    labels = torch.zeros(1, 20, 20, dtype=torch.uint8)
    labels[0, 0:3, 0:3] = 1  # 9 pixels
    labels[0, 6:10, 6:10] = 1  # 16 pixels
    labels[0, 15:19, 15:19] = 1  # 16 pixels
    numbered = SplitInstances(min_size=10)(labels)
    assert numbered.unique().tolist() == [0, 1, 2]
    assert not numbered[0, :3, :3].any()
    assert count(labels, min_size=9) == 3


def test_diagonal_neighbours_are_two_objects() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[0, :4, :4], labels[0, 4:, 4:] = 1, 1
    assert count(labels) == 2


def test_objects_whose_boxes_overlap() -> None:
    labels = torch.zeros(1, 12, 12, dtype=torch.uint8)
    labels[0, 0, :], labels[0, :, 0] = 1, 1
    labels[0, 4:9, 4:9] = 1
    numbered = SplitInstances(min_size=5)(labels)
    assert ((numbered > 0) == (labels > 0)).all()
    assert len(numbered[0, 4:9, 4:9].unique()) == 1


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 9)])
def test_nothing_there(shape: tuple[int, ...]) -> None:
    assert count(torch.zeros(shape, dtype=torch.uint8)) == 0


def test_volumes_in_mm() -> None:
    grid = np.indices((24, 14, 7)) * np.array([1, 1, 2]).reshape(3, 1, 1, 1)
    inside = np.zeros(grid.shape[1:], dtype=bool)
    for x in (6, 16):
        inside |= sum((grid[axis] - centre) ** 2 for axis, centre in enumerate((x, 6, 6))) <= 36
    labels = MetaTensor(
        torch.from_numpy(inside[None].astype(np.uint8)), affine=torch.diag(torch.tensor([1.0, 1, 2, 1]))
    )
    assert count(labels) == 2


def test_count_is_kept_with_the_metadata() -> None:
    labels = MetaTensor(discs((15, 15), (45, 30)), affine=torch.eye(4), meta={"filename_or_obj": "a.png"})
    done = SplitInstancesd("pred")({"pred": labels, "image": labels})
    assert done["pred"].meta["instance_count"] == 2
    assert done["pred"].meta["filename_or_obj"] == "a.png"
    assert done["image"] is labels
    assert "instance_count" not in labels.meta


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_size": 0}, "min_size must be at least 1, got 0"),
        ({"depth": 1.0}, "depth must be from 0 to below 1, got 1.0"),
    ],
)
def test_arguments(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplitInstances(**options)


def test_channels() -> None:
    with pytest.raises(ValueError, match=r"must have one channel, got shape \(2, 4, 4\)\. Use AsDiscreted"):
        SplitInstances()(torch.zeros(2, 4, 4))


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match=r'pip install .*\[instances\]"'):
        SplitInstancesd("pred")
