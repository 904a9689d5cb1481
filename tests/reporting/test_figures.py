"""Texts in figures."""

import itertools

import pytest

from monai_unetpp.reporting.figures import new_figure, write_beside


@pytest.mark.parametrize("step", [0.02, 0.12, 1.0])
def test_texts_beside_crowded_points_stay_apart_and_inside(step):
    points = [(1 + step * n, 0.9 + 0.004 * n, 0.902 + 0.004 * n, f"L{n + 1} (98 %)") for n in range(3)]
    with new_figure(3.75, 3.5) as (figure, grid):
        axes = grid[0, 0]
        axes.set_xlim(0, 4)
        axes.set_ylim(0.88, 0.93)
        write_beside(axes, points, fontsize=9)
        boxes = [text.get_window_extent() for text in axes.texts]
        assert [text.get_text() for text in axes.texts] == [text for *_, text in points]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
        assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)
        marks = [axes.transData.transform((x, (low + high) / 2)) for x, low, high, _ in points]
        assert not any(box.contains(*mark) for box in boxes for mark in marks)
        assert figure.axes == [axes]
