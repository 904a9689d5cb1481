import numpy as np
import pytest
import torch

from monai_unetpp.inferers.windows import WindowGrid, importance_of, summed_importance


def test_a_grid_by_hand():
    grid = WindowGrid.over((10, 5), (4, 6), 0.25)
    assert grid.starts == ((0, 3, 6), (0,))
    assert grid.padded_size == (10, 6)
    assert grid.padding == ((0, 0), (0, 1))
    assert grid.positions == ((0, 0), (3, 0), (6, 0))


@pytest.mark.parametrize(
    ("size", "axis", "slab"), [((512, 512, 600), 2, (512, 512, 96)), ((99, 99, 99), 0, (96, 99, 99))]
)
def test_slabs_lie_along_the_longest_axis(size, axis, slab):
    grid = WindowGrid.over(size, 96, 0.5)
    assert grid.slab_axis == axis
    assert grid.slab_size == slab
    starts = [position[axis] for position in grid.positions]
    assert starts == sorted(starts)
    assert len(set(grid.positions)) == len(grid.positions)


def test_cutting_and_cropping():
    image = torch.arange(50.0).reshape(1, 10, 5)
    grid = WindowGrid.over((10, 5), (4, 6), 0.25)
    window = grid.cut(image, (3, 0), "constant", -1.0)
    assert torch.equal(window[0, :, :5], image[0, 3:7])
    assert (window[0, :, 5] == -1).all()
    assert torch.equal(grid.crop(torch.nn.functional.pad(image, (0, 1))), image)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.bool])
@pytest.mark.parametrize(("padding_mode", "cval"), [("constant", -1000.5), ("constant", 0.5), ("replicate", 0.0)])
def test_images_of_integers_are_padded_as_their_values_in_float32(dtype, padding_mode, cval):
    image = torch.arange(50).reshape(1, 10, 5).to(dtype)
    grid = WindowGrid.over((10, 5), (4, 6), 0.25)
    found = grid.cut(image, (3, 0), padding_mode, cval)
    assert torch.equal(found, grid.cut(image.float(), (3, 0), padding_mode, cval))


@pytest.mark.parametrize("name", ["edge", "reflect", "wrap"])
@pytest.mark.parametrize("size", [(1, 5), (2, 5), (3, 11), (11, 4)])
def test_images_much_smaller_than_windows_are_padded_as_by_numpy(name, size):
    image = torch.arange(2.0 * size[0] * size[1]).reshape(2, *size)
    grid = WindowGrid.over(size, (10, 8), 0.25)
    found = grid.cut(image, grid.positions[0], {"edge": "replicate", "wrap": "circular"}.get(name, name), 0.0)
    image = image[:, :10, :8]
    assert np.array_equal(found, np.pad(image, [(0, 0), *grid.padding], mode=name))


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
def test_the_sum_over_axes_is_the_sum_over_windows(mode):
    grid = WindowGrid.over((13, 9, 11), (5, 4, 11), 0.4)
    importance = importance_of(grid, mode, 0.125)
    weights = torch.ones(5, 4, 11) if importance is None else importance
    expected = torch.zeros(13, 9, 11)
    for x, y, z in grid.positions:
        expected[x : x + 5, y : y + 4, z : z + 11] += weights
    torch.testing.assert_close(summed_importance(grid, importance, "cpu"), expected)


def test_a_single_window_has_no_weights():
    """Its logits are those of the network, to the last bit."""
    assert importance_of(WindowGrid.over((13, 9), (16, 9), 0.25), "gaussian", 0.125) is None
    assert importance_of(WindowGrid.over((13, 9), (16, 8), 0.25), "gaussian", 0.125) is not None
