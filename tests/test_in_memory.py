"""One image in, one segmentation out, whatever holds the image."""

import dataclasses
import re
import shutil

import monai.transforms
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor, get_track_meta, set_track_meta
from PIL import Image
from runner_bundle import write_bundle

import monai_unetpp
from monai_unetpp import Segmentation, segment
from monai_unetpp.data import VolumeReader
from monai_unetpp.pruning.results import Comparison, Decision
from monai_unetpp.segmentation import segment_files

OPTIONS = {"level": "L1", "device": "cpu", "runtime": "torch", "precision": "fp32", "flips": []}


@pytest.fixture(scope="module")
def path(decathlon_dir):
    return decathlon_dir / "imagesTr" / "case_1.nii.gz"


@pytest.fixture(scope="module")
def of_path(hippocampus_bundle, path):
    return segment(path, bundle=hippocampus_bundle, **OPTIONS)


def test_dir_shows_the_public_names_only():
    assert dir(monai_unetpp) == sorted(monai_unetpp.__all__)
    assert {"NestedUNet", "Segmentation", "segment", "__version__"} <= set(dir(monai_unetpp))


@pytest.mark.slow
def test_the_same_as_segmenting_files(of_path, hippocampus_bundle, path, tmp_path):
    (done,) = segment_files(path, tmp_path, hippocampus_bundle, **OPTIONS).cases
    written = nib.load(done.output)
    assert isinstance(of_path, Segmentation)
    assert of_path.array.any()
    np.testing.assert_array_equal(of_path.array, np.asarray(written.dataobj))
    np.testing.assert_array_equal(of_path.affine, nib.load(path).affine)
    assert of_path.volumes == done.volumes
    assert of_path.labels == {1: "anterior", 2: "posterior"}
    assert (of_path.bundle, of_path.level) == (hippocampus_bundle.name, "L1")
    saved = nib.load(of_path.save(tmp_path / "labels.nii"))
    np.testing.assert_array_equal(np.asarray(saved.dataobj), of_path.array)
    assert saved.header.extensions == written.header.extensions


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny", 3, [], runtime="torch", overlap=0)


@pytest.mark.parametrize("shape", [(1, 1, 7), (2, 1, 1), (5, 1, 7), (1, 9, 9)])
def test_a_thin_volume_keeps_its_voxels(tiny, shape):
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    found = segment(nib.Nifti1Image(voxels, np.diag([1.0, 2, 3, 1])), tiny)
    assert found.array.shape == shape
    np.testing.assert_array_equal(found.image.ravel(), voxels.ravel())
    assert found.show().axes


@pytest.mark.slow
@pytest.mark.parametrize("holder", ["Nifti2Image", "MetaTensor", "SimpleITK"])
def test_an_axis_too_long_for_nifti_1_is_kept(tmp_path, holder):
    long = write_bundle(tmp_path / "long", 3, [], runtime="torch", overlap=0, roi_size=[4, 4096, 4])
    voxels = np.arange(32_768, dtype=np.int32).reshape(1, -1, 1)
    images = {
        "Nifti2Image": nib.Nifti2Image(voxels, np.eye(4)),
        "MetaTensor": MetaTensor(torch.as_tensor(voxels)[None]),
        "SimpleITK": SimpleITK.GetImageFromArray(voxels.T),
    }
    found = segment(images[holder], long)
    assert found.array.shape == voxels.shape
    np.testing.assert_array_equal(found.image.ravel(), voxels.ravel())


def test_a_tensor_of_bfloat16(tiny):
    voxels = torch.arange(120, dtype=torch.float32).reshape(1, 4, 5, 6)
    found = segment(MetaTensor(voxels.bfloat16()), tiny)
    np.testing.assert_array_equal(found.image, voxels[0])
    with pytest.raises(ValueError, match="image must have numbers as voxels, got complex64"):
        segment(MetaTensor(voxels.to(torch.complex64)), tiny)


def images_of(path):
    transform = monai.transforms.LoadImage(reader=VolumeReader(), ensure_channel_first=True)
    scaled = nib.load(path)
    return {
        "str": str(path),
        "nibabel": nib.load(path),
        "nibabel, integers of 64 bits": nib.Nifti1Image(
            np.rint(scaled.get_fdata()).astype(np.int64), scaled.affine, dtype="int64"
        ),
        "SimpleITK": SimpleITK.ReadImage(str(path)),
        "MetaTensor": transform(path),
    }


@pytest.mark.parametrize("kind", ["nibabel", "nibabel, integers of 64 bits", "SimpleITK", "MetaTensor"])
def test_any_holder_of_an_image_gives_the_same(of_path, hippocampus_bundle, path, kind, capfd):
    found = segment(images_of(path)[kind], bundle=hippocampus_bundle, **OPTIONS)
    assert "MetaImageIO" not in capfd.readouterr().err
    share = (found.array != of_path.array).mean()
    assert share <= (0.001 if "64" in kind else 0)
    np.testing.assert_allclose(found.affine, of_path.affine, atol=1e-5)
    np.testing.assert_allclose(found.image, of_path.image, atol=0.51 if "64" in kind else 0)


def test_metadata_of_the_callers_image_is_kept(tiny):
    image = SimpleITK.GetImageFromArray(np.arange(120, dtype=np.int16).reshape(4, 5, 6))
    keys = ("0010|0020", "a", "b")
    for key in keys:
        image.SetMetaData(key, "kept")
    segment(image, tiny)
    assert image.GetMetaDataKeys() == keys


def test_further_axes_of_nibabel_are_kept(tiny, tmp_path):
    voxels = np.arange(120, dtype=np.int16).reshape(4, 5, 6, 1)
    found = segment(nib.Nifti1Image(voxels, np.eye(4)), tiny)
    assert found.array.shape == nib.load(found.save(tmp_path / "labels.nii")).shape == voxels.shape
    assert found.image.shape == (4, 5, 6)


def test_the_switch_for_metadata_does_not_matter(tiny):
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), np.diag([1.0, 2, 3, 1]))
    expected = segment(image, tiny)
    set_track_meta(False)
    try:
        found = segment(image, tiny)
        assert not get_track_meta()
    finally:
        set_track_meta(True)
    np.testing.assert_array_equal(found.array, expected.array)
    np.testing.assert_array_equal(found.affine, image.affine)


def test_each_process_of_torchrun_segments_its_own_image(of_path, hippocampus_bundle, path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    found = segment(path, bundle=hippocampus_bundle, **OPTIONS)
    np.testing.assert_array_equal(found.array, of_path.array)
    np.testing.assert_array_equal(found.image, of_path.image)


def test_it_shows_itself_in_a_notebook(of_path):
    figure = of_path.show()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["sagittal", "coronal", "axial"]
    page = of_path._repr_html_()
    assert "<td>anterior</td>" in page
    assert re.search(r'<img alt="the labels over the image" src="data:image/png;base64,\w', page)
    assert "anterior: " in repr(of_path)


def test_a_picture(nuclei_bundle, tmp_path):
    rows = np.full((40, 50), 10, np.uint8)
    rows[8:20, 10:22] = 200
    Image.fromarray(rows).save(tmp_path / "cells.png")
    found = segment(tmp_path / "cells.png", nuclei_bundle, **OPTIONS)
    assert found.array.shape == found.image.shape == (50, 40)
    assert [label.ml for label in found.volumes] == [None]
    assert "<img" in found._repr_html_()
    with Image.open(found.save(tmp_path / "labels.png")) as saved:
        np.testing.assert_array_equal(np.asarray(saved).T, found.array)
    with pytest.raises(ValueError, match=r"labels\.nii: the name must end in \.png"):
        found.save(tmp_path / "labels.nii")


@pytest.mark.slow
def test_numbered_objects_have_no_names_of_labels(nuclei_bundle, tmp_path):
    pytest.importorskip("skimage")
    rows = np.full((40, 50), 10, np.uint8)
    rows[8:20, 10:22] = rows[24:36, 30:42] = 200
    Image.fromarray(rows).save(tmp_path / "cells.png")
    found = segment(tmp_path / "cells.png", nuclei_bundle, instances=True, **OPTIONS)
    assert found.labels == {}
    assert found.instances == found.array.max() > 0
    (legend,) = found.show().legends
    assert [text.get_text() for text in legend.get_texts()] == ["objects"]
    done = segment_files(tmp_path / "cells.png", tmp_path / "out", nuclei_bundle, instances=True, **OPTIONS)
    assert (done.labels, done.cases[0].instances) == ({}, found.instances)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["cells_seg.png", "run.json"]


def test_a_folder_with_one_image(of_path, hippocampus_bundle, nuclei_bundle, path, tmp_path):
    (tmp_path / "volume").mkdir()
    shutil.copy(path, tmp_path / "volume")
    found = segment(tmp_path / "volume", hippocampus_bundle, **OPTIONS)
    np.testing.assert_array_equal(found.array, of_path.array)
    np.testing.assert_array_equal(found.image, of_path.image)
    (tmp_path / "picture").mkdir()
    rows = np.full((20, 24), 10, np.uint8)
    rows[5:15, 8:18] = 200
    Image.fromarray(rows).save(tmp_path / "picture" / "cells.png")
    np.testing.assert_array_equal(segment(tmp_path / "picture", nuclei_bundle, **OPTIONS).image, rows.T)


def test_what_is_no_image_is_named(hippocampus_bundle, decathlon_dir, of_path, tmp_path):
    with pytest.raises(TypeError, match=r"image must be a path, .* got ndarray\. .*nibabel\.Nifti1Image"):
        segment(np.zeros((4, 4, 4)), hippocampus_bundle)
    with pytest.raises(ValueError, match=r"image must have the shape .*, got \(4, 4, 4, 4\)"):
        segment(MetaTensor(torch.zeros(4, 4, 4, 4)), hippocampus_bundle)
    with pytest.raises(ValueError, match=r"^image: all voxels have the value 0"):
        segment(MetaTensor(torch.zeros(1, 4, 4, 4)), hippocampus_bundle, **OPTIONS)
    for affine in (torch.zeros(4, 4), torch.eye(4) * torch.nan, torch.diag(torch.tensor([1.0, 1, 0, 1]))):
        with pytest.raises(ValueError, match=r"^image: its affine is singular, with axes .*\. Repair its header"):
            segment(MetaTensor(torch.ones(1, 4, 4, 4), affine=affine), hippocampus_bundle)
    with pytest.raises(ValueError, match=r"image must have numbers as voxels, got complex64"):
        segment(nib.Nifti1Image(np.ones((4, 4, 4), np.complex64), np.eye(4)), hippocampus_bundle)
    with pytest.raises(ValueError, match=r"image must have a known orientation, got an Analyze image"):
        segment(nib.AnalyzeImage(np.ones((4, 4, 4), np.float32), np.eye(4)), hippocampus_bundle)
    with pytest.raises(ValueError, match=r"contains 6 images\. Name one"):
        segment(decathlon_dir / "imagesTr", hippocampus_bundle)
    with pytest.raises(ValueError, match=r"labels\.png: the name must end in \.nii or \.nii\.gz"):
        of_path.save(tmp_path / "labels.png")


@pytest.mark.parametrize(
    "given",
    [
        {"mask": True},
        {"dicom_seg": True},
        {"skip_existing": True},
        {"shard": "2/2"},
        {"overwrite": True},
        {"profile": True},
        {"output_dir": "labels"},
    ],
)
def test_options_about_files_are_refused(hippocampus_bundle, path, given):
    (name,) = given
    with pytest.raises(ValueError, match=rf"^options must not include {name}, .*segment_files or the command"):
        segment(path, hippocampus_bundle, **given)


@pytest.mark.parametrize("given", [{"suffix": "T1w"}, {"series": "3"}, {"list_key": "test"}])
def test_options_that_choose_among_files_are_refused_for_an_image_in_memory(hippocampus_bundle, path, given):
    (name,) = given
    with pytest.raises(ValueError, match=rf"^options must not include {name} for an image in memory\. Leave"):
        segment(nib.load(path), hippocampus_bundle, **given)


def test_a_verdict_shows_itself_in_a_notebook():
    one = Comparison(
        *("L2", "L3", "dice", "<liver>", 0.01, 9, 9, 0.9, 0.899, -0.001, 0.002, -0.003, 0.001, "bca", -0.01, "a"),
        *("pass", None, "good enough"),
    )
    after = dataclasses.replace(one, point="L1")
    text = "Prune to L2 & save."
    decision = Decision(
        "all", "prune", "L2", "choose", 9, 9, (one, after), ("L1: fails",), None, False, text, tested=("L2",)
    )
    page = decision._repr_html_()
    assert page.startswith("<p>Prune to L2 &amp; save.</p><p>L1: fails</p><table>")
    assert "<td>&lt;liver&gt;</td>" in page
    assert [page.count(f"<td>{state}</td>") for state in ("pass", "pass (not tested)")] == [1, 1]
