"""Bundles in the MONAI Deploy App SDK: its own operators read a DICOM series and run the bundle.

They run where ``monai-deploy-app-sdk`` is installed, which ``.ci/hosts`` does in an environment of its own.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import monai_unetpp
from monai_unetpp import NestedUNet
from tests.data.dicom_builder import Grid, series_datasets, write_all

core = pytest.importorskip("monai.deploy.core", reason="the MONAI Deploy App SDK is not installed")
operators = pytest.importorskip("monai.deploy.operators", reason="the MONAI Deploy App SDK cannot be loaded")

# what the host's own code warns of is no fault of a bundle
pytestmark = pytest.mark.filterwarnings("default")

#: The SDK mistakes the distance of rows for that of columns.
SQUARE = Grid(spacing_mm=(1.0, 1.0))


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DICOM series of integers: a bright box in a dark surround."""
    rng = np.random.default_rng(0)
    voxels = np.zeros((30, 34, 16), np.uint16)
    voxels[4:26, 5:29, 2:14] = rng.integers(300, 400, (22, 24, 12))
    voxels[10:18, 12:20, 5:10] = 700
    tags = {"StudyInstanceUID": "1.2.826.0.1.3680043.10.1.8", "PatientID": "p", "StudyID": "1", "SeriesNumber": "1"}
    tags |= {"StudyDate": "20200101", "StudyTime": "120000", "SeriesDescription": "T1", "SliceThickness": "2.0"}
    datasets = series_datasets(voxels, SQUARE, [tags] * voxels.shape[2])
    return write_all(tmp_path_factory.mktemp("series"), datasets)


class Receiver:
    """Takes the place of the ports of an operator."""

    def __init__(self, image: Any) -> None:
        self.image = image
        self.sent: dict[str, Any] = {}

    def receive(self, name: str) -> Any:
        return self.image

    def get(self, name: str) -> None:
        return None

    def emit(self, value: Any, name: str) -> None:
        self.sent[name] = value


def read_by_the_sdk(fragment: Any, folder: Path) -> Any:
    """The series as the SDK hands it from operator to operator."""
    loader = operators.DICOMDataLoaderOperator(fragment, input_folder=folder, name="loader")
    selector = operators.DICOMSeriesSelectorOperator(fragment, rules="", name="selector")
    converter = operators.DICOMSeriesToVolumeOperator(fragment, name="converter")
    return converter.convert_to_image(selector.filter(None, loader.load_data_to_studies(folder)))


def run_by_the_sdk(fragment: Any, image: Any, bundle: Path) -> Any:
    def mapping(name: str) -> list[Any]:
        return [operators.IOMapping(name, core.Image, core.IOType.IN_MEMORY)]

    operator = operators.MonaiBundleInferenceOperator(
        fragment,
        app_context=types.SimpleNamespace(models=None),
        input_mapping=mapping("image"),
        output_mapping=mapping("pred"),
        bundle_path=bundle,
        name="bundle",
    )
    ports = Receiver(image)
    operator.compute(ports, ports, None)
    return ports.sent["pred"]


def test_the_labels_are_those_of_segment(bundle, series, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fragment = core.Fragment()
    image = read_by_the_sdk(fragment, series)
    labels = run_by_the_sdk(fragment, image, bundle)
    affine = np.asarray(image.metadata()["nifti_affine_transform"])
    theirs = nib.Nifti1Image(labels.asnumpy().swapaxes(0, 2), affine)
    # hosts build network_def and load all weights
    deepest = NestedUNet.from_checkpoint(bundle / "models" / "model.pt").levels[-1]
    found = monai_unetpp.segment(series, bundle=bundle, level=deepest, device="cpu")
    ours = nib.Nifti1Image(found.array.astype(np.uint8), found.affine)
    theirs, ours = (nib.as_closest_canonical(labelled) for labelled in (theirs, ours))
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(theirs.dataobj), np.asarray(ours.dataobj))
