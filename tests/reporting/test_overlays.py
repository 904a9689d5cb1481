"""What is drawn over images: the right slice, and borders along the edges of voxels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from monai_unetpp.reporting.figures import new_figure
from monai_unetpp.reporting.overlays import (
    PLANES,
    draw_contour,
    draw_grey,
    draw_letters,
    draw_scale_bar,
    error_slice,
    tint,
)

SHAPE = (20, 18, 10)


@pytest.fixture
def truth():
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[5:13, 6:12, 2:8] = 1
    mask[8:11, 8:10, 2:8] = 2
    return mask


class TestErrorSlice:
    def test_slice_with_most_wrong_voxels_across_the_coarsest_axis(self, truth):
        prediction = truth.copy()
        prediction[5:7, 6:12, 4] = 0
        prediction[0, 0, 7] = 1
        assert error_slice(truth, prediction, (1, 1, 2.5)) == (2, 4)
        assert error_slice(truth, prediction, (3, 1, 1)) == (0, 5)

    def test_last_axis_where_spacing_is_equal(self, truth):
        for spacing in ((1, 1, 1), (1.0, 1.0000000115, 1.0000000029)):
            assert error_slice(truth, np.roll(truth, 1, axis=0), spacing)[0] == 2
        assert error_slice(truth, np.roll(truth, 1, axis=0), (4e-4, 1e-4, 1e-4))[0] == 0

    def test_no_error_shows_the_most_of_the_structure(self, truth):
        truth[:, :, 6] = 1
        assert error_slice(truth, truth, (1, 1, 1)) == (2, 6)

    def test_nothing_at_all_shows_the_middle(self, truth):
        assert error_slice(truth * 0, truth * 0, (1, 1, 1)) == (2, 5)

    def test_2d_has_no_axis_to_choose(self, truth):
        assert error_slice(truth[..., 0], truth[..., 0], (1, 1)) == (None, 0)


@pytest.fixture
def axes():
    pytest.importorskip("matplotlib")
    with new_figure(2, 2) as (_, grid):
        yield grid[0, 0]


def corners(collection):
    """Left, right, bottom and top of what a contour encloses."""
    points = np.concatenate([path.vertices for path in collection.get_paths()])
    (left, bottom), (right, top) = points.min(axis=0), points.max(axis=0)
    return left, right, bottom, top


class TestContour:
    def test_it_runs_along_the_edges_of_voxels(self, axes):
        mask = np.zeros((9, 7), dtype=bool)
        mask[2:5, 1:6] = True
        draw_contour(axes, mask, "red", 1.0)
        # voxels 2 to 4 and 1 to 5, each half a voxel around its centre; points are an eighth of a voxel from the edge
        assert corners(axes.collections[0]) == pytest.approx((1.5, 4.5, 0.5, 5.5), abs=0.13)

    @pytest.mark.parametrize(
        ("value", "options", "drawn"),
        [(1, {"closed": True}, 1), (1, {"closed": False}, 0), (0, {"closed": True, "rounded": True, "halo": True}, 0)],
    )
    def test_only_a_closed_one_follows_the_border_of_the_picture(self, axes, value, options, drawn):
        draw_contour(axes, np.full((3, 3), value, dtype=bool), "red", 1.0, **options)
        assert len(axes.collections) == drawn

    def test_a_halo_lies_below_and_is_wider(self, axes):
        mask = np.eye(4, dtype=bool)
        draw_contour(axes, mask, "red", 2.0, halo=True, rounded=True)
        below, above = axes.collections
        assert below.get_linewidth()[0] > above.get_linewidth()[0] == 2


def test_a_tint_covers_its_mask_and_nothing_else(axes):
    mask = np.zeros((3, 2), dtype=bool)
    mask[2, 0] = True
    draw_grey(axes, np.zeros((3, 2)), (0, 1), upright=False)
    tint(axes, mask, "#0072B2", 0.5)
    image, over = axes.images
    assert image.origin == over.origin == "upper"
    assert (over.get_array()[..., 3] == 0.5 * mask.T).all()


def test_an_image_without_contrast_is_black(axes):
    draw_grey(axes, np.full((3, 2), 7.0), (7, 7))
    assert axes.images[0].get_clim() == (7, 8)


def test_a_scale_bar_and_letters_can_be_read_on_white():
    with new_figure(2, 2) as (figure, grid):
        grid[0, 0].set_axis_off()
        draw_scale_bar(grid[0, 0], (20, 20), (0.5, 0.5), "mm")
        draw_letters(grid[0, 0], "L", "S")
        texts = [text.get_text() for text in grid[0, 0].texts]
        figure.savefig(content := io.BytesIO(), format="png")
    # the longest round length within two fifths of 10 mm; right hand and foot of the patient are opposite to L and S
    assert texts == ["2 mm", "R", "L", "I", "S"]
    pixels = np.asarray(Image.open(content).convert("L"))
    assert (pixels < 60).sum() > 200
    assert [PLANES[axis] for axis in "LAI"] == ["sagittal", "coronal", "axial"]
