"""What headers say about places: read right, told, or refused, in one line that names the file."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_unetpp.data import ImageFileError, VolumeReader, read_geometry, write_volume

AFFINE = np.array([[0.0, -1.5, 0.0, 10.0], [1.0, 0.0, 0.0, -20.0], [0.0, 0.0, 2.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


def load(path: object, **options: object) -> tuple[np.ndarray, dict]:
    reader = VolumeReader(**options)
    return reader.get_data(reader.read(path))


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
        r"puts the voxels at byte 0, inside the header itself\. Set vox",
    ),
    "voxels at byte 100": ({"vox_offset": 100}, r"not a NIfTI image, or damaged \(vox offset 100 too low"),
    "voxels nowhere": ({"vox_offset": np.nan}, r"not a NIfTI image, or damaged"),
    "voxels behind the end": ({"vox_offset": 1e6}, r"damaged or cut off"),
    "pixdim 0": (
        {**NO_FORM, "pixdim": [1, 0, 1, 1, 0, 0, 0, 0]},
        r"impossible voxel size 0 x 1 x 1 mm\. Correct the",
    ),
    "pixdim below 0": ({**NO_FORM, "pixdim": [1, 2, -1, 1, 0, 0, 0, 0]}, r"impossible voxel size 2 x -1 x 1 mm"),
    "pixdim nan": ({**NO_FORM, "pixdim": [1, 2, np.nan, 1, 0, 0, 0, 0]}, r"impossible voxel size 2 x nan x 1 mm"),
    "qform and pixdim 0": (
        {"sform_code": 0, "qform_code": 1, "pixdim": [1, 1, 1, 0, 0, 0, 0, 0]},
        r"impossible voxel size 1 x 1 x 0 mm",
    ),
    "qform of a known code without rotation": (
        {"sform_code": 0, "qform_code": 1, "quatern_b": 2},
        r"its qform is not a rotation",
    ),
    "qform without rotation": (
        {"sform_code": 0, "qform_code": 9, "quatern_b": 2},
        r"its qform is not a rotation",
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
        "its sform_code 7 is not in the standard; the sform is",
    ),
    "sform code below 0": ({"sform_code": -3, "qform_code": 1}, "its sform_code -3 is not .* the sform is not used"),
    "qform of another code": ({"sform_code": 0, "qform_code": 300}, "its qform_code 300 is not .* the qform is used"),
    "pixdim 0": (
        {"pixdim": [1, 0, 0, 0, 0, 0, 0, 0]},
        "its pixdim gives the voxel size 0 x 0 x 0 mm, its sform 1",
    ),
    "pixdim nan": ({"pixdim": [1, np.nan, 1, 1, 0, 0, 0, 0]}, "its pixdim gives the voxel size nan x 1 x 1 mm, its sf"),
    "pixdim below 0": ({"pixdim": [1, -1, 1.5, 2, 0, 0, 0, 0]}, "its pixdim gives the voxel size -1 x 1.5 x 2 mm"),
    "qform elsewhere": (
        {"qform_code": 1, "qoffset_x": 50},
        "sform and qform disagree: by the qform its",
    ),
    "qform of nan": ({"qform_code": 1, "quatern_b": np.nan}, "its qform is not a rotation; the sform is used"),
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
    assert [record.name for record in caplog.records] == ["monai_unetpp.data.formats.grid"]  # no orientation


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


@pytest.mark.slow
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
        ("a.mha", "ElementSpacing = 1 1.5 2\n", LPS, "has no TransformMatrix, so its orientation is unknown"),
        ("a.mha", MATRIX, np.diag([-1.0, -1, 1, 1]), "its header gives no voxel size; 1 mm is assumed"),
        ("a.mha", "DistanceUnits = um\nElementSpacing = 1 1.5 2\n" + MATRIX, LPS, "in um"),
        ("a.mha", "ElementSpacing = 1 1.5 2\nTransformMatrix = 1 0 0 0.6 0.8 0 0 0 1\n", None, "off right angles"),
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
        ("a.nrrd", "spacings: 0 1 1\n", "impossible voxel size 0 x 1 x 1 mm"),
        ("a.nrrd", "spacings: -1 1 1\n", "impossible voxel size -1 x 1 x 1 mm"),
        ("a.nrrd", "space: RAS\nspace directions: (0,0,0) (0,1,0) (0,0,1)\n", "its affine is singular"),
        ("a.nrrd", "space: RAS\nspace directions: (1,0,0) (2,0,0) (0,0,1)\n", "its affine is singular"),
        ("a.mha", "ElementSpacing = 0 1 1\n", "impossible voxel size 0 x 1 x 1 mm"),
        ("a.mha", "ElementSpacing = 1 -1 1\n", "impossible voxel size 1 x -1 x 1 mm"),
        ("a.mha", "ElementSpacing = nan 1 1\n", "impossible voxel size nan x 1 x 1 mm"),
        ("a.mha", "TransformMatrix = 1 0 0 1 0 0 0 0 1\nElementSpacing = 1 1 1\n", "its affine is singular"),
    ],
)
def test_other_headers_that_cannot_be_are_refused(tmp_path: Path, name: str, fields: str, message: str) -> None:
    path = write_text(tmp_path / name, fields)
    for read in (load, read_geometry):
        with pytest.raises(ImageFileError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("count", ["-1", "0", "11", "99999999999", "3.5", "x", "", "\xb2"])
@pytest.mark.parametrize("lengths", ["", "DimSize = 5 6 7\n", "DimSize = 5 6 -7\n"])
def test_a_number_of_axes_that_would_end_the_process_is_refused(tmp_path: Path, count: str, lengths: str) -> None:
    path = tmp_path / "a.mha"
    text = f"ObjectType = Image\nNDims = {count}\n{lengths}ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    path.write_bytes(text.encode("latin-1") + bytes(420))
    for read in (load, read_geometry):
        with pytest.raises(ImageFileError, match=r"its header gives the impossible NDims .* and DimSize "):
            read(path)


NUMBERS = st.one_of(
    st.sampled_from(["0", "1", "-1", "2.5", "1e-7", "1e30", "nan", "inf", "none", "x", ""]),
    st.floats(allow_nan=False, width=32).map(str),
    st.integers(-3, 40).map(str),
)
VECTORS = st.lists(NUMBERS, min_size=1, max_size=4).map(lambda numbers: f"({','.join(numbers)})") | st.just("none")
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=15)
SPACES = st.sampled_from(
    ["RAS", "left-posterior-superior", "right-anterior-superior-time", "scanner-xyz", "3D-right-handed"]
)


def listed(values: st.SearchStrategy[str], least: int = 0) -> st.SearchStrategy[str]:
    return st.lists(values, min_size=least, max_size=4).map(" ".join)


NRRD_FIELDS = {
    "space": SPACES | WORDS,
    "space dimension": NUMBERS,
    "space directions": listed(VECTORS, 2),
    "space origin": VECTORS,
    "spacings": listed(NUMBERS),
    "space units": listed(st.sampled_from(['"mm"', '"um"', '""', "mm"])),
    "kinds": listed(st.sampled_from(["domain", "space", "vector", "RGB-color", "list", "none", "x"])),
    "sizes": listed(st.integers(-1, 40).map(str)),
    "dimension": NUMBERS,
    "type": st.sampled_from(["uchar", "int16", "float", "double", "block", "x"]),
    "encoding": st.sampled_from(["raw", "gzip", "ascii", "hex", "x"]),
    "endian": st.sampled_from(["little", "big", "x"]),
    "measurement frame": listed(VECTORS, 2),
    "data file": st.sampled_from(["a.nrrd", "nowhere.raw", "/dev/null", "LIST", ""]),
    "comment": WORDS,
}
META_FIELDS = {
    "NDims": st.integers(-1, 9).map(str) | WORDS,
    "DimSize": listed(st.integers(-1, 40).map(str)),
    "ElementSpacing": listed(NUMBERS),
    "ElementSize": listed(NUMBERS),
    "TransformMatrix": st.lists(NUMBERS, max_size=9).map(" ".join),
    "Offset": listed(NUMBERS),
    "ElementType": st.sampled_from(["MET_UCHAR", "MET_SHORT", "MET_FLOAT", "MET_DOUBLE", "MET_LONG_LONG", "x"]),
    "ElementNumberOfChannels": st.integers(-1, 4).map(str),
    "CompressedData": st.sampled_from(["True", "False", "x"]),
    "BinaryData": st.sampled_from(["True", "False", "x"]),
    "HeaderSize": st.integers(-2, 500).map(str),
    "DistanceUnits": st.sampled_from(["mm", "um", "?"]) | WORDS,
    "ElementDataFile": st.sampled_from(["LOCAL", "a.mha", "nowhere.raw", "/dev/null", "LIST", ""]),
    "Comment": WORDS,
}
SOUND = {
    "a.nrrd": (
        "NRRD0004\n",
        ": ",
        {"type": "int16", "dimension": "3", "space": "LPS", "sizes": "5 6 7", "encoding": "raw", "endian": "little"}
        | {"space directions": "(1,0,0) (0,1.5,0) (0,0,2)", "space origin": "(0,0,0)"},
        "\n",
    ),
    "a.mha": (
        "",
        " = ",
        {"ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False"}
        | {"TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0", "ElementSpacing": "1 1.5 2", "DimSize": "5 6 7"}
        | {"ElementType": "MET_SHORT", "ElementDataFile": "LOCAL"},
        "",
    ),
}


def some(fields: dict[str, st.SearchStrategy[str]]) -> st.SearchStrategy[dict[str, str | None]]:
    """Up to three fields with other values, or left out."""
    changes = st.sampled_from(sorted(fields)).flatmap(lambda name: st.tuples(st.just(name), st.none() | fields[name]))
    return st.lists(changes, max_size=3).map(dict)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    change=some(NRRD_FIELDS).map(lambda fields: ("a.nrrd", fields))
    | some(META_FIELDS).map(lambda fields: ("a.mha", fields)),
    cut=st.none() | st.integers(0, 420),
)
def test_any_text_header_is_read_or_refused_in_one_line(
    tmp_path: Path, change: tuple[str, dict[str, str | None]], cut: int | None
) -> None:
    name, changes = change
    first, mark, fields, end = SOUND[name]
    lines = [f"{key}{mark}{value}" for key, value in {**fields, **changes}.items() if value is not None]
    if name == "a.mha":  # the one field that must come last
        lines.sort(key=lambda line: line.startswith("ElementDataFile"))
    path = tmp_path / name
    header = first + "\n".join(lines) + "\n" + end
    path.write_bytes(header.encode("latin-1") + np.arange(210, dtype="<i2").tobytes()[:cut])
    with np.errstate(all="ignore"):
        message, affine = read_or_refuse(path)
    assert message is None or (message.startswith(f"{path}: ") and "\n" not in message)
    assert affine is None or np.isfinite(np.linalg.inv(affine)).all()
    assert changes or cut is not None or message is None


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_header_that_tells_of_more_than_the_file_can_hold_takes_no_memory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), path)
    opened = gzip.open if suffix.endswith(".gz") else open
    with opened(path, "rb") as file:
        content = bytearray(file.read())
    content[42:48] = np.array([30_000] * 3, "<i2").tobytes()
    with opened(path, "wb") as file:
        file.write(content)
    with pytest.raises(ImageFileError, match=rf"a{suffix}: damaged or cut off \(Expected 54000000000000 bytes, got"):
        load(path)
