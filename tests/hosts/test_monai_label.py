"""Bundles in MONAI Label: its own task segments with them.

They run where ``monailabel`` is installed, which ``.ci/hosts`` does in an environment of its own.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

import monai_unetpp
from monai_unetpp import NestedUNet

infer = pytest.importorskip("monailabel.tasks.infer.bundle", reason="MONAI Label is not installed")

# what the host's own code warns of is no fault of a bundle
pytestmark = pytest.mark.filterwarnings("default")

BUNDLES = ("head_mri_unetpp", "hippocampus_mri_unetpp", "brain_tissue_mri_unetpp")


@pytest.mark.parametrize("name", BUNDLES)
def test_the_labels_are_those_of_segment(name, hippocampus_bundle, decathlon_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundle = hippocampus_bundle.with_name(name)
    task = infer.BundleInferTask(str(bundle), {})
    case = decathlon_dir / "imagesTr" / "case_4.nii.gz"
    result, _ = task({"image": str(case), "device": "cpu"})
    # hosts build network_def and load all weights
    deepest = NestedUNet.from_checkpoint(bundle / "models" / "model.pt").levels[-1]
    found = monai_unetpp.segment(case, bundle=bundle, level=deepest, device="cpu")
    written = nib.load(result)
    np.testing.assert_allclose(written.affine, found.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(written.dataobj), found.array)
