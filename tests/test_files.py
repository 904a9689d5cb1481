import errno
import fcntl
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from monai_unetpp import files
from monai_unetpp.files import atomic_path, put_in_place, remove_leftovers, temporary_folder, write_text


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


def own_name(folder):
    """The name of a temporary folder that a process on this computer made."""
    with temporary_folder(folder) as made:
        return made.name


def leftover(folder, name=None):
    """What a killed process leaves behind, by default one of this computer."""
    path = folder / (name or own_name(folder))
    path.mkdir(parents=True)
    (path / ".in-use").touch()
    (path / "x.nii.gz").write_text("half")
    return path


def age(path):
    for each in (*path.iterdir(), path):
        os.utime(each, (time.time() - 7 * 3600,) * 2)


def test_what_killed_processes_left_is_removed(tmp_path):
    ours = leftover(tmp_path)
    write_text(tmp_path / "a.txt", "text")
    assert not ours.exists()


def test_read_only_copies_are_removed_as_well(tmp_path):
    ours = leftover(tmp_path)
    with temporary_folder(tmp_path) as made:
        for folder in (ours, made):
            (folder / "docs").mkdir()
            (folder / "docs" / "README.md").touch()
            (folder / "docs").chmod(0o555)
        remove_leftovers(tmp_path)
        assert not ours.exists()
    assert list(tmp_path.iterdir()) == []


def test_folders_in_use_and_those_of_others_stay(tmp_path):
    elsewhere = leftover(tmp_path, ".monai-unetpp-000000-abcd")
    foreign = leftover(tmp_path, ".x_seg.nii.gz.abcd")
    unlocked = leftover(tmp_path)
    (unlocked / ".in-use").unlink()
    with temporary_folder(tmp_path) as busy:
        remove_leftovers(tmp_path)
        age(busy)
        remove_leftovers(tmp_path)
        assert busy.is_dir()
    assert not busy.exists()
    assert elsewhere.exists()
    assert unlocked.exists()
    for path in (elsewhere, unlocked, foreign):
        age(path)
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [foreign.name]


def test_a_folder_that_another_process_works_in_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE_S", 0.0)
    with (
        files.claimed(tmp_path, "trains"),
        pytest.raises(BlockingIOError, match=r": another process trains there\. Wait until it has ended, or take"),
        files.claimed(tmp_path, "trains"),
    ):
        pass
    with files.claimed(tmp_path, "trains"):
        pass


def test_a_folder_that_is_free_after_a_moment_is_taken(tmp_path):
    def take():
        with files.claimed(tmp_path, "trains"):
            return True

    with ThreadPoolExecutor(1) as pool:
        with files.claimed(tmp_path, "trains"):
            second = pool.submit(take)
            assert not second.done()
        assert second.result()


def test_the_only_copy_of_something_is_never_removed(tmp_path):
    ours = leftover(tmp_path)
    (ours / files.REPLACED).mkdir()
    remove_leftovers(tmp_path)
    assert ours.exists()


def test_file_systems_without_locks(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    ours = leftover(tmp_path)
    write_text(tmp_path / "a.txt", "text")
    assert ours.exists()
    age(ours)
    remove_leftovers(tmp_path)
    assert not ours.exists()


def test_a_folder_that_another_process_removed_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    lock, made = fcntl.flock, []

    def late(file, how):
        if not made:
            (first,) = tmp_path.iterdir()
            made.append(first)
            shutil.rmtree(first)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with temporary_folder(tmp_path) as folder:
        assert folder.is_dir()
        assert folder != made[0]
    assert list(tmp_path.iterdir()) == []


def test_threads_that_write_to_one_folder_do_not_disturb_each_other(tmp_path):
    def write(number):
        remove_leftovers(tmp_path)
        write_text(tmp_path / f"{number % 5}.txt", "text")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number}.txt" for number in range(5)]


def test_names_of_any_length_that_the_file_system_allows(tmp_path):
    name = f"{'x' * 244}.nii.gz"
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(OSError, match="File name too long"):
        write_text(tmp_path / f"x{'x' * 250}.nii.gz", "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_texts_with_names_that_are_no_text(tmp_path):
    write_text(tmp_path / "a.md", "case \udcff")
    assert (tmp_path / "a.md").read_text() == "case \\udcff"


def _wrapped(cause):
    """As pydicom tells what the system says."""
    error = OSError(f"With tag (7FE0,0010) got exception: {cause}")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded", "/tmp/other"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        _wrapped(OSError(errno.ENOSPC, "No space left on device")),
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


def test_an_interruption_between_two_moves_loses_no_folder(tmp_path, monkeypatch):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "model.pt").write_text("the only copy")
    move, moved = os.replace, []

    def interrupted(source, destination):
        move(source, destination)
        moved.append(source)
        if len(moved) == 1:
            raise KeyboardInterrupt

    def replace():
        with temporary_folder(tmp_path) as temporary:
            (temporary / "new").mkdir()
            put_in_place(temporary / "new", target, temporary)

    monkeypatch.setattr("monai_unetpp.files.os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace()
    assert [path.name for path in tmp_path.rglob("*")] == ["bundle", "model.pt"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    for name in ("target", "temporary", "temporary/new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    new, target = tmp_path / "temporary" / "new", tmp_path / "target"
    replace = os.replace

    def fail_for_the_new_one(source, destination):
        if source == new:
            raise OSError("the disk is full")
        replace(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", fail_for_the_new_one)
        with pytest.raises(OSError, match="the disk is full"):
            put_in_place(new, target, tmp_path / "temporary")
    assert (target / "file").read_text() == "target"
    put_in_place(new, target, tmp_path / "temporary")
    assert (target / "file").read_text() == "temporary/new"


def test_a_folder_that_cannot_be_moved_back_stays_in_the_temporary_one(tmp_path, monkeypatch):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "model.pt").write_text("the only copy")
    replace = os.replace

    def fail_at_the_target(source, destination):
        if destination == target:
            raise OSError("the share has gone")
        replace(source, destination)

    def put_new():
        with temporary_folder(tmp_path) as temporary:
            (temporary / "new").mkdir()
            put_in_place(temporary / "new", target, temporary)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", fail_at_the_target)
        with pytest.raises(OSError, match="the share has gone"):
            put_new()
    remove_leftovers(tmp_path)
    assert [path.read_text() for path in tmp_path.rglob("model.pt")] == ["the only copy"]
    put_new()
    assert not list(target.iterdir())


def test_an_error_of_the_work_in_a_folder_that_vanished_is_that_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="my file"), temporary_folder(tmp_path) as folder:  # noqa: PT012
        shutil.rmtree(folder)
        raise FileNotFoundError("my file")
