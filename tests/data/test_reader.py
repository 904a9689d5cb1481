"""Reading: what is accepted is read as it is, what is not is named in one line."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from monai.bundle import ConfigParser
from monai.transforms import LoadImage

from monai_unetpp.data import ImageFileError, VolumeReader, describe_failure

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
    np.testing.assert_allclose(loaded.meta["original_affine"][:, : len(axes)], AFFINE[:, axes])
    with pytest.raises(ImageFileError, match=r"a\.nii\.gz: must be NIfTI with 2 channels on its last axis, got shape"):
        load(path, spatial_dims=dims, channels=2)


def test_channels_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"channels must be 1 or more, .* got 0"):
        VolumeReader(channels=0)
    path = save(tmp_path / "a.nii.gz", np.ones((5, 6, 7, 2), np.float32))
    with pytest.raises(ImageFileError, match=r"all voxels of channel 0 have the value 1\.0"):
        load(path, channels=2)


def test_values_that_single_precision_cannot_tell_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    voxels = np.arange(210).reshape(5, 6, 7)
    load(save(tmp_path / "fine.nii.gz", (voxels + 2**16).astype(np.int32)))
    assert caplog.records == []
    load(save(tmp_path / "coarse.nii.gz", (voxels + 2**28).astype(np.int32)))
    (record,) = caplog.records
    assert "coarse.nii.gz: the values lie between 268435456 and 268435665, where those of single" in record.getMessage()
    nib.save(nib.Nifti1Image(voxels + 2**50, AFFINE, dtype=np.int64), tmp_path / "equal.nii.gz")
    with pytest.raises(ImageFileError, match=r"equal\.nii\.gz: the values .* Subtract a constant and save it again\."):
        load(tmp_path / "equal.nii.gz")


def test_files_for_other_than_all_channels_are_refused(tmp_path: Path, voxels: np.ndarray) -> None:
    paths = [save(tmp_path / f"{name}.nii.gz", voxels) for name in "ab"]
    assert load(paths, channels=2)[0].shape == (2, 5, 6, 7)
    with pytest.raises(
        ImageFileError, match=r"a\.nii\.gz: the image must have 3 channels for this network, got 2\. Give"
    ):
        load(paths, channels=3)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 1), (5, 6, 1)])
def test_large_files_are_read_slab_by_slab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr("monai_unetpp.data.formats.nifti._SLAB_VOXELS", 65)  # two slices and a bit
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
    assert "a.nii: sform and qform disagree" in caplog.text or not caplog.records


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
    assert f"lengths in {unit}; they are read as mm" in caplog.text


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
    affine = metadata["original_affine"]
    np.testing.assert_allclose(affine[:, :2], whole[:, long])
    np.testing.assert_allclose(affine[:, 3], whole[:, 3])
    assert abs(np.linalg.det(affine)) == pytest.approx(abs(np.linalg.det(whole)))


@pytest.mark.parametrize(
    ("shape", "spatial_dims", "message"),
    [
        ((5, 6), 3, r"a\.nii: must be a volume with three axes, got shape \(5, 6\)\. Join the slices"),
        ((5, 6, 7, 2), 3, r"got shape \(5, 6, 7, 2\)\. Beyond its third axis it holds 2 channels"),
        (
            (5, 6, 7, 1, 3),
            3,
            r"got shape \(5, 6, 7, 1, 3\)\. Beyond its third axis it holds 3 chan",
        ),
        ((5, 6, 7), 2, r"a\.nii: must be an image with two axes, got shape \(5, 6, 7\)\. Extract one slice"),
        (
            (1, 5, 6, 7),
            3,
            r"If it is one image, store it with shape \(5, 6, 7\) and the affine of these axes",
        ),
        ((5, 1, 6, 7), 3, r"If it is one image, store it with shape \(5, 6, 7\)"),
        (
            (2, 5, 6, 7),
            3,
            r"Beyond its third axis it holds 7 channels, components or time points: store",
        ),
        ((5, 6, 1, 3), 2, r"Beyond its third axis it holds 3 channels, components or time points"),
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
    monkeypatch.setattr("monai_unetpp.data.formats.reader.read_voxels", lambda *_: pytest.fail("voxels were read"))
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
        path = folder / "a.gif"
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
    "cut header": r"not a NIfTI image, or damaged",
    "checksum": r"damaged or cut off \(CRC check failed",
    "text": r"not a NIfTI image, despite its name",
    "empty": r"empty, it has 0 bytes\. Export or copy it again\.",
    "uncompressed": r"not compressed, although its name ends in \.gz\. Rename it to \.nii\.",
    "compressed": r"compressed with gzip, but its name says otherwise\. Rename it to \.nii\.gz\.",
    "text nii": r"not a NIfTI image, or damaged",
    "cut nii": r"damaged or cut off",
    "zero axis": r"empty, its shape is \(5, 0, 7\)",
    "constant": r"all voxels have the value 0, so there is nothing to segment",
    "nan": r"2 of 210 voxels are NaN or infinite\. Replace them",
    "inf": r"2 of 210 voxels are NaN or infinite",
    "huge": r"2 of 210 voxels are NaN or infinite",
    "rgb": r"holds colours instead of one real number per voxel\. Convert it to grey values\.",
    "complex": r"holds values of type complex64 instead of one real number per voxel",
    "singular": r"its affine is singular, .*\. Repair its header \(in NIfTI the sform or qform\)",
    "nan affine": r"its affine is singular",
    "analyze": r"an image of type Spm2AnalyzeImage of unknown orientation\. Convert it to NIfTI\.",
    "half a pair": r"damaged or cut off|not a NIfTI image",
    "suffix": r"not a supported image\. Give NIfTI \(\.nii, \.nii\.gz, \.hdr, \.img\), \.nrrd, .*DICOM series",
    "text nrrd": r"damaged, or not of the format that its suffix says",
    "empty mha": r"empty, it has 0 bytes",
    "vector mha": r"holds 3 values per voxel instead of one",
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


def test_an_empty_channel_is_refused_also_among_others(tmp_path: Path, voxels: np.ndarray) -> None:
    save(tmp_path / "both.nii.gz", np.stack([voxels, np.zeros_like(voxels)], axis=-1))
    with pytest.raises(ImageFileError, match=r"both\.nii\.gz: all voxels of channel 1 have the value 0"):
        load(tmp_path / "both.nii.gz", channels=2)


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
    assert not reader.verify_suffix("a.gif")


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


def test_readers_of_monai_that_are_not_used_say_nothing(
    recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    LoadImage(VolumeReader())
    assert not [warning for warning in recwarn if "NvImgCodec" in str(warning.message)]
    assert caplog.text == ""
