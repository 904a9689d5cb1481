"""What surrounds a brain, and what the pages, colours and metadata of pictures mean."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import torch
from monai.data import MetaTensor
from PIL import ExifTags, Image

from benchmarks.robustness.inputs import read
from benchmarks.robustness.situations import READ, REFUSED, Kind, expect, expect_equal
from monai_unetpp.data import (
    ClearBackgroundd,
    LevelSurroundd,
    SegmentationSaveImaged,
    StandardizeIntensityd,
    find_surround,
)

KIND = Kind("Surround and pictures")

_SIDE = 24
_INSIDE = torch.from_numpy(sum(axis**2 for axis in np.meshgrid(*[np.linspace(-1, 1, _SIDE)] * 3)) < 0.5)[None]


def _brain() -> torch.Tensor:
    """A ball with the values of a brain in T1, and 0 around it."""
    values = np.random.default_rng(0).beta(3, 2.1, (1, _SIDE, _SIDE, _SIDE)) * 870 + 130
    return torch.where(_INSIDE, torch.from_numpy(values.astype(np.float32)), torch.tensor(0.0))


def _seen(image: torch.Tensor) -> torch.Tensor:
    """The image as a network sees it."""
    leveled = LevelSurroundd("image")({"image": MetaTensor(image, meta={"filename_or_obj": "brain.nii.gz"})})
    seen: torch.Tensor = StandardizeIntensityd("image")(leveled)["image"].as_tensor()
    return seen


def _brain_alone(_: Path, image: torch.Tensor, correlation: float = 0.999) -> None:
    surround = find_surround(image)
    expect(surround is not None, "no surround was found")
    expect_equal(surround.mask.numpy(), ~_INSIDE[0].numpy(), "voxels of the surround")  # type: ignore[union-attr]
    found, right = (_seen(each) for each in (image, _brain()))
    expect(bool(found[~_INSIDE].max() <= found[_INSIDE].min()), "the surround is not the darkest")
    same = np.corrcoef(found[_INSIDE], right[_INSIDE])[0, 1]
    expect(same > correlation, f"the network sees another brain (correlation {same:.3f})")
    labels = ClearBackgroundd("pred")({"image": image, "pred": torch.ones_like(image).int()})["pred"]
    expect_equal(labels.numpy(), _INSIDE.numpy(), "labels outside")


_PLAIN = _brain()
_SURROUNDS = {
    "stored so": ("0", _PLAIN),
    "z-scored within the brain, 0 outside (BraTS)": ("0", torch.where(_INSIDE, (_PLAIN - 650) / 170, 0.0)),
    "z-scored, the lowest value outside": ("-5.5", torch.where(_INSIDE, (_PLAIN - 650) / 170, -5.5)),
    "-1000 outside": ("-1000", torch.where(_INSIDE, _PLAIN, -1000.0)),
    "brighter than the brain outside": ("1000", torch.where(_INSIDE, (_PLAIN - 650) / 170, 1000.0)),
    "all values plus 500": ("500", _PLAIN + 500),
}
for _title, (_value, _image) in _SURROUNDS.items():
    KIND.add(
        f"a brain without skull, {_title}",
        functools.partial(_brain_alone, image=_image),
        says=f"the surround is {_value}, ",
    )


@KIND.situation("a hole of the same value inside of the brain: not taken for surround", says="the surround is 0, 84 %")
def _hole(_: Path) -> None:
    image = _brain()
    image[0, 11:13, 11:13, 11:13] = 0
    _brain_alone(_, image, correlation=0.9)  # the network sees the hole


@KIND.situation("a whole head with noise around it: nothing is taken for surround", says="no constant surround")
def _noise(_: Path) -> None:
    noise = torch.from_numpy(np.random.default_rng(1).integers(0, 20, _PLAIN.shape).astype(np.float32))
    image = torch.where(_INSIDE, _PLAIN, noise)
    expect(find_surround(image) is None, "noise was taken for surround")
    leveled = LevelSurroundd("image")({"image": MetaTensor(image, meta={"filename_or_obj": "head.nii.gz"})})["image"]
    expect_equal(leveled.as_tensor().numpy(), image.numpy())


_ROWS = np.random.default_rng(2).integers(0, 250, (40, 30)).astype(np.uint8)


def _tiff(folder: Path, pixels: npt.NDArray[Any], right: npt.NDArray[Any], dims: int = 2, **options: Any) -> None:
    path = folder / ("a.ome.tif" if options.get("ome") else "a.tif")
    tifffile.imwrite(path, pixels, **options)
    expect_equal(read(path, spatial_dims=dims)[0], right)


_PAGES = np.stack([_ROWS, _ROWS + 1, _ROWS + 2])
_NAMED = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "actin"]}}
_GREY: dict[str, Any] = {"photometric": "minisblack"}
_STACK: dict[str, Any] = {"pixels": _PAGES, **_GREY}
_DEEP: dict[str, Any] = {"ome": True, "metadata": {"axes": "ZYX"}}
_TIFFS: list[tuple[str, str, str, dict[str, Any]]] = [
    (
        "OME-TIFF: three channels as pages",
        REFUSED,
        r"3 channels \(DAPI, GFP, actin\)",
        {**_STACK, "ome": True, "metadata": _NAMED},
    ),
    ("OME-TIFF: depth", READ, "", {**_STACK, **_DEEP, "dims": 3}),
    (
        "OME-TIFF: depth and channels",
        REFUSED,
        "channels",
        {"pixels": np.stack([_PAGES] * 2), "ome": True, "metadata": {"axes": "CZYX"}, "dims": 3, **_GREY},
    ),
    ("ImageJ: channels", REFUSED, "3 channels", {**_STACK, "imagej": True, "metadata": {"axes": "CYX"}}),
    ("ImageJ: depth", READ, "", {**_STACK, "imagej": True, "metadata": {"axes": "ZYX"}, "dims": 3}),
    (
        "ImageJ: points in time, taken for slices",
        READ,
        "they lie along time",
        {**_STACK, "imagej": True, "metadata": {"axes": "TYX"}, "dims": 3},
    ),
    (
        "pages of an axis that the file does not name",
        READ,
        "along an unnamed axis",
        {**_STACK, "metadata": None, "dims": 3},
    ),
    ("a volume for a network in 2D", REFUSED, "two axes, got", {**_STACK, **_DEEP}),
    ("colours: their mean", READ, "", {"pixels": np.stack([_ROWS] * 3, -1), "photometric": "rgb"}),
    (
        "white is zero: turned, so that values grow with brightness",
        READ,
        "",
        {"pixels": 255 - _ROWS, "photometric": "miniswhite"},
    ),
    (
        "two channels of unknown meaning beside each other",
        REFUSED,
        "2 channels",
        {"pixels": np.stack([_ROWS] * 2, -1), "planarconfig": "contig", **_GREY},
    ),
]
for _title, _outcome, _says, _options in _TIFFS:
    _right = _ROWS.T if _options.get("dims", 2) == 2 else _PAGES.T
    KIND.add(_title, functools.partial(_tiff, right=_right, **_options), _outcome, _says)


@KIND.situation("TIFF: pages of several sizes", REFUSED, "must have the same size and kind")
def _mixed_pages(folder: Path) -> None:
    with tifffile.TiffWriter(folder / "a.tif") as file:
        for rows in (_ROWS, _ROWS[:20]):
            file.write(rows, metadata=None)
    read(folder / "a.tif", spatial_dims=3)


@KIND.situation("TIFF: cut off", REFUSED, "damaged or cut off")
def _cut(folder: Path) -> None:
    tifffile.imwrite(folder / "a.tif", _ROWS)
    (folder / "a.tif").write_bytes((folder / "a.tif").read_bytes()[:-300])
    read(folder / "a.tif", spatial_dims=2)


@KIND.situation("PNG: 16 bits, palette, grey with transparency")
def _pngs(folder: Path) -> None:
    Image.fromarray(_ROWS.astype(np.uint16) * 200).save(folder / "a.png")
    expect_equal(read(folder / "a.png", spatial_dims=2)[0], _ROWS.T.astype(int) * 200)
    palette = Image.fromarray(_ROWS // 9)
    palette.putpalette([value for grey in range(28) for value in [9 * grey] * 3])
    palette.save(folder / "b.png")
    expect_equal(read(folder / "b.png", spatial_dims=2)[0], (_ROWS.T // 9) * 9.0)
    expect_equal(read(folder / "b.png", spatial_dims=2, labels=True)[0], _ROWS.T // 9)
    Image.fromarray(np.stack([_ROWS, 255 - _ROWS], -1), "LA").save(folder / "c.png")
    expect_equal(read(folder / "c.png", spatial_dims=2)[0], _ROWS.T)


@KIND.situation("PNG called `.tif`, and TIFF called `.png`: read by their content")
def _wrong_suffix(folder: Path) -> None:
    Image.fromarray(_ROWS).save(folder / "a.tif", format="PNG")
    tifffile.imwrite(folder / "b.png", _ROWS)
    for name in ("a.tif", "b.png"):
        expect_equal(read(folder / name, spatial_dims=2)[0], _ROWS.T)


@KIND.situation("a bit flipped in a PNG", REFUSED, "damaged")
def _flipped(folder: Path) -> None:
    Image.fromarray(_ROWS).save(folder / "a.png")
    content = bytearray((folder / "a.png").read_bytes())
    content[len(content) // 2] ^= 8
    (folder / "a.png").write_bytes(content)
    read(folder / "a.png", spatial_dims=2)


def _result(path: Path) -> Path:
    """Where the segmentation of a picture is written: its pixels above 100."""
    voxels, affine = read(path, spatial_dims=2)
    meta = {"filename_or_obj": str(path), "original_affine": affine}
    pred = MetaTensor(torch.from_numpy((voxels > 100)[None].astype(np.float32)), affine=torch.eye(4), meta=meta)
    done = SegmentationSaveImaged("pred", output_dir=path.parent / "out")({"pred": pred})
    return Path(done["pred"].meta["saved_to"])


@KIND.situation("a picture that its camera says is turned: the result is turned as well, and has its resolution")
def _turned(folder: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for name in ("a.png", "b.tif"):
        Image.fromarray(_ROWS).save(folder / name, exif=exif, dpi=(25400, 12700))
        with Image.open(_result(folder / name)) as result:
            expect(result.getexif()[ExifTags.Base.Orientation] == 6, "the result is not turned")
            expect(np.allclose(result.info["dpi"], (25400, 12700), rtol=1e-3), "the result has another resolution")
        expect_equal(read(_result(folder / name), spatial_dims=2)[0], _ROWS.T > 100)


@KIND.situation("pixel sizes and units of OME: kept in the result")
def _ome_sizes(folder: Path) -> None:
    sizes = {"PhysicalSizeX": 0.325, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(folder / "a.ome.tif", _ROWS, ome=True, metadata={"axes": "YX", **sizes}, **_GREY)
    with tifffile.TiffFile(_result(folder / "a.ome.tif")) as result:
        found = tifffile.xml2dict(result.ome_metadata)["OME"]["Image"]["Pixels"]
    expect({key: found.get(key) for key in sizes} == sizes, f"{found}")
