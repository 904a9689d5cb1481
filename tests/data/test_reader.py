"""Reading: what is accepted is read as it is, what is not is named in one line."""

from __future__ import annotations

import gzip
import logging
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.transforms import LoadImage

from monai_unetpp.data import ImageFileError, VolumeReader, describe_failure, read_geometry, write_volume

AFFINE = np.array([[0.0, -1.5, 0.0, 10.0], [1.0, 0.0, 0.0, -20.0], [0.0, 0.0, 2.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (5, 6, 7)).astype(np.int16)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def load(path: object, **options: object) -> tuple[np.ndarray, dict]:
    reader = VolumeReader(**options)
    return reader.get_data(reader.read(path))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.hdr", "a.img"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"])
def test_types_and_containers(tmp_path: Path, voxels: np.ndarray, name: str, dtype: str) -> None:
    image_class = nib.Nifti1Pair if name.endswith((".hdr", ".img")) else nib.Nifti1Image
    header = nib.Nifti1Header(endianness=np.dtype(dtype).byteorder.replace("|", "<").replace("=", "<"))
    image = image_class(voxels.astype(dtype), AFFINE, header, dtype=dtype)
    nib.save(image, tmp_path / name)
    array, metadata = load(tmp_path / name)
    np.testing.assert_array_equal(array, voxels)
    assert array.dtype.isnative
    np.testing.assert_allclose(metadata["affine"], AFFINE)
    assert tuple(metadata["spatial_shape"]) == voxels.shape


def test_nifti2(tmp_path: Path, voxels: np.ndarray) -> None:
    nib.save(nib.Nifti2Image(voxels, AFFINE), tmp_path / "a.nii.gz")
    array, metadata = load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(array, voxels)
    np.testing.assert_allclose(metadata["affine"], AFFINE)


def test_slope_and_intercept_are_applied(tmp_path: Path, voxels: np.ndarray) -> None:
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header.set_slope_inter(0.5, -3)
    # nibabel scales when it saves, so that what is read is what was given: compare with its own reading
    nib.save(image, tmp_path / "a.nii.gz")
    array, _ = load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(array, nib.load(tmp_path / "a.nii.gz").get_fdata(), rtol=1e-6)
    raw = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    raw[112:120] = np.array([2.0, 7.0], dtype="<f4").tobytes()
    stored = np.frombuffer(bytes(raw[352:]), dtype="<i2").reshape(voxels.shape, order="F")
    (tmp_path / "b.nii").write_bytes(bytes(raw))
    np.testing.assert_allclose(load(tmp_path / "b.nii")[0], stored * 2.0 + 7.0)


@pytest.mark.parametrize(
    ("dims", "shape"),
    [(3, (5, 6, 7, 3)), (3, (5, 6, 7, 1, 3)), (2, (5, 6, 1, 3)), (2, (1, 5, 6, 3)), (2, (5, 1, 6, 3))],
)
def test_channels_on_the_last_axis(tmp_path: Path, dims: int, shape: tuple[int, ...]) -> None:
    voxels = np.random.default_rng(0).normal(100, 50, shape).astype(np.float32)
    path = save(tmp_path / "a.nii.gz", voxels)
    loaded = LoadImage(reader=VolumeReader(dims, channels=3), ensure_channel_first=True)(path)
    axes = [axis for axis, length in enumerate(shape[:3]) if length > 1]
    spatial = [shape[axis] for axis in axes]
    np.testing.assert_array_equal(loaded, np.moveaxis(voxels.reshape((*spatial, 3)), -1, 0))
    np.testing.assert_allclose(loaded.affine[:, : len(axes)], AFFINE[:, axes])
    with pytest.raises(ImageFileError, match=r"a\.nii\.gz: must be NIfTI with 2 channels on its last axis, got shape"):
        load(path, spatial_dims=dims, channels=2)


def test_channels_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"channels must be 1 or more, .* got 0"):
        VolumeReader(channels=0)
    path = save(tmp_path / "a.nii.gz", np.ones((5, 6, 7, 2), np.float32))
    with pytest.raises(ImageFileError, match=r"every voxel has the value 1\.0"):
        load(path, channels=2)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 1), (5, 6, 1)])
def test_large_files_are_read_slab_by_slab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr("monai_unetpp.data.nifti._SLAB_VOXELS", 65)  # two slices and a bit
    voxels = np.random.default_rng(0).normal(100, 50, shape)
    nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / name)
    array, _ = load(tmp_path / name)
    np.testing.assert_array_equal(array, voxels.astype(np.float32).reshape(array.shape))
    scaled = nib.Nifti1Image(voxels, AFFINE)
    scaled.set_data_dtype(np.int16)
    nib.save(scaled, tmp_path / name)
    stored = nib.load(tmp_path / name)
    assert stored.dataobj.slope != 1
    np.testing.assert_array_equal(load(tmp_path / name)[0], stored.get_fdata(dtype=np.float32).reshape(array.shape))


@pytest.mark.parametrize(("sform_code", "qform_code", "expected"), [(1, 1, "sform"), (2, 0, "sform"), (0, 1, "qform")])
def test_affine_by_codes(
    tmp_path: Path,
    voxels: np.ndarray,
    sform_code: int,
    qform_code: int,
    expected: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    qform = np.diag([-1.0, -1.5, 2.0, 1.0])
    image = nib.Nifti1Image(voxels, AFFINE)
    image.set_qform(qform, qform_code)
    image.set_sform(AFFINE, sform_code)
    nib.save(image, tmp_path / "a.nii")
    _, metadata = load(tmp_path / "a.nii")
    np.testing.assert_allclose(metadata["affine"], AFFINE if expected == "sform" else qform, atol=1e-6)
    assert len(caplog.records) == (sform_code > 0 and qform_code > 0)
    assert "a.nii: sform and qform place it differently" in caplog.text or not caplog.records


def test_no_codes_is_a_warning(tmp_path: Path, voxels: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    image = nib.Nifti1Image(voxels, AFFINE)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "a.nii")
    _, metadata = load(tmp_path / "a.nii")
    np.testing.assert_allclose(metadata["affine"], nib.load(tmp_path / "a.nii").header.get_base_affine())
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "a.nii: neither sform nor qform is set" in caplog.text


@pytest.mark.parametrize("unit", ["meter", "micron"])
def test_odd_units_are_a_warning(
    tmp_path: Path, voxels: np.ndarray, unit: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    load(tmp_path / "a.nii")
    assert f"lengths in {unit}; they are taken as mm" in caplog.text


def test_sform_wins_over_pixdim_that_disagrees(
    tmp_path: Path, voxels: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    image = nib.Nifti1Image(voxels, AFFINE)
    image.set_qform(np.diag([3.0, 3.0, 3.0, 1.0]), 0)  # writes pixdim too
    image.set_sform(AFFINE, 1)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(load(tmp_path / "a.nii")[1]["affine"], AFFINE)
    assert "a.nii: its pixdim gives the voxel size 3 x 3 x 3 mm, its sform 1 x 1.5 x 2 mm; the sform" in caplog.text
    # what this reader is for: MONAI's own takes the qform, although its code is 0
    theirs = LoadImage("NibabelReader")(tmp_path / "a.nii").affine.numpy()
    assert not np.allclose(theirs, AFFINE)


def change_header(path: Path, changes: dict[str, object], sform_code: int = 1, qform_code: int = 0) -> Path:
    """A NIfTI file of 5 x 6 x 7 voxels whose header holds ``changes`` as they are."""
    image = nib.Nifti1Image(np.arange(210, dtype=np.int16).reshape(5, 6, 7), AFFINE)
    image.set_sform(AFFINE, sform_code)
    image.set_qform(AFFINE, qform_code)
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in changes.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


NO_FORM = {"sform_code": 0, "qform_code": 0}
LIES = {
    "voxels at byte 0": (
        {"vox_offset": 0},
        r"voxels begin at byte 0, which lies inside the header\. Set vox",
    ),
    "voxels at byte 100": ({"vox_offset": 100}, r"not a NIfTI image, or a damaged one \(vox offset 100 too low"),
    "voxels nowhere": ({"vox_offset": np.nan}, r"not a NIfTI image, or a damaged one"),
    "voxels behind the end": ({"vox_offset": 1e6}, r"damaged or cut off"),
    "pixdim 0": (
        {**NO_FORM, "pixdim": [1, 0, 1, 1, 0, 0, 0, 0]},
        r"voxel size 0 x 1 x 1 mm, which cannot be\. Correct the",
    ),
    "pixdim below 0": ({**NO_FORM, "pixdim": [1, 2, -1, 1, 0, 0, 0, 0]}, r"voxel size 2 x -1 x 1 mm, which cannot be"),
    "pixdim nan": ({**NO_FORM, "pixdim": [1, 2, np.nan, 1, 0, 0, 0, 0]}, r"voxel size 2 x nan x 1 mm, which cannot be"),
    "qform and pixdim 0": (
        {"sform_code": 0, "qform_code": 1, "pixdim": [1, 1, 1, 0, 0, 0, 0, 0]},
        r"voxel size 1 x 1 x 0 mm, which cannot be",
    ),
    "qform without rotation": (
        {"sform_code": 0, "qform_code": 9, "quatern_b": 2},
        r"its qform holds no rotation",
    ),
    "sform of zeros": ({"srow_x": 0, "srow_y": 0, "srow_z": 0}, r"its affine is singular"),
}


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("lie", LIES)
def test_headers_that_cannot_be_are_refused(
    tmp_path: Path, name: str, lie: str, caplog: pytest.LogCaptureFixture
) -> None:
    changes, message = LIES[lie]
    path = change_header(tmp_path / name, changes)
    with pytest.raises(ImageFileError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert all(record.name.startswith("monai_unetpp") and str(path) in record.message for record in caplog.records)


DOUBTS = {
    "sform of another code": (
        {"sform_code": 7},
        "its sform_code is 7, which the standard does not know; the sform is",
    ),
    "sform code below 0": ({"sform_code": -3, "qform_code": 1}, "its sform_code is -3, .* the sform is not used"),
    "qform of another code": ({"sform_code": 0, "qform_code": 300}, "its qform_code is 300, .* the qform is used"),
    "pixdim 0": (
        {"pixdim": [1, 0, 0, 0, 0, 0, 0, 0]},
        "its pixdim gives the voxel size 0 x 0 x 0 mm, its sform 1",
    ),
    "pixdim nan": ({"pixdim": [1, np.nan, 1, 1, 0, 0, 0, 0]}, "its pixdim gives the voxel size nan x 1 x 1 mm, its sf"),
    "pixdim below 0": ({"pixdim": [1, -1, 1.5, 2, 0, 0, 0, 0]}, "its pixdim gives the voxel size -1 x 1.5 x 2 mm"),
    "qform elsewhere": (
        {"qform_code": 1, "qoffset_x": 50},
        "sform and qform place it differently: by the qform its",
    ),
    "qform of nan": ({"qform_code": 1, "quatern_b": np.nan}, "its qform holds no rotation; the sform is used"),
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_headers_that_contradict_themselves_are_told_once_per_file(
    tmp_path: Path, doubt: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The place is that of the sform, or of the qform where no sform counts; both are the same here."""
    changes, message = DOUBTS[doubt]
    path = change_header(tmp_path / "a.nii.gz", changes)
    for _ in range(2):
        array, metadata = load(path)
        np.testing.assert_array_equal(array.ravel(), np.arange(210))
        np.testing.assert_allclose(metadata["affine"], AFFINE, atol=1e-6)
        np.testing.assert_allclose(read_geometry(path).affine, AFFINE, atol=1e-6)
    (record,) = caplog.records
    assert record.name.startswith("monai_unetpp")
    assert record.message.startswith(f"{path}: ")
    assert re.search(message, record.message)
    assert capfd.readouterr().err == ""


def test_numbers_that_are_not_used_may_be_anything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    unused = {"quatern_b": np.nan, "quatern_c": np.inf, "qoffset_x": np.nan, "cal_max": np.nan}
    path = change_header(tmp_path / "a.nii", {**unused, "pixdim": [0, 1, 1.5, 2, np.nan, -1, 0, 0]})
    _, metadata = load(path)
    np.testing.assert_allclose(metadata["affine"], AFFINE)
    assert not caplog.records
    write_volume(tmp_path / "b.nii", np.ones((5, 6, 7), np.uint8), path, AFFINE)
    np.testing.assert_allclose(load(tmp_path / "b.nii", allow_constant=True)[1]["affine"], AFFINE)


def test_an_unused_axis_has_no_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = nib.Nifti1Image(np.arange(30, dtype=np.int16).reshape(5, 6), None)
    image.header["pixdim"][1:4] = 2, 3, 0
    content = bytearray(image.to_bytes())
    content[88:92] = bytes(4)
    (tmp_path / "a.nii").write_bytes(bytes(content))
    _, metadata = load(tmp_path / "a.nii", spatial_dims=2)
    np.testing.assert_allclose(np.linalg.norm(metadata["affine"][:3, :2], axis=0), [2, 3])
    assert [record.name for record in caplog.records] == ["monai_unetpp.data.grid"]  # no orientation


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "pixdim": st.lists(st.floats(width=32), min_size=8, max_size=8),
        "vox_offset": st.floats(width=32),
        "sform_code": st.integers(-(2**15), 2**15 - 1),
        "qform_code": st.integers(-(2**15), 2**15 - 1),
        "srow_x": st.lists(st.floats(width=32), min_size=4, max_size=4),
        "quatern_b": st.floats(width=32),
        "quatern_d": st.floats(width=32),
        "qoffset_z": st.floats(width=32),
        "xyzt_units": st.integers(0, 255),
        "scl_slope": st.floats(width=32),
        "dim": st.lists(st.integers(-2, 8), min_size=8, max_size=8),
        "datatype": st.sampled_from([0, 1, 2, 4, 16, 64, 128, 999]),
    },
)


def read_or_refuse(path: Path) -> tuple[str | None, np.ndarray | None]:
    """The message, or the affine."""
    try:
        return None, load(path, fill_nonfinite=0.0, allow_constant=True)[1]["affine"]
    except ImageFileError as e:
        return str(e), None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=FIELDS)
def test_any_header_is_read_or_refused_in_one_line(tmp_path: Path, changes: dict[str, object]) -> None:
    path = change_header(tmp_path / "a.nii", changes)
    with np.errstate(all="ignore"):
        message, affine = read_or_refuse(path)
    assert message is None or (message.startswith(f"{path}: ") and "\n" not in message)
    assert affine is None or np.isfinite(np.linalg.inv(affine)).all()


NRRD = "NRRD0004\ntype: int16\ndimension: 3\nsizes: 5 6 7\nencoding: raw\nendian: little\n{}\n"
DIRECTIONS = "space directions: (1,0,0) (0,1.5,0) (0,0,2)\n"
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n{}DimSize = 5 6 7\n"
    "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
)
MATRIX = "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"
LPS = np.diag([-1.0, -1.5, 2.0, 1.0])


def write_text(path: Path, fields: str) -> Path:
    header = (NRRD if path.suffix == ".nrrd" else META).format(fields)
    path.write_bytes(header.encode() + np.arange(210, dtype="<i2").reshape(7, 6, 5).tobytes())
    return path


@pytest.mark.parametrize(
    ("name", "fields", "affine", "message"),
    [
        ("a.nrrd", "space: left-posterior-superior\n" + DIRECTIONS, LPS, None),
        ("a.nrrd", "space: LPS\n" + DIRECTIONS, LPS, None),
        ("a.nrrd", "space: right-anterior-superior\n" + DIRECTIONS, -LPS * [1, 1, -1, -1], None),
        ("a.nrrd", "space: RAS\n" + DIRECTIONS, -LPS * [1, 1, -1, -1], None),
        ("a.nrrd", "space: left-anterior-superior\n" + DIRECTIONS, LPS * [1, -1, 1, 1], None),
        ("a.nrrd", "space: scanner-xyz\n" + DIRECTIONS, LPS, "its header calls its space 'scanner-xyz', so its orient"),
        ("a.nrrd", "space dimension: 3\n" + DIRECTIONS, LPS, "names no space or no directions in it, so its"),
        ("a.nrrd", "spacings: 1 1.5 2\n", LPS, "names no space or no directions in it"),
        ("a.nrrd", "space: RAS\nspace units: \"um\" \"um\" \"um\"\n" + DIRECTIONS, -LPS * [1, 1, -1, -1], "in um"),
        ("a.mha", "ElementSpacing = 1 1.5 2\n" + MATRIX, LPS, None),
        ("a.mha", "ElementSize = 1 1.5 2\n" + MATRIX, LPS, None),
        ("a.mha", "ElementSpacing = 1 1.5 2\n", LPS, "has no TransformMatrix, so its orientation is not known"),
        ("a.mha", MATRIX, np.diag([-1.0, -1, 1, 1]), "its header gives no voxel size; 1 mm is assumed"),
        ("a.mha", "DistanceUnits = um\nElementSpacing = 1 1.5 2\n" + MATRIX, LPS, "in um"),
        ("a.mha", "ElementSpacing = 1 1.5 2\nTransformMatrix = 1 0 0 0.6 0.8 0 0 0 1\n", None, "not at right angles"),
    ],
)  # fmt: skip
def test_what_other_headers_leave_unsaid_is_told_once(
    tmp_path: Path,
    name: str,
    fields: str,
    affine: np.ndarray | None,
    message: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write_text(tmp_path / name, fields)
    for _ in range(2):
        array, metadata = load(path)
    np.testing.assert_array_equal(array.ravel(order="F"), np.arange(210))
    if affine is not None:
        np.testing.assert_allclose(metadata["affine"], affine, atol=1e-12)
    assert len(caplog.records) == (message is not None), caplog.text
    if message is not None:
        assert caplog.messages[0].startswith(f"{path}: ")
        assert message in caplog.messages[0]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("a.nrrd", "spacings: 0 1 1\n", "voxel size 0 x 1 x 1 mm, which cannot be"),
        ("a.nrrd", "spacings: -1 1 1\n", "voxel size -1 x 1 x 1 mm, which cannot be"),
        ("a.nrrd", "space: RAS\nspace directions: (0,0,0) (0,1,0) (0,0,1)\n", "its affine is singular"),
        ("a.nrrd", "space: RAS\nspace directions: (1,0,0) (2,0,0) (0,0,1)\n", "its affine is singular"),
        ("a.mha", "ElementSpacing = 0 1 1\n", "voxel size 0 x 1 x 1 mm, which cannot be"),
        ("a.mha", "ElementSpacing = 1 -1 1\n", "voxel size 1 x -1 x 1 mm, which cannot be"),
        ("a.mha", "ElementSpacing = nan 1 1\n", "voxel size nan x 1 x 1 mm, which cannot be"),
        ("a.mha", "TransformMatrix = 1 0 0 1 0 0 0 0 1\nElementSpacing = 1 1 1\n", "its affine is singular"),
    ],
)
def test_other_headers_that_cannot_be_are_refused(tmp_path: Path, name: str, fields: str, message: str) -> None:
    path = write_text(tmp_path / name, fields)
    for read in (load, read_geometry):
        with pytest.raises(ImageFileError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.float64])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
def test_itk_formats(tmp_path: Path, voxels: np.ndarray, suffix: str, dtype: type) -> None:
    voxels = (voxels // 2).astype(dtype)
    image = SimpleITK.GetImageFromArray(voxels.T)
    image.SetSpacing((1.0, 1.5, 2.0))
    image.SetOrigin((3.0, 4.0, 5.0))
    SimpleITK.WriteImage(image, tmp_path / f"a{suffix}")
    array, metadata = load(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(array, voxels)
    expected = np.array([[-1.0, 0, 0, -3], [0, -1.5, 0, -4], [0, 0, 2.0, 5], [0, 0, 0, 1]])
    np.testing.assert_allclose(metadata["affine"], expected)


@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 1), (5, 6, 7, 1, 1), (5, 6, 1), (1, 6, 7)])
def test_trailing_axes_of_one_are_dropped(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "a.nii", np.arange(np.prod(shape), dtype=np.int16).reshape(shape))
    assert load(path)[0].shape == shape[:3]


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 1, 1), (5, 1, 6), (1, 5, 6), (1, 5, 6, 1), (1, 6), (5, 1)])
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_one_slice_may_lie_across_any_axis(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    voxels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = tmp_path / f"a{suffix}"
    if suffix == ".nii.gz":
        save(path, voxels)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels.T, isVector=False), path)
    array, metadata = load(path, spatial_dims=2)
    long = [axis for axis, length in enumerate(shape) if length > 1] if np.prod(shape) == 30 else [0, 1]
    assert array.shape == tuple(metadata["spatial_shape"]) == tuple(shape[axis] for axis in long)
    np.testing.assert_array_equal(array.ravel(), voxels.ravel())
    whole = AFFINE if suffix == ".nii.gz" else np.diag([-1.0, -1.0, 1.0, 1.0])
    np.testing.assert_allclose(metadata["affine"][:, :2], whole[:, long])
    np.testing.assert_allclose(metadata["affine"][:, 3], whole[:, 3])
    assert abs(np.linalg.det(metadata["affine"])) == pytest.approx(abs(np.linalg.det(whole)))


@pytest.mark.parametrize(
    ("shape", "spatial_dims", "message"),
    [
        ((5, 6), 3, r"a\.nii: its shape is \(5, 6\), but a volume with three axes is needed\. Join the slices"),
        ((5, 6, 7, 2), 3, r"a\.nii: its shape is \(5, 6, 7, 2\), .*\. Beyond its third axis it holds 2 channels"),
        (
            (5, 6, 7, 1, 3),
            3,
            r"a\.nii: its shape is \(5, 6, 7, 1, 3\), .*\. Beyond its third axis it holds 3 chan",
        ),
        ((5, 6, 7), 2, r"a\.nii: its shape is \(5, 6, 7\), but an image with two axes is needed\. Extract one slice"),
        (
            (1, 5, 6, 7),
            3,
            r"If it is one image, store it with shape \(5, 6, 7\) and the affine of these axes",
        ),
        ((5, 1, 6, 7), 3, r"If it is one image, store it with shape \(5, 6, 7\)"),
        (
            (2, 5, 6, 7),
            3,
            r"Beyond its third axis it holds 7 channels, components or points in time: store",
        ),
        ((5, 6, 1, 3), 2, r"Beyond its third axis it holds 3 channels, components or points in time"),
        ((1, 5, 1, 6), 2, r"If it is one image, store it with shape \(5, 6\)"),
        ((1, 5, 6, 7), 2, r"Beyond its third axis it holds 7 channels"),
    ],
)
def test_wrong_number_of_axes(tmp_path: Path, shape: tuple[int, ...], spatial_dims: int, message: str) -> None:
    path = save(tmp_path / "a.nii", np.arange(np.prod(shape), dtype=np.int16).reshape(shape))
    with pytest.raises(ImageFileError, match=message):
        load(path, spatial_dims=spatial_dims)


def test_axes_are_checked_before_voxels_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii.gz", np.zeros((5, 6, 7, 4), dtype=np.int16))
    monkeypatch.setattr("monai_unetpp.data.reader.read_voxels", lambda *_: pytest.fail("voxels were read"))
    with pytest.raises(ImageFileError, match="it holds 4 channels"):
        load(path)


def broken(kind: str, folder: Path, voxels: np.ndarray) -> Path:
    path = folder / "a.nii.gz"
    # more than nibabel reads to find out the type of a file
    good = gzip.compress(nib.Nifti1Image(np.tile(voxels, (4, 4, 4)), AFFINE).to_bytes(), compresslevel=0)
    if kind == "cut":
        path.write_bytes(good[: len(good) // 2])
    elif kind == "cut header":
        path.write_bytes(good[:60])
    elif kind == "checksum":
        path.write_bytes(good[:-8] + bytes(4) + good[-4:])
    elif kind == "text":
        path.write_text("patient,age\n1,40\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "uncompressed":
        path.write_bytes(nib.Nifti1Image(voxels, AFFINE).to_bytes())
    elif kind == "compressed":
        path = folder / "a.nii"
        path.write_bytes(good)
    elif kind == "text nii":
        path = folder / "a.nii"
        path.write_text("not an image at all " * 40)
    elif kind == "cut nii":
        path = folder / "a.nii"
        path.write_bytes(nib.Nifti1Image(voxels, AFFINE).to_bytes()[:-50])
    elif kind == "zero axis":
        save(path, np.zeros((5, 0, 7), dtype=np.int16))
    elif kind == "constant":
        save(path, np.zeros((5, 6, 7), dtype=np.int16))
    elif kind in ("nan", "inf", "huge"):
        values = voxels.astype(np.float64)
        values[0, 0, :2] = {"nan": np.nan, "inf": np.inf, "huge": 1e300}[kind]
        save(path, values)
    elif kind == "rgb":
        rgb = np.zeros((5, 6, 7), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
        save(path, rgb)
    elif kind == "complex":
        save(path, voxels.astype(np.complex64))
    elif kind == "singular":
        image = nib.Nifti1Image(voxels, AFFINE)
        image.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), 1)
        nib.save(image, path)
    elif kind == "nan affine":
        content = bytearray(nib.Nifti1Image(voxels, AFFINE).to_bytes())
        content[280:296] = np.full(4, np.nan, dtype="<f4").tobytes()  # srow_x
        path.write_bytes(gzip.compress(bytes(content)))
    elif kind == "analyze":
        path = folder / "a.hdr"
        nib.save(nib.AnalyzeImage(voxels, np.diag([-1.0, 1, 1, 1])), folder / "a.img")
    elif kind == "half a pair":
        path = folder / "a.hdr"
        nib.save(nib.Nifti1Pair(voxels, AFFINE), folder / "a.img")
        (folder / "a.img").unlink()
    elif kind == "suffix":
        path = folder / "a.jpg"
        path.write_text("x")
    elif kind == "text nrrd":
        path = folder / "a.nrrd"
        path.write_text("NRRD0004\nnothing")
    elif kind == "empty mha":
        path = folder / "a.mha"
        path.write_text("")
    elif kind == "vector mha":
        path = folder / "a.mha"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True), path)
    return path


BROKEN = {
    "missing": r"no such file\. Check the path\.",
    "cut": r"damaged or cut off \(.*\)\. Export or copy it again\.",
    "cut header": r"not a NIfTI image, or a damaged one",
    "checksum": r"damaged or cut off \(CRC check failed",
    "text": r"not a NIfTI image, although it is named like one",
    "empty": r"empty, it has 0 bytes\. Export or copy it again\.",
    "uncompressed": r"not compressed, although its name ends in \.gz\. Let its name end in \.nii\.",
    "compressed": r"compressed with gzip, but its name does not say so\. Let its name end in \.nii\.gz\.",
    "text nii": r"not a NIfTI image, or a damaged one",
    "cut nii": r"damaged or cut off",
    "zero axis": r"empty, its shape is \(5, 0, 7\)",
    "constant": r"every voxel has the value 0, so there is nothing to segment",
    "nan": r"2 of 210 voxels are NaN or infinite\. Replace them",
    "inf": r"2 of 210 voxels are NaN or infinite",
    "huge": r"2 of 210 voxels are NaN or infinite",
    "rgb": r"holds colours, but one real number per voxel is needed\. Convert it to grey values\.",
    "complex": r"holds values of type complex64, but one real number per voxel is needed",
    "singular": r"its affine is singular, .*\. Repair its header \(of NIfTI the sform or qform\)",
    "nan affine": r"its affine is singular",
    "analyze": r"an image of type Spm2AnalyzeImage, whose orientation is not known\. Convert it to NIfTI\.",
    "half a pair": r"damaged or cut off|not a NIfTI image",
    "suffix": r"not a supported image\. Give NIfTI \(\.nii, \.nii\.gz, \.hdr, \.img\), \.nrrd, .*DICOM series",
    "text nrrd": r"damaged, or not an image of the kind that its name says",
    "empty mha": r"empty, it has 0 bytes",
    "vector mha": r"holds 3 numbers per voxel, but one is needed",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_named_in_one_line(tmp_path: Path, voxels: np.ndarray, kind: str) -> None:
    path = broken(kind, tmp_path, voxels)
    with pytest.raises(ImageFileError, match=BROKEN[kind]) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["cut", "nan", "text", "missing"])
@pytest.mark.parametrize("reader", ["monai_unetpp.data.VolumeReader", {"_target_": "monai_unetpp.data.VolumeReader"}])
def test_the_reason_survives_a_configured_transform(
    tmp_path: Path, voxels: np.ndarray, kind: str, reader: object
) -> None:
    path = broken(kind, tmp_path, voxels)
    config = {"_target_": "Compose", "transforms": [{"_target_": "LoadImaged", "keys": "image", "reader": reader}]}
    transform = ConfigParser({"transform": config}).get_parsed_content("transform")
    with pytest.raises(RuntimeError, match="applying transform") as caught:
        transform({"image": str(path)})
    assert describe_failure(caught.value).startswith(f"{path}: ")


def test_configured_transform_reads_with_this_reader(tmp_path: Path, voxels: np.ndarray) -> None:
    path = save(tmp_path / "a.nii.gz", voxels)
    config = {
        "_target_": "LoadImaged",
        "keys": "image",
        "ensure_channel_first": True,
        "reader": {"_target_": "monai_unetpp.data.VolumeReader", "spatial_dims": 3},
    }
    image = ConfigParser({"transform": config}).get_parsed_content("transform")({"image": path})["image"]
    assert image.shape == (1, 5, 6, 7)
    assert image.meta["filename_or_obj"] == str(path)
    np.testing.assert_array_equal(image[0].numpy(), voxels)
    np.testing.assert_allclose(image.affine.numpy(), AFFINE)


def test_constant_and_nonfinite_on_request(tmp_path: Path, voxels: np.ndarray) -> None:
    np.testing.assert_array_equal(load(broken("constant", tmp_path, voxels), allow_constant=True)[0], 0)
    array, _ = load(broken("nan", tmp_path, voxels), fill_nonfinite=-1.0)
    expected = voxels.copy()
    expected[0, 0, :2] = -1
    np.testing.assert_array_equal(array, expected)


def test_several_files_are_channels(tmp_path: Path, voxels: np.ndarray) -> None:
    paths = [save(tmp_path / "a.nii.gz", voxels), save(tmp_path / "b.nii.gz", voxels + 1)]
    image = LoadImage(VolumeReader(), ensure_channel_first=True)(paths)
    assert image.shape == (2, 5, 6, 7)
    np.testing.assert_array_equal(image[1].numpy(), voxels + 1)
    moved = save(tmp_path / "c.nii.gz", voxels, AFFINE + 0.5 * np.eye(4, k=3))
    with pytest.raises(
        ImageFileError,
        match=r"c\.nii\.gz: not on the grid of .*a\.nii\.gz: its corners lie up to .* mm",
    ):
        load([paths[0], moved])


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, or both, got 4"):
        VolumeReader(spatial_dims=4)


def test_verify_suffix(tmp_path: Path) -> None:
    reader = VolumeReader()
    assert reader.verify_suffix(["a.nii.gz", "b.NRRD"])
    assert reader.verify_suffix(tmp_path)
    assert not reader.verify_suffix("a.jpg")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("first\nsecond"), "ValueError: first"),
        (KeyError(), "KeyError"),
        (ImageFileError("f: x. y."), "f: x. y."),
    ],
)
def test_describe_failure(error: Exception, expected: str) -> None:
    assert describe_failure(error) == expected
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = error
    assert describe_failure(wrapped) == expected
    twice = RuntimeError("applying transform")
    twice.__cause__ = wrapped
    assert describe_failure(twice) == expected


def test_describe_failure_keeps_a_remedy_that_stands_above_its_cause() -> None:
    error = ImportError("The runtime needs OpenVINO. Install it with: pip install openvino")
    error.__cause__ = ModuleNotFoundError("No module named 'openvino'")
    assert describe_failure(error) == f"ImportError: {error}"
    wrapped = RuntimeError("applying transform <x>")
    wrapped.__cause__ = error
    assert describe_failure(wrapped) == f"ImportError: {error}"
