"""Where memory runs out the message names the size of the image and what helps."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from PIL import Image

from monai_unetpp.data import CaseDataset, ImageFileError, describe_case_failure

ERRORS = [
    MemoryError("Unable to allocate 37.3 GiB for an array"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes."),
    RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:223: std::bad_alloc"),
    RuntimeError("ITK ERROR: ImportImageContainer: Failed to allocate memory for image."),
]


@pytest.fixture(params=["a.nii.gz", "a.nrrd", "a.png"])
def file(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".gz":
        nib.save(nib.Nifti1Image(np.zeros((20, 30, 40), np.float32), np.diag([0.5, 1, 2, 1])), path)
    elif path.suffix == ".nrrd":
        image = sitk.GetImageFromArray(np.zeros((40, 30, 20), np.float32))
        image.SetSpacing((0.5, 1, 2))
        sitk.WriteImage(image, str(path))
    else:
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__ + str(error)[:20])
@pytest.mark.parametrize(
    ("stage", "remedy"), [("loading", "crop"), ("inference", "--runtime torch"), ("post-processing", "--smooth")]
)
def test_size_spacing_and_remedy(file, error, stage, remedy):
    told = describe_case_failure(error, str(file), stage)
    size = "30 x 20 pixels" if file.suffix == ".png" else "20 x 30 x 40 voxels of 0.5 x 1 x 2 mm"
    assert told.startswith(f"{stage} ran out of memory for {size} (")
    assert remedy in told
    assert len(told.splitlines()) == 1


def test_errors_that_others_raised_from_it_are_seen_through(tmp_path):
    def read():
        try:
            raise RuntimeError("std::bad_alloc")
        except RuntimeError as e:
            raise ImageFileError("a.nrrd: damaged. Copy it again.") from e

    with pytest.raises(ImageFileError) as caught:
        read()
    told = describe_case_failure(caught.value, "a.nrrd", "loading")
    assert told.startswith("loading ran out of memory (RuntimeError: std::bad_alloc). ")


def test_other_errors_stay_as_they_are():
    assert describe_case_failure(ValueError("no"), "a.nii", "loading") == "ValueError: no"
    assert describe_case_failure(ValueError("no"), "a.nii", "inference") == "inference failed with ValueError: no"


def test_a_case_that_is_too_large_to_load(tmp_path):
    path = tmp_path / "large.nii"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), path)

    def load(item):
        raise MemoryError("Unable to allocate 37.3 GiB")

    item = CaseDataset([{"image": str(path), "case": "large"}], load)[0]
    assert item["failure"].startswith("loading ran out of memory for 4 x 4 x 4 voxels of 1 x 1 x 1 mm")
