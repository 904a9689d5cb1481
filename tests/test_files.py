import errno

import pytest

from monai_unetpp.files import atomic_path, write_text


def test_a_file_appears_whole_with_its_folders(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "text")
    assert (tmp_path / "a" / "b.txt").read_text() == "text"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_an_interruption_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "x.nii.gz"
    target.write_text("old")

    def interrupted():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_file_keeps_all_suffixes(tmp_path):
    with atomic_path(tmp_path / "x.nii.gz") as temporary:
        assert temporary.name == "x.nii.gz"
        temporary.touch()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded", "/tmp/other"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
)
def test_a_full_disk_names_the_file(tmp_path, error):
    target = tmp_path / "scan_seg.nii.gz"
    with pytest.raises(OSError, match=r"scan_seg\.nii\.gz: cannot be written \(.+\)\. Free space"), atomic_path(target):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_other_errors_while_writing_stay_as_they_are(tmp_path):
    for error in (FileNotFoundError(errno.ENOENT, "No such file", "source"), RuntimeError("no"), ValueError("no")):
        with pytest.raises(type(error)) as caught, atomic_path(tmp_path / "a"):
            raise error
        assert caught.value is error
