"""The demonstration on the MNI ICBM152 template that comes with nilearn."""

import sys

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_unetpp import NestedUNet
from monai_unetpp.demo import DemoResult, crop_box, demo


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    pytest.importorskip("nilearn")
    pytest.importorskip("matplotlib")
    return demo(tmp_path_factory.mktemp("demo") / "made" / "by the demo", device="cpu")


def centroid_mm(path):
    image = nib.load(path)
    index = np.argwhere(np.asarray(image.dataobj) > 0).mean(axis=0)
    return image.affine[:3, :3] @ index + image.affine[:3, 3]


def test_the_files(result):
    assert isinstance(result, DemoResult)
    assert [each.level for each in result.levels] == ["L1", "L2", "L3"]
    image = nib.load(result.image)
    for each in result.levels:
        labels = nib.load(each.case.output)
        assert labels.shape == image.shape == (36, 50, 36)
        assert np.array_equal(labels.affine, image.affine)
        assert set(np.unique(labels.dataobj)) == {0, 1, 2}


def test_the_left_hippocampus_is_found_where_it_lies(result):
    """Where atlases of MNI152 space have it, and of a size that hippocampi have in templates: 2 to 6 ml."""
    deepest = result.levels[-1]
    assert np.linalg.norm(centroid_mm(deepest.case.output) - (-25, -22, -15)) < 5
    assert 2 < deepest.total_ml < 6
    labels = np.asarray(nib.load(deepest.case.output).dataobj)
    anterior, posterior = (np.argwhere(labels == value).mean(axis=0) for value in (1, 2))
    assert anterior[1] > posterior[1] + 8, "axis 1 runs to anterior"


def test_all_levels_find_it(result):
    for each in result.levels:
        assert np.linalg.norm(centroid_mm(each.case.output) - centroid_mm(result.levels[-1].case.output)) < 3
        assert each.total_ml == pytest.approx(sum(each.case.volumes_ml.values()))
        assert each.total_ml == pytest.approx(result.levels[-1].total_ml, rel=0.3)


def test_parameters_are_those_of_the_pruned_networks(result, hippocampus_bundle):
    for each in result.levels:
        pruned = NestedUNet.from_checkpoint(hippocampus_bundle / "models" / "model.pt", level=each.level)
        assert each.parameters == sum(p.numel() for p in pruned.parameters())


def test_the_picture(result):
    image = pytest.importorskip("matplotlib.image")
    pixels = image.imread(result.picture)
    assert pixels.shape[1] == 1500
    assert 1000 < pixels.shape[0] < 1600
    for colour in ("#e69f00", "#56b4e9"):
        wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        near = np.abs(pixels[..., :3] - wanted).max(axis=-1) < 0.02
        columns = np.flatnonzero(near[:-60].any(axis=0))
        # the first column of panels shows the image alone
        assert columns.min() > 400, colour
        assert all(((columns > start) & (columns < start + 380)).any() for start in (400, 760, 1120)), colour


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 0.5)])
def test_a_crop_keeps_every_voxel_where_it_was_in_the_world(spacing):
    shape = (40, 44, 48)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-20, -31.5, 7)
    values = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    image = nib.Nifti1Image(values, affine)
    centre = affine[:3, :3] @ (20, 20, 24) + affine[:3, 3]
    crop = crop_box(image, tuple(centre), (12, 16, 10))
    assert np.allclose(np.array(crop.shape) * spacing, (12, 16, 10))
    inside = np.asarray(crop.dataobj)
    for index in ((0, 0, 0), (3, 5, 2), tuple(n - 1 for n in crop.shape)):
        world = crop.affine @ (*index, 1)
        original = np.round(np.linalg.inv(affine) @ world)[:3].astype(int)
        assert inside[index] == values[tuple(original)]
    middle = crop.affine[:3, :3] @ ((np.array(crop.shape) - 1) / 2) + crop.affine[:3, 3]
    assert np.all(np.abs(middle - centre) <= np.array(spacing) / 2 + 1e-9)


def test_a_crop_outside_of_the_image():
    image = nib.Nifti1Image(np.zeros((20, 20, 20), np.uint8), np.eye(4))
    for centre in ((2, 10, 10), (10, 10, 18)):
        with pytest.raises(ValueError, match=r"the box around .* must lie in the image, of \(20, 20, 20\)"):
            crop_box(image, centre, (10, 10, 10))


@pytest.mark.parametrize("affine", [np.diag([-1.0, 1, 1, 1]), np.eye(4)[[1, 0, 2, 3]]])
def test_a_crop_of_an_image_with_other_axes(affine):
    image = nib.Nifti1Image(np.zeros((20, 20, 20), np.uint8), affine)
    with pytest.raises(ValueError, match=r"image must have axes exactly along R, A and S, got"):
        crop_box(image, (10, 10, 10), (4, 4, 4))


@pytest.mark.parametrize("module", ["nilearn.datasets", "matplotlib.figure"])
def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'{module}.*pip install "monai-unetpp\[demo\]"'):
        demo(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_device_that_is_not_here(tmp_path):
    pytest.importorskip("nilearn")
    with pytest.raises(ValueError, match=r"device 'cuda' was asked for"):
        demo(tmp_path / "out", device="cuda")
    assert not (tmp_path / "out").exists()
