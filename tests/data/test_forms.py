"""Data sets in the forms of nnU-Net and of plain folders: read like the Decathlon's, or refused by name."""

from __future__ import annotations

import json
import unicodedata

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_unetpp.cli import main
from monai_unetpp.data import check_dataset, describe_data_set, find_cases, load_datalist
from monai_unetpp.data.datasets.datalist import LISTS, read_content
from monai_unetpp.data.datasets.labelled import list_cases
from monai_unetpp.study.data_set import find_study_cases

AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])


def save(path, seed, values=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).normal(100, 9, (6, 7, 5)).astype(np.float32)
    if values is not None:
        voxels = np.zeros((6, 7, 5), np.uint8)
        for position, value in enumerate(values):
            voxels[1:4, 1 + position, 2:4] = value
    if path.suffix == ".png":
        Image.fromarray(voxels[..., 2].astype(np.uint8)).save(path)
    else:
        nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), path)


def nnunet(folder, names="abcde", channels=2, **content):
    for number, name in enumerate(names):
        for channel in range(channels):
            save(folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz", 10 * number + channel)
        save(folder / "labelsTr" / f"{name}.nii.gz", 0, [1, 2])
    known = {
        "channel_names": {str(channel): f"T{channel + 1}" for channel in range(channels)},
        "labels": {"background": 0, "left x": 1, "right x": 2},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps({**known, **content}))
    return folder


def plain(folder, names="abcde", ending=".nii.gz", images="images", labels="labels"):
    for number, name in enumerate(names):
        save(folder / images / f"{name}{ending}", number)
        save(folder / labels / f"{name}{ending}", 0, [3, 255])
    return folder


def test_nnunets_form_gives_one_case_with_all_channels_and_is_checked_and_studied(tmp_path):
    folder = nnunet(tmp_path)
    training, validation = (load_datalist(folder, key) for key in ("training", "validation"))
    assert len(training) == 4
    assert len(validation) == 1
    first = min(training + validation, key=str)
    assert first["image"] == [str(folder / "imagesTr" / f"a_000{channel}.nii.gz") for channel in (0, 1)]
    assert first["label"] == str(folder / "labelsTr" / "a.nii.gz")
    assert sorted(case.name for case in list_cases(training + validation)) == list("abcde")
    assert check_dataset(folder) == []
    study = find_study_cases(folder)
    assert (study.in_channels, study.spatial_dims, study.labels) == (2, 3, {"left x": 1, "right x": 2})


def test_nnunets_form_is_known_where_test_images_are_listed(tmp_path):
    folder = nnunet(tmp_path, training=[], test=["./imagesTs/x_0000.nii.gz"])
    assert describe_data_set(folder).form == "nnU-Net"
    assert len(load_datalist(folder, "training")) == 4


def test_a_list_of_test_images_whose_channels_are_named_is_segmented(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "test": ["scans/x.nii.gz"]}))
    (case,) = find_cases(tmp_path)
    assert case == {"image": str(tmp_path / "scans" / "x.nii.gz"), "case": "x"}


def test_nnunets_single_channel_is_one_file_and_its_ignore_label_is_known(tmp_path):
    folder = nnunet(tmp_path, channels=1, labels={"background": 0, "a": 1, "ignore": 2}, channel_names={"0": "CT"})
    training = load_datalist(folder, "training")
    assert training[0]["image"].endswith("_0000.nii.gz")
    validation = load_datalist(folder, "validation")
    assert sorted(case.name for case in list_cases(training + validation)) == list("abcde")
    assert {case["case"] for case in find_cases(folder, list_key="validation")} == {each["case"] for each in validation}
    assert sorted(find_study_cases(folder).description()["training"]) == sorted(each["case"] for each in training)
    described = describe_data_set(folder)
    assert (described.form, described.modality, described.channels) == ("nnU-Net", "CT", ("CT",))
    assert (described.labels, described.ignore_label) == ({"a": 1}, 2)


def test_nnunets_list_of_files_by_case_goes_first(tmp_path):
    cases = {"x": {"images": ["elsewhere/x.nii.gz"], "label": "elsewhere/y.nii.gz"}}
    (tmp_path / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "T1"}, "file_ending": ".nii.gz", "dataset": cases, "validation_": 0})
    )
    with pytest.raises(ValueError, match=r"1 training case cannot be split"):
        load_datalist(tmp_path, "training")
    cases["z"] = {"images": [], "label": "z.nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1"}, "dataset": cases}))
    with pytest.raises(ValueError, match=r"dataset must name 1 image for every case, one per channel, got \[\] for"):
        load_datalist(tmp_path, "training")


@pytest.mark.parametrize(
    ("named", "channels", "modality"),
    [
        ({"0": "CT_venous"}, ("CT_venous",), "CT"),
        ({"0": "head_T1w"}, ("head_T1w",), "MR"),
        ("CT", ("CT",), "CT"),
        (["MRI"], ("MRI",), "MR"),
        ({"0": "spect"}, ("spect",), "other"),
        ({"0": "T1", "1": "T2"}, ("channel_0",), None),
        ({"0": " "}, ("channel_0",), None),
        (5, ("channel_0",), None),
    ],
)
def test_the_modality_is_known_however_it_is_written(tmp_path, caplog, named, channels, modality):
    folder = plain(tmp_path)
    entries = [{"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"} for name in "abcde"]
    content = {"modality": named, "labels": {"0": "background", "3": "x", "255": "y"}, "training": entries}
    (folder / "dataset.json").write_text(json.dumps(content))
    described = describe_data_set(folder)
    assert (described.channels, described.modality) == (channels, modality)
    assert ("names 2 channels, but images have 1" in caplog.text) == (named == {"0": "T1", "1": "T2"})


@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("imagesTr", "labelsTr")])
def test_a_plain_folder_is_matched_by_name_and_its_labels_are_those_that_occur(tmp_path, ending, images, labels):
    folder = plain(tmp_path, ending=ending, images=images, labels=labels)
    assert len(load_datalist(folder, "training")) == 4
    assert check_dataset(folder) == []
    described = describe_data_set(folder)
    assert (described.form, described.spatial_dims) == ("folder", 2 if ending == ".png" else 3)
    assert described.labels == {"label_3": 3, "label_255": 255}
    assert (described.modality, described.name) == (None, tmp_path.name)
    assert find_study_cases(folder).values == [3, 255]
    assert main(["check", str(folder)]) == 0


@pytest.mark.parametrize("channels", [1, 2])
def test_colours_that_become_one_channel_are_told(tmp_path, caplog, channels):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number in range(4):
        for channel in range(channels):
            # a picture without colours leaves the others without them
            image = Image.new("L" if number == 3 else "RGB", (8, 8), 10 if number == 3 else (10 * number, 200, channel))
            image.save(tmp_path / "images" / f"{number}_{channel:04d}.png")
        Image.new("L", (8, 8), 1).save(tmp_path / "labels" / f"{number}.png")
    assert describe_data_set(tmp_path).channels == ("channel_0", "channel_1")[:channels]
    assert "has colours, which are averaged to one channel. To use them, store each in a file of its own" in caplog.text


def test_a_plain_folder_may_have_one_file_per_channel(tmp_path):
    for name in ("a", "b_0001"):
        for channel in (0, 1):
            save(tmp_path / "images" / f"{name}_000{channel}.nii.gz", channel)
        save(tmp_path / "labels" / f"{name}.nii.gz", 0, [1])
    cases = load_datalist(tmp_path, "training") + load_datalist(tmp_path, "validation")
    assert sorted(len(case["image"]) for case in cases) == [2, 2]
    assert describe_data_set(tmp_path).channels == ("channel_0", "channel_1")


def test_shades_of_grey_are_no_labels_unless_they_have_names(tmp_path, capsys):
    folder = plain(tmp_path, ending=".png")
    smooth = np.linspace(0, 255, 6 * 7).reshape(6, 7).astype(np.uint8)
    for name in "abcde":
        Image.fromarray(smooth).save(folder / "labels" / f"{name}.png")
    told = r"labels without names must have at most 30 values above 0, got 41: 6, 12, .* save the masks again without"
    with pytest.raises(ValueError, match=told):
        describe_data_set(folder)
    assert main(["check", str(folder)]) == 1
    assert "shades of grey, and each would become a class" in capsys.readouterr().err
    labels = {f"part {value}": value for value in smooth.ravel().tolist() if value}
    cases = [{"image": f"images/{name}.png", "label": f"labels/{name}.png"} for name in "abcde"]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "training": cases}))
    assert describe_data_set(folder).labels == labels


def test_nnunets_number_of_cases_is_compared_with_what_is_there(tmp_path, caplog):
    folder = nnunet(tmp_path, names="abc", channels=1, channel_names={"0": "CT"}, numTraining=4)
    load_datalist(folder, "training")
    assert "dataset.json: numTraining is 4, but there are 3 training cases. Add the files" in caplog.text
    files = {name: {"images": [f"{name}.nii.gz"], "label": f"{name}_label.nii.gz"} for name in "ab"}
    caplog.clear()
    (folder / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "numTraining": 3, "dataset": files})
    )
    load_datalist(folder, "training")
    assert "numTraining is 3, but there are 2 training cases" in caplog.text


def break_up(folder, *, remove=None, add=None, content=None):
    if remove:
        (folder / remove).unlink()
    if add:
        save(folder / add, 3, [1])
    if content:
        path = folder / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **content}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"remove": "labelsTr/b.nii.gz"}, r"imagesTr: all must have a label in labelsTr, got 1 of 5 without: b\. Add"),
        ({"add": "labelsTr/f.nii.gz"}, r"labelsTr: all must have an image in imagesTr, got 1 of 6 without: f\. Add"),
        ({"remove": "imagesTr/c_0001.nii.gz"}, r"must have 2 channel.* got 1 of 5 with others: c \(0000\)\. Add"),
        ({"add": "imagesTr/c_0002.nii.gz"}, r"1 of 5 with others: c \(0000, 0001, 0002\)"),
        (
            {"add": "imagesTr/c.nii.gz"},
            r"must hold no files without a channel at the end of their names, .* c\.nii\.gz",
        ),
        ({"add": "imagesTr/c_0000.nii"}, r"must hold no files that do not end in \.nii\.gz, got 1: c_0000\.nii\. Ren"),
        ({"content": {"file_ending": ".npz"}}, r"file_ending must be one of \.nii, .* got '\.npz'"),
        ({"content": {"channel_names": []}}, r"channel_names must name every channel, like .* got \[\]"),
    ],
)
def test_nnunets_files_that_do_not_match_are_named_counted_and_refused(tmp_path, change, message):
    folder = nnunet(tmp_path)
    break_up(folder, **change)
    with pytest.raises(ValueError, match=message) as caught:
        load_datalist(folder, "training")
    assert check_dataset(folder) == [str(caught.value)]
    assert "\n" not in str(caught.value)


def test_nnunets_regions_are_refused(tmp_path):
    folder = nnunet(tmp_path, labels={"background": 0, "whole": [1, 2]})
    assert "Regions of several labels are not supported" in check_dataset(folder)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"remove": "labels/b.nii.gz"}, r"images: all must have a label in labels, got 1 of 5 without: b\. Add"),
        ({"add": "labels/f.nii.gz"}, r"labels: all must have an image in images, got 1 of 6 without: f\. Add"),
        (
            {"add": "images/a.nii"},
            r"images: must hold no files of the same name, got 1: a\.nii and a\.nii\.gz\. Rename",
        ),
        ({"add": "images/a_0000.nii.gz"}, r"must hold no cases with one file and with one per channel, got 1: a\."),
    ],
)
def test_a_plain_folders_files_that_do_not_match_are_named_counted_and_refused(tmp_path, change, message):
    folder = plain(tmp_path)
    break_up(folder, **change)
    with pytest.raises(ValueError, match=message) as caught:
        load_datalist(folder, "training")
    assert check_dataset(folder) == [str(caught.value)]


@pytest.mark.parametrize(("of_images", "of_labels"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_match_in_whatever_composed_characters(tmp_path, of_images, of_labels):
    image, label = (unicodedata.normalize(form, "Jürgen") for form in (of_images, of_labels))
    folders = [
        nnunet(tmp_path / "1", (image, "b")),
        nnunet(tmp_path / "2", (image, "b")),
        plain(tmp_path / "3", (image, "b")),
    ]
    (folders[1] / "dataset.json").unlink()
    for folder, name in zip(folders, ("labelsTr", "labelsTr", "labels"), strict=True):
        (folder / name / f"{image}.nii.gz").rename(folder / name / f"{label}.nii.gz")
        case = read_content(folder / "dataset.json")["training"][0]
        assert (case["case"], case["label"]) == (image, f"{name}/{label}.nii.gz")
        assert check_dataset(folder) == []


def test_of_names_in_both_composed_characters_each_has_its_own_label(tmp_path):
    both = [unicodedata.normalize(form, "Jürgen") for form in ("NFC", "NFD")]
    folder = plain(tmp_path, both)
    training = read_content(folder / "dataset.json")["training"]
    assert all(case["label"] == case["image"].replace("images", "labels") for case in training)
    (folder / "images" / f"{both[1]}.nii.gz").unlink()
    assert "labels: all must have an image in images, got 1 of 2" in check_dataset(folder)[0]


def test_what_is_no_image_is_told(tmp_path, caplog):
    folder = plain(tmp_path)
    (folder / "images" / "notes.txt").write_text("x")
    load_datalist(folder, "training")
    assert "images: 1 left out, no images: notes.txt." in caplog.text
    for name in "abcde":
        (folder / "labels" / f"{name}.nii.gz").rename(folder / "labels" / f"{name}.gif")
    with pytest.raises(
        ValueError, match=r"labels: holds no images in a format .*\.nii\.gz, .*, only a\.gif, b\.gif, c"
    ):
        load_datalist(folder, "training")


@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
def test_jpeg_pictures_of_the_cases_are_left_out(tmp_path, caplog, ending):
    folder = plain(tmp_path, ending=ending)
    grey = Image.fromarray(np.full((6, 7), 9, np.uint8))
    for name in ("images/a.jpg", "labels/overlay.jpeg"):
        grey.save(folder / name)
    assert len(load_datalist(folder, "training")) == 4
    for message in ("images: 1 left out, no images: a.jpg.", "labels: 1 left out, no images: overlay.jpeg."):
        assert message in caplog.text
    # one of another name is a case beside other pictures, but not beside volumes
    (folder / "images" / "a.jpg").rename(folder / "images" / "f.jpg")
    save(folder / "labels" / f"f{ending}", 0, [3, 255])
    if ending == ".png":
        assert len(load_datalist(folder, "training")) == 5
    else:
        with pytest.raises(ValueError, match=r"labels: all must have an image in images, got 1 of 6 without: f\."):
            load_datalist(folder, "training")


def test_dicom_folders_with_names_as_of_jpeg_files_are_no_pictures_of_cases(tmp_path, write_series):
    for seed, name in enumerate(("a.jpg", "b")):
        write_series(tmp_path / "images" / name, np.full((6, 7, 5), seed))
        save(tmp_path / "labels" / f"{name}.nii.gz", 0, [1])
    content = read_content(tmp_path / "dataset.json")
    assert [case["image"] for case in content["training"]] == ["images/a.jpg", "images/b"]


def test_images_are_segmented_with_or_without_labels(tmp_path):
    folder = nnunet(tmp_path / "n", channels=1)
    (folder / "labelsTr" / "a.nii.gz").unlink()
    # the names that nnU-Net gives its results, unless files of several channels are cases
    assert [case["case"] for case in find_cases(folder)] == list("abcde")
    save(folder / "imagesTr" / "a_0001.nii.gz", 1)
    assert [case["case"] for case in find_cases(folder)][:3] == ["a_0000", "a_0001", "b_0000"]
    (folder / "imagesTr" / "a_0001.nii.gz").unlink()
    assert [case["case"] for case in find_cases(folder / "imagesTr")][:2] == ["a_0000", "b_0000"]
    folder = plain(tmp_path / "p")
    images = {file: file.with_name(f"{file.name[0]}_0000.nii.gz") for file in (folder / "images").iterdir()}
    for file, numbered in images.items():
        file.rename(numbered)
    assert [case["case"] for case in find_cases(folder)] == list("abcde")
    assert {case["case"] for key in LISTS for case in load_datalist(folder, key)} == set("abcde")
    for file in (folder / "labels").iterdir():
        file.rename(file.with_name(f"{file.name[0]}_0000.nii.gz"))
    assert [case["case"] for case in find_cases(folder)] == [f"{name}_0000" for name in "abcde"]
    assert {case["case"] for key in LISTS for case in load_datalist(folder, key)} == {f"{n}_0000" for n in "abcde"}
    folder = plain(tmp_path / "q")
    (folder / "labels" / "a.nii.gz").unlink()
    assert [case["case"] for case in find_cases(folder)] == list("abcde")
    with pytest.raises(ValueError, match="all must have a label in labels, got 1 of 5 without: a"):
        find_cases(folder, list_key="validation")


def test_channels_of_one_case_are_joined_for_networks_of_several(tmp_path):
    folder = nnunet(tmp_path, names="ab")
    save(folder / "imagesTr" / "whole.nii.gz", 1)
    save(folder / "imagesTr" / "c_0001.nii.gz", 1)
    cases = find_cases(folder, channels=2, strict=False)
    assert [(case["case"], "failure" in case) for case in cases] == [
        ("a", False),
        ("b", False),
        ("c", True),
        ("whole", False),
    ]
    assert cases[0]["image"] == [str(folder / "imagesTr" / f"a_000{channel}.nii.gz") for channel in (0, 1)]
    with pytest.raises(
        ValueError, match=r"the case 'c' must have a file for each .* 2 channels, 0000 to 0001, got c_0001"
    ):
        find_cases(folder, channels=2)


@pytest.mark.parametrize("channels", [1, 2])
def test_names_that_nnunet_1_lists_without_their_channels_are_found(tmp_path, channels):
    folder = nnunet(tmp_path, channels=channels)
    entries = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "abcde"]
    content = json.loads((folder / "dataset.json").read_text())
    content["modality"] = content.pop("channel_names")
    content |= {"training": entries[:4], "validation": entries[4:], "test": ["./imagesTr/a.nii.gz", "./imagesTr/z.nii"]}
    (folder / "dataset.json").write_text(json.dumps(content))
    assert check_dataset(folder) == []
    files = [str(folder / "imagesTr" / f"e_{channel:04d}.nii.gz") for channel in range(channels)]
    (entry,) = load_datalist(folder, "validation")
    # listed as e.nii.gz
    named = {} if channels > 1 else {"case": "e"}
    image = files if channels > 1 else files[0]
    assert entry == {"image": image, "label": str(folder / "labelsTr" / "e.nii.gz"), **named}
    assert [case.name for case in list_cases(load_datalist(folder, "training"))] == list("abcd")
    assert [case["case"] for case in find_cases(folder)] == ["a", "z"]


@pytest.mark.parametrize(("shape", "pictures"), [((6, 7, 5, 2), False), ((6, 7, 5, 2), True), ((6, 7, 2), True)])
def test_a_number_of_four_digits_is_that_of_the_case_where_one_file_holds_all_channels(tmp_path, shape, pictures):
    voxels = np.random.default_rng(0).random(shape, np.float32)
    names = ["case_0000", "case_0001"]
    for name in names:
        nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), tmp_path / f"{name}.nii.gz")
    assert [case["case"] for case in find_cases(tmp_path, channels=2, pictures=pictures)] == names
    with pytest.raises(ValueError, match=r"the case 'case' must have a file for each .* 3 channels"):
        find_cases(tmp_path, channels=3, pictures=pictures)
    if len(shape) == 3:
        # two volumes of two slices
        assert [case["case"] for case in find_cases(tmp_path, channels=2)] == ["case"]


def test_a_channel_in_two_files_is_refused_and_not_chosen_silently(tmp_path):
    for name in ("a_0000.nii", "a_0000.nii.gz", "a_0001.nii.gz"):
        save(tmp_path / "images" / name, 1)
    save(tmp_path / "labels" / "a.nii.gz", 0, [1])
    with pytest.raises(ValueError, match=r"the case 'a' must .*, got a_0000.nii, a_0000.nii.gz, a_0001.nii.gz\. Add"):
        find_cases(tmp_path / "images", channels=2)
    (case,) = find_cases(tmp_path / "images", channels=2, strict=False)
    assert "0000 to 0001, got a_0000.nii, a_0000.nii.gz" in case["failure"]
    (case,) = find_cases([tmp_path / "images" / f"a_000{number}.nii.gz" for number in (1, 0, 0)], channels=2)
    assert [file[-11:-7] for file in case["image"]] == ["0000", "0001"]
    with pytest.raises(ValueError, match=r"images: must hold no files of the same name, got 1: a_0000\.nii and a_0000"):
        load_datalist(tmp_path, "training")


def test_the_drawn_validation_list_keeps_subjects_together(tmp_path):
    names = [f"sub-{number:02d}_ses-{visit}" for number in range(5) for visit in "ab"]
    entries = [{"image": f"{name}.nii.gz", "label": f"l/{name}.nii.gz"} for name in names]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}))
    validation = list_cases(load_datalist(tmp_path, "validation", tmp_path))
    training = list_cases(load_datalist(tmp_path, "training"))
    assert (len(validation), len({case.subject for case in validation})) == (2, 1)
    assert not {case.subject for case in validation} & {case.subject for case in training}
    assert len(json.loads((tmp_path / "split.json").read_text())["validation"]) == 2
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries[:2]}))
    with pytest.raises(ValueError, match=r"2 training cases of the subject 'sub-00' cannot be split"):
        load_datalist(tmp_path, "training")


def test_cases_of_one_name_in_folders_of_nobody_are_their_own_subjects(tmp_path):
    entries = [{"image": f"{folder}/T1.nii.gz", "label": f"{folder}/l.nii.gz"} for folder in ("x", "y", "z")]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}))
    assert len(load_datalist(tmp_path, "validation")) == 1
