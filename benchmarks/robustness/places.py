"""Where voxels lie: oblique scans, orders of axes, headers of three formats that lie or say nothing, thin volumes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from scipy.spatial.transform import Rotation

from benchmarks.robustness.inputs import LABELS, STRAIGHT, VOXELS, labels_of, read, refuse_if_failed, save, segmented
from benchmarks.robustness.situations import READ, REFUSED, TOLD, Kind, expect, expect_equal

KIND = Kind("Places")

_TURN = Rotation.from_euler("xyz", [14, -9, 21], degrees=True).as_matrix()
_OBLIQUE = STRAIGHT.copy()
_OBLIQUE[:3, :3] = _TURN @ STRAIGHT[:3, :3]


def _keeps_labels(folder: Path, affine: np.ndarray[Any, Any], codes: tuple[int, int] = (1, 0)) -> None:
    """Resampling by a factor of two keeps every voxel's centre, so the labels must be exactly the known ones."""
    image = save(folder / "x.nii.gz", affine=affine, codes=codes)
    summary = segmented(image, folder / "out")
    expect_equal(labels_of(summary), LABELS)
    files: list[Any] = [nibabel.load(path) for path in (image, summary.cases[0].output)]
    source, result = files
    expect(np.array_equal(source.affine, result.affine), "the result lies elsewhere than its image")
    same = all(source.header[f"{form}_code"] == result.header[f"{form}_code"] for form in ("sform", "qform"))
    expect(same, "sform or qform have other codes in the result")


KIND.add("straight, voxels of 1 x 1 x 2 mm (resampled to 1 mm and back)", lambda f: _keeps_labels(f, STRAIGHT))
KIND.add("oblique by three angles, sform in float32", lambda f: _keeps_labels(f, _OBLIQUE))
KIND.add("oblique, qform only (quaternion in float32)", lambda f: _keeps_labels(f, _OBLIQUE, (0, 1)))
KIND.add("oblique, sform and qform", lambda f: _keeps_labels(f, _OBLIQUE, (2, 1)))
KIND.add("left-handed axes (radiological order)", lambda f: _keeps_labels(f, np.diag([-1.0, 1, 1, 1]) @ _OBLIQUE))


@KIND.situation("12 random obliquities with corners 2 m from the origin")
def _random_obliquities(folder: Path) -> None:
    for seed in range(12):
        affine = STRAIGHT.copy()
        affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() @ STRAIGHT[:3, :3]
        affine[:3, 3] = np.random.default_rng(seed).uniform(-2000, 2000, 3)
        _keeps_labels(folder / str(seed), affine)


@KIND.situation("all 48 orders and directions of the axes, oblique: the same labels at the same places")
def _orders(folder: Path) -> None:
    turned = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
    paths = []
    for number, (order, signs) in enumerate(turned):
        image = nibabel.Nifti1Image(VOXELS, _OBLIQUE).as_reoriented(_orientation(order, signs))
        paths.append(save(folder / f"{number:02d}.nii.gz", np.asarray(image.dataobj), image.affine))
    summary = segmented(paths, folder / "out")
    for number, (order, signs) in enumerate(turned):
        right = nibabel.Nifti1Image(LABELS, _OBLIQUE).as_reoriented(_orientation(order, signs))
        expect_equal(labels_of(summary, number), right.dataobj, f"voxels of the order {order}, {signs}")


def _orientation(order: Sequence[int], signs: Sequence[int]) -> np.ndarray[Any, Any]:
    return np.array(list(zip(order, signs, strict=True)), dtype=float)


@KIND.situation("oblique, read as SimpleITK places it")
def _as_simpleitk(folder: Path) -> None:
    path = save(folder / "x.nii.gz", affine=_OBLIQUE)
    image = SimpleITK.ReadImage(str(path))
    _, affine = read(path)
    for index in ((0, 0, 0), (19, 0, 3), (7, 23, 17)):
        lps = np.array(image.TransformContinuousIndexToPhysicalPoint(index))
        expect_equal((affine @ [*index, 1])[:3], lps * [-1, -1, 1], "coordinates")


@KIND.situation(
    "axes at 84 degrees to each other (sheared): labels within a quarter of a voxel",
    TOLD,
    "its axes are up to 6 degrees off right angles",
)
def _shear(folder: Path) -> None:
    affine = STRAIGHT.copy()
    affine[:3, 1] = np.sin(np.radians(6)), np.cos(np.radians(6)), 0
    found = labels_of(segmented(save(folder / "x.nii.gz", affine=affine), folder / "out"))
    # the network's grid is at right angles: its voxels lie up to half of one beside the image's, and so few rows do not
    # make up for it; and the blurred rim of the brighter box has values of the other one, and counts for nothing
    for boxes in ([found[:11] == 1, LABELS[:11] == 1], [found == 2, LABELS == 2]):
        shift = np.abs(np.argwhere(boxes[0]).mean(axis=0) - np.argwhere(boxes[1]).mean(axis=0)).max()
        expect(shift < 0.25, f"a box is shifted by {shift:.2f} voxels")
        dice = 2 * np.sum(boxes[0] & boxes[1]) / np.sum(boxes)
        expect(dice > 0.9, f"a box has a Dice of {dice:.3f}")


def _header(folder: Path, codes: tuple[int, int] = (1, 0), **fields: Any) -> None:
    """A header with such fields, which must still mean the known affine, where it is read at all."""
    voxels, affine = read(save(folder / "x.nii", codes=codes, **fields))
    expect_equal(voxels, VOXELS)
    expect_equal(affine, STRAIGHT, "numbers of the affine")


_NIFTI: list[tuple[str, str, str, dict[str, Any]]] = [
    ("voxel size 0 in the qform", REFUSED, "the impossible", {"codes": (0, 1), "pixdim": [1, 1, 1, 0, 0, 0, 0, 0]}),
    ("an sform of zeros", REFUSED, "its affine is singular", {"srow_x": 0, "srow_y": 0, "srow_z": 0}),
    ("NaN in the sform", REFUSED, "its affine is singular", {"srow_y": np.nan}),
    ("a quaternion that is no rotation", REFUSED, "its qform is not a rotation", {"codes": (0, 1), "quatern_b": 7}),
    ("voxels that begin inside of the header", REFUSED, "vox offset 16 too low", {"vox_offset": 16}),
    ("no voxels along one axis", REFUSED, "damaged|empty", {"dim": [3, 20, 0, 18, 1, 1, 1, 1]}),
    ("more voxels than the file holds", REFUSED, "cut off", {"dim": [3, 20, 2400, 18, 1, 1, 1, 1]}),
    ("an unknown type of numbers", REFUSED, "damaged", {"datatype": 999}),
    ("colours", REFUSED, "colours", {"datatype": 128, "bitpix": 24}),
    ("pixdim 0 beside a sound sform", TOLD, "the sform is used", {"pixdim": [1, 0, 0, 0, 0, 0, 0, 0]}),
    ("a code that the standard does not know", TOLD, "its sform_code 9 is not", {"sform_code": 9}),
    ("qform elsewhere than the sform", TOLD, "disagree", {"codes": (1, 1), "qoffset_x": 80}),
    ("lengths in micrometres", TOLD, "lengths in micron", {"xyzt_units": 3}),
    ("NaN in numbers that are not used", READ, "", {"quatern_b": np.nan, "cal_max": np.nan}),
]
for _title, _outcome, _says, _fields in _NIFTI:
    KIND.add(f"NIfTI: {_title}", functools.partial(_header, **_fields), _outcome, _says)


@KIND.situation("NIfTI: neither sform nor qform", TOLD, "its orientation is unknown")
def _no_forms(folder: Path) -> None:
    voxels, _ = read(save(folder / "x.nii.gz", codes=(0, 0)))
    expect_equal(voxels, VOXELS)


@KIND.situation("voxels of 0.001 mm, as in a header in metres: refused before they are resampled", REFUSED, "mm")
def _tiny_voxels(folder: Path) -> None:
    refuse_if_failed(segmented(save(folder / "x.nii.gz", affine=np.diag([1e-3, 1e-3, 1e-3, 1])), folder / "out"))


@KIND.situation("voxels of 1000 mm, as in a header in micrometres", REFUSED, "1000|mm")
def _huge_voxels(folder: Path) -> None:
    refuse_if_failed(segmented(save(folder / "x.nii.gz", affine=np.diag([1e3, 1e3, 1e3, 1])), folder / "out"))


_NRRD = "NRRD0004\ntype: int16\ndimension: 3\nsizes: 20 24 18\nencoding: raw\nendian: little\n{}\n"
_META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n{}DimSize = 20 24 18\n"
    "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
)
_DIRECTIONS = "space directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (9,-12,30)\n"
_PLACE = "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 9 -12 30\n"
_LPS = np.diag([-1.0, -1, 1, 1]) @ np.array([[1, 0, 0, 9], [0, 1, 0, -12], [0, 0, 2, 30], [0, 0, 0, 1.0]])
_ORIGIN_LESS = np.diag([-1.0, -1, 2, 1])
_TEXT: list[tuple[str, str, str, str, np.ndarray[Any, Any] | None]] = [
    ("NRRD: in LPS", "space: LPS\n" + _DIRECTIONS, READ, "", _LPS),
    ("NRRD: in RAS", "space: right-anterior-superior\n" + _DIRECTIONS, READ, "", np.diag([-1, -1, 1, 1]) @ _LPS),
    ("NRRD: without a space", "spacings: 1 1 2\n", TOLD, "its orientation is unknown", _ORIGIN_LESS),
    ("NRRD: in a space that says nothing", "space: scanner-xyz\n" + _DIRECTIONS, TOLD, "'scanner-xyz'", None),
    ("NRRD: voxel size 0", "spacings: 1 0 2\n", REFUSED, "the impossible", None),
    (
        "NRRD: two axes in one direction",
        "space: LPS\nspace directions: (1,0,0) (2,0,0) (0,0,1)\n",
        REFUSED,
        "singular",
        None,
    ),
    (
        "NRRD: fewer voxels than its header says",
        "space: LPS\nsizes: 20 24 99\n" + _DIRECTIONS,
        REFUSED,
        "damaged",
        None,
    ),
    ("MHA: with its place", _PLACE + "ElementSpacing = 1 1 2\n", READ, "", _LPS),
    ("MHA: without a matrix", "ElementSpacing = 1 1 2\n", TOLD, "its orientation is unknown", _ORIGIN_LESS),
    ("MHA: without a voxel size", _PLACE, TOLD, "1 mm is assumed", None),
    ("MHA: a negative voxel size", _PLACE + "ElementSpacing = 1 -1 2\n", REFUSED, "the impossible", None),
    ("MHA: -1 axes, over which ITK would crash", "NDims = -1\n", REFUSED, "the impossible", None),
    ("MHA: lengths in micrometres", _PLACE + "DistanceUnits = um\nElementSpacing = 1 1 2\n", TOLD, "in um", _LPS),
]


def _text_header(folder: Path, form: str, fields: str, affine: np.ndarray[Any, Any] | None) -> None:
    path = folder / f"x.{form.lower()}"
    header = (_NRRD if form == "NRRD" else _META).format(fields)
    path.write_bytes(header.encode() + VOXELS.T.astype("<i2").tobytes())
    voxels, found = read(path)
    expect_equal(voxels, VOXELS)
    if affine is not None:
        expect_equal(found, affine, "numbers of the affine")


for _title, _text, _outcome, _says, _affine in _TEXT:
    _form = _title.partition(":")[0]
    KIND.add(_title, functools.partial(_text_header, form=_form, fields=_text, affine=_affine), _outcome, _says)


@KIND.situation("a slice whose short axis is the first, the second or the third, for a network in 2D")
def _slices(folder: Path) -> None:
    for axis in range(3):
        part = np.take(VOXELS, [9], axis=axis)
        voxels, _ = read(save(folder / f"{axis}.nii.gz", part), spatial_dims=2)
        expect_equal(voxels, part.squeeze(axis))


@KIND.situation("a volume of one slice, whatever its axis, for a network in 3D: segmented as it is")
def _thin(folder: Path) -> None:
    for axis in range(3):
        place = [slice(None)] * 3
        place[axis] = slice(6, 7)
        image = save(folder / f"{axis}.nii.gz", VOXELS[tuple(place)], np.eye(4))
        summary = segmented(image, folder / "out")
        expect_equal(labels_of(summary), LABELS[tuple(place)])


@KIND.situation("a file of shape (1, X, Y, Z), as from a library with channels first", REFUSED, r"shape \(20, 24, 18\)")
def _channel_first(folder: Path) -> None:
    read(save(folder / "x.nii.gz", VOXELS[None]))


@KIND.situation("a series over time (X, Y, Z, T)", REFUSED, "time points")
def _over_time(folder: Path) -> None:
    read(save(folder / "x.nii.gz", np.stack([VOXELS] * 3, axis=-1)))


@KIND.situation("voxels that are NaN", REFUSED, "NaN or infinite")
def _nan(folder: Path) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[3, 4, 5] = np.nan
    read(save(folder / "x.nii.gz", voxels))


@KIND.situation("an image of one value", REFUSED, "all voxels have the value")
def _constant(folder: Path) -> None:
    read(save(folder / "x.nii.gz", np.full_like(VOXELS, 7)))
