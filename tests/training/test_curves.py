import pytest

from monai_unetpp.training import draw_training, load_observed


def test_the_loss_is_drawn_also_where_no_cases_are_looked_at(tmp_path):
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    draw_training([1.0, 0.5], [], tmp_path / "training.png")
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")


def test_a_level_without_a_score_leaves_a_gap_in_its_curve(tmp_path):
    """As one that rightly finds nothing in cases without a label."""
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    draw_training([1.0, 0.5], [{"step": 1, "L1": 0.0}, {"step": 2, "L2": 0.0}], tmp_path / "training.png")
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")


def test_other_cases_than_the_validation_list_can_be_looked_at(tmp_path):
    cases = [{"image": number} for number in range(5)]
    assert load_observed("no such folder", 2, dict, tmp_path, cases) == cases[:2]
    assert load_observed("no such folder", 0, dict, tmp_path, cases) == ()
