"""Results are known by what they carry, and say of which image they are."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from monai.data import MetaTensor
from monai.transforms import LoadImage
from PIL import Image, PngImagePlugin

from monai_unetpp.data import ImageFileError, SegmentationSaveImaged, VolumeReader, find_cases, write_volume
from monai_unetpp.data.formats.pictures import write_picture
from monai_unetpp.data.formats.result_marks import identify_image, is_as_marked, is_result, read_identity
from monai_unetpp.files import write_figure

SHAPE = (4, 5, 6)


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.random.default_rng(seed).integers(0, 99, SHAPE).astype(np.int16), np.eye(4)), path)
    return path


def result(path: Path, source: Path) -> Path:
    write_volume(path, np.ones(SHAPE, np.uint8), source, np.eye(4))
    return path


def names(cases: list[dict]) -> list[str]:
    return [case["case"] for case in cases]


def save(source: Path, folder: Path, **options: object) -> Path:
    dims = 2 if source.suffix in (".png", ".tif") else 3
    loaded = LoadImage(VolumeReader(dims), ensure_channel_first=True)(source)
    labels = MetaTensor(torch.ones_like(loaded)).copy_meta_from(loaded)
    done = SegmentationSaveImaged("pred", output_dir=folder, **options)({"pred": labels})
    return Path(done["pred"].meta["saved_to"])


def test_a_result_is_known_by_its_mark_and_an_image_may_have_any_name(tmp_path: Path) -> None:
    first = image(tmp_path / "x.nii.gz")
    image(tmp_path / "x_seg.nii.gz", 1)
    result(tmp_path / "anything.nii", first)
    assert names(find_cases(tmp_path)) == ["x", "x_seg"]
    assert names(find_cases(sorted(tmp_path.iterdir()))) == ["x", "x_seg"]


def test_marks_of_earlier_versions_count(tmp_path: Path) -> None:
    image(tmp_path / "x.nii.gz")
    old = nib.load(result(tmp_path / "old.nii.gz", tmp_path / "x.nii.gz"))
    old.header["descrip"] = b"written by monai-unetpp"
    nib.save(old, tmp_path / "old.nii.gz")
    Image.fromarray(np.ones((3, 3), np.uint8)).save(tmp_path / "y.png")
    note = PngImagePlugin.PngInfo()
    note.add_text("Software", "monai-unetpp")
    Image.fromarray(np.ones((3, 3), np.uint8)).save(tmp_path / "old.png", pnginfo=note)
    assert names(find_cases(tmp_path, pictures=True)) == ["x", "y"]
    assert read_identity(tmp_path / "old.nii.gz") is None


@pytest.mark.parametrize("header", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_versions_of_nifti_and_pairs_carry_the_mark(tmp_path: Path, header: type) -> None:
    voxels = np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16)
    nib.save(header(voxels, np.eye(4)), tmp_path / "x.nii.gz")
    written = nib.load(result(tmp_path / "r.nii.gz", tmp_path / "x.nii.gz"))
    assert isinstance(written, header)
    assert len(bytes(written.header["descrip"].item())) < 80
    assert read_identity(tmp_path / "r.nii.gz") == identify_image(tmp_path / "x.nii.gz")
    pair = nib.Nifti1Pair(np.ones(SHAPE, np.uint8), np.eye(4))
    pair.header["descrip"] = written.header["descrip"]
    nib.save(pair, tmp_path / "pair.hdr")
    assert is_result(tmp_path / "pair.hdr")
    assert is_result(tmp_path / "pair.img")
    assert names(find_cases(tmp_path)) == ["x"]


@pytest.mark.parametrize("text", [b"written by monai-unetpp2", b"not written by monai-unetpp", b""])
def test_other_descriptions_are_no_marks(tmp_path: Path, text: bytes) -> None:
    volume = nib.load(image(tmp_path / "x.nii"))
    volume.header["descrip"] = text
    nib.save(volume, tmp_path / "y.nii")
    assert names(find_cases(tmp_path)) == ["x", "y"]


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"\x1f\x8b\x08garbage", b"x" * 600, b"\x1c\x02\0\0"])
def test_damaged_files_are_no_results_but_cases(tmp_path: Path, content: bytes) -> None:
    for name in ("a.nii.gz", "b.nii", "c.png", "d.tif"):
        (tmp_path / name).write_bytes(content)
    assert names(find_cases(tmp_path, pictures=True)) == list("abcd")


def test_figures_and_label_pictures_are_no_cases(tmp_path: Path) -> None:
    Image.fromarray(np.eye(5, dtype=np.uint8)).save(tmp_path / "cells.png")
    write_figure(tmp_path / "accuracy.png", Figure(figsize=(1, 1)), dpi=20, metadata={"Title": "accuracy"})
    write_picture(tmp_path / "a.tif", np.ones((5, 5), np.uint8))
    assert names(find_cases(tmp_path, pictures=True)) == ["cells"]
    assert Image.open(tmp_path / "accuracy.png").info["Title"] == "accuracy"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_results_are_known_whatever_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    write_picture(tmp_path / f"a{suffix}", np.ones((5, 5), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)  # Pillow refuses to open twice as many
    assert is_result(tmp_path / f"a{suffix}")


def test_nothing_but_results(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = image(tmp_path / "x.nii.gz")
    one = result(tmp_path / "out" / "x_seg.nii.gz", first)
    with pytest.raises(ImageFileError, match=r"x_seg\.nii\.gz: a result of monai-unetpp, not an image\. Name the im"):
        find_cases(one)
    with pytest.raises(ImageFileError, match=r"out: holds nothing but results of monai-unetpp\. Name the folder of"):
        find_cases(tmp_path / "out")
    assert "failure" in find_cases(one, strict=False)[0]
    assert names(find_cases([first, one, tmp_path / "out"])) == ["x"]
    assert "2 results of monai-unetpp among the inputs, such as" in caplog.text


def test_a_result_beside_slices_does_not_hide_the_series(tmp_path: Path, write_series: Callable[..., Path]) -> None:
    voxels = np.ones((4, 5, 3), np.int16)
    scan = write_series(tmp_path / "scan", voxels)
    write_series(scan / "t2", voxels, uid="1.2.9")
    write_volume(scan / "scan_seg.nii.gz", np.ones((4, 5, 3), np.uint8), scan, np.eye(4))
    os.symlink(scan, scan / "again")
    assert [case["image"] for case in find_cases(scan)] == [str(scan), str(scan / "t2")]
    image(scan / "x.nii.gz")
    assert names(find_cases(scan)) == ["x", "scan", "t2"]


def test_the_result_of_another_image_is_kept(tmp_path: Path) -> None:
    first, second = image(tmp_path / "s1/T1.nii.gz", 1), image(tmp_path / "s2/T1.nii.gz", 2)
    written = save(first, tmp_path / "out")
    before = written.read_bytes()
    with pytest.raises(FileExistsError, match=r"s2/T1\.nii\.gz: its result .*out/T1_seg.*another image.*--overwrite"):
        save(second, tmp_path / "out")
    assert written.read_bytes() == before
    save(second, tmp_path / "out", overwrite=True)
    assert read_identity(written) == identify_image(second)


def test_the_result_of_the_same_image_is_replaced_where_it_moved_or_changed(tmp_path: Path) -> None:
    first = image(tmp_path / "s1/T1.nii.gz", 1)
    written = save(first, tmp_path / "out")
    image(first, 2)
    save(first, tmp_path / "out")
    (tmp_path / "s2").mkdir()
    moved = Path(shutil.move(first, tmp_path / "s2/T1.nii.gz"))
    save(moved, tmp_path / "out")
    assert read_identity(written) == identify_image(moved)


def test_a_result_that_does_not_say_of_what_is_kept(tmp_path: Path) -> None:
    first = image(tmp_path / "T1.nii.gz")
    written = save(first, tmp_path / "out")
    old = nib.load(written)
    old.header["descrip"] = b"written by monai-unetpp"
    nib.save(old, written)
    with pytest.raises(FileExistsError, match="which does not name its image"):
        save(first, tmp_path / "out")
    save(first, tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pictures_say_of_which_image_they_are(tmp_path: Path, suffix: str) -> None:
    for seed, folder in enumerate(("s1", "s2")):
        (tmp_path / folder).mkdir()
        pixels = np.random.default_rng(seed).integers(0, 99, (4, 5)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / f"a{suffix}")
    save(tmp_path / f"s1/a{suffix}", tmp_path / "out")
    with pytest.raises(FileExistsError, match="is of another image"):
        save(tmp_path / f"s2/a{suffix}", tmp_path / "out")
    save(tmp_path / f"s1/a{suffix}", tmp_path / "out")
    Image.fromarray(pixels).save(tmp_path / "out" / f"b_seg{suffix}")
    shutil.copy(tmp_path / f"s1/a{suffix}", tmp_path / f"b{suffix}")
    with pytest.raises(FileExistsError, match="was not written by monai-unetpp"):
        save(tmp_path / f"b{suffix}", tmp_path / "out", overwrite=True)


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    first = image(tmp_path / "x.nii.gz")
    foreign = tmp_path / "x_seg.nii.gz"
    for make in (image, Path.mkdir, lambda path: os.symlink("nowhere", path), os.mkfifo):
        make(foreign)
        with pytest.raises(FileExistsError, match="was not written by monai-unetpp"):
            save(first, tmp_path, overwrite=True)
        foreign.rmdir() if foreign.is_dir() else foreign.unlink()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of results, by the suffix of their files."""
    folder = tmp_path_factory.mktemp("written")
    for suffix in (".nii", ".nii.gz"):
        write_volume(folder / f"a{suffix}", np.ones(SHAPE, np.uint8), "none.mha", np.eye(4))
    for suffix in (".png", ".tif"):
        write_picture(folder / f"a{suffix}", np.ones((4, 5), np.uint8))
    return {path.name[1:]: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([".nii", ".nii.gz", ".png", ".tif"]),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=6),
    st.integers(0, 600),
)
def test_no_damage_to_a_file_costs_the_others(
    written: dict[str, bytes], suffix: str, changes: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(written[suffix])
    for place, value in changes:
        content[place % len(content)] = value
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = Path(name)
        (folder / f"a{suffix}").write_bytes(content if length > 500 else content[:length])
        (folder / "good.nii").write_bytes(b"x")
        found = names(find_cases(folder, pictures=True))
        assert found in (["good"], ["a", "good"])
        read_identity(folder / f"a{suffix}")


class TestContent:
    """What counts as the content of an image."""

    def test_voxels_beside_a_header(self, tmp_path: Path) -> None:
        for seed, folder in enumerate(("a", "b")):
            voxels = np.random.default_rng(seed).integers(0, 99, SHAPE).astype(np.int16)
            (tmp_path / folder).mkdir()
            nib.save(nib.Nifti1Pair(voxels, np.eye(4)), tmp_path / folder / "x.hdr")
            for suffix in (".mhd", ".nhdr"):
                SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(tmp_path / folder / f"y{suffix}"))
        shutil.copytree(tmp_path / "a", tmp_path / "c")
        for name in ("x.hdr", "x.img", "y.mhd", "y.nhdr"):
            one, other, copy = (identify_image(tmp_path / folder / name) for folder in "abc")
            assert one.content is not None
            assert not one.is_same(other)
            assert one.is_same(copy)

    def test_voxels_that_cannot_be_found_are_not_guessed(self, tmp_path: Path) -> None:
        (tmp_path / "x.mhd").write_text("ElementDataFile = slice%03d.raw 1 9 1\n")
        assert identify_image(tmp_path / "x.mhd").content is None
        assert identify_image(tmp_path / "gone.nii").content is None

    def test_the_last_of_many_voxel_files_beside_a_header(self, tmp_path: Path) -> None:
        listed = [f"{'slice' * 30}_{number:04d}.raw" for number in range(600)]
        (tmp_path / "x.nhdr").write_text("NRRD0004\ndata file: LIST 2\n" + "\n".join(listed))
        for name in listed:
            (tmp_path / name).write_bytes(b"0")
        before = identify_image(tmp_path / "x.nhdr")
        (tmp_path / listed[-1]).write_bytes(b"1")
        assert identify_image(tmp_path / "x.nhdr").content != before.content

    def test_slices_whatever_their_names(self, tmp_path: Path, write_series: Callable[..., Path]) -> None:
        voxels = np.random.default_rng(0).integers(0, 99, (4, 5, 3)).astype(np.int16)
        series = write_series(tmp_path / "a", voxels)
        shutil.copytree(series, tmp_path / "b")
        for number, path in enumerate(sorted((tmp_path / "b").iterdir(), reverse=True)):
            path.rename(path.with_name(f"{number}.ima"))
        assert identify_image(series).is_same(identify_image(tmp_path / "b"))
        next((tmp_path / "b").iterdir()).unlink()
        assert not identify_image(series).is_same(identify_image(tmp_path / "b"))

    def test_paths_however_they_are_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = image(tmp_path / "\u00e9.nii")
        monkeypatch.chdir(tmp_path)
        assert identify_image("./\u00e9.nii") == identify_image(path)
        assert identify_image(tmp_path / "e\u0301.nii").path == identify_image(path).path


@pytest.mark.parametrize(("offset", "value"), [(70, b"\xe7\x03"), (40, b"\x09\x00"), (42, b"\xfb\xff"), (344, b"abcd")])
def test_a_damaged_result_counts_as_changed(tmp_path: Path, offset: int, value: bytes) -> None:
    """Type, number of axes, length and magic bytes in a header whose mark is intact."""
    path = result(tmp_path / "a_seg.nii", image(tmp_path / "a.nii"))
    assert is_as_marked(path)
    content = bytearray(path.read_bytes())
    content[offset : offset + len(value)] = value
    path.write_bytes(content)
    assert is_as_marked(path) is False
