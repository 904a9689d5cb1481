"""Networks in whole numbers of 8 bits: smaller, nearly the same, and only where they are asked for."""

import importlib.metadata
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from runner_bundle import write_bundle, write_image

from monai_unetpp.bundles import BundleConfig
from monai_unetpp.data import ImageFileError, load_datalist
from monai_unetpp.export import export_runner, quantization
from monai_unetpp.export.quantization import calibration_windows
from monai_unetpp.guard import FINGERPRINT_FILE, ImageRecord, TrainingRanges
from monai_unetpp.runner import Segmenter

needs_nncf = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="needs the extra int8")


@pytest.mark.slow
@needs_nncf
def test_a_quantized_folder_segments_nearly_alike_and_is_smaller(tmp_path):
    step = {"_target_": "monai_unetpp.data.StandardizeIntensityd", "keys": "image"}
    bundle = write_bundle(tmp_path / "tiny", 3, [step])
    image = write_image(tmp_path / "head.nii.gz", (20, 18, 24), surround=False)
    case = {"image": image.name, "label": image.name}
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [case], "validation": [case]}))
    whole = export_runner(bundle, tmp_path / "fp32")
    small = export_runner(bundle, tmp_path / "int8", precision="int8", calibration=tmp_path)
    assert (tmp_path / "int8" / "network.bin").stat().st_size < (tmp_path / "fp32" / "network.bin").stat().st_size
    assert small.pipeline.network["precision"] == "int8"
    first, second = (Segmenter(each.path).label(image) for each in (whole, small))
    assert np.mean(first == second) > 0.8
    assert 0.8 < small.same_labels <= 1
    assert whole.same_labels is None
    calibration = json.loads((tmp_path / "int8" / "pipeline.json").read_text())["network"]["calibration"]
    # up to four windows of the only case
    assert calibration == {"data": tmp_path.name, "windows": 4, "same_labels": small.same_labels}
    assert "calibration" not in whole.pipeline.network
    assert small.pipeline.versions["nncf"] == importlib.metadata.version("nncf")
    assert "openvino_telemetry" not in {name.partition(".")[0] for name, module in sys.modules.items() if module}


def test_windows_are_of_cases_that_trained_the_bundle_whose_subjects_are_told_by_it(tmp_path, monkeypatch):
    bundle, used = write_bundle(tmp_path / "tiny", 3, []), []
    image = write_image(tmp_path / "head.nii.gz", (20, 18, 24), surround=False)
    names = [f"{letter}_{number}.nii.gz" for letter in "ab" for number in range(2)]
    for name in names:
        shutil.copy(image, tmp_path / name)
    content = {"training": [{"image": name, "label": name} for name in names]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    training = {"subjects": None, "subject_pattern": "^(.)", "dataset_dir": "."}
    (bundle / "configs" / "train.json").write_text(json.dumps(training))

    def noted(*arguments, **options):
        used.extend(load_datalist(*arguments, **options))
        return used

    monkeypatch.setattr(quantization, "load_datalist", noted)
    windows = {"overlap": 0.25, "padding_mode": "constant", "cval": 0.0}
    assert calibration_windows(BundleConfig(bundle, "inference.json"), tmp_path, [16] * 3, windows)
    # whole subjects were drawn for validation
    assert len(used) == 2
    assert len({Path(case["image"]).name[0] for case in used}) == 1


def test_windows_are_laid_out_and_padded_as_at_inference_also_of_slices(tmp_path):
    bundle = write_bundle(tmp_path / "tiny", 2, [])
    image = write_image(tmp_path / "volume.nii.gz", (10, 20, 4), surround=False)
    cases = [{"image": image.name, "label": image.name}]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": cases, "validation": cases}))
    windows = {"overlap": 0.0, "padding_mode": "constant", "cval": 7.0}
    found = calibration_windows(BundleConfig(bundle, "inference.json"), tmp_path, [16, 16], windows, slice_axis=2)
    assert {window.shape for window in found} == {(1, 1, 16, 16)}
    assert all((window[0, 0, :3] == 7).all() for window in found)


def test_images_that_the_bundle_cannot_read_are_named(tmp_path):
    bundle = write_bundle(tmp_path / "tiny", 3, [])
    image = write_image(tmp_path / "slice.nii.gz", (10, 20), surround=False)
    cases = [{"image": image.name, "label": image.name}]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": cases, "validation": cases}))
    with pytest.raises(
        ImageFileError, match=r"slice\.nii\.gz: must be a volume with three axes.* Calibrate with images"
    ):
        calibration_windows(BundleConfig(bundle, "inference.json"), tmp_path, [16] * 3, {"overlap": 0.0})


def test_images_unlike_those_of_the_training_are_told(tmp_path, caplog):
    bundle = write_bundle(tmp_path / "tiny", 3, [])
    ranges = TrainingRanges.of([ImageRecord((1.0,) * 3, (90.0,) * 3, False, (0.0,), (9.0,), {"a": 1.0})], "other")
    (bundle / FINGERPRINT_FILE).write_text(json.dumps({"ranges": ranges.as_dict()}))
    image = write_image(tmp_path / "head.nii.gz", (20, 18, 24), surround=False)
    cases = [{"image": image.name, "label": image.name}]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": cases, "validation": cases}))
    windows = {"overlap": 0.25, "padding_mode": "constant", "cval": 0.0}
    calibration_windows(BundleConfig(bundle, "inference.json"), tmp_path, [16] * 3, windows)
    assert "head.nii.gz: unlike the 1 image that the bundle was trained on: its size is" in caplog.text


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_precisions_that_onnx_runtime_ignores_are_refused(precision, tmp_path):
    calibration = tmp_path if precision == "int8" else None
    with pytest.raises(ValueError, match=f"network_format must be openvino for precision {precision}, got 'onnx'"):
        export_runner("hippo", tmp_path / "a", precision=precision, network_format="onnx", calibration=calibration)


def test_int8_without_cases_is_refused(tmp_path):
    with pytest.raises(ValueError, match="calibration must be given for precision int8"):
        export_runner("hippocampus_mri_unetpp", tmp_path / "folder", precision="int8")
