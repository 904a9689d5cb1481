"""The runner does with each bundle that comes with the package what ``segment`` does."""

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from monai_unetpp.bundles import read_network_def
from monai_unetpp.export import export_runner
from monai_unetpp.openvino_loading import has_openvino
from monai_unetpp.runner import Segmenter
from monai_unetpp.segmentation import segment_files


@pytest.mark.skipif(not has_openvino(), reason="needs the extra openvino")
@pytest.mark.filterwarnings("ignore")
def test_the_labels_of_a_shipped_bundle_are_those_of_segment(bundle, tmp_path):
    windows = [32] * read_network_def(bundle)["spatial_dims"]
    runner = Segmenter(export_runner(bundle, tmp_path / "folder", level="L1", window_shape=windows).path, threads=1)
    image = _write_head(tmp_path / "head.nii.gz", (36, 42, 34)[: len(windows)])
    options = {"level": "L1", "runtime": "openvino", "precision": "fp32", "window_shape": windows}
    (case,) = segment_files(image, tmp_path / "out", bundle, **options).cases
    expected = nibabel.load(case.output).get_fdata()
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(runner.label(image), expected)


def _write_head(path, shape):
    """Nested ellipsoids of smooth noise in a surround of 0, a little off the middle, on an oblique grid."""
    places = np.meshgrid(*(np.linspace(-1.1, 1.2, size) for size in shape), indexing="ij")
    radius = np.sqrt(sum(place**2 for place in places))
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 1.5)
    voxels = np.select([radius < 0.3, radius < 0.6, radius < 0.9], [200, 700, 450], 0) + 300 * noise
    voxels[radius >= 0.9] = 0
    affine = np.array([[0, -1.1, 0.1, 3], [1.2, 0, 0, 5], [0, -0.1, 1.3, -4], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(voxels.clip(0).astype(np.float32), affine), path)
    return path
