"""PNG and TIFF: read as grey values, written as labels of the same kind."""

from __future__ import annotations

import importlib.util
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from PIL import ExifTags, Image

from monai_unetpp.data import (
    ImageFileError,
    SegmentationSaveImaged,
    VolumeReader,
    find_cases,
    read_geometry,
)
from monai_unetpp.data.formats.pictures import read_picture, read_picture_shape, write_picture
from monai_unetpp.data.formats.reader import read_label_map


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


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_is_an_image_but_no_label_and_its_result_is_png(tmp_path: Path, mode: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    grey = np.full((16, 24), 40, np.uint8)
    grey[:8] = 200
    path = tmp_path / "a.JPEG"
    Image.fromarray(grey).convert(mode).save(path, "JPEG", quality=100, exif=exif, dpi=(254, 254))
    np.testing.assert_allclose(read_picture(path), grey.T, atol=3)
    check_shape(path, read_picture(path))
    with pytest.raises(
        ImageFileError, match=r"a\.JPEG: the label must be stored without loss, got JPEG.* Save it as PNG"
    ):
        read_label_map(path)
    (case,) = find_cases(tmp_path, pictures=True)
    assert case == {"image": str(path), "case": "a"}
    result = segmented(path)
    assert result.name == "a_seg.png"
    with Image.open(result) as shown:
        assert shown.getexif()[ExifTags.Base.Orientation] == 6
        assert shown.size == (24, 16)


def test_colours_with_16_bits_keep_them(tmp_path: Path) -> None:
    import SimpleITK

    pixels = np.array([[[1, 2, 6], [300, 600, 60000]]], dtype=np.uint16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=True), str(tmp_path / "a.png"))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), [[3], [20300]])


def test_pages_are_slices_where_volumes_will_do(tmp_path: Path, rows: np.ndarray) -> None:
    write_picture(tmp_path / "a.tif", np.stack([rows.T, rows.T + 20], axis=-1))
    assert load(tmp_path / "a.tif", [2, 3]).shape == (1, 5, 3, 2)
    assert load(save(tmp_path / "b.tif", rows), [2, 3]).shape == (1, 5, 3)
    with pytest.raises(ImageFileError, match=r"a\.tif: must be an image with two axes, got shape \(5, 3, 2\)"):
        load(tmp_path / "a.tif")
    with pytest.raises(ImageFileError, match=r"b\.tif: must be a volume with three axes, got shape \(5, 3\)"):
        load(tmp_path / "b.tif", 3)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file. Check the path"),
        (b"", "empty, it has 0 bytes"),
        (b"no picture", "damaged, or not of the format that its suffix says"),
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


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_header_that_tells_of_more_pixels_than_the_file_can_hold_is_damaged(
    tmp_path: Path, compression: str | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression=compression)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            offset = file.pages.first.tags[name].valueoffset
            content[offset : offset + 4] = (2_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match=r"a\.tif: damaged or cut off"):
        read_picture(path)


@pytest.fixture
def camera() -> np.ndarray:
    """120 rows of 100 pixels with the 12 bits of many cameras."""
    return (np.arange(100)[None, :] * 7 + np.arange(120)[:, None] * 3).astype(np.uint16)


def check_shape(path: Path, values: np.ndarray) -> None:
    assert read_picture_shape(path) == values.shape
    assert values.dtype.isnative


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"tile": (32, 32)},
        {"rowsperstrip": 7, "compression": "zlib", "predictor": True},
        {"tile": (32, 32), "compression": "lzma"},
        {"byteorder": ">"},
        {"bigtiff": True},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "uint64", "float16", "float32", "float64"]
)
def test_tiff_keeps_its_values(tmp_path: Path, camera: np.ndarray, dtype: str, layout: dict) -> None:
    pixels = (camera // (16 if dtype.endswith("int8") else 1)).astype(dtype)
    if "predictor" in layout:
        layout = {
            **layout,
            "predictor": pixels.dtype.kind != "f" and pixels.itemsize < 8,
        }  # as far as tifffile writes it
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", **layout)
    values = read_picture(tmp_path / "a.tif")
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, pixels.T)
    check_shape(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(load(tmp_path / "a.tif")[0].numpy(), pixels.T.astype(np.float32))


@pytest.mark.parametrize("layout", [{}, {"tile": (32, 32)}], ids=str)
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_with_colours(tmp_path: Path, camera: np.ndarray, dtype: type, separate: bool, layout: dict) -> None:
    colours = np.stack([camera // 4, camera // 5, camera // 6], axis=-1).astype(dtype)
    path = tmp_path / "a.tif"
    for channels in (colours, np.concatenate([colours, colours[..., :1]], axis=-1)):
        tifffile.imwrite(
            path,
            np.moveaxis(channels, -1, 0) if separate else channels,
            photometric="rgb",
            planarconfig="separate" if separate else "contig",
            **layout,
        )
        values = read_picture(path)
        np.testing.assert_allclose(values, colours.mean(axis=-1, dtype=np.float32).T, rtol=1e-6)
        check_shape(path, values)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 300)])
@pytest.mark.parametrize("layout", [None, {}, {"tile": (16, 16)}], ids=str)
def test_any_size(tmp_path: Path, size: tuple[int, int], layout: dict | None) -> None:
    path, pixels = tmp_path / ("a.png" if layout is None else "a.tif"), np.full(size, 300, np.uint16)
    if layout is None:
        save(path, pixels)
    else:
        tifffile.imwrite(path, pixels, photometric="minisblack", **layout)
    values = read_picture(path)
    assert values.shape == size[::-1]
    assert (values == 300).all()
    check_shape(path, values)
    assert load(path).shape == (1, *size[::-1])


def test_tiff_where_white_is_zero_grows_with_brightness(tmp_path: Path, rows: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    for pixels in (rows, rows.astype(np.uint16) * 257):
        tifffile.imwrite(path, pixels, photometric="miniswhite")
        np.testing.assert_array_equal(read_picture(path), np.iinfo(pixels.dtype).max - pixels.T)
    tifffile.imwrite(path, rows > 6, photometric="miniswhite")
    np.testing.assert_array_equal(read_picture(path), np.where(rows > 6, 0, 255).T)
    tifffile.imwrite(path, rows.astype(np.float32), photometric="miniswhite")
    with pytest.raises(ImageFileError, match=r"a\.tif: its values must increase with brightness, got float32"):
        read_picture(path)


def test_tiff_with_a_palette(tmp_path: Path, rows: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    picture = Image.fromarray(rows, "P")
    picture.putpalette([value for index in range(256) for value in (index, 0, index // 2)])
    picture.save(path)
    expected = ((rows + rows // 2) / np.float32(3)).T
    np.testing.assert_allclose(read_picture(path), expected, rtol=1e-6)
    # some programs write 8 bits where the format wants 16
    index = np.arange(256, dtype=np.uint16)
    palette = np.stack([index, np.zeros_like(index), index // 2])
    for colours in (palette, palette * 257):
        tifffile.imwrite(path, rows, photometric="palette", colormap=colours)
        np.testing.assert_allclose(read_picture(path), expected, rtol=1e-6)


def test_tiff_without_its_reduced_copies(tmp_path: Path, camera: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(camera, subifds=1)
        file.write(camera[::2, ::2], subfiletype=1)
        file.write(camera[::4, ::4], subfiletype=1)
    values = read_picture(path)
    np.testing.assert_array_equal(values, camera.T)
    check_shape(path, values)


@pytest.mark.parametrize("channels", [2, 3, 5])
@pytest.mark.parametrize("separate", [False, True])
def test_tiff_with_channels_of_unknown_meaning(
    tmp_path: Path, camera: np.ndarray, channels: int, separate: bool
) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.stack([camera] * channels, axis=0 if separate else -1),
        photometric="minisblack",
        planarconfig="separate" if separate else "contig",
    )
    for read in (read_picture, read_picture_shape):
        message = rf"a\.tif: must hold grey values or red, .*, got {channels} channels .*\. Save one channel, or RGB\."
        with pytest.raises(ImageFileError, match=message):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_tiff_with_colours_of_other_kinds(tmp_path: Path, camera: np.ndarray, mode: str) -> None:
    colours = np.stack([camera] * (4 if mode == "CMYK" else 3), axis=-1).astype(np.uint8)
    Image.frombytes(mode, camera.shape[::-1], colours.tobytes()).save(tmp_path / "a.tif")
    with pytest.raises(ImageFileError, match=r"a\.tif: must hold grey values or red, green and blue, got \d channels"):
        read_picture(tmp_path / "a.tif")


def test_tiff_with_pages_that_make_no_volume(tmp_path: Path, camera: np.ndarray) -> None:
    for other in (camera[:50], camera.astype(np.float32)):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(camera)
            file.write(other)
        for read in (read_picture, read_picture_shape):
            message = r"its pages must have the same size and kind, got 100 x 120 pixels of uint16 .* and 100 x \d+ pix"
            with pytest.raises(ImageFileError, match=message):
                read(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", np.stack([camera] * 3), photometric="minisblack", truncate=True)
    with pytest.raises(ImageFileError, match="must list all of its pages, got only the first of several"):
        read_picture(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", camera.astype(np.complex64))
    with pytest.raises(ImageFileError, match=r"must hold pictures of plain numbers, got .* complex64 .*\. Convert it"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "layout",
    [{}, {"rowsperstrip": 7}, {"tile": (32, 32)}, {"tile": (32, 32), "compression": "zlib"}],
    ids=str,
)
def test_tiff_is_never_read_in_part(tmp_path: Path, camera: np.ndarray, layout: dict) -> None:
    pages = np.stack([camera, camera + 1, camera + 2])
    tifffile.imwrite(tmp_path / "whole.tif", pages, photometric="minisblack", **layout)
    np.testing.assert_array_equal(read_picture(tmp_path / "whole.tif"), pages.T)
    whole = (tmp_path / "whole.tif").read_bytes()
    for part in np.linspace(0.01, 0.99, 20):
        (tmp_path / "cut.tif").write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(ImageFileError, match=r"cut\.tif: "):
            read_picture(tmp_path / "cut.tif")


@pytest.mark.parametrize(
    ("compression", "dtype"),
    [("tiff_lzw", np.uint8), ("tiff_lzw", np.uint16), ("tiff_lzw", np.float32), ("jpeg", np.uint8)],
)
def test_tiff_in_strips_of_other_compressions(
    tmp_path: Path, camera: np.ndarray, compression: str, dtype: type
) -> None:
    pixels = (camera // 5).astype(dtype)
    pages = [Image.fromarray(pixels), Image.fromarray(pixels[::-1].copy())]
    for count in (1, 2):
        pages[0].save(tmp_path / "a.tif", compression=compression, save_all=count > 1, append_images=pages[1:count])
        values = read_picture(tmp_path / "a.tif")
        assert values.dtype == dtype
        np.testing.assert_allclose(
            values.reshape(100, 120, -1)[..., 0], pixels.T, atol=3 if compression == "jpeg" else 0
        )
        check_shape(tmp_path / "a.tif", values)


def test_tiff_that_needs_another_decoder(tmp_path: Path, camera: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(self: tifffile.TiffPage, *args: object, **options: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", decode)
    path = tmp_path / "a.tif"
    for pixels in (camera, (camera // 5).astype(np.uint8)):
        tifffile.imwrite(path, pixels, tile=(32, 32))  # Pillow reads these
        values = read_picture(path)
        assert values.dtype == pixels.dtype
        np.testing.assert_array_equal(values, pixels.T)
    for pixels, kind in ((np.stack([camera] * 3, axis=-1), "rgb"), (camera, "miniswhite")):
        tifffile.imwrite(path, pixels, tile=(32, 32), photometric=kind)
        with pytest.raises(
            ImageFileError, match=r"a\.tif: its pixel format .*uint16.*: pip install imagecodecs, or save"
        ):
            read_picture(path)


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_channels_of_a_tiff_are_no_slices(tmp_path: Path, camera: np.ndarray, kind: str) -> None:
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    names = {"Channel": {"Name": ["DAPI", "GFP"]}} if kind == "ome" else {"Labels": ["DAPI", "GFP"] * 3}
    for axes, shape in (("CYX", (2, 120, 100)), ("ZCYX", (3, 2, 120, 100))):
        pixels = np.broadcast_to(camera, shape)
        tifffile.imwrite(path, pixels, **{kind: True}, metadata={"axes": axes, **names}, photometric="minisblack")
        for read in (read_picture, read_picture_shape):
            with pytest.raises(ImageFileError, match=r"has 2 channels \(DAPI, GFP\) in one file. Save each"):
                read(path)
    tifffile.imwrite(path, pixels[0], **{kind: True}, metadata={"axes": "CYX"}, photometric="minisblack")
    with pytest.raises(ImageFileError, match=r"has 2 channels \(1, 2\)"):
        read_picture(path)


@pytest.mark.parametrize(
    ("kind", "axes", "note"),
    [
        ("ome", "ZYX", ""),
        ("imagej", "ZYX", ""),
        ("ome", "TYX", "they lie along time"),
        ("imagej", "TYX", "they lie along time"),
        ("shaped", "YX", "along an unnamed axis"),
        (None, "YX", "along an unnamed axis"),
    ],
)
def test_pages_that_are_slices_say_along_what(
    tmp_path: Path, camera: np.ndarray, caplog: pytest.LogCaptureFixture, kind: str | None, axes: str, note: str
) -> None:
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    pages = np.stack([camera, camera + 1, camera + 2])
    options = {kind: True} if kind in ("ome", "imagej") else {}
    metadata = None if kind is None else {"axes": axes} if options else {}
    tifffile.imwrite(path, pages, **options, metadata=metadata, photometric="minisblack")
    with caplog.at_level("INFO"):
        values = read_picture(path)
    np.testing.assert_array_equal(values, pages.T)
    check_shape(path, values)
    assert [record.message for record in caplog.records if note in record.message] if note else not caplog.records


@pytest.mark.parametrize(("kind", "size"), [("ome", "PhysicalSizeZ"), ("imagej", "spacing")])
def test_voxel_sizes_of_a_tiff_are_not_passed_over_in_silence(
    tmp_path: Path, camera: np.ndarray, caplog: pytest.LogCaptureFixture, kind: str, size: str
) -> None:
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    for axes in ("ZYX", "TYX"):
        metadata = {"axes": axes, size: 2.0}
        tifffile.imwrite(path, np.stack([camera] * 3), **{kind: True}, metadata=metadata, photometric="minisblack")
        read_picture(path)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"{path}: its metadata give the size of its voxels, but a TIFF is read with 1 mm along")


def test_pages_along_two_axes_are_refused(tmp_path: Path, camera: np.ndarray) -> None:
    pages = np.broadcast_to(camera, (2, 3, 120, 100))
    tifffile.imwrite(tmp_path / "a.ome.tif", pages, ome=True, metadata={"axes": "TZYX"}, photometric="minisblack")
    with pytest.raises(ImageFileError, match="its 6 pages must lie along one axis, got 2 along time and 3 along depth"):
        read_picture(tmp_path / "a.ome.tif")
    with tifffile.TiffWriter(tmp_path / "b.ome.tif", ome=True) as file:
        for _ in range(2):
            file.write(camera)
    with pytest.raises(ImageFileError, match=r"holds 2 images, which may be unrelated. Save one"):
        read_picture(tmp_path / "b.ome.tif")


def test_the_copies_of_a_pyramid_are_left_out(tmp_path: Path, camera: np.ndarray) -> None:
    pages = np.stack([camera, camera + 1])
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True, bigtiff=True) as file:
        file.write(pages, subifds=1, metadata={"axes": "ZYX"}, photometric="minisblack")
        file.write(pages[:, ::2, ::2], subfiletype=1, photometric="minisblack")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.ome.tif"), pages.T)


def write_png(path: Path, pixels: np.ndarray, bits: int, colour_type: int, *chunks: tuple[bytes, bytes]) -> Path:
    """A PNG of kinds that libraries read but do not write; ``pixels`` are ``(H, W[, channels])``."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, colour_type, 0, 0, 0)
    lines = pixels.reshape(len(pixels), -1)
    packed = [
        np.packbits(np.unpackbits(line.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 16 - bits :].ravel())
        for line in lines
    ]
    content = zlib.compress(b"".join(b"\0" + line.tobytes() for line in packed))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", content), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_png_of_grey_values_with_a_transparent_one(tmp_path: Path, camera: np.ndarray, bits: int) -> None:
    pixels = camera & (2**bits - 1)
    path = write_png(tmp_path / "a.png", pixels, bits, 0, (b"tRNS", struct.pack(">H", 1)))
    values = read_picture(path)
    np.testing.assert_array_equal(values, pixels.T * (255 if bits == 1 else 1))
    check_shape(path, values)


@pytest.mark.parametrize("bits", [8, 16])
def test_png_of_grey_values_and_transparency(tmp_path: Path, camera: np.ndarray, bits: int) -> None:
    pixels = camera & (2**bits - 1)
    path = write_png(tmp_path / "a.png", np.stack([pixels, pixels[::-1]], axis=-1), bits, 4)
    values = read_picture(path)
    assert values.dtype == f"uint{bits}"
    np.testing.assert_array_equal(values, pixels.T)
    check_shape(path, values)
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(ImageFileError, match=r"a\.png: damaged or cut off"):
        read_picture(path)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("colour_type", [0, 3])
def test_labels_in_png_are_the_stored_numbers(tmp_path: Path, camera: np.ndarray, bits: int, colour_type: int) -> None:
    pixels = camera & (2**bits - 1)
    palette = [(b"PLTE", bytes(range(255, 255 - 3 * 2 ** min(bits, 6), -1)))] if colour_type == 3 else []
    if colour_type == 3:
        pixels &= 63  # all that this palette has
    path = write_png(tmp_path / "a.png", pixels, bits, colour_type, *palette)
    np.testing.assert_array_equal(read_label_map(path).data, pixels.T)
    assert VolumeReader(2, labels=True).get_data((path,))[0].dtype == np.uint8
    as_image = pixels * (255 // (2**bits - 1)) if colour_type == 0 else 254 - 3 * pixels.astype(np.float32)
    np.testing.assert_array_equal(read_picture(path), as_image.T)


@pytest.mark.parametrize("dtype", [bool, np.uint8])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "palette"])
def test_labels_in_tiff_are_the_stored_numbers(tmp_path: Path, rows: np.ndarray, dtype: type, photometric: str) -> None:
    if photometric == "palette":
        colours = {"colormap": np.zeros((3, 256), np.uint16)}
        pixels = rows
    else:
        colours, pixels = {}, (rows > 6 if dtype is bool else rows)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, **colours)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif").data, pixels.T)


@pytest.mark.parametrize("compression", [None, "tiff_adobe_deflate", "packbits", "group4"])
def test_masks_of_one_bit_in_tiff_are_read_though_blank(tmp_path: Path, compression: str | None) -> None:
    mask = np.zeros((1000, 2000), bool)
    mask[3:5, 2:9] = True
    Image.fromarray(mask).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif").data, mask.T)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-200])
    with pytest.raises(ImageFileError, match="damaged or cut off"):
        read_label_map(tmp_path / "cut.tif")


def test_labels_saved_as_colours_without_any_colour_are_read(tmp_path: Path, rows: np.ndarray) -> None:
    for channels in (3, 4):
        for suffix in (".png", ".tif"):
            path = save(tmp_path / f"a{suffix}", np.stack([rows] * channels, axis=-1))
            np.testing.assert_array_equal(read_label_map(path).data, rows.T)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("colour", [(3, 0, 0), (0, 3, 0), (0, 0, 3), (255, 0, 0), (3, 3, 2), (1, 2, 3, 255)])
def test_coloured_labels_are_refused(tmp_path: Path, colour: tuple[int, ...], suffix: str) -> None:
    pixels = np.zeros((6, 5, len(colour)), np.uint8)
    pixels[2, 3] = colour
    path = save(tmp_path / f"a{suffix}", pixels)
    read_picture(path)
    with pytest.raises(ImageFileError, match=rf"a\{suffix}: the label must hold one number per pixel, got colours"):
        read_label_map(path)


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


def test_results_of_one_name_and_different_kinds(tmp_path: Path, rows: np.ndarray) -> None:
    for suffix in (".png", ".tif"):
        save(tmp_path / f"a{suffix}", rows)
    for case in find_cases(tmp_path, pictures=True):
        image = load(Path(case["image"]))
        labels = MetaTensor((image > 3).float()).copy_meta_from(image)
        SegmentationSaveImaged("pred", output_dir=tmp_path / "out")({**case, "pred": labels})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_seg.png", "a_seg.tif"]


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
    with pytest.raises(ValueError, match=r"must have the shape of .*a\.png, \(5, 3\), got \(4, 3\)\. Use Invertd"):
        SegmentationSaveImaged("pred", output_dir=tmp_path)({"pred": wrong})


def segmented(path: Path) -> Path:
    image = load(path, [2, 3])
    pred = MetaTensor((image > 3).float()).copy_meta_from(image)
    done = SegmentationSaveImaged("pred", output_dir=path.parent / "out")({"pred": pred})
    return Path(done["pred"].meta["saved_to"])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("turned", [1, 3, 6, 8])
def test_results_are_shown_as_turned_and_as_large_as_the_picture(
    tmp_path: Path, rows: np.ndarray, suffix: str, turned: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turned
    Image.fromarray(rows).save(tmp_path / f"a{suffix}", exif=exif, dpi=(25400, 12700))
    np.testing.assert_array_equal(read_picture(tmp_path / f"a{suffix}"), rows.T)  # as it is stored
    with Image.open(segmented(tmp_path / f"a{suffix}")) as result:
        assert result.getexif()[ExifTags.Base.Orientation] == turned
        assert result.info["dpi"] == pytest.approx((25400, 12700))
    stored = read_picture(segmented(tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(stored, rows.T > 3)


def test_tiff_that_only_pillow_decodes_is_not_turned(tmp_path: Path, rows: np.ndarray) -> None:
    exif = Image.Exif()
    for turned in (1, 3):
        exif[ExifTags.Base.Orientation] = turned
        Image.fromarray(rows).save(tmp_path / "a.tif", compression="tiff_lzw", exif=exif)
        if turned == 1:
            np.testing.assert_array_equal(read_picture(tmp_path / "a.tif"), rows.T)
        elif not importlib.util.find_spec("imagecodecs"):
            with pytest.raises(ImageFileError, match=r"its pixel format .LZW.*pip install imagecodecs"):
                read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX"])
def test_results_keep_the_pixel_size_of_ome(tmp_path: Path, camera: np.ndarray, axes: str) -> None:
    sizes = {"PhysicalSizeX": 0.325, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    depth = {"PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm"} if "Z" in axes else {}
    pixels = camera if axes == "YX" else np.stack([camera, camera + 1])
    metadata = {"axes": axes, **sizes, **depth}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, ome=True, metadata=metadata, photometric="minisblack")
    with tifffile.TiffFile(segmented(tmp_path / "a.ome.tif")) as result:
        described = tifffile.xml2dict(result.ome_metadata)["OME"]["Image"]["Pixels"]
        assert {key: described[key] for key in (*sizes, *depth)} == {**sizes, **depth}
        assert result.series[0].axes == axes
        np.testing.assert_array_equal(result.asarray(), pixels > 3)


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX"])
def test_results_keep_the_pixel_size_of_imagej(tmp_path: Path, camera: np.ndarray, axes: str) -> None:
    pixels = camera if axes == "YX" else np.stack([camera, camera + 1])
    metadata = {"axes": axes, "unit": "um", "spacing": 2.5}
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata=metadata, resolution=(4, 2))
    path = segmented(tmp_path / "a.tif")
    with tifffile.TiffFile(path) as result:
        assert (result.imagej_metadata["unit"], result.imagej_metadata["spacing"]) == ("um", 2.5)
        assert result.series[0].axes == axes
        assert result.pages[0].resolution == (4, 2)
        np.testing.assert_array_equal(result.asarray(), pixels > 3)
    segmented(tmp_path / "a.tif")  # the earlier result is known as such


def test_many_labels_of_an_imagej_picture(tmp_path: Path, rows: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", rows, imagej=True, resolution=(4, 2))
    write_picture(tmp_path / "seg.tif", rows.T.astype(np.int32) * 10_000, tmp_path / "a.tif")
    np.testing.assert_array_equal(read_picture(tmp_path / "seg.tif"), rows.T.astype(np.int32) * 10_000)
    with tifffile.TiffFile(tmp_path / "seg.tif") as result:
        assert result.pages[0].resolution == (4, 2)


def _resolution_over_zero(path: Path, rows: np.ndarray) -> None:
    tifffile.imwrite(path, rows, resolution=(72, 72), metadata=None)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["XResolution"].overwrite((72, 0))


def _imagej(path: Path, rows: np.ndarray, text: str) -> None:
    tifffile.imwrite(path, rows, metadata=None, photometric="minisblack", description=text.encode("latin-1"))


@pytest.mark.parametrize(
    "save_odd",
    [
        _resolution_over_zero,
        lambda path, rows: _imagej(path, rows, "ImageJ=1.34s\nunit=\u00b5m\n"),
        lambda path, rows: _imagej(path, np.stack([rows] * 3), "ImageJ=1.34s\nimages=3\n"),
        lambda path, rows: Image.fromarray(rows).save(path, format="PNG", dpi=(72, 72)),
        lambda path, rows: Image.fromarray(rows).save(path, format="JPEG", dpi=(72, 72)),
    ],
    ids=["resolution", "unit", "images", "png", "jpeg"],
)
def test_what_cannot_be_copied_of_a_picture_does_not_keep_its_labels_from_being_written(tmp_path, rows, save_odd):
    save_odd(tmp_path / "a.tif", rows)
    labels = (read_picture(tmp_path / "a.tif") > 3).astype(np.uint8)
    write_picture(tmp_path / "seg.tif", labels, tmp_path / "a.tif")
    np.testing.assert_array_equal(read_picture(tmp_path / "seg.tif"), labels)


def test_pictures_are_cases_only_where_they_are_wanted(tmp_path: Path, rows: np.ndarray) -> None:
    for name in ("a.png", "b.tif"):
        save(tmp_path / name, rows)
    write_picture(tmp_path / "b_seg.tif", np.ones((5, 3), np.uint8))
    nib.save(nib.Nifti1Image(rows, np.eye(4)), tmp_path / "c.nii.gz")
    assert [case["case"] for case in find_cases(tmp_path, pictures=True)] == ["a", "b", "c"]
    assert [case["case"] for case in find_cases(tmp_path)] == ["c"]
    with pytest.raises(ImageFileError, match=r"a\.png: not a supported image\. Give NIfTI .*\.mhd or DICOM"):
        find_cases(tmp_path / "a.png")


def test_pages_along_an_axis_without_a_name_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="monai_unetpp.data")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for value in range(3):
            file.write(np.full((5, 6), value, np.uint8), metadata=None)
    (case,) = find_cases(tmp_path, pictures=True)
    image = load(Path(case["image"]), spatial_dims=(2, 3))
    SegmentationSaveImaged("pred", tmp_path / "out")({"pred": image})
    read_geometry(tmp_path / "a.tif")
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"{tmp_path}/a.tif: its 3 pages are read as slices; they lie along an unnamed axis."]
