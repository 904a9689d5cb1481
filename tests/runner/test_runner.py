"""The runner gives the labels of ``segment``, without torch and MONAI."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
import torch
from disc_images import write_disc_images
from json_edits import edit_json
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, ScaleIntensityRange
from PIL import Image
from runner_bundle import write_bundle, write_image
from scipy.spatial.transform import Rotation
from tiny_planning import TINY, slow_machine

from monai_unetpp import NestedUNet
from monai_unetpp.bundles import read_network_def
from monai_unetpp.data import BlockwiseSpacingd, CropBackgroundd, ImageFileError, VolumeReader
from monai_unetpp.data.formats.nifti_marks import ImageIdentity
from monai_unetpp.data.formats.pictures import read_picture, read_picture_mark, write_picture
from monai_unetpp.data.formats.result_marks import is_of_runner, read_identity
from monai_unetpp.export import export_runner, runner_folder
from monai_unetpp.export.pipeline_steps import NoTranslationError
from monai_unetpp.inferers import sliding_windows
from monai_unetpp.openvino_loading import has_openvino, import_openvino
from monai_unetpp.planning import plan
from monai_unetpp.runner import Segmenter, segmenter
from monai_unetpp.runner.__main__ import main
from monai_unetpp.runner.network import load_network
from monai_unetpp.runner.segmenter import STEPS
from monai_unetpp.runner.volume import Volume, read_volume
from monai_unetpp.segmentation import segment_files

pytestmark = pytest.mark.skipif(not has_openvino(), reason="needs the extra openvino")

_BRAIN = [
    {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
    {"_target_": "monai_unetpp.data.LevelSurroundd", "keys": "image"},
    {"_target_": "EnsureTyped", "keys": "image"},
    {"_target_": "monai_unetpp.data.BlockwiseSpacingd", "keys": "image", "pixdim": [1.0, 1.2, 0.9]},
    {"_target_": "monai_unetpp.data.CropBackgroundd", "keys": "image", "source_key": "image", "margin": 3},
    {"_target_": "ClipIntensityPercentilesd", "keys": "image", "lower": 0.5, "upper": 99.5},
    {"_target_": "monai_unetpp.data.StandardizeIntensityd", "keys": "image"},
]
_PICTURE = [
    {"_target_": "ScaleIntensityRangePercentilesd", "keys": "image", "lower": 0.1, "upper": 99.9, "b_min": 0.0}
    | {"b_max": 1.0, "clip": True},
    {"_target_": "ScaleIntensityd", "keys": "image"},
    {"_target_": "monai_unetpp.data.InvertBrightBackgroundd", "keys": "image"},
    {"_target_": "AdjustContrastd", "keys": "image", "gamma": 0.7},
    {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True},
]


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    """A bundle with all geometric steps, its exported folder, and an image."""
    root = tmp_path_factory.mktemp("brain")
    bundle = write_bundle(root / "tiny", 3, _BRAIN, clear=True, overlap=0.5, flips=[0])
    export_runner(bundle, root / "folder")
    return bundle, root / "folder", write_image(root / "head.nii.gz", (28, 31, 26))


@pytest.mark.slow
def test_labels_of_a_volume_are_those_of_segment(brain, tmp_path):
    bundle, folder, image = brain
    (case,) = segment_files(image, tmp_path / "a", bundle).cases
    assert main([str(folder), str(image), "-o", str(tmp_path / "b")]) == 0
    expected, found = nibabel.load(case.output), nibabel.load(tmp_path / "b" / "head_seg.nii.gz")
    np.testing.assert_array_equal(found.get_fdata(), expected.get_fdata())
    assert len(np.unique(found.get_fdata())) > 1
    # the header is the same but for who wrote it
    marks = [bytes(image.header["descrip"].item()) for image in (found, expected)]
    assert marks[0] == marks[1].replace(b" voxels=", b" runner=")
    found.header["descrip"] = marks[1]
    assert found.header.binaryblock == expected.header.binaryblock


@pytest.mark.slow
def test_labels_of_a_volume_at_45_degrees_are_those_of_segment(brain, tmp_path):
    """Where the header leaves open which axis runs along which of the world, both decide alike."""
    bundle, folder, image = brain
    images = []
    for axes, angles in [("xy", (45, 45)), ("xz", (45, 135)), ("zyx", (90, 135, -45))]:
        affine = nibabel.load(image).affine
        affine[:3, :3] = Rotation.from_euler(axes, angles, degrees=True).as_matrix()
        images.append(tmp_path / f"{axes}.nii")
        nibabel.save(nibabel.Nifti1Image(nibabel.load(image).get_fdata(dtype=np.float32), affine), images[-1])
    summary, runner = segment_files(images, tmp_path / "out", bundle), Segmenter(folder)
    assert not summary.failures
    for case in summary.cases:
        expected = nibabel.load(case.output)
        np.testing.assert_array_equal(runner.label(case.image), expected.get_fdata())
        np.testing.assert_array_equal(expected.affine, nibabel.load(case.image).affine)
        assert len(np.unique(expected.get_fdata())) > 1


@pytest.mark.slow
def test_labels_from_probabilities_are_those_of_segment(tmp_path):
    bundle = write_bundle(tmp_path / "tiny", 3, _BRAIN, clear=True, smooth=True)
    image = write_image(tmp_path / "head.nii.gz", (22, 25, 20))
    (case,) = segment_files(image, tmp_path / "out", bundle).cases
    found = Segmenter(export_runner(bundle, tmp_path / "folder").path).label(image)
    np.testing.assert_array_equal(found, nibabel.load(case.output).get_fdata())
    assert len(np.unique(found)) > 1


@pytest.mark.slow
@pytest.mark.parametrize(("dims", "smooth"), [(3, False), (3, True), (2, False)])
def test_label_values_of_several_classes_are_those_of_segment(tmp_path, dims, smooth):
    steps, values, seen = _BRAIN if dims == 3 else _PICTURE[-1:], (300, 40_000), set()
    bundle = write_bundle(tmp_path / "tiny", dims, steps, dims == 3, smooth, values, overlap=0.5)
    if dims == 2:
        _write_weights(bundle, _pixels()[0])
    runner = Segmenter(export_runner(bundle, tmp_path / "folder").path)
    images = [write_image(tmp_path / "head.nii.gz", (22, 25, 20))]
    images += _write_pictures(tmp_path / "in") if dims == 2 else []
    summary = segment_files(images, tmp_path / "out", bundle)
    assert not summary.failures
    for case in summary.cases:
        found = runner.segment(case.image, tmp_path / "run")
        assert found.name == Path(case.output).name
        read = (lambda path: read_picture(path, labels=True)) if "in" in Path(case.image).parts else _read_volume
        labels = read(found)
        np.testing.assert_array_equal(labels, read(Path(case.output)))
        assert labels.dtype == read(Path(case.output)).dtype
        seen |= set(np.unique(labels).tolist())
    assert len(seen) > 1
    assert seen <= {0, *values}


def _read_volume(path):
    return np.asarray(nibabel.load(path).dataobj)


@pytest.mark.slow
def test_labels_of_images_and_slices_are_those_of_segment(tmp_path):
    bundle = write_bundle(tmp_path / "tiny", 2, _PICTURE, skip_constant=True, mode="constant")
    folder = export_runner(bundle, tmp_path / "folder", level="L1", network_format="onnx").path
    images = [
        write_image(tmp_path / "flat.nii.gz", (20, 27), surround=False),
        write_image(tmp_path / "stack.nii", (20, 13, 3), surround=False),
    ]
    runner = Segmenter(folder, threads=1)
    assert runner.pipeline.level == "L1"
    for case in segment_files(images, tmp_path / "out", bundle, level="L1").cases:
        np.testing.assert_array_equal(runner.label(case.image), nibabel.load(case.output).get_fdata())


@pytest.mark.slow
@pytest.mark.parametrize("value", [1, 7, 300])
def test_labels_of_a_planned_bundle_of_images_are_those_of_segment(tmp_path, value):
    """With one pixel size for all images nothing is resampled, so there is nothing to invert."""
    discs = write_disc_images(tmp_path, training=3, validation=1, value=value)
    bundle = tmp_path / "planned"
    plan(discs, bundle, settings=TINY, device="cpu", measure=slow_machine)
    image = discs / "imagesTr" / "disc_0.nii.gz"
    _write_weights(bundle, nibabel.load(image).get_fdata())
    (case,) = segment_files(image, tmp_path / "out", bundle, runtime="openvino", precision="fp32").cases
    expected = nibabel.load(case.output).get_fdata()
    assert np.unique(expected).tolist() == [0, value]
    runner = Segmenter(export_runner(bundle, tmp_path / "folder").path)
    np.testing.assert_array_equal(runner.label(image), expected)
    assert runner.pipeline.labels == {"0": "background", str(value): "disc"}
    written = nibabel.load(runner.segment(image, tmp_path / "run"))
    assert written.get_data_dtype() == nibabel.load(case.output).get_data_dtype()


def _write_weights(bundle, voxels):
    """Random weights that give half of the image each of two labels."""
    torch.manual_seed(0)
    network = NestedUNet(**read_network_def(bundle)).eval()
    voxels = torch.tensor(voxels, dtype=torch.float32)
    with torch.no_grad():
        logits = network((voxels - voxels.mean())[None, None] / voxels.std())
        network.heads["L2"].bias[1] -= (logits[0, 1] - logits[0, 0]).median()
    (bundle / "models").mkdir(exist_ok=True)
    torch.save(network.state_dict(), bundle / "models" / "model.pt")


@pytest.mark.slow
@pytest.mark.parametrize("most", [2**20, 2**12])
def test_windows_of_each_image_are_those_of_segment(brain, tmp_path, monkeypatch, most):
    """In one window, and in several: the same layout, and the same labels."""
    bundle, _, image = brain
    images = [image, write_image(tmp_path / "other.nii.gz", (25, 22, 30))]
    export_runner(bundle, tmp_path / "folder", window_shape="auto")
    monkeypatch.setattr(sliding_windows, "most_window_voxels", lambda *_: most)
    monkeypatch.setattr(segmenter, "most_window_voxels", lambda *_: most)
    runner = Segmenter(tmp_path / "folder")
    for case in segment_files(images, tmp_path / "out", bundle, window_shape="auto").cases:
        np.testing.assert_array_equal(runner.label(case.image), nibabel.load(case.output).get_fdata())
    assert runner.pipeline.windows["multiples"] == [4, 4, 4]
    assert runner.pipeline.windows["channels"] == 4


@pytest.mark.slow
def test_windows_of_each_image_need_a_network_that_can_be_reshaped(brain, tmp_path):
    with pytest.raises(ValueError, match="network_format must be openvino for windows chosen per image"):
        export_runner(brain[0], tmp_path / "folder", window_shape="auto", network_format="onnx")


def _with_network(bundle, **changes):
    """The bundle with another untrained network."""
    edit_json(bundle / "configs" / "inference.json", lambda c: c["network_def"].update(changes))
    network = NestedUNet(**read_network_def(bundle))
    torch.save({"state_dict": network.state_dict(), "config": network.config}, bundle / "models" / "model.pt")
    return bundle


@pytest.mark.slow
def test_networks_without_ceil_mode_take_windows_of_each_image(tmp_path):
    bundle = _with_network(write_bundle(tmp_path / "tiny", 2, []), ceil_mode=False)
    edit_json(
        bundle / "configs" / "metadata.json",
        lambda c: c["network_data_format"]["inputs"]["image"].update(spatial_shape=[18, 18]),
    )
    export_runner(bundle, tmp_path / "folder", window_shape="auto")
    image = write_image(tmp_path / "image.nii.gz", (25, 30))
    [case] = segment_files(image, tmp_path / "out", bundle, window_shape="auto").cases
    found = Segmenter(tmp_path / "folder").label(image)
    np.testing.assert_array_equal(found, nibabel.load(case.output).get_fdata())


@pytest.mark.slow
def test_sizes_of_images_may_be_rules(brain, tmp_path):
    image = brain[2]
    bundle = Path(shutil.copytree(brain[0], tmp_path / "tiny"))
    edit_json(
        bundle / "configs" / "metadata.json",
        lambda c: c["network_data_format"]["inputs"]["image"].update(spatial_shape=["4*n"] * 3),
    )
    export_runner(bundle, tmp_path / "folder", window_shape="auto")
    [case] = segment_files(image, tmp_path / "out", bundle, window_shape="auto").cases
    np.testing.assert_array_equal(
        Segmenter(tmp_path / "folder").label(case.image), nibabel.load(case.output).get_fdata()
    )


@pytest.mark.slow
def test_networks_whose_logits_are_no_numbers_once_written_are_refused(brain, tmp_path, monkeypatch):
    logits = np.full((1, 1, 1, 1), np.nan, np.float32)
    monkeypatch.setattr(runner_folder, "load_network", lambda *_, **__: lambda window: logits)
    with pytest.raises(NoTranslationError, match="other logits for windows of another size"):
        export_runner(brain[0], tmp_path / "folder", window_shape="auto")


@pytest.mark.slow
def test_networks_that_write_their_sizes_are_refused_for_windows_of_each_image(tmp_path):
    bundle = _with_network(write_bundle(tmp_path / "tiny", 2, []), upsample="pixelshuffle")
    with pytest.raises(NoTranslationError, match=r"takes windows of one size only.* Give --window_shape"):
        export_runner(bundle, tmp_path / "folder", window_shape="auto")
    assert not (tmp_path / "folder").exists()


def test_depths_chosen_per_window_are_refused_by_name(tmp_path):
    bundle = write_bundle(tmp_path / "tiny", 3, [])
    edit_json(
        bundle / "configs" / "inference.json", lambda c: c["inferer"].update(levels="adaptive", adaptive_tolerance=0.1)
    )
    with pytest.raises(NoTranslationError, match=r"adaptive_tolerance is not supported by the runner\. Give --level\."):
        export_runner(bundle, tmp_path / "folder")


def test_smoothing_needs_a_channel_for_each_class(tmp_path):
    bundle = _with_network(write_bundle(tmp_path / "tiny", 3, [], smooth=True), out_channels=1)
    with pytest.raises(NoTranslationError, match="must have a channel for each class to be smoothed"):
        export_runner(bundle, tmp_path / "folder")


@pytest.mark.slow
def test_a_level_needs_its_key_and_takes_the_place_of_a_tolerance(tmp_path):
    bundle = write_bundle(tmp_path / "tiny", 2, [])
    config = bundle / "configs" / "inference.json"
    edit_json(config, adaptive_tolerance=0.1)
    edit_json(
        config,
        lambda c: c["inferer"]["inferer"].update(levels="$None if @adaptive_tolerance is None else 'adaptive'"),
    )
    assert export_runner(bundle, tmp_path / "folder", level="L1").pipeline.level == "L1"
    edit_json(config, lambda c: c.pop("level"))
    edit_json(config, lambda c: c["network"].pop("level"))
    with pytest.raises(ValueError, match=r"level must be left out for tiny, got 'L1': its inference\.json has no key"):
        export_runner(bundle, tmp_path / "folder", level="L1")


def _run_without(packages, folder, images, output):
    """Run the runner in a process where these packages cannot be imported."""
    code = f"import sys; sys.modules.update(dict.fromkeys({packages}));"
    code += "from monai_unetpp.runner.__main__ import main; sys.exit(main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", code, folder, *images, "-o", output]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return sorted(path.name for path in output.iterdir())


@pytest.mark.slow
def test_it_runs_where_torch_and_monai_cannot_be_imported(brain, pictures, tmp_path):
    without = ["torch", "monai", "ignite", "pydicom"]
    results = _run_without([*without, "SimpleITK", "PIL", "tifffile"], brain[1], [brain[2]], tmp_path / "volumes")
    assert results == ["head_seg.nii.gz"]
    images = _write_pictures(tmp_path / "in")
    results = _run_without(without, pictures[1], images, tmp_path / "pictures")
    assert results == ["coloured_seg.png", "grey_seg.png", "lossy_seg.png", "stack_seg.tif"]


@pytest.mark.slow
def test_the_distribution_of_the_runner_has_all_that_it_imports(brain, tmp_path):
    """Only the packages that it names, without the others of the repository."""
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    _, folder, image = brain
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "packaging" / "runner" / "pyproject.toml").read_text(encoding="utf-8"))
    for package in project["tool"]["setuptools"]["packages"]["find"]["include"]:
        inside = tmp_path / "alone" / package.replace(".", "/")
        inside.mkdir(parents=True)
        for module in (root / package.replace(".", "/")).glob("*.py"):
            shutil.copy(module, inside)
    # the finder of an editable installation would give the others as well
    code = "import sys; sys.meta_path[:] = [each for each in sys.meta_path if '__editable__' not in repr(each)];"
    code += "from monai_unetpp.runner.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, folder, image, "-o", tmp_path / "out"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "alone")}
    options = {"capture_output": True, "text": True, "timeout": 120, "check": False, "cwd": tmp_path}
    done = subprocess.run(list(map(str, command)), env=environment, **options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "head_seg.nii.gz").exists()


@pytest.mark.slow
def test_one_broken_image_does_not_end_the_others(brain, tmp_path, capsys):
    _, folder, image = brain
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    arguments = [folder, tmp_path / "broken.nii.gz", image, "-o", tmp_path]
    assert main(list(map(str, arguments))) == 1
    assert "broken.nii.gz: not a NIfTI image" in capsys.readouterr().err
    assert (tmp_path / "head_seg.nii.gz").exists()


@pytest.mark.slow
def test_results_of_others_stay(brain, tmp_path):
    _, folder, image = brain
    runner = Segmenter(folder)
    other = write_image(tmp_path / "head_seg.nii.gz", (5, 5, 5), surround=False)
    with pytest.raises(FileExistsError, match="was not written by monai-unetpp"):
        runner.segment(image, tmp_path)
    other.unlink()
    moved = write_image(tmp_path / "head.nii.gz", (20, 20, 21))
    runner.segment(moved, tmp_path)
    with pytest.raises(FileExistsError, match="is of another image"):
        runner.segment(image, tmp_path)
    assert runner.segment(image, tmp_path, overwrite=True) == tmp_path / "head_seg.nii.gz"


@pytest.mark.slow
def test_labels_that_were_corrected_by_hand_stay(brain, tmp_path):
    _, folder, image = brain
    runner = Segmenter(folder)
    path = runner.segment(image, tmp_path)
    made = nibabel.load(path)
    labels = np.asarray(made.dataobj).copy()
    # another number type is no correction
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), None, made.header), path)
    runner.segment(image, tmp_path)
    by_hand = labels.copy()
    by_hand[10:12] = 2
    nibabel.save(nibabel.Nifti1Image(by_hand, None, made.header), path)
    corrected = path.read_bytes()
    with pytest.raises(FileExistsError, match="was changed after it was written, as by hand"):
        runner.segment(image, tmp_path)
    assert path.read_bytes() == corrected
    runner.segment(image, tmp_path, overwrite=True)
    assert np.array_equal(np.asarray(nibabel.load(path).dataobj), labels)


@pytest.mark.slow
def test_segment_keeps_labels_of_the_runner_that_were_corrected_by_hand(brain, tmp_path):
    bundle, folder, image = brain
    path = Segmenter(folder).segment(image, tmp_path)
    made = nibabel.load(path)
    by_hand = np.asarray(made.dataobj).copy()
    by_hand[10:12] = 2
    nibabel.save(nibabel.Nifti1Image(by_hand, None, made.header), path)
    corrected = path.read_bytes()
    (reason,) = segment_files(image, tmp_path, bundle).failures
    assert "was changed after it was written" in reason
    assert segment_files(image, tmp_path, bundle, skip_existing=True).skipped == 1
    assert path.read_bytes() == corrected
    assert not segment_files(image, tmp_path, bundle, overwrite=True).failures
    assert path.read_bytes() != corrected


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_refused_before_any_image_is_segmented(brain, tmp_path, capsys):
    _, folder, image = brain
    (tmp_path / "out").write_text("a file")
    assert main([str(folder), str(image), "-o", str(tmp_path / "out")]) == 2
    assert "output_dir must be a folder that can be written to" in capsys.readouterr().err


def test_ranges_are_scaled_as_in_monai():
    voxels = np.random.default_rng(0).uniform(-200, 400, (1, 20, 20, 20)).astype(np.float32)
    given = {"a_min": -57.3, "a_max": 312.9, "b_min": -3.7, "b_max": 5.2, "clip": True}
    volume = SimpleNamespace(voxels=voxels)
    STEPS["scale_range"](volume, **given)
    assert np.array_equal(volume.voxels, ScaleIntensityRange(**given)(torch.from_numpy(voxels)).numpy())


@pytest.mark.parametrize("turn", [np.eye(3), Rotation.from_euler("xyz", (0.3, 0.2, 0.1)).as_matrix()])
@pytest.mark.parametrize("finer", [1.0, 0.5])
def test_volumes_whose_axes_are_not_at_right_angles_are_cropped_as_by_segment(tmp_path, turn, finer):
    """Places on a voxel are rounded otherwise by each way to interpolate, and the surround of 0 must stay 0."""
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[1.0, 0, 0], [0, 1.0, 0.2], [0, 0, 0.98]]) * finer
    voxels = np.zeros((24, 26, 22), np.float32)
    voxels[6:18, 7:19, 5:17] = np.random.default_rng(0).uniform(50, 900, (12, 12, 12))
    path = tmp_path / "tilted.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    chain = Compose(
        [
            LoadImaged("image", reader=VolumeReader(spatial_dims=3)),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            BlockwiseSpacingd("image", pixdim=[1.0, 1.0, 1.0], mode="bilinear"),
            CropBackgroundd("image", "image", margin=4, allow_smaller=False),
        ]
    )
    expected = np.asarray(chain({"image": path})["image"])
    reading = {"spatial_dims": [3], "channels": 1, "allow_constant": False, "fill_nonfinite": None}
    volume = read_volume(path, reading)
    for name, settings in (
        ("orient", {"axcodes": "RAS"}),
        ("spacing", {"pixdim": [1.0, 1.0, 1.0], "padding": "border", "diagonal": False}),
        ("crop_background", {"margin": 4, "allow_smaller": False}),
    ):
        STEPS[name](volume, **settings)
    assert volume.voxels.shape == expected.shape
    np.testing.assert_allclose(volume.voxels, expected, atol=1e-3)
    assert not ((expected != 0) & (np.abs(expected) < 1e-7)).any()


@pytest.mark.slow
def test_results_of_segment_keep_their_tables(brain, tmp_path):
    bundle, folder, image = brain
    before = Path(segment_files(image, tmp_path, bundle).cases[0].output)
    labels = before.read_bytes()
    with pytest.raises(FileExistsError, match="holds results of monai-unetpp segment, whose tables would no longer"):
        Segmenter(folder).segment(image, tmp_path, overwrite=True)
    assert before.read_bytes() == labels


@pytest.mark.slow
def test_segment_does_not_take_results_of_the_runner_for_its_own(brain, tmp_path):
    bundle, folder, image = brain
    Segmenter(folder).segment(image, tmp_path)
    summaries = [segment_files(image, tmp_path, bundle, skip_existing=True) for _ in range(2)]
    assert [summary.skipped for summary in summaries] == [0, 1]


@pytest.mark.slow
def test_a_name_that_the_output_cannot_show_is_no_failure(brain, tmp_path, monkeypatch):
    _, folder, image = brain
    named = tmp_path / "jürgen.nii.gz"
    shutil.copy(image, named)
    with (tmp_path / "told").open("w", encoding="ascii") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert main([str(folder), str(named), "-o", str(tmp_path / "out")]) == 0
    assert "j\\xfcrgen_seg.nii.gz" in (tmp_path / "told").read_text()


@pytest.mark.slow
def test_an_output_that_nobody_reads_is_no_failure(brain, tmp_path, monkeypatch):
    _, folder, image = brain
    other = tmp_path / "other.nii.gz"
    shutil.copy(image, other)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert main([str(folder), str(image), str(other), "-o", str(tmp_path / "out")]) == 0
    monkeypatch.setattr(sys, "stdout", None)
    assert main([str(folder), str(image), "-o", str(tmp_path / "out2")]) == 0
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2


@pytest.mark.slow
def test_images_of_one_name_are_refused_before_any_is_segmented(brain, tmp_path, capsys):
    _, folder, image = brain
    (tmp_path / "b").mkdir()
    other = write_image(tmp_path / "b" / "head.nii.gz", (20, 20, 21))
    third, fourth = (write_image(tmp_path / each / "T1.nii.gz", (5, 5, 5)) for each in (".", "b"))
    arguments = [str(folder), *map(str, (image, third, other, fourth)), "-o", str(tmp_path / "out"), "--overwrite"]
    assert main(arguments) == 2
    assert f"{other}: its result would have the same name as that of {image}." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    # neither one image twice nor both files of a pair are a contradiction
    detour = image.parent / "nowhere" / ".." / image.name
    assert main([str(folder), str(image), str(image), str(detour), "-o", str(tmp_path / "out")]) == 0
    nibabel.save(nibabel.Nifti1Pair.from_image(nibabel.load(image)), tmp_path / "pair.hdr")
    pair = [str(tmp_path / "pair.hdr"), str(tmp_path / "b" / ".." / "pair.img")]
    assert main([str(folder), *pair, "-o", str(tmp_path / "pairs")]) == 0
    assert [path.name for path in (tmp_path / "pairs").glob("*.nii.gz")] == ["pair_seg.nii.gz"]


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("windows", "overlap", None),
        ("windows", "overlap", 1.0),
        ("windows", "padding_mode", "x"),
        ("windows", "blending", "gausian"),
        ("network", "precision", "fp16"),
        ("network", "files", []),
        ("reading", "channels", None),
        (None, "windows", None),
        (None, "preprocessing", ["crop"]),
    ],
)
def test_a_pipeline_with_other_values_is_refused_in_one_line(brain, tmp_path, capsys, part, name, value):
    _, folder, image = brain
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads((folder / "pipeline.json").read_text())
    changed = content if part is None else content[part]
    changed[name] = value
    if value is None and part:
        del changed[name]
    (tmp_path / "pipeline.json").write_text(json.dumps(content))
    assert main([str(tmp_path), str(image), "-o", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'pipeline.json'}: ")
    assert line.endswith(". Export the bundle again.")


@pytest.mark.parametrize(("name", "value"), [("shape", [8, 8, 8]), ("sigma_scale", [0.1])])
def test_windows_that_were_edited_are_told_in_one_line(brain, tmp_path, capsys, name, value):
    folder = shutil.copytree(brain[1], tmp_path / "edited")
    edit_json(folder / "pipeline.json", lambda content: content["windows"].update({name: value}))
    assert main([str(folder), str(brain[2]), "-o", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{brain[2]}: ")
    assert line.endswith("If pipeline.json was edited, export the bundle again.")


def test_an_interruption_is_told_in_one_line(brain, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Segmenter, "segment", interrupted)
    assert main([str(brain[1]), str(brain[2]), "-o", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "Interrupted; finished images are kept.\n"


@pytest.mark.parametrize("threads", ["0", "-1", "many"])
def test_threads_are_a_number_from_1_on(brain, tmp_path, capsys, threads):
    with pytest.raises(SystemExit, match="2"):
        main([str(brain[1]), str(brain[2]), "-o", str(tmp_path), f"--threads={threads}"])
    assert f"must be a whole number from 1 on, got '{threads}'" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting_for_its_writer(brain, tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(ImageFileError, match="pipe"):
        Segmenter(brain[1]).segment(tmp_path / "pipe.nii", tmp_path)


def test_the_current_folder_is_not_replaced(brain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileExistsError, match="is the current folder or a mount point"):
        export_runner(brain[0], ".")


@pytest.mark.slow
def test_results_are_not_segmented_again(brain, tmp_path, capsys):
    _, folder, image = brain
    assert main([str(folder), str(image), "-o", str(tmp_path)]) == 0
    result = tmp_path / "head_seg.nii.gz"
    assert main([str(folder), str(result), "-o", str(tmp_path)]) == 1
    assert f"{result}: a result of monai-unetpp, not an image. Name the image." in capsys.readouterr().err
    assert not (tmp_path / "head_seg_seg.nii.gz").exists()


def test_errors_of_onnxruntime_name_the_network(tmp_path, monkeypatch):
    """They end one image, not all, as the command line expects only RuntimeError."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    described = {"files": ["network.onnx"], "format": "onnx", "precision": "fp32"}
    (tmp_path / "network.onnx").write_bytes(b"no network")
    with pytest.raises(RuntimeError, match=r"network\.onnx: ONNX Runtime failed \(.+\)\. Free memory, or export"):
        load_network(tmp_path, described)

    class Session:
        def __init__(self, *_, **__):
            pass

        def get_inputs(self):
            return [SimpleNamespace(name="image")]

        def run(self, *_):
            raise failure("out of\nmemory")

    failure = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state").Fail
    assert not issubclass(failure, (OSError, RuntimeError, ValueError, MemoryError))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    predict = load_network(tmp_path, described)
    with pytest.raises(RuntimeError, match=r"network\.onnx: ONNX Runtime failed \(out of memory\)"):
        predict(np.zeros((1, 8, 8), np.float32))


def test_a_changed_network_and_another_version_are_refused(brain, tmp_path):
    _, folder, _ = brain
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / "network.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"damaged, or does not belong to pipeline\.json"):
        Segmenter(tmp_path)
    edit_json(tmp_path / "pipeline.json", version=99)
    with pytest.raises(ValueError, match="version must be 2, got 99"):
        Segmenter(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no pipeline.json"):
        Segmenter(tmp_path / "nowhere")


def test_channels_must_be_joined_and_none_may_be_empty(tmp_path):
    reading = {"spatial_dims": [3], "channels": 2, "allow_constant": False, "fill_nonfinite": None}
    one = write_image(tmp_path / "one.nii.gz", (9, 8, 7), surround=False)
    with pytest.raises(ImageFileError, match=r"2 channels, got shape .* Join the channels on the last axis"):
        read_volume(one, reading)
    voxels = np.asarray(nibabel.load(one).dataobj)
    nibabel.save(nibabel.Nifti1Image(voxels[0], np.eye(4)), tmp_path / "slice.nii")
    with pytest.raises(ImageFileError, match=r"got shape \(8, 7\)\. Join the slices into one volume"):
        read_volume(tmp_path / "slice.nii", reading | {"channels": 1})
    nibabel.save(nibabel.Nifti1Image(np.stack([voxels, voxels * 0], axis=-1), np.eye(4)), tmp_path / "both.nii")
    with pytest.raises(ImageFileError, match="all voxels of channel 1 have the value 0"):
        read_volume(tmp_path / "both.nii", reading)


def test_images_that_cannot_be_used_are_named(brain, tmp_path):
    _, folder, _ = brain
    runner = Segmenter(folder)
    with pytest.raises(ImageFileError, match="must have 3 axes and 1 channel"):
        runner.label(write_image(tmp_path / "flat.nii", (9, 9), surround=False))
    with pytest.raises(ImageFileError, match=r"a\.png: the runner reads \.nii, .*\.mhd only for this network"):
        runner.label(tmp_path / "a.png")


def test_packages_for_other_formats_are_named_where_they_are_missing(brain, pictures, tmp_path, monkeypatch):
    volume, picture = tmp_path / "head.mha", tmp_path / "cells.png"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.arange(60.0).reshape(3, 4, 5)), volume)
    Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5)).save(picture)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    monkeypatch.setitem(sys.modules, "monai_unetpp.data.formats.pictures", None)
    told = r"which is not installed. Install SimpleITK, Pillow and tifffile \(.*\), or convert the file to NIfTI"
    for folder, image in ((brain[1], volume), (pictures[1], picture)):
        with pytest.raises(ImageFileError, match=rf"{image.name}: needs the package .*, {told}"):
            Segmenter(folder).segment(image, tmp_path / "out")
    # nor can it be told whether a result of this name may be replaced
    shutil.copy(picture, tmp_path / "cells_seg.png")
    with pytest.raises(ImageFileError, match=rf"cells_seg\.png: needs the package .*, {told}"):
        Segmenter(pictures[1]).segment(picture, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd"])
def test_labels_of_other_volumes_are_those_of_segment(brain, tmp_path, suffix):
    bundle, folder, image = brain
    other = tmp_path / f"head{suffix}"
    volume = SimpleITK.GetImageFromArray(nibabel.load(image).get_fdata(dtype=np.float32))
    volume.SetSpacing((0.9, 1.2, 1.1))
    volume.SetDirection(Rotation.from_euler("xyz", (0.2, -0.1, 1.5)).as_matrix().ravel().tolist())
    SimpleITK.WriteImage(volume, other)
    (case,) = segment_files(other, tmp_path / "a", bundle).cases
    expected, found = nibabel.load(case.output), nibabel.load(Segmenter(folder).segment(other, tmp_path / "b"))
    np.testing.assert_array_equal(found.get_fdata(), expected.get_fdata())
    np.testing.assert_array_equal(found.affine, expected.affine)
    assert len(np.unique(found.get_fdata())) > 1
    identities = [ImageIdentity.from_mark(str(image.header["descrip"])) for image in (found, expected)]
    assert identities[0] == identities[1]
    assert identities[0].content


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A bundle of pictures, and its exported folder."""
    root = tmp_path_factory.mktemp("pictures")
    bundle = write_bundle(root / "tiny", 2, _PICTURE[-1:], mode="constant")
    _write_weights(bundle, _pixels()[0])
    return bundle, export_runner(bundle, root / "folder").path


def _pixels():
    pixels = np.random.default_rng(2).integers(0, 200, (4, 25, 30)).astype(np.uint8)
    pixels[:, 5:20, 5:25] += 50
    return pixels


def _write_pictures(folder):
    folder.mkdir()
    pixels = _pixels()
    Image.fromarray(pixels[0]).save(folder / "grey.png", dpi=(72, 72))
    Image.fromarray(np.moveaxis(pixels[:3], 0, -1)).save(folder / "coloured.png")
    Image.fromarray(pixels[0]).save(folder / "lossy.jpg")
    tifffile.imwrite(folder / "stack.tif", pixels.astype(np.uint16) * 100, photometric="minisblack")
    return sorted(folder.iterdir())


@pytest.mark.slow
def test_pictures_and_their_labels_are_those_of_segment(pictures, tmp_path, capsys):
    bundle, folder = pictures
    images = _write_pictures(tmp_path / "in")
    cases = segment_files(images, tmp_path / "a", bundle).cases
    assert main([folder, *map(str, images), "-o", str(tmp_path / "b")]) == 0
    assert [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()] == list(map(str, images))
    assert len(cases) == len(images)
    for case in cases:
        found = tmp_path / "b" / Path(case.output).name
        labels = read_picture(found, labels=True)
        np.testing.assert_array_equal(labels, read_picture(Path(case.output), labels=True))
        assert len(np.unique(labels)) > 1
        assert is_of_runner(found)
        assert read_identity(found) == read_identity(case.output)
    with Image.open(tmp_path / "b" / "grey_seg.png") as labels:
        assert labels.info["dpi"] == pytest.approx((72, 72), abs=0.01)


@pytest.mark.slow
def test_labels_of_pictures_that_were_corrected_by_hand_stay(pictures, tmp_path):
    bundle, folder = pictures
    image = _write_pictures(tmp_path / "in")[1]
    runner = Segmenter(folder)
    path = runner.segment(image, tmp_path / "out")
    made = path.read_bytes()
    assert runner.segment(image, tmp_path / "out").read_bytes() == made
    with pytest.raises(ImageFileError, match="a result of monai-unetpp, not an image"):
        runner.label(path)
    corrected = read_picture(path, labels=True)
    corrected[:5] = 1
    write_picture(path, corrected, mark=read_picture_mark(path))
    with pytest.raises(FileExistsError, match="was changed after it was written, as by hand"):
        runner.segment(image, tmp_path / "out")
    assert segment_files(image, tmp_path / "out", bundle).failures
    assert runner.segment(image, tmp_path / "out", overwrite=True).read_bytes() == made
    Image.fromarray(corrected.T).save(path)
    with pytest.raises(FileExistsError, match="was not written by monai-unetpp"):
        runner.segment(image, tmp_path / "out", overwrite=True)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"_target_": "MedianSmoothd", "keys": "image", "radius": 1}, "MedianSmoothd is not supported by the runner"),
        (
            {"_target_": "AdjustContrastd", "keys": "image", "gamma": 1.0, "invert_image": True},
            "its invert_image must be False, got True",
        ),
        (
            {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.int16"},
            "EnsureTyped is not supported by the runner: its dtype must be float32, got torch.int16",
        ),
        (
            {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "select_fn": "$lambda x: x > 1"},
            "select_fn must be monai_unetpp.data.AboveMean, or be left out",
        ),
    ],
)
def test_what_has_no_translation_is_refused(tmp_path, step, reason):
    bundle = write_bundle(tmp_path / "tiny", 3, [step])
    with pytest.raises(NoTranslationError, match=reason):
        export_runner(bundle, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_voxels_of_another_size_are_those_of_the_bundle(tmp_path):
    """A trace of a neighbour in a surround of zeros would move the crop."""
    path = write_image(tmp_path / "image.nii", (60, 61, 62), surround=False)
    zeros = np.zeros((60, 61, 62), np.float32)
    zeros[::2, 1::3, 5:50] = nibabel.load(path).get_fdata(dtype=np.float32)[::2, 1::3, 5:50]
    affine = np.diag([-3.0, 2.7, -1.8, 1])
    expected = BlockwiseSpacingd("image", (1.0, 0.9, 0.6))({"image": MetaTensor(zeros[None], affine=affine)})["image"]
    volume = Volume(zeros[None], affine, path, affine)
    STEPS["spacing"](volume, pixdim=(1.0, 0.9, 0.6), padding="border", diagonal=False)
    np.testing.assert_allclose(volume.voxels, expected.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(volume.voxels == 0, expected.numpy() == 0)


def test_as_many_threads_as_elsewhere(monkeypatch, brain):
    settings = []
    monkeypatch.setattr("monai_unetpp.runner.network._compiled", lambda _, given: settings.append(given))
    for asked, threads in (("3", None), ("3", 2), ("", None), ("many", None)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        Segmenter(brain[1], threads)
    assert [given.get("INFERENCE_NUM_THREADS") for given in settings] == [3, 2, None, None]


def test_what_changes_the_grid_must_be_inverted(tmp_path):
    def remove_inversion(config):
        transforms = config["postprocessing"]["transforms"]
        transforms[:] = [each for each in transforms if each["_target_"] != "Invertd"]

    bundle = write_bundle(tmp_path / "tiny", 3, _BRAIN[3:5])
    edit_json(bundle / "configs" / "inference.json", remove_inversion)
    with pytest.raises(NoTranslationError, match="postprocessing must invert spacing, crop_background with Invertd"):
        export_runner(bundle, tmp_path / "folder")


def test_orientation_is_for_volumes(tmp_path):
    bundle = write_bundle(tmp_path / "tiny", 2, _BRAIN[:1])
    with pytest.raises(NoTranslationError, match="Orientationd is supported by the runner only for volumes"):
        export_runner(bundle, tmp_path / "folder")


def test_a_folder_with_other_things_is_not_replaced(brain, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not an exported folder"):
        export_runner(brain[0], tmp_path)


@pytest.mark.slow
def test_the_script_of_the_guide_reads_the_folder(tmp_path, monkeypatch):
    steps = [step for step in _BRAIN if step["_target_"].endswith(("Percentilesd", "Orientationd", "Intensityd"))]
    bundle = write_bundle(tmp_path / "tiny", 3, steps, mode="constant")
    folder = export_runner(bundle, tmp_path / "folder").path
    image = write_image(tmp_path / "head.nii.gz", (24, 30, 18), surround=False)
    guide = (Path(__file__).parents[2] / "docs" / "runner.md").read_text(encoding="utf-8")
    script = guide.split("## A script of your own")[1].split("```python\n")[1].split("```")[0]
    assert len(script.splitlines()) <= 48
    monkeypatch.setattr(sys, "argv", ["script", folder, str(image), str(tmp_path / "labels.nii.gz")])
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)
    hints = []
    compile_model = import_openvino().Core.compile_model

    def noting(core, *arguments):
        hints.append(arguments[-1])
        return compile_model(core, *arguments)

    monkeypatch.setattr(import_openvino().Core, "compile_model", noting)
    exec(compile(script, "docs/runner.md", "exec"), {})
    assert hints == [{"INFERENCE_PRECISION_HINT": "f32"}]
    found = nibabel.load(tmp_path / "labels.nii.gz")
    expected = nibabel.as_closest_canonical(
        nibabel.Nifti1Image(Segmenter(folder).label(image), nibabel.load(image).affine)
    )
    assert (found.get_fdata() == expected.get_fdata()).mean() > 0.999
    edit_json(Path(folder, "pipeline.json"), version=99)
    with pytest.raises(AssertionError, match="version 2"):
        exec(compile(script, "docs/runner.md", "exec"), {})
