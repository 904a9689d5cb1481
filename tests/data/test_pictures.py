"""PNG and TIFF: read as grey values, written as labels of the same kind."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from PIL import Image

from monai_unetpp.data import (
    ImageFileError,
    SegmentationSaveImaged,
    VolumeReader,
    find_cases,
    read_geometry,
)
from monai_unetpp.data.pictures import read_picture, write_picture


@pytest.fixture
def rows() -> np.ndarray:
    """Three rows of five pixels."""
    return np.arange(15, dtype=np.uint8).reshape(3, 5)


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path)
    return path


def load(path: Path, spatial_dims: object = 2) -> MetaTensor:
    reader = VolumeReader(spatial_dims, allow_constant=True)
    return LoadImage(reader, ensure_channel_first=True)(path)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_values_by_column_and_row(tmp_path: Path, rows: np.ndarray, suffix: str, dtype: type) -> None:
    pixels = rows.astype(dtype) * (257 if dtype == np.uint16 else 1)
    image = load(save(tmp_path / f"a{suffix}", pixels))
    assert image.shape == (1, 5, 3)
    np.testing.assert_array_equal(image[0].numpy(), pixels.T)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours_become_their_mean_and_transparency_is_left_out(tmp_path: Path, rows: np.ndarray, suffix: str) -> None:
    colours = np.stack([rows, rows * 2, rows * 3 + 1], axis=-1)
    alpha = np.full((*rows.shape, 1), 7, dtype=np.uint8)
    expected = (rows * 2 + np.float32(1 / 3)).T
    for name, pixels in (("rgb", colours), ("rgba", np.concatenate([colours, alpha], axis=-1))):
        np.testing.assert_allclose(read_picture(save(tmp_path / f"{name}{suffix}", pixels)), expected, rtol=1e-6)
    grey_alpha = np.stack([rows, np.full_like(rows, 200)], axis=-1)
    np.testing.assert_array_equal(read_picture(save(tmp_path / f"la{suffix}", grey_alpha)), rows.T)
    assert read_geometry(tmp_path / f"la{suffix}").shape == (5, 3)


def test_palette_and_bilevel(tmp_path: Path, rows: np.ndarray) -> None:
    black_and_white = save(tmp_path / "bw.png", np.asarray(rows > 6))
    assert read_picture(black_and_white).shape == (5, 3)
    assert ((read_picture(black_and_white) > 0) == (rows > 6).T).all()
    np.testing.assert_array_equal(read_picture(save(tmp_path / "p.png", rows, "P")), rows.T)


def test_colours_with_16_bits_keep_them(tmp_path: Path) -> None:
    import SimpleITK

    pixels = np.array([[[1, 2, 6], [300, 600, 60000]]], dtype=np.uint16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=True), str(tmp_path / "a.png"))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), [[3], [20300]])


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (300, 2)])
def test_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    image = load(save(tmp_path / "a.png", np.full(size, 9, dtype=np.uint8)))
    assert image.shape == (1, size[1], size[0])
    assert (image == 9).all()


def test_pages_are_slices_where_volumes_will_do(tmp_path: Path, rows: np.ndarray) -> None:
    write_picture(tmp_path / "a.tif", np.stack([rows.T, rows.T + 20], axis=-1))
    assert load(tmp_path / "a.tif", [2, 3]).shape == (1, 5, 3, 2)
    assert load(save(tmp_path / "b.tif", rows), [2, 3]).shape == (1, 5, 3)
    with pytest.raises(ImageFileError, match=r"a\.tif: its shape is \(5, 3, 2\), but an image with two axes is needed"):
        load(tmp_path / "a.tif")
    with pytest.raises(ImageFileError, match=r"b\.tif: its shape is \(5, 3\), but a volume with three axes is needed"):
        load(tmp_path / "b.tif", 3)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file. Check the path"),
        (b"", "empty, it has 0 bytes"),
        (b"no picture", "damaged, or not an image of the kind that its name says"),
        ("half", "damaged"),
    ],
)
def test_broken_files_give_one_line(tmp_path: Path, suffix: str, content: object, message: str) -> None:
    path = tmp_path / f"bad{suffix}"
    if content == "half":
        noise = np.random.default_rng(0).integers(0, 255, (200, 200)).astype(np.uint8)
        whole = save(path, noise).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageFileError, match=f"bad{suffix}: {message}") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


def test_geometry_is_read_from_the_header(tmp_path: Path, rows: np.ndarray) -> None:
    geometry = read_geometry(save(tmp_path / "a.png", rows))
    assert geometry.shape == (5, 3)
    np.testing.assert_array_equal(geometry.affine, np.eye(4))


@pytest.mark.parametrize(
    ("suffix", "written"), [(".png", ".png"), (".PNG", ".png"), (".tif", ".tif"), (".tiff", ".tif")]
)
@pytest.mark.parametrize("largest", [1, 255, 256, 65535])
def test_results_have_the_format_of_the_input(
    tmp_path: Path, rows: np.ndarray, suffix: str, written: str, largest: int
) -> None:
    image = load(save(tmp_path / f"cells{suffix}", rows))
    labels = torch.zeros(1, 5, 3)
    labels[0, 4, 0] = largest
    save_labels = SegmentationSaveImaged("pred", output_dir=tmp_path / "out")
    done = save_labels({"pred": MetaTensor(labels).copy_meta_from(image)})
    path = tmp_path / "out" / f"cells_seg{written}"
    assert done["pred"].meta["saved_to"] == str(path)
    with Image.open(path) as result:
        assert result.size == (5, 3)
        pixels = np.asarray(result)
    assert pixels[0, 4] == largest
    assert np.count_nonzero(pixels) == 1
    save_labels({"pred": MetaTensor(labels * 0).copy_meta_from(image)})  # an earlier result is replaced
    assert not np.asarray(Image.open(path)).any()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pictures_of_others_are_never_replaced(tmp_path: Path, rows: np.ndarray, suffix: str) -> None:
    image = load(save(tmp_path / f"a{suffix}", rows))
    foreign = save(tmp_path / f"a_seg{suffix}", rows)
    before = foreign.read_bytes()
    with pytest.raises(FileExistsError, match="exists and was not written by monai-unetpp"):
        SegmentationSaveImaged("pred", output_dir=tmp_path)({"pred": MetaTensor(image > 3).copy_meta_from(image)})
    assert foreign.read_bytes() == before


def test_many_labels_need_tiff(tmp_path: Path) -> None:
    labels = np.array([[0, 70000]], dtype=np.int32)
    with pytest.raises(
        ValueError, match=r"a\.png: PNG holds one picture with labels up to 65535, .* Give the image as TI"
    ):
        write_picture(tmp_path / "a.png", labels)
    write_picture(tmp_path / "a.tif", labels)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif"), labels)


def test_labels_of_another_shape(tmp_path: Path, rows: np.ndarray) -> None:
    image = load(save(tmp_path / "a.png", rows))
    wrong = MetaTensor(torch.zeros(1, 4, 3)).copy_meta_from(image)
    with pytest.raises(ValueError, match=r"must have the shape of .*a\.png, \(5, 3\), got \(4, 3\)\. Put Invertd"):
        SegmentationSaveImaged("pred", output_dir=tmp_path)({"pred": wrong})


def test_pictures_are_cases_only_where_they_are_wanted(tmp_path: Path, rows: np.ndarray) -> None:
    for name in ("a.png", "b.tif", "b_seg.tif"):
        save(tmp_path / name, rows)
    nib.save(nib.Nifti1Image(rows, np.eye(4)), tmp_path / "c.nii.gz")
    assert [case["case"] for case in find_cases(tmp_path, pictures=True)] == ["a", "b", "c"]
    assert [case["case"] for case in find_cases(tmp_path)] == ["c"]
    with pytest.raises(ImageFileError, match=r"a\.png: not a supported image\. Give NIfTI .*\.mhd or DICOM"):
        find_cases(tmp_path / "a.png")
