import pytest

from monai_unetpp.training.curves import draw_curves

HEADER = "epoch,learning_rate,train_loss,val_mean_dice\n"


def test_a_picture_is_drawn_also_where_epochs_were_not_validated(tmp_path):
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    (tmp_path / "curves.csv").write_text(HEADER + "1,0.1,2.0,\n2,0.1,1.0,0.5\n3,0.05,0.5,0.7\n")
    draw_curves(tmp_path / "curves.csv", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_without_epochs(tmp_path):
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    (tmp_path / "curves.csv").write_text(HEADER)
    with pytest.raises(ValueError, match=r"curves\.csv: must have a row per epoch"):
        draw_curves(tmp_path / "curves.csv", tmp_path / "curves.png")
