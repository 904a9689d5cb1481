"""Volumes with tilted thick slices, from a plan to their segmentation."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from forked import draw_nothing, measure_briefly
from scipy.spatial.transform import Rotation
from tiny_planning import TINY, slow_machine

from monai_unetpp.bundles import check_bundle
from monai_unetpp.export import export_runner
from monai_unetpp.openvino_loading import has_openvino
from monai_unetpp.planning import load_plan, plan
from monai_unetpp.runner import Segmenter
from monai_unetpp.segmentation import segment_files
from monai_unetpp.training_run import TrainOptions, train

SPACING = (1.5, 1.5, 8.0)


def write_tilted(root, count):
    """Volumes with a box, each turned otherwise, so that their slices lie nearest to any plane of the body."""
    generator = np.random.default_rng(0)
    entries = []
    for number in range(count):
        label = np.zeros((24, 20, 6), np.uint8)
        label[6:16, 5:15, 1:5] = 1
        image = (generator.normal(100, 10, label.shape) + 100 * label).astype(np.float32)
        affine = np.eye(4)
        angles = (45, (15, 55, 75)[number % 3], 10 * number)
        affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * SPACING
        for kind, voxels in (("image", image), ("label", label)):
            (root / f"{kind}s").mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, affine), root / f"{kind}s" / f"heart_{number}.nii.gz")
        entries.append({kind: f"{kind}s/heart_{number}.nii.gz" for kind in ("image", "label")})
    content = {"labels": {"background": 0, "wall": 1}, "channel_names": {"0": "cine MRI"}}
    (root / "dataset.json").write_text(json.dumps(content | {"training": entries[:-3], "validation": entries[-3:]}))
    return root


@pytest.mark.slow
def test_they_are_trained_on_and_segmented_as_they_are_stored(tmp_path, monkeypatch):
    root = write_tilted(tmp_path / "hearts", 9)
    bundle = tmp_path / "bundle"
    changes = {"steps": 2, "patch_size": [16, 16, 4], "window_shape": [16, 16, 4]}
    changes |= {"strides": [[2, 2, 1]] * 2, "kernel_size": [[3, 3, 1]] * 3}
    plan(root, bundle, settings=TINY | changes, device="cpu", measure=slow_machine)
    made = load_plan(bundle)
    assert (made["orientation"], made["spacing_mm"], made["flip_axes"]) == (None, list(SPACING), [])
    assert "Orientation" not in (bundle / "configs" / "train.json").read_text()
    readme = (bundle / "docs" / "README.md").read_text()
    assert "so that axes mean the same" not in readme
    assert "must be stored like those of the training, with thick slices along axis 2 (from 0)" in readme
    measure_briefly(monkeypatch)
    draw_nothing(monkeypatch)
    train(TrainOptions(root, bundle, minutes=5, device="cpu"))
    assert check_bundle(bundle) == []
    done = segment_files(root / "images", tmp_path / "out", bundle, device="cpu", precision="fp32")
    assert done.failures == ()
    for case in done.cases:
        result, image = nib.load(case.output), nib.load(case.image)
        assert result.shape == image.shape
        np.testing.assert_array_equal(result.affine, image.affine)
    assert not any("stored" in warning or "size" in warning for case in done.cases for warning in case.warnings)
    turned = nib.load(root / "images" / "heart_0.nii.gz").as_reoriented([[0, -1], [1, 1], [2, 1]])
    nib.save(turned, tmp_path / "turned.nii.gz")
    (other,) = segment_files(tmp_path / "turned.nii.gz", tmp_path / "turned", bundle, device="cpu").cases
    assert any("stored as a mirror image of those of the training images" in warning for warning in other.warnings)
    if has_openvino():
        runner = Segmenter(export_runner(bundle, tmp_path / "folder", smooth=False).path)
        plain = segment_files(root / "images", tmp_path / "plain", bundle, device="cpu", precision="fp32", smooth=False)
        for case in plain.cases:
            np.testing.assert_array_equal(runner.label(case.image), np.asarray(nib.load(case.output).dataobj))
