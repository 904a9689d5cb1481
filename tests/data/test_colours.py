"""Colours of pictures as three channels: where they are, how they are read, and where they are averaged or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from coloured_discs import NAMES, paint_disc, write_folder, write_nnunet
from monai.transforms import LoadImage
from PIL import Image

from monai_unetpp.cli import main
from monai_unetpp.data import (
    ImageFileError,
    VolumeReader,
    check_dataset,
    check_labelled_data,
    describe_data_set,
    find_cases,
    load_datalist,
)
from monai_unetpp.data.datasets.case_check import check_case
from monai_unetpp.data.datasets.labelled import list_cases
from monai_unetpp.data.datasets.voxel_hash import hash_voxels
from monai_unetpp.data.formats.pictures import has_colours, is_coloured
from monai_unetpp.study.data_set import find_study_cases

PIXELS = paint_disc(0)[0][:20]


def load(path, channels=3, **options):
    return LoadImage(VolumeReader(2, channels=channels, **options), ensure_channel_first=True)(path)


def decathlon(root, modality, count=4):
    """The pictures of a plain folder, listed in the Decathlon's form."""
    write_folder(root, count)
    entries = [{"image": f"images/disc_{n}.png", "label": f"labels/disc_{n}.png"} for n in range(count)]
    content = {"modality": modality, "labels": {"0": "background", "1": "disc"}, "training": entries}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_three_channels_are_red_green_and_blue_by_column_and_row(tmp_path, suffix, mode):
    # a palette holds few colours
    pixels = PIXELS // 64 * 64 if mode == "P" else PIXELS
    picture = Image.fromarray(pixels)
    picture = picture.quantize(64) if mode == "P" else picture.convert(mode)
    if mode == "RGBA":
        picture.putalpha(7)
    path = tmp_path / f"a{suffix}"
    picture.save(path)
    image = load(path)
    assert image.shape == (3, 24, 20)
    np.testing.assert_array_equal(image.numpy(), pixels.T)
    np.testing.assert_allclose(load(path, channels=1)[0].numpy(), pixels.mean(axis=-1).T, rtol=1e-6)
    assert image.affine.diagonal().tolist() == [1] * 4


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_colours_of_a_tiff_keep_their_values(tmp_path, dtype, planes):
    pixels = PIXELS.astype(dtype) * 1.5 if dtype is np.float32 else PIXELS.astype(dtype) * 257
    stored = np.moveaxis(pixels, -1, 0) if planes == "separate" else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planes)
    np.testing.assert_array_equal(load(tmp_path / "a.tif").numpy(), pixels.T)


def test_a_jpeg_has_its_colours_and_a_volume_has_them_in_each_slice(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as picture:
        np.testing.assert_array_equal(load(tmp_path / "a.jpg").numpy(), np.asarray(picture).T)
    slices = np.stack([PIXELS, PIXELS[::-1]])
    tifffile.imwrite(tmp_path / "a.tif", slices, photometric="rgb")
    reader = VolumeReader(3, channels=3)
    np.testing.assert_array_equal(reader.get_data(reader.read(tmp_path / "a.tif"))[0], slices.transpose(3, 2, 1, 0))
    reader = VolumeReader(2, channels=3)
    with pytest.raises(ImageFileError, match=r"must be an image with two axes, got shape \(24, 20, 2\)"):
        reader.get_data(reader.read(tmp_path / "a.tif"))


def test_grey_is_all_three_colours_with_a_warning(tmp_path, caplog):
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "grey.png")
    image = load(tmp_path / "grey.png")
    np.testing.assert_array_equal(image.numpy(), np.stack([PIXELS[..., 0].T] * 3))
    assert "grey.png: has no colours. Its grey values are taken as red, green and blue" in caplog.text


def test_what_cannot_be_three_channels_is_refused(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.new("RGB", (5, 4), (3, 3, 3)).save(tmp_path / "flat.png")
    for name, channels, message in (
        ("a.png", 2, "must be NIfTI with 2 channels on its last axis, got another file"),
        ("flat.png", 3, "all voxels have the value 3"),
    ):
        reader = VolumeReader(2, channels=channels)
        with pytest.raises(ImageFileError, match=message):
            reader.get_data(reader.read(tmp_path / name))
    # one colour, but not black, white or grey
    Image.new("RGB", (5, 4), (3, 4, 3)).save(tmp_path / "flat.png")
    assert load(tmp_path / "flat.png").shape == (3, 5, 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_picture_is_the_same_image_however_it_is_read(tmp_path, dtype):
    pixels = np.random.default_rng(0).uniform(0, 250, (9, 8, 3)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    Image.fromarray(np.ones((9, 8), np.uint8)).save(tmp_path / "label.png")
    (case,) = list_cases([{"image": str(tmp_path / "a.tif"), "label": str(tmp_path / "label.png")}])
    hashes = {check_case(case, in_channels=channels).voxels for channels in (1, 3, None)}
    assert hashes == {hash_voxels(tmp_path / "a.tif")}


def test_nnunets_pictures_are_three_channels_where_it_names_three(tmp_path, caplog):
    root = write_nnunet(tmp_path, 5)
    (case,) = load_datalist(root, "validation")
    assert isinstance(case["image"], str)
    described = describe_data_set(root)
    assert (described.channels, described.modality) == (("R", "G", "B"), "other")
    assert find_study_cases(root).in_channels == 3
    assert check_dataset(root) == []
    check_labelled_data(root, classes=2, spatial_dims=2, in_channels=3)
    assert "averaged" not in caplog.text
    # cases to segment: one picture each, or one file per channel
    names = [case["case"] for case in find_cases(root, pictures=True, channels=3)]
    assert names == [f"disc_{number}" for number in range(5)]
    content = json.loads((root / "dataset.json").read_text())
    files = {f"x{n}": {"images": [f"imagesTr/disc_{n}_0000.png"], "label": f"labelsTr/disc_{n}.png"} for n in range(5)}
    (root / "dataset.json").write_text(json.dumps({**content, "dataset": files}))
    assert describe_data_set(root).channels == ("R", "G", "B")
    assert [case["case"] for case in find_cases(root, pictures=True, channels=3)] == sorted(files)
    assert [case["case"] for case in find_cases(root, list_key="validation")] == ["x2"]


def test_nnunets_pictures_are_grey_where_it_names_one_channel(tmp_path, caplog):
    root = write_nnunet(tmp_path, 4, {"0": "stain"})
    assert describe_data_set(root).channels == ("stain",)
    assert "has colours, which are averaged to one channel." in caplog.text
    assert "case_0002.png, or name three channels." in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "grey",
            r"must have 3 channels, 0000, 0001, 0002, got 4 of 4 with others: disc_0 \(0000\), .* The colours of",
        ),
        (
            "split",
            r"got 3 of 4 with others: disc_1 \(0000\), .* are three channels only where every case is one picture",
        ),
        ("two", r"must have 2 channels, 0000, 0001, got 4 of 4 with others"),
    ],
)
def test_nnunets_pictures_without_three_channels_are_refused(tmp_path, change, message):
    root = write_nnunet(tmp_path, 4, {"0": "R", "1": "G"} if change == "two" else None)
    for file in sorted((root / "imagesTr").iterdir()) if change == "grey" else ():
        with Image.open(file) as picture:
            grey = picture.convert("L")
        grey.save(file)
    for channel in (1, 2) if change == "split" else ():
        shutil.copy(root / "imagesTr" / "disc_0_0000.png", root / "imagesTr" / f"disc_0_000{channel}.png")
    with pytest.raises(ValueError, match=message):
        load_datalist(root, "training")


@pytest.mark.parametrize(
    ("modality", "channels"), [(NAMES, ("R", "G", "B")), ({"0": "stain"}, ("stain",)), ("RGB", ("RGB",))]
)
def test_the_decathlons_pictures_have_the_channels_that_it_names(tmp_path, caplog, modality, channels):
    root = decathlon(tmp_path, modality)
    assert describe_data_set(root).channels == channels
    assert ("averaged to one channel" in caplog.text) == (len(channels) == 1)
    assert check_dataset(root) == []
    assert main(["check", str(root)]) == 0


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_a_folder_has_three_channels_if_all_pictures_have_colours(tmp_path, caplog, ending):
    described = describe_data_set(write_folder(tmp_path, 4, ending))
    assert (described.channels, described.modality) == (("red", "green", "blue"), "other")
    assert "all pictures have colours. They are read as three channels." in caplog.text
    assert check_dataset(tmp_path) == []


@pytest.mark.parametrize("saved_as", ["L", "RGB"])
def test_a_folder_is_grey_if_some_pictures_are(tmp_path, caplog, saved_as):
    root = write_folder(tmp_path, 4, grey=1)
    with Image.open(root / "images" / "disc_3.png") as picture:
        grey = picture.convert(saved_as)
    grey.save(root / "images" / "disc_3.png")
    assert [is_coloured(root / "images" / f"disc_{number}.png") for number in (2, 3)] == [True, False]
    assert describe_data_set(root).channels == ("channel_0",)
    assert "has colours, which are averaged to one channel. To use them, store each in a file" in caplog.text
    assert "disc_3.png, which has none." in caplog.text


def test_nothing_is_told_of_colours_where_there_are_none(tmp_path, caplog):
    root = write_folder(tmp_path, 4, grey=4)
    (root / "images" / "disc_0.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert describe_data_set(root).channels == ("channel_0",)
    assert "colours" not in caplog.text


def test_a_picture_of_a_case_of_three_files_is_one_of_them(tmp_path):
    for name in ("a_0000", "b_0001"):
        Image.fromarray(PIXELS[..., 0]).save(tmp_path / f"{name}.png")
    Image.fromarray(PIXELS).save(tmp_path / "c_0001.png")
    with pytest.raises(ImageFileError, match="the case 'a' must have a file for each of the network's 3 channels"):
        find_cases(tmp_path, pictures=True, channels=3)
    cases = find_cases(tmp_path, pictures=True, channels=3, strict=False)
    assert ["failure" in case for case in cases] == [True, True, False]


@pytest.mark.parametrize("kind", ["palette", "float", "planes", "jpeg", "16 bits"])
def test_pictures_of_every_kind_are_three_channels_where_three_are_named(tmp_path, kind):
    root = decathlon(tmp_path, NAMES)
    content = json.loads((root / "dataset.json").read_text())
    ending = {"palette": ".png", "jpeg": ".jpg"}.get(kind, ".tif")
    for case in content["training"]:
        path = (root / case["image"]).with_suffix(ending)
        pixels = np.asarray(Image.open(root / case["image"]).convert("RGB"))
        if kind == "palette":
            Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
        elif kind == "jpeg":
            Image.fromarray(pixels).save(path)
        else:
            pixels = {"float": pixels / np.float32(255), "16 bits": pixels.astype(np.uint16) * 200}.get(kind, pixels)
            planes = {"planarconfig": "separate"} if kind == "planes" else {}
            tifffile.imwrite(path, np.moveaxis(pixels, -1, 0) if planes else pixels, photometric="rgb", **planes)
        assert has_colours(path)
        case["image"] = str(path.relative_to(root))
    (root / "dataset.json").write_text(json.dumps(content))
    assert describe_data_set(root).channels == ("R", "G", "B")


@pytest.mark.parametrize("mode", ["L", "1", "LA", "I;16"])
def test_grey_pictures_have_no_colours(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "a.png")
    assert not has_colours(tmp_path / "a.png")


@pytest.mark.parametrize("last", ["RGB", "L", "P"])
@pytest.mark.parametrize("count", [3, 4])
def test_numbered_pictures_with_colours_are_no_channels_of_each_other(tmp_path, last, count):
    modes = ["RGB"] * (count - 1) + [last]
    for number, mode in enumerate(modes):
        Image.fromarray(PIXELS).convert(mode).save(tmp_path / f"slide_{number:04d}.png")
    cases = find_cases(tmp_path, pictures=True, channels=3)
    assert [Path(case["image"]).name for case in cases] == [f"slide_{number:04d}.png" for number in range(count)]
