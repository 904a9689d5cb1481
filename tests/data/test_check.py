"""Data sets in Decathlon form, sound and broken."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_unetpp.data import check_dataset, check_labelled_data
from monai_unetpp.data.datasets import case_check
from monai_unetpp.data.datasets import check as check_module
from monai_unetpp.data.datasets.labelled import LabelledCase
from monai_unetpp.data.datasets.network_names import NetworkNames
from monai_unetpp.data.datasets.voxel_hash import hash_voxels, split_hash

AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])
SHAPE = (6, 5, 4)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Cases a and b for training, c for validation."""
    generator = np.random.default_rng(0)
    label = np.zeros(SHAPE, np.uint8)
    label[2:4, 1:3, 1:3] = 1
    label[4, 1:3, 1:3] = 2
    for name in "abc":
        save(tmp_path / "images" / f"{name}.nii.gz", generator.normal(size=SHAPE).astype(np.float32))
        save(tmp_path / "labels" / f"{name}.nii.gz", label)
    content = {
        "labels": {"0": "background", "1": "front", "2": "back"},
        "training": [entry("a"), entry("b")],
        "validation": [entry("c")],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def entry(name: str) -> dict[str, Any]:
    return {"image": f"./images/{name}.nii.gz", "label": f"./labels/{name}.nii.gz"}


def change(folder: Path, **parts: Any) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))


def test_sound(folder: Path, decathlon_dir: Path) -> None:
    assert check_dataset(folder) == []
    assert check_dataset(str(decathlon_dir)) == []


def test_pictures(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(generator.integers(0, 255, (7, 9), np.uint8)).save(tmp_path / f"{name}.png")
    for name, label in {"label": np.eye(7, 9, dtype=np.uint8), "wrong": np.full((7, 9), 5, np.uint8)}.items():
        Image.fromarray(label).save(tmp_path / f"{name}.png")
    content = {"labels": {"0": "background", "1": "line"}, "training": [{"image": "a.png", "label": "label.png"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert check_dataset(tmp_path) == []
    change(tmp_path, validation=[{"image": "b.png", "label": "wrong.png"}])
    (problem,) = check_dataset(tmp_path)
    assert "wrong.png: the label must hold 0 and 1 only, got 5" in problem


def test_pictures_that_viewers_turn_unlike_their_label_are_refused(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 3
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (7, 9), np.uint8))
    picture.save(tmp_path / "a.jpg", exif=turned)
    for name, exif in {"upright": Image.Exif(), "turned": turned}.items():
        Image.fromarray(np.eye(7, 9, dtype=np.uint8)).save(tmp_path / f"{name}.png", exif=exif)
    content = {"labels": {"0": "background", "1": "line"}, "training": [{"image": "a.jpg", "label": "turned.png"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert check_dataset(tmp_path) == []
    change(tmp_path, training=[{"image": "a.jpg", "label": "upright.png"}])
    (problem,) = check_dataset(tmp_path)
    assert "a.jpg: viewers turn the image and its label in different ways (EXIF orientation 3 and 1)" in problem


@pytest.mark.parametrize("dims", [2, 3])
def test_two_dimensions_and_several_channels(tmp_path: Path, dims: int) -> None:
    generator = np.random.default_rng(0)
    entries = []
    for name in "ab":
        for channel in "12":
            save(tmp_path / "images" / f"{name}{channel}.nii.gz", generator.random(SHAPE[:dims], np.float32))
        save(tmp_path / "labels" / f"{name}.nii.gz", np.eye(*SHAPE[:2], dtype=np.uint8).reshape(6, 5, 1)[:, :, 0])
        if dims == 3:
            save(tmp_path / "labels" / f"{name}.nii.gz", np.ones(SHAPE, np.uint8))
        files = [f"images/{name}{channel}.nii.gz" for channel in "12"]
        entries.append({"image": files, "label": f"labels/{name}.nii.gz"})
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}))
    assert check_dataset(tmp_path) == []


def test_cases_are_counted_while_they_are_checked(decathlon_dir: Path) -> None:
    lines: list[str] = []
    check_dataset(decathlon_dir, progress=lines.append)
    assert lines == [f"checking: {number} of 6" for number in range(1, 7)]


class TestList:
    def test_missing(self, tmp_path: Path) -> None:
        (problem,) = check_dataset(tmp_path)
        assert problem.startswith(
            f"{tmp_path / 'dataset.json'}: no such file. Name a folder with dataset.json in Decath"
        )

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({"validation": []}, "the list 'validation' must hold cases, got []"),
            ({"training": {"a": 1}}, "the list 'training' must hold cases, got {'a': 1}"),
            ({"validation": ["c"]}, "entry 0 of 'validation' must have an 'image' and a 'label', got 'c'"),
            ({"validation": [{"image": "c"}]}, "entry 0 of 'validation' must have an 'image' and a 'label'"),
            ({"validation": [{"image": [], "label": "c"}]}, "entry 0 of 'validation' must have an 'image'"),
            ({"labels": 3}, "labels must map values to names with at least one above 0, got 3"),
            ({"labels": {"liver": "brown"}}, "labels must map values to names with at least one above 0, got {'liver'"),
        ],
    )
    def test_wrong_parts(self, folder: Path, parts: dict[str, Any], message: str) -> None:
        change(folder, **parts)
        (problem,) = check_dataset(folder)
        assert message in problem

    def test_no_list(self, tmp_path: Path) -> None:
        (tmp_path / "dataset.json").write_text("{}")
        (problem,) = check_dataset(tmp_path)
        assert "must have a list 'training' or 'validation', got none" in problem

    @pytest.mark.parametrize(
        ("parts", "where"),
        [({"training": [entry("a"), entry("a")]}, "(training)"), ({"validation": [entry("b")]}, "(training and valid")],
    )
    def test_case_twice(self, folder: Path, parts: dict[str, Any], where: str) -> None:
        change(folder, **parts)
        (problem,) = check_dataset(folder)
        assert f"is listed twice {where}" in problem

    def test_other_spelling_of_the_same_path(self, folder: Path) -> None:
        change(folder, validation=[{"image": "labels/../images/a.nii.gz", "label": "labels/c.nii.gz"}])
        (problem,) = [each for each in check_dataset(folder) if "listed twice" in each]
        assert "(training and validation)" in problem

    def test_one_name_in_two_folders(self, folder: Path) -> None:
        generator = np.random.default_rng(1)
        save(folder / "more" / "a.nii.gz", generator.random(SHAPE, np.float32))
        change(folder, validation=[{"image": "more/a.nii.gz", "label": "labels/c.nii.gz"}])
        assert check_dataset(folder) == []
        check_labelled_data(folder, classes=3, spatial_dims=3, in_channels=1, refuse_repeats=True)

    def test_one_name_in_one_folder(self, folder: Path) -> None:
        generator = np.random.default_rng(1)
        save(folder / "images" / "a.nii", generator.random(SHAPE, np.float32))
        change(folder, validation=[{"image": "images/a.nii", "label": "labels/c.nii.gz"}])
        (problem,) = check_dataset(folder)
        assert "have the same name, 'a'" in problem


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def fill(voxels: Any) -> Callable[[Path], None]:
    return lambda path: save(path, np.broadcast_to(voxels, SHAPE).copy())


class TestFiles:
    @pytest.mark.parametrize(
        ("file", "damage", "message"),
        [
            ("images/b.nii.gz", Path.unlink, "no such file, but the data list names it"),
            ("labels/c.nii.gz", Path.unlink, "no such file, but the data list names it"),
            ("images/b.nii.gz", cut_off, "b.nii.gz: "),
            ("images/b.nii.gz", fill(np.float32(3)), "all voxels have the value 3.0"),
            ("labels/b.nii.gz", fill(np.uint8(0)), "the label has no foreground"),
            ("labels/b.nii.gz", fill(np.float32(0.5)), "the label must hold integers, got fractions"),
            ("labels/b.nii.gz", fill(np.uint8(7)), "the label must hold 0 and 1, 2 only, got 7"),
            ("labels/b.nii.gz", lambda path: save(path, np.ones((6, 5, 3), np.uint8)), "its shape is (6, 5, 4), not"),
            ("labels/b.nii.gz", lambda path: save(path, np.ones(SHAPE, np.uint8), 2 * AFFINE), "not on the grid of"),
            ("labels/b.nii.gz", lambda path: save(path, np.ones((*SHAPE, 2), np.uint8)), "must be 2D or 3D, got shape"),
        ],
    )
    def test_one_problem_that_names_the_file(
        self, folder: Path, file: str, damage: Callable[[Path], None], message: str
    ) -> None:
        damage(folder / file)
        (problem,) = check_dataset(folder)
        assert message in problem
        assert str(folder / file) in problem

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (MemoryError("Unable to allocate 9 TiB"), "loading ran out of memory for 6 x 5 x 4 voxels"),
            (KeyError("what a library stumbled over"), "KeyError: 'what a library stumbled over'"),
        ],
    )
    def test_no_failure_of_a_case_ends_the_check_of_the_others(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
    ) -> None:
        read = case_check.read_image

        def failing(case: LabelledCase, *arguments: Any, **options: Any) -> Any:
            if case.name == "b":
                raise error
            return read(case, *arguments, **options)

        monkeypatch.setattr(case_check, "read_image", failing)
        (problem,) = check_dataset(folder)
        assert problem.startswith(f"{folder / 'images' / 'b.nii.gz'}: {message}")

    def test_values_are_free_where_labels_are_not_named(self, folder: Path) -> None:
        content = json.loads((folder / "dataset.json").read_text())
        del content["labels"]
        (folder / "dataset.json").write_text(json.dumps(content))
        fill(np.uint8(7))(folder / "labels" / "b.nii.gz")
        assert check_dataset(folder) == []
        fill(np.int16(-1))(folder / "labels" / "b.nii.gz")
        (problem,) = check_dataset(folder)
        assert "the label must hold no negative values, got -1" in problem

    def test_labels_named_the_other_way_round(self, folder: Path) -> None:
        change(folder, labels={"background": 0, "front": 1})
        assert len([each for each in check_dataset(folder) if "the label must hold 0 and 1 only, got 2" in each]) == 3

    def test_pipes_and_links_that_lead_nowhere_are_told_and_not_waited_for(self, folder: Path) -> None:
        for path in ("images/a.nii.gz", "images/b.nii.gz", "labels/c.nii.gz"):
            (folder / path).unlink()
        (folder / "images/a.nii.gz").symlink_to(folder / "images/a.nii.gz")
        for path in ("images/b.nii.gz", "labels/c.nii.gz"):
            os.mkfifo(folder / path)
        problems = check_dataset(folder)
        assert len(problems) == 3
        for name, problem in zip("abc", problems, strict=True):
            assert f"{name}.nii.gz: " in problem

    def test_each_problem_is_told(self, folder: Path) -> None:
        (folder / "images" / "a.nii.gz").unlink()
        fill(np.uint8(0))(folder / "labels" / "c.nii.gz")
        problems = check_dataset(folder)
        assert len(problems) == 2
        assert "a.nii.gz" in problems[0]
        assert "c.nii.gz" in problems[1]


def forget_validation(folder: Path) -> None:
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    content["training"] += content.pop("validation")
    path.write_text(json.dumps(content))


class TestWhatOthersAccept:
    def test_one_file_with_several_channels(self, folder: Path) -> None:
        generator = np.random.default_rng(0)
        for name in "abc":
            save(folder / "images" / f"{name}.nii.gz", generator.random((*SHAPE, 2), np.float32))
        assert check_dataset(folder) == []
        check_labelled_data(folder, classes=3, spatial_dims=3, in_channels=2)
        with pytest.raises(ValueError, match=r"must have 1 channel for this network, got 2"):
            check_labelled_data(folder, classes=3, spatial_dims=3, in_channels=1)

    def test_channels_in_one_file_and_in_several_are_one_image(self, folder: Path) -> None:
        voxels = np.random.default_rng(0).random((*SHAPE, 2), np.float32)
        save(folder / "images" / "a.nii.gz", voxels)
        for channel in (0, 1):
            save(folder / "images" / f"c{channel}.nii.gz", voxels[..., channel])
        change(folder, validation=[{**entry("c"), "image": ["images/c0.nii.gz", "images/c1.nii.gz"]}])
        assert any("a leak between the lists" in problem for problem in check_dataset(folder))

    def test_a_case_with_other_axes_or_channels_than_most_is_told_as_a_training_would(self, folder: Path) -> None:
        generator = np.random.default_rng(0)
        for name in "cd":
            save(folder / "images" / f"{name}.nii.gz", generator.random(SHAPE, np.float32))
            shutil.copy(folder / "labels" / "a.nii.gz", folder / "labels" / f"{name}.nii.gz")
        change(folder, validation=[entry(name) for name in "cd"])
        assert check_dataset(folder) == []
        save(folder / "images" / "c.nii.gz", generator.random((*SHAPE, 3), np.float32))
        for kind in ("images", "labels"):
            save(folder / kind / "d.nii.gz", np.eye(12, 14, dtype=np.uint8) + 2 * (kind == "images"))
        several, flat = sorted(check_dataset(folder))
        assert "c.nii.gz: the image must have 1 channel for this network, got 3" in several
        assert "d.nii.gz: the label must be 3D, got shape (12, 14)" in flat

    def test_without_a_validation_list(self, folder: Path) -> None:
        forget_validation(folder)
        assert check_dataset(folder) == []
        check_labelled_data(folder)

    def test_palettes_hold_numbers(self, tmp_path: Path) -> None:
        pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
        Image.fromarray(pixels).save(tmp_path / "image.png")
        for name in ("label.png", "label.tif"):
            label = Image.fromarray(pixels % 3).convert("P")
            label.putdata((pixels % 3).ravel().tolist())
            label.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
            label.save(tmp_path / name)
            entries = [{"image": "image.png", "label": name}]
            content = {"labels": {"background": 0, "red": 1, "blue": 2}, "training": entries}
            (tmp_path / "dataset.json").write_text(json.dumps(content))
            assert check_dataset(tmp_path) == []

    def test_scaled_labels(self, folder: Path) -> None:
        path = folder / "labels" / "a.nii.gz"
        header = nib.Nifti1Header()
        header.set_data_dtype("uint8")
        nib.save(nib.Nifti1Image(nib.load(path).get_fdata(), AFFINE, header), path)
        assert nib.load(path).dataobj.slope != 1
        assert check_dataset(folder) == []


class TestLabels:
    def test_a_label_that_no_case_has(self, folder: Path) -> None:
        change(folder, labels={"background": 0, "front": 1, "back": 2, "top": 3})
        (problem,) = check_dataset(folder)
        path = folder / "dataset.json"
        assert problem == f"{path}: no case has the label 'top' (3). Remove it from labels, or add such cases."

    def test_a_label_that_no_case_for_training_has(self, folder: Path) -> None:
        for name in "ab":
            path = folder / "labels" / f"{name}.nii.gz"
            save(path, np.minimum(np.asarray(nib.load(path).dataobj), 1))
        (problem,) = check_dataset(folder)
        assert "only 'validation' has cases with the label 'back' (2)" in problem

    def test_with_folds_all_cases_train_but_one_subject_alone_cannot_be_judged(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for name in "ab":
            path = folder / "labels" / f"{name}.nii.gz"
            save(path, np.minimum(np.asarray(nib.load(path).dataobj), 1))
        check_labelled_data(folder, classes=3, folds=3)
        (told,) = caplog.messages
        assert told.startswith(
            f"{folder / 'dataset.json'}: one subject alone, c, has the label 'back' (2), so no network"
        )
        caplog.clear()
        shutil.copy(folder / "labels" / "c.nii.gz", folder / "labels" / "a.nii.gz")
        check_labelled_data(folder, classes=3, folds=3)
        assert not caplog.messages

    @pytest.mark.parametrize("key", ["modality", "channel_names"])
    def test_another_number_of_channels_than_images_have_is_told(self, folder: Path, key: str) -> None:
        change(folder, **{key: {"0": "MRI", "1": "CT"}})
        told = f"{folder / 'dataset.json'}: names 2 channels, but images have 1. Correct the names."
        assert check_dataset(folder) == [told]

    def test_what_is_ignored_is_no_label(self, folder: Path) -> None:
        change(folder, labels={"background": 0, "front": 1, "back": 2, "ignore": 3})
        assert check_dataset(folder) == []
        fill(np.uint8(3))(folder / "labels" / "b.nii.gz")
        (problem,) = check_dataset(folder)
        assert "b.nii.gz: the label has no foreground" in problem


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 1, 3), (3, 4, 5, 2)])
def test_the_hash_of_voxels_is_that_of_their_shape_and_values_whatever_their_type_and_order(
    shape: tuple[int, ...], dtype: type | str
) -> None:
    voxels = np.random.default_rng(0).integers(0, 3, shape).astype(dtype)
    squeezed = np.squeeze(voxels) if voxels.size > 1 else voxels.reshape(1)
    plain = np.ascontiguousarray(squeezed, "<f4")
    expected = hashlib.sha256(repr(plain.shape).encode() + plain.tobytes()).hexdigest()
    found = hash_voxels(voxels)
    assert found == hash_voxels(np.asfortranarray(voxels))
    stored, axes = split_hash(found)
    assert stored == expected
    for axis in range(squeezed.ndim):
        assert split_hash(hash_voxels(np.flip(squeezed, axis).T))[-1] == axes
    changed = squeezed.copy()
    changed.flat[0] += 1
    assert axes not in split_hash(hash_voxels(changed))
    assert hash_voxels(np.array([0.0, -0.0])) == hash_voxels(np.zeros(2, np.uint8))


def test_empty_fields_of_view_are_sound_in_2d_alone(tmp_path: Path) -> None:
    image, label = tmp_path / "image.nii.gz", tmp_path / "label.nii.gz"
    for shape, marked, problem in (((6, 5), 0, False), ((6, 5), 1, True), ((6, 5, 4), 0, True)):
        save(image, np.full(shape, 7, np.float32))
        save(label, np.full(shape, marked, np.uint8))
        found = check_module.check_case(LabelledCase("image", "image", (image,), label))
        assert (found.problem is not None) == problem
        # they are no copies of each other
        assert found.voxels is None


class TestBeforeWork:
    def test_sound_data_are_passed_in_silence(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        check_labelled_data(folder, classes=3, spatial_dims=3, in_channels=1)
        assert caplog.text == ""

    def test_problems_are_errors_that_name_the_files(self, folder: Path) -> None:
        (folder / "images" / "a.nii.gz").unlink()
        fill(np.float32(0.5))(folder / "labels" / "c.nii.gz")
        with pytest.raises(ValueError, match=r"dataset\.json: cases must be sound, got 2 of 3 with") as caught:
            check_labelled_data(folder)
        assert "a.nii.gz: no such file" in str(caught.value)
        assert "c.nii.gz: the label must hold integers" in str(caught.value)

    def test_only_the_lists_that_are_asked_for(self, folder: Path) -> None:
        (folder / "images" / "a.nii.gz").unlink()
        check_labelled_data(folder, ["validation"])

    def test_what_is_doubtful_is_a_warning(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        shutil.copy(folder / "images" / "a.nii.gz", folder / "images" / "c.nii.gz")
        fill(np.uint8(0))(folder / "labels" / "b.nii.gz")
        change(folder, labels={"front": 1, "back": 2, "top": 3})
        check_labelled_data(folder)
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 3
        assert "a leak between the lists" in lines[0]
        assert "b.nii.gz: the label has no foreground" in lines[1]
        assert "no case has the label 'top' (3)" in lines[2]

    def test_cases_that_a_verdict_would_refuse_are_problems_where_asked(self, folder: Path) -> None:
        shutil.copy(folder / "images" / "a.nii.gz", folder / "images" / "c.nii.gz")
        change(folder, training=[entry("a"), entry("b"), entry("a")])
        with pytest.raises(ValueError, match=r"got 2 of 3 with a problem") as caught:
            check_labelled_data(folder, refuse_repeats=True)
        assert "a leak between the lists" in str(caught.value)
        assert "is listed twice (training)" in str(caught.value)

    @pytest.mark.parametrize(("classes", "found"), [(2, "hold 0 and 1 only, got 2"), (1, "hold 0 and 1 only, got 2")])
    def test_labels_that_the_network_has_no_class_for(self, folder: Path, classes: int, found: str) -> None:
        with pytest.raises(ValueError, match=found):
            check_labelled_data(folder, classes=classes)
        # without names, too
        content = json.loads((folder / "dataset.json").read_text())
        del content["labels"]
        (folder / "dataset.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=found):
            check_labelled_data(folder, classes=classes)

    def test_names_that_contradict_the_network(self, folder: Path) -> None:
        check_labelled_data(folder, values=[1, 2], network_names=NetworkNames("m", {"front": [1]}, ["T1"]))
        with pytest.raises(ValueError, match=r"dataset\.json: labels must .* got 2 for 'back' instead of 1"):
            check_labelled_data(folder, values=[1, 2], network_names=NetworkNames("m", {"back": [1]}))
        change(folder, modality={"0": "T2", "1": "T1"})
        with pytest.raises(ValueError, match=r"dataset\.json: channels must .* got T2, T1; m names T1, T2"):
            check_labelled_data(folder, values=[1, 2], network_names=NetworkNames("m", {}, ["T1", "T2"]))

    def test_voxels_to_ignore_in_a_run_that_ignores_none(self, folder: Path) -> None:
        change(folder, labels={"background": 0, "front": 1, "back": 2, "ignore": 3})
        check_labelled_data(folder, values=[1, 2])
        fill(np.uint8(3))(folder / "labels" / "b.nii.gz")
        check_labelled_data(folder, values=[1, 2, 3])
        with pytest.raises(ValueError, match=r"'ignore' is 3, but .* 1 case of 3 .*b\.nii\.gz\. Give --ignore_label 3"):
            check_labelled_data(folder, values=[1, 2])
        with pytest.raises(ValueError, match=r"labels must give 'ignore' a value .* got 3, which is 'top'"):
            check_labelled_data(folder, values=[1, 2, 3], network_names=NetworkNames("m", {"top": [3]}))

    @pytest.mark.slow
    def test_long_listings_are_cut(self, folder: Path) -> None:
        for number in range(30):
            save(folder / "images" / f"{number}.nii.gz", np.zeros(SHAPE, np.uint8))
        change(folder, training=[{**entry("a"), "image": f"images/{number}.nii.gz"} for number in range(30)])
        with pytest.raises(ValueError, match="and 10 more; monai-unetpp check lists all of them") as caught:
            check_labelled_data(folder)
        assert len(str(caught.value).splitlines()) == 23

    def test_processes_share_the_work_and_the_first_tells(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Two processes after each other: what the first found is handed to the second."""
        shutil.copy(folder / "images" / "a.nii.gz", folder / "images" / "c.nii.gz")
        fill(np.float32(0.5))(folder / "labels" / "b.nii.gz")
        parts: list[dict[Any, Any]] = []

        def gather(found: dict[Any, Any]) -> dict[Any, Any]:
            parts.append(found)
            if len(parts) == 1:
                raise InterruptedError
            return {key: each for part in parts for key, each in part.items()}

        monkeypatch.setattr(check_module, "gather", gather)
        monkeypatch.setattr(check_module, "share", lambda items: items[len(parts) :: 2])
        with pytest.raises(InterruptedError):
            check_labelled_data(folder)
        for rank in (1, 0):
            monkeypatch.setattr(check_module, "rank", lambda rank=rank: rank)
            caplog.clear()
            parts[1:] = []
            with pytest.raises(ValueError, match="got 1 of 3 with a problem") as caught:
                check_labelled_data(folder)
            assert [len(part) for part in parts] == [2, 1]
            assert ("b.nii.gz" in str(caught.value)) == (rank == 0)
            assert ("a leak between the lists" in caplog.text) == (rank == 0)


class TestSameVoxels:
    def test_leak_between_the_lists(self, folder: Path) -> None:
        shutil.copy(folder / "images" / "a.nii.gz", folder / "images" / "c.nii.gz")
        (problem,) = check_dataset(folder)
        assert "c.nii.gz (validation): the same image as" in problem
        assert "a.nii.gz (training), a leak between the lists" in problem

    def test_other_header_and_number_type_are_no_disguise(self, folder: Path) -> None:
        voxels = np.random.default_rng(0).integers(0, 100, SHAPE)
        save(folder / "images" / "a.nii.gz", voxels.astype(np.int16))
        image = nib.Nifti1Image(voxels.astype(np.float64), AFFINE)
        image.header["descrip"] = b"copied"
        nib.save(image, folder / "images" / "c.nii.gz")
        (problem,) = check_dataset(folder)
        assert "a leak between the lists" in problem

    def test_within_a_list(self, folder: Path) -> None:
        shutil.copy(folder / "images" / "a.nii.gz", folder / "images" / "b.nii.gz")
        (problem,) = check_dataset(folder)
        assert problem.endswith("both in 'training'. Leave one of them out.")
