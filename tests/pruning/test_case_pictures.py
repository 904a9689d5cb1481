"""Overlay pictures: the right slice, the right proportions, readable contours."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from monai_unetpp.pruning.report.worst_cases import save_overlay

SHAPE = (20, 18, 10)
NAMES = {1: "anterior", 2: "posterior", 3: "other"}


@pytest.fixture
def truth():
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[5:13, 6:12, 2:8] = 1
    mask[8:11, 8:10, 2:8] = 2
    return mask


def draw(path, truth, chosen=None, *, image=None, spacing=None, title="a", names=NAMES, **options):
    """Draw a case whose deepest level is exact; by default the chosen one is, too."""
    save_overlay(
        truth if image is None else image,
        truth,
        truth if chosen is None else chosen,
        truth,
        spacing or (1,) * truth.ndim,
        path,
        title,
        label_names=names,
        **options,
    )
    return path


def near(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    """How many pixels have about this colour."""
    return int((np.abs(image.astype(int) - colour).max(axis=-1) < 40).sum())


class TestSaveOverlay:
    def test_a_name_longer_than_the_picture_has_a_row_of_its_own(self, tmp_path, truth):
        assert draw(tmp_path / "long.png", truth, names={1: "x" * 200, 2: "b"}).is_file()

    def test_png_says_what_it_shows(self, tmp_path, truth):
        chosen = truth.copy()
        chosen[5, 6:12, 4] = 0
        path = draw(
            tmp_path / "new" / "case.png",
            truth,
            chosen,
            spacing=(1, 1, 2),
            title="case_7: $50 & <b>",
            chosen_name="L2",
            deepest_name="L4",
        )
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.info["Title"] == "case_7: $50 & <b>"
            assert picture.info["Description"] == (
                "case_7: $50 & <b>, slice 4 across axis 2: image, truth, L2 and L4. In this view L2 differs from the "
                "truth in 6 voxels, L4 in 0."
            )
        assert [p.name for p in path.parent.iterdir()] == ["case.png"]

    def test_planes_and_sides_of_the_patient_have_names(self, tmp_path, truth, monkeypatch):
        seen = []
        original = Axes.text
        monkeypatch.setattr(
            Axes, "text", lambda axes, x, y, s, **o: seen.append((s, x, y)) or original(axes, x, y, s, **o)
        )
        path = draw(tmp_path / "a.png", truth, spacing=(1, 2, 1), orientation="LSP")
        # axis 1, towards the head, is the coarsest: axial planes, whose axes run to the left and to the back
        assert "a, axial slice 6: image" in Image.open(path).info["Description"]
        left, right, bottom, top = seen[:4]
        assert [letter for letter, _, _ in (left, right, bottom, top)] == ["R", "L", "A", "P"]
        assert left[1] < 0.5 < right[1]
        assert bottom[2] < 0.5 < top[2]

    def test_the_ground_is_that_of_the_page(self, tmp_path, truth):
        path = draw(tmp_path / "a.png", truth)
        assert np.asarray(Image.open(path).convert("RGBA"))[0, 0, 3] == 0

    @pytest.mark.slow
    def test_contour_colours_are_there_and_errors_are_tinted(self, tmp_path, truth):
        def pixels(chosen):
            path = draw(tmp_path / "a.png", truth, chosen, image=truth * 0.0)
            return np.asarray(Image.open(path).convert("RGB"))

        exact, wrong = pixels(truth), pixels(np.roll(truth, 2, axis=0))
        yellow, blue = (0xF0, 0xE4, 0x42), (0x56, 0xB4, 0xE9)
        assert near(exact, yellow) > 300
        assert near(exact, blue) > 150
        tint = tuple(int(0.45 * value) for value in (0xFF, 0x3B, 0x30))
        assert near(wrong, tint) > near(exact, tint) + 1000

    @pytest.mark.slow
    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 9.0), (3.0, 1.0, 9.0), (1.0, 2.0, 9.0)])
    def test_voxels_keep_their_proportions(self, tmp_path, truth, monkeypatch, spacing):
        seen = {}
        original = Axes.imshow

        def spy(axes, image, **options):
            seen["axes"], seen["rows_columns"] = axes, image.shape[:2]
            return original(axes, image, **options)

        monkeypatch.setattr(Axes, "imshow", spy)
        draw(tmp_path / "a.png", truth, spacing=spacing)
        box = seen["axes"].get_window_extent()
        rows, columns = seen["rows_columns"]
        width, height = box.width / columns, box.height / rows
        assert height / width == pytest.approx(spacing[1] / spacing[0], rel=1e-3)

    @pytest.mark.slow
    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_draws_empty_masks_constant_and_broken_images(self, tmp_path, dimensions):
        shape = (9, 7, 5)[:dimensions]
        empty = np.zeros(shape, dtype=int)
        for name, image in (("constant", np.ones(shape)), ("nan", np.full(shape, np.nan))):
            path = draw(tmp_path / f"{name}.png", empty, image=image)
            assert path.stat().st_size > 1000

    @pytest.mark.slow
    def test_label_at_the_border_and_a_single_voxel(self, tmp_path):
        mask = np.zeros((6, 6), dtype=int)
        mask[0, 0], mask[5, :] = 1, 3
        path = draw(tmp_path / "a.png", mask, spacing=(0.5, 0.5), unit="µm")
        assert near(np.asarray(Image.open(path).convert("RGB")), (0xE6, 0x9F, 0x00)) > 100

    def test_interruption_leaves_the_old_picture(self, tmp_path, truth, monkeypatch):
        from matplotlib.figure import Figure

        target = tmp_path / "a.png"
        target.write_bytes(b"old")

        def interrupted(self, path, **_):
            path.write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(Figure, "savefig", interrupted)
        with pytest.raises(KeyboardInterrupt):
            draw(target, truth)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.slow
def test_the_legend_of_many_labels_stays_inside_the_picture(tmp_path, monkeypatch):
    seen = {}
    original = Figure.legend

    def spy(figure, *arguments, **options):
        seen["figure"], seen["legend"] = figure, original(figure, *arguments, **options)
        return seen["legend"]

    monkeypatch.setattr(Figure, "legend", spy)
    truth = np.repeat(np.arange(36), 4).reshape(12, 12)
    draw(tmp_path / "a.png", truth, names={number: f"right structure with a name {number}" for number in range(1, 36)})
    legend, page = seen["legend"].get_window_extent(), seen["figure"].bbox
    assert page.x0 <= legend.x0 < legend.x1 <= page.x1
    colours = {tuple(patch.get_edgecolor()) for patch in seen["legend"].get_patches()[:-1]}
    assert len(colours) > 30, "hardly any label shares its colour"
