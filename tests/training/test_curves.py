import pytest

from monai_unetpp.training import load_observed
from monai_unetpp.training.curves import draw_curves, draw_training

HEADER = "epoch,learning_rate,train_loss,val_mean_dice\n"


def test_a_picture_is_drawn_also_where_epochs_were_not_validated(tmp_path):
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    (tmp_path / "curves.csv").write_text(HEADER + "1,0.1,2.0,\n2,0.1,1.0,0.5\n3,0.05,0.5,0.7\n")
    draw_curves(tmp_path / "curves.csv", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


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


def test_a_file_without_epochs(tmp_path):
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    (tmp_path / "curves.csv").write_text(HEADER)
    with pytest.raises(ValueError, match=r"curves\.csv: must have a row per epoch"):
        draw_curves(tmp_path / "curves.csv", tmp_path / "curves.png")
