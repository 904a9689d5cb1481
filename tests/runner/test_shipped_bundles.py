"""The runner does with each bundle that comes with the package what ``segment`` does."""

import inspect
import itertools
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged, MapLabelValued
from scipy import ndimage

from monai_unetpp.bundles import read_network_def
from monai_unetpp.data import InvertBrightBackgroundd, LevelSurroundd, StandardizeIntensityd, VolumeReader
from monai_unetpp.export import export_runner
from monai_unetpp.export.pipeline_steps import NoTranslationError, translate_postprocessing, translate_preprocessing
from monai_unetpp.openvino_loading import has_openvino
from monai_unetpp.runner import Segmenter
from monai_unetpp.runner.intensity_steps import standardize
from monai_unetpp.runner.volume import Volume
from monai_unetpp.segmentation import segment_files

_REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
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


def test_the_guide_says_what_runs_each_shipped_bundle():
    guide = (_REPOSITORY / "docs" / "runner.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+_unetpp)` \| (.+?) \| (.+?) \|$", guide, re.M)
    expected = {}
    for config in sorted(_REPOSITORY.glob("bundles/*/configs/inference.json")):
        volumes = read_network_def(config.parents[1])["spatial_dims"] == 3
        smooth = json.loads(config.read_text(encoding="utf-8")).get("smooth", False)
        page = ("exported with `--no_smooth`" if smooth else "yes") if volumes else "no: volumes only"
        expected[config.parents[1].name] = page
    assert {name: page for name, _, page in rows} == expected
    assert all(runner.startswith("yes") for _, runner, _ in rows)


def test_the_guide_names_the_norms_of_the_shipped_bundles():
    guide = (_REPOSITORY / "docs" / "segment.md").read_text(encoding="utf-8")
    paragraph = guide[guide.index("`--window_shape auto` uses") :].split("\n\n")[0]
    named = [set(re.findall(r"`(\w+_unetpp)`", part)) for part in paragraph.split("With instance norm")]
    norms = {path.name: read_network_def(path).get("norm", "instance") for path in _REPOSITORY.glob("bundles/*_unetpp")}
    assert named == [{name for name, norm in norms.items() if norm == kind} for kind in ("batch", "instance")]


@pytest.mark.parametrize("kind", [StandardizeIntensityd, InvertBrightBackgroundd, LevelSurroundd])
def test_every_argument_of_our_own_transforms_reaches_the_runner(kind):
    load = LoadImaged("image", reader=VolumeReader())
    _, [step] = translate_preprocessing(Compose([load, kind("image")]))
    arguments = set(inspect.signature(kind.__init__).parameters) - {"self", "keys", "allow_missing_keys"}
    assert set(step) == {"step", *arguments}


def test_label_values_are_given_once_to_each_class_on_the_grid_of_the_file():
    def mapping(classes, values):
        return MapLabelValued("pred", classes, values, dtype=torch.int32)

    step = {"step": "map_labels", "values": [0, 200, 37]}
    assert translate_postprocessing(Compose([mapping([1, 2], [200, 37])]), True) == [step]
    turned = [{"step": "orient"}]
    for transforms, before in (
        ([mapping([2, 1], [200, 37])], ()),
        ([mapping([1, 2], [5, 5])], ()),
        ([mapping([1, 2], [5, 0])], ()),
        ([mapping([1, 2], [5, 7]), mapping([1, 2], [5, 7])], ()),
        ([mapping([1, 2], [5, 7])], turned),
    ):
        with pytest.raises(NoTranslationError, match="MapLabelValued is not supported by the runner"):
            translate_postprocessing(Compose(transforms), True, before)


def test_standardizing_in_the_runner_is_that_of_the_transform():
    image = np.zeros((2, 9, 8, 7), dtype=np.float32)
    image[:, 2:7, 2:6, 1:6] = np.random.default_rng(0).normal(5, 2, (2, 5, 4, 5))
    for channel_wise, inside_surround in itertools.product((False, True), repeat=2):
        options = {"channel_wise": channel_wise, "inside_surround": inside_surround}
        volume = Volume(image, np.eye(4), Path("a.nii"), np.eye(4))
        standardize(volume, **options)
        expected = StandardizeIntensityd("image", **options)({"image": torch.tensor(image)})["image"]
        np.testing.assert_array_equal(volume.voxels, expected.numpy())


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
