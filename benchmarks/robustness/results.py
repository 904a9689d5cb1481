"""Which files are images, and which results belong to which: links, pipes, marks, names, and what killed runs left."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import time
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

from benchmarks.robustness.inputs import (
    LABELS,
    SPACING_MM,
    STRAIGHT,
    VOXELS,
    labels_of,
    names_of_images,
    read,
    refuse_if_failed,
    save,
    segmented,
)
from benchmarks.robustness.situations import REFUSED, Kind, expect, expect_equal
from monai_unetpp.data import find_cases
from monai_unetpp.data.formats.result_marks import is_result

KIND = Kind("Files and results")


def _others_are_done(folder: Path) -> None:
    """The one good scan of a folder is segmented, whatever is wrong with its neighbour, which is a refusal."""
    save(folder / "good.nii.gz")
    summary = segmented(folder, folder / "out")
    expect([done.case for done in summary.cases] == ["good"], f"segmented were {[done.case for done in summary.cases]}")
    expect(names_of_images(folder / "out") == ["good_seg.nii.gz"], f"there are {names_of_images(folder / 'out')}")
    expect_equal(labels_of(summary), LABELS)
    refuse_if_failed(summary)


@KIND.situation("a pipe (FIFO) called like an image beside a good scan, which is segmented", REFUSED, "a pipe")
def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "a.nii.gz")
    _others_are_done(folder)


@KIND.situation("a socket beside a good scan, which is segmented", REFUSED, "a socket")
def _socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("a.nii.gz")  # in the working directory, as paths of sockets must be short
        _others_are_done(folder)


@KIND.situation("a link to itself beside a good scan, which is segmented", REFUSED, "a circular link")
def _loop(folder: Path) -> None:
    os.symlink(folder / "a.nii.gz", folder / "a.nii.gz")
    _others_are_done(folder)


@KIND.situation("a link to a file that was not fetched (datalad) beside a good scan", REFUSED, "datalad get")
def _dangling(folder: Path) -> None:
    os.symlink(".git/annex/objects/x", folder / "a.nii.gz")
    _others_are_done(folder)


@KIND.situation("an empty file beside a good scan, which is segmented", REFUSED, "empty, it has 0 bytes")
def _empty(folder: Path) -> None:
    (folder / "a.nii.gz").touch()
    _others_are_done(folder)


@KIND.situation("a folder that links back to its parent beside a good scan, which is segmented")
def _folder_loop(folder: Path) -> None:
    os.symlink(folder, folder / "again")
    _others_are_done(folder)


@KIND.situation("two links to one file (datalad, git-annex): two cases")
def _two_links(folder: Path) -> None:
    key = save(folder / "key.nii.gz")
    links = [folder / "in" / f"sub-0{number}.nii.gz" for number in (1, 2)]
    links[0].parent.mkdir()
    for link in links:
        os.symlink(key, link)
    summary = segmented(folder / "in", folder / "out")
    expect([done.case for done in summary.cases] == ["sub-01", "sub-02"], "a case was left out")


@KIND.situation("one scan given as a path, as another spelling of it, and as its folder: one case")
def _given_thrice(folder: Path) -> None:
    image = save(folder / "in" / "x.nii.gz")
    cases = find_cases([image, folder / "in" / ".." / "in" / "x.nii.gz", folder / "in"])
    expect(len(cases) == 1, f"{len(cases)} cases")


@KIND.situation("the output folder is the input folder, twice: no segmentation is segmented")
def _in_place(folder: Path) -> None:
    save(folder / "x.nii.gz")
    for _ in range(2):
        expect_equal(labels_of(segmented(folder, folder)), LABELS)
        expect(names_of_images(folder) == ["x.nii.gz", "x_seg.nii.gz"], f"there are {names_of_images(folder)}")


@KIND.situation("the user's own scan called `x_seg.nii.gz`: an image, as it has no mark of a result")
def _named_like_a_result(folder: Path) -> None:
    summary = segmented(save(folder / "x_seg.nii.gz"), folder / "out")
    expect_equal(labels_of(summary), LABELS)


@KIND.situation("a result that was renamed: known by its mark, and no image", REFUSED, "a result of monai-unetpp")
def _renamed_result(folder: Path) -> None:
    segmented(save(folder / "x.nii.gz"), folder / "out")
    os.rename(folder / "out" / "x_seg.nii.gz", folder / "scan.nii.gz")
    expect(is_result(folder / "scan.nii.gz"), "not known as a result")
    find_cases(folder / "scan.nii.gz")


@KIND.situation("`sub-01/anat/T1.nii.gz` and `sub-02/anat/T1.nii.gz` in one run: two results")
def _two_subjects(folder: Path) -> None:
    images = [save(folder / f"sub-0{number}" / "anat" / "T1.nii.gz") for number in (1, 2)]
    segmented(images, folder / "out")
    expect(
        names_of_images(folder / "out") == ["sub-01_T1_seg.nii.gz", "sub-02_T1_seg.nii.gz"],
        f"{names_of_images(folder / 'out')}",
    )


@KIND.situation("another subject's `T1.nii.gz` in a later run: the first result stays", REFUSED, "is of another image")
def _later_run(folder: Path) -> None:
    first, second = (save(folder / name / "T1.nii.gz", VOXELS + n) for n, name in enumerate(("sub-01", "sub-02")))
    segmented(first, folder / "out")
    before = (folder / "out" / "T1_seg.nii.gz").read_bytes()
    summary = segmented(second, folder / "out")
    expect((folder / "out" / "T1_seg.nii.gz").read_bytes() == before, "the first result was replaced")
    refuse_if_failed(summary)


@KIND.situation("the same image again, moved to another folder: its result is replaced")
def _moved(folder: Path) -> None:
    image = save(folder / "a" / "T1.nii.gz")
    segmented(image, folder / "out")
    shutil.move(folder / "a", folder / "b")
    expect_equal(labels_of(segmented(folder / "b", folder / "out")), LABELS)


@KIND.situation("the user's own file where the result would go, even with `overwrite`", REFUSED, "not written by")
def _users_file(folder: Path) -> None:
    image = save(folder / "x.nii.gz")
    mine = save(folder / "out" / "x_seg.nii.gz", LABELS)
    before = mine.read_bytes()
    summary = segmented(image, folder / "out", overwrite=True)
    expect(mine.read_bytes() == before, "the file was replaced")
    refuse_if_failed(summary)


@KIND.situation("`x.nii` and `x.nii.gz` in one folder", REFUSED, "its result would overwrite that of")
def _one_name(folder: Path) -> None:
    for name in ("x.nii", "x.nii.gz"):
        save(folder / name)
    find_cases(folder)


@KIND.situation("a name too long for the file system once `_seg` is added", REFUSED, "too long for the file system")
def _long_name(folder: Path) -> None:
    refuse_if_failed(segmented(save(folder / f"{'x' * 248}.nii.gz"), folder / "out"))


@KIND.situation("what a killed run left in the output folder: the next run removes it, and nothing else")
def _leftovers(folder: Path) -> None:
    image = save(folder / "x.nii.gz")
    left = folder / "out" / ".monai-unetpp-000000-abcd"
    left.mkdir(parents=True)
    (left / "x_seg.nii.gz").write_bytes(b"half")
    (folder / "out" / ".hidden").touch()
    long_ago = time.time() - 10 * 3600
    for path in (left / "x_seg.nii.gz", left):
        os.utime(path, (long_ago, long_ago))
    segmented(image, folder / "out")
    expect(
        names_of_images(folder / "out") == [".hidden", "x_seg.nii.gz"], f"there are {names_of_images(folder / 'out')}"
    )


@KIND.situation("an output folder that is a file", REFUSED, "must be a folder that can be written to")
def _output_is_file(folder: Path) -> None:
    (folder / "out").touch()
    segmented(save(folder / "x.nii.gz"), folder / "out")


@KIND.situation("an input that does not exist", REFUSED, "no such file or folder")
def _missing(folder: Path) -> None:
    segmented(folder / "x.nii.gz", folder / "out")


@KIND.situation("a folder without images", REFUSED, "holds no image")
def _no_image(folder: Path) -> None:
    (folder / "notes.txt").touch()
    find_cases(folder)


@KIND.situation("gzip under the name `.nii`", REFUSED, "Rename it to .nii.gz")
def _gzip_named_nii(folder: Path) -> None:
    save(folder / "x.nii.gz").rename(folder / "x.nii")
    read(folder / "x.nii")


@KIND.situation("a file cut off at each of 40 places", REFUSED, "damaged or cut off|not a NIfTI|0 bytes")
def _cut_anywhere(folder: Path) -> None:
    content = save(folder / "whole.nii.gz").read_bytes()
    path = folder / "x.nii.gz"
    refusals = []
    for place in np.linspace(1, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:place])
        try:
            read(path)
        except ValueError as e:
            refusals.append(e)
    expect(len(refusals) == 40, f"{40 - len(refusals)} of 40 pieces were read")
    raise refusals[-1]


@KIND.situation("a flipped bit in compressed voxels", REFUSED, "damaged or cut off")
def _flipped_bit(folder: Path) -> None:
    content = bytearray(save(folder / "x.nii.gz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "x.nii.gz").write_bytes(content)
    read(folder / "x.nii.gz")


@KIND.situation("a pair (`.hdr` and `.img`), NIfTI-2, big-endian numbers, and MetaImage with its voxels beside it")
def _containers(folder: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(VOXELS, STRAIGHT), folder / "a.hdr")
    nibabel.save(nibabel.Nifti2Image(VOXELS, STRAIGHT), folder / "b.nii.gz")
    swapped = nibabel.Nifti1Image(VOXELS, STRAIGHT, nibabel.Nifti1Header(endianness=">"))
    (folder / "c.nii.gz").write_bytes(gzip.compress(swapped.to_bytes()))
    beside = SimpleITK.GetImageFromArray(VOXELS.T)
    beside.SetSpacing(SPACING_MM)
    SimpleITK.WriteImage(beside, str(folder / "d.mhd"))
    summary = segmented(folder, folder / "out")
    expect([done.case for done in summary.cases] == list("abcd"), f"segmented were {summary.cases}")
    for case in range(4):
        expect_equal(labels_of(summary, case), LABELS)
