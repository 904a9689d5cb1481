"""Label maps whose files hold something else than the integers that are meant."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from monai_unetpp.data import ImageFileError, VolumeReader
from monai_unetpp.data.formats.label_values import as_integers, check_label_values
from monai_unetpp.data.formats.reader import read_label_map

SHAPE = (4, 3, 5)
SLOW_SETUP = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def save_scaled(path, voxels, dtype):
    """As programs do that edit a label map as real numbers and save it with the header of the file it came from."""
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    nib.save(nib.Nifti1Image(voxels.astype(np.float64), np.eye(4), header), path)


def read_both_ways(path):
    """By the reader that transforms use, and by the one of checks and scores."""
    reader = VolumeReader(allow_constant=True, labels=True)
    return reader.get_data(reader.read(path))[0], read_label_map(path).data


@pytest.mark.slow
@SLOW_SETUP
@given(
    values=st.lists(st.integers(0, 250), min_size=60, max_size=60),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "float32"]),
    again=st.booleans(),
)
@example(values=[0] * 58 + [117, 234], dtype="uint8", again=False)
def test_labels_that_nibabel_scaled_are_the_integers_that_were_saved(tmp_path, values, dtype, again):
    true = np.array(values).reshape(SHAPE)
    path = tmp_path / "label.nii.gz"
    save_scaled(path, true, dtype)
    if again:
        save_scaled(path, nib.load(path).get_fdata(), dtype)
    for found in read_both_ways(path):
        assert np.array_equal(found, true)
        assert found.dtype.kind in "iu"


def test_scaled_labels_that_were_saved_as_real_numbers_are_read_too(tmp_path):
    true = np.arange(60).reshape(SHAPE) % 3
    for name in ("label.nii.gz", "label.mha"):
        path = tmp_path / name
        stored = true * (127 * 2 / 255)
        assert 0.99 < stored.max() / 2 < 0.997
        if path.suffix == ".mha":
            import SimpleITK

            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(stored.T.astype(np.float32)), str(path))
        else:
            save_scaled(path, stored, "float32")
        for found in read_both_ways(path):
            assert np.array_equal(found, true)


@pytest.mark.slow
@SLOW_SETUP
@given(fraction=st.floats(0.02, 0.98), dtype=st.sampled_from(["int16", "float32", "float64"]))
def test_what_is_really_between_two_labels_is_refused(tmp_path, fraction, dtype):
    voxels = np.zeros(SHAPE)
    voxels[0], voxels[1, 0, 0] = 2, 1 + fraction
    path = tmp_path / "label.nii.gz"
    save_scaled(path, voxels, dtype)
    with pytest.raises(ImageFileError, match=r"label\.nii\.gz: the label must hold integers, got fractions such"):
        read_label_map(path)
    reader = VolumeReader(labels=True)
    with pytest.raises(ImageFileError, match=r"got fractions such as .* at 1 of 60 voxels\. Correct the label map"):
        reader.get_data(reader.read(path))


@pytest.mark.parametrize(
    ("value", "message"),
    [(value, ", got NaN or infinity") for value in (np.nan, np.inf)] + [(1e12, r" up to 2147483647, got 1e\+12")],
)
def test_numbers_that_no_label_has_are_refused(value, message):
    with pytest.raises(ImageFileError, match=rf"a\.nii: the label must hold integers{message}"):
        as_integers(np.array([0.0, value]), "a.nii")


def test_values_so_coarsely_scaled_that_labels_ran_together_are_refused():
    # 500 labels in 8 bits: 1 and 2 are one stored value
    stored = np.rint(np.arange(500) / (499 / 255)) * (499 / 255)
    with pytest.raises(ImageFileError, match="got fractions such as"):
        as_integers(stored, "a.nii", step=499 / 255)


def test_unknown_values_are_listed():
    check_label_values({0, 1, 7}, [7, 1], "a.nii")
    with pytest.raises(ImageFileError, match=r"a\.nii: the label must hold 0 and 1, 7 only, got -1, 8\. Correct the"):
        check_label_values({0, 1, 8, -1}, [7, 1], "a.nii")
