"""Images and results that are unlike the training cases of a bundle are told; others are not."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from monai_unetpp.bundles import find_bundle
from monai_unetpp.guard import CaseGuard, ImageRecord, TrainingRanges, find_guard
from monai_unetpp.segmentation import segment_files as segment

RECORD = ImageRecord((1.0, 1.0, 1.0), (40.0, 50.0, 40.0), True, (0.0,), (900.0,), {"a": 2.0, "b": 0.0})
OTHER = dataclasses.replace(RECORD, size_mm=(44.0, 55.0, 44.0), highest=(700.0,), volumes_ml={"a": 3.0, "b": 1.0})
RANGES = TrainingRanges.of([RECORD, OTHER], "MR")
VOLUMES = {"hippocampus_mri_unetpp": "hippocampus", "brain_tissue_mri_unetpp": "brain_tissue"}
SHIPPED = {**VOLUMES, "nuclei_microscopy_unetpp": "nuclei"}


def image(shape=(50, 60, 50), low=0.0, high=800.0, surround=4):
    """Noise with a constant surround."""
    voxels = torch.full((1, *shape), low)
    inner = tuple(slice(surround, length - surround) for length in shape)
    voxels[0][inner] = (
        torch.linspace(low, high, 1009)
        .repeat(voxels[0].numel() // 1009 + 1)[: voxels[0][inner].numel()]
        .reshape(voxels[0][inner].shape)
    )
    return voxels


def test_ranges_are_kept_in_plain_json():
    plain = json.loads(json.dumps(RANGES.as_dict()))
    assert TrainingRanges.from_dict(plain) == RANGES
    assert plain["volumes_ml"] == {"a": [2.0, 3.0], "b": [0.0, 1.0]}
    with pytest.raises(ValueError, match="ranges must have the entry 'size_mm'"):
        TrainingRanges.from_dict({key: value for key, value in plain.items() if key != "size_mm"})
    with pytest.raises(ValueError, match="records must be of at least one case, got none"):
        TrainingRanges.of([], "MR")


def test_an_image_like_those_of_the_training_is_passed_over_in_silence():
    assert RANGES.unlike(image(), np.eye(4)) == []
    # the same with its axes in another order
    turned = np.array([[0, 1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, -1.0, 0], [0, 0, 0, 1]])
    assert RANGES.unlike(image((60, 50, 50)), turned) == []


@pytest.mark.parametrize(
    ("made", "affine", "message"),
    [
        (image((80, 60, 50)), np.eye(4), "its size is 72 x 52 x 42 mm, not 40 to 44 x 50 to 55 x 40 to 44 mm"),
        (
            image((30, 30, 30), surround=7),
            np.diag([2.6, 2.6, 2.6, 1]),
            "its voxels are 2.6 x 2.6 x 2.6 mm, not 1 x",
        ),
        (image(low=-1000.0), np.eye(4), "its intensities, -1000 to .*, look like Hounsfield units of CT"),
        (torch.rand(1, 42, 52, 42), np.eye(4), "it has no constant surround"),
    ],
)
def test_what_is_unlike_the_training_images_is_told(made, affine, message):
    found = RANGES.unlike(made, affine)
    assert len(found) == 1
    assert re.search(message, found[0])


@pytest.mark.parametrize("end", [0.5, 2.0])
def test_rounding_at_a_limit_changes_no_answer(end):
    steps = [end * (1 + difference) for difference in (-1e-15, 0.0, 1e-15, -1e-6, 1e-6)]
    shape = tuple(round(42 / end) + 8 for _ in range(3))
    ranges = dataclasses.replace(RANGES, size_mm=((42.0, 42.0),) * 3)
    assert [ranges.unlike(image(shape), np.diag([step, step, step, 1])) for step in steps] == [[]] * len(steps)
    limits = [2.0 / 2, 3.0 * 2]
    volumes = [limit * (1 + difference) for limit in limits for difference in (-1e-15, 0.0, 1e-15)]
    assert [RANGES.implausible({"a": volume}) for volume in volumes] == [[]] * len(volumes)


def test_images_that_are_no_hounsfield_units_are_told_where_those_were_the_training():
    ct = dataclasses.replace(RECORD, lowest=(-1000.0,), highest=(1200.0,), constant_surround=False)
    ranges = TrainingRanges.of([ct], "CT")
    like = image((40, 50, 40), -1020.0, 1500.0, 0)
    assert ranges.unlike(like, np.eye(4)) == []
    assert "are all 0 or above" in ranges.unlike(image((40, 50, 40), 0.0, 255.0, 0), np.eye(4))[0]
    assert "are not Hounsfield units like these" in ranges.unlike(image((40, 50, 40), 0.0, 40000.0, 0), np.eye(4))[0]


def test_volumes_far_from_those_of_the_training_are_told():
    assert RANGES.implausible({"a": 1.1, "b": 0.0}) == []
    assert RANGES.implausible({"a": 0.0, "b": 3.0}) == ["a has 0 ml, not 2 to 3 ml", "b has 3 ml, not 0 to 1 ml"]


def test_cases_without_known_volumes_give_none(caplog):
    unknown = dataclasses.replace(RECORD, volumes_ml={})
    none = TrainingRanges.of([unknown, unknown], "MR")
    assert (none.volumes_ml, none.complete) == ({}, 0)
    assert none.implausible({"a": 1000.0, "b": 0.0}) == []
    some = TrainingRanges.of([unknown, RECORD, OTHER], "MR")
    assert (some.volumes_ml, some.complete, some.cases) == (RANGES.volumes_ml, 2, 3)
    assert TrainingRanges.from_dict(json.loads(json.dumps(some.as_dict()))) == some
    CaseGuard(some).check_result("x.nii", {"a": 0.0, "b": 0.0})
    CaseGuard(RANGES).check_result("x.nii", {"a": 0.0, "b": 0.0})
    assert RANGES.complete is None
    first, second = caplog.messages
    assert "unlike the labels of the 2 training cases whose labels are complete: a has 0 ml, not 2 to 3 ml" in first
    assert "unlike the labels of the 2 training cases: a has 0 ml, not 2 to 3 ml" in second


def test_a_look_costs_no_case(caplog):
    guard = CaseGuard(RANGES)
    guard.look("x.nii", torch.zeros(0), np.eye(4))
    guard.watch(lambda item: item)
    untouched = Compose([str])
    guard.watch(untouched)
    assert (len(untouched.transforms), caplog.text) == (1, "")


@pytest.mark.slow
def test_segmenting_tells_in_one_line_and_in_the_summary(hippocampus_bundle, tmp_path, caplog):
    long = np.random.default_rng(0).normal(100, 20, (60, 50, 36)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(long, np.eye(4)), tmp_path / "long.nii.gz")
    (case,) = segment(tmp_path / "long.nii.gz", tmp_path, hippocampus_bundle, "L1", device="cpu", flips=[]).cases
    lines = [record.message for record in caplog.records if record.name == "monai_unetpp.guard"]
    assert list(case.warnings) == lines
    assert lines[0].startswith(f"{case.image}: unlike the 190 images that the bundle was trained on: its size")
    assert "\n" not in lines[0]


def test_a_bundle_without_a_fingerprint_has_no_guard_and_a_damaged_one_is_named(tmp_path):
    assert find_guard(tmp_path) is None
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "fingerprint.json"
    for text in ("{", "[]", "{}", '{"ranges": 3}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"fingerprint\.json: cannot be read \(.*\)\. Copy the bundle again"):
            find_guard(tmp_path)


def test_a_bundle_must_be_named_and_those_there_are_are_listed(tmp_path):
    with pytest.raises(ValueError, match=r"bundle must be named, .* hippocampus_mri_unetpp \(single channel data"):
        segment("a.nii.gz", tmp_path)
    with pytest.raises(ValueError, match="bundle must be named"):
        find_bundle(None)


def pictures(*records):
    """The ranges of pictures, each given by the size of a pixel, its own size and the part that a cell covers."""
    made = [
        ImageRecord((mm, mm), size_mm, False, (0.0,), (200.0,), {}, {"cell": part}) for mm, size_mm, part in records
    ]
    return TrainingRanges.of(made, "other")


def test_pictures_are_compared_by_their_pixels_whichever_way_they_lie():
    ranges = pictures((1.0, (300.0, 200.0), 0.1), (1.0, (600.0, 300.0), 0.2))
    assert TrainingRanges.from_dict(json.loads(json.dumps(ranges.as_dict()))) == ranges
    assert ranges.unlike(torch.rand(1, 210, 1150), np.eye(4)) == []
    assert ranges.unlike(torch.rand(1, 1150, 210), np.diag([0.0005, 0.0005, 1, 1])) == []
    told = ["its size is 1250 x 210 pixels, not 200 to 600 x 200 to 600 pixels"]
    assert ranges.unlike(torch.rand(1, 1250, 210), np.eye(4)) == told
    assert ranges.unlike(torch.rand(1, 1250, 210), np.diag([0.0005, 0.0005, 1, 1])) == told


def test_volumes_are_compared_by_their_slices_where_a_2d_bundle_takes_these():
    ranges = pictures((1.0, (300.0, 200.0), 0.1), (1.0, (600.0, 300.0), 0.2))
    oblong = torch.rand(1, 300, 40, 400)
    assert ranges.unlike(oblong, np.eye(4)) == []
    assert ranges.unlike(oblong, np.eye(4), slice_axis=1) == []
    (told,) = ranges.unlike(oblong, np.eye(4), slice_axis=-1)
    assert told == "its size is 300 x 40 pixels, not 200 to 600 x 200 to 600 pixels"
    in_mm = pictures((0.5, (300.0, 200.0), 0.1))
    assert in_mm.unlike(oblong, np.diag([1.0, 9.0, 0.6, 1]), slice_axis=1) == []
    (told,) = in_mm.unlike(oblong, np.diag([1.0, 0.6, 9.0, 1]), slice_axis=-1)
    assert told.startswith("its size is 300 x 24 mm")


@pytest.mark.slow
def test_segmenting_a_volume_slice_by_slice_tells_of_slices_unlike_the_training(nuclei_bundle, tmp_path):
    small = np.random.default_rng(0).integers(0, 200, (40, 44, 2)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(small, np.eye(4)), tmp_path / "small.nii.gz")
    (case,) = segment(tmp_path / "small.nii.gz", tmp_path / "out", nuclei_bundle, "L1", device="cpu", flips=[]).cases
    assert "its size is 40 x 44 pixels" in case.warnings[0]


@pytest.mark.slow
@pytest.mark.parametrize("instances", [False, True])
@pytest.mark.parametrize("shape", [(300, 280), (300, 280, 2)])
def test_results_of_stacks_and_of_numbered_objects_are_looked_at(nuclei_bundle, tmp_path, shape, instances):
    nibabel.save(nibabel.Nifti1Image(np.full(shape, 30, np.uint8), np.eye(4)), tmp_path / "empty.nii.gz")
    options = {"device": "cpu", "flips": [], "instances": instances}
    (case,) = segment(tmp_path / "empty.nii.gz", tmp_path / "out", nuclei_bundle, "L1", **options).cases
    (line,) = case.warnings
    assert re.search(r"unlike the labels of the 466 training cases: nucleus covers [\d.]+ % of the image, not", line)


def test_pictures_whose_pixels_have_a_size_are_compared_in_mm():
    ranges = pictures((0.5, (300.0, 200.0), 0.1))
    assert ranges.unlike(torch.rand(1, 300, 300), np.diag([0.6, 0.8, 1, 1])) == []
    (size,) = ranges.unlike(torch.rand(1, 300, 100), np.diag([1.0, 0.9, 1, 1]))
    assert size == "its size is 300 x 90 mm, not 200 to 300 x 200 to 300 mm"
    (spacing,) = ranges.unlike(torch.rand(1, 300, 100), np.diag([1.0, 2.0, 1, 1]))
    assert spacing == "its pixels are 1 x 2 mm, not 0.5 x 0.5 mm"
    # nobody knows how large pixels of a PNG are
    assert ranges.unlike(torch.rand(1, 3000, 3000), np.eye(4)) == []


def test_a_label_that_covers_far_more_or_less_of_a_picture_than_in_training_is_told():
    ranges = pictures((1.0, (300.0, 200.0), 0.1), (1.0, (600.0, 300.0), 0.2))
    assert ranges.implausible({}, {"cell": 0.4}) == []
    assert ranges.implausible({}) == []
    assert ranges.implausible({}, {"cell": 0.0}) == ["cell covers 0 % of the image, not 10 to 20 %"]


def test_an_empty_picture_is_told_in_one_line(nuclei_bundle, tmp_path, caplog):
    Image.fromarray(np.full((300, 280), 30, np.uint8)).save(tmp_path / "empty.png")
    (case,) = segment(tmp_path / "empty.png", tmp_path / "out", nuclei_bundle, "L1", device="cpu", flips=[]).cases
    (line,) = case.warnings
    assert re.search(r"unlike the labels of the 466 training cases: nucleus covers 0 % of the image, not", line)


def test_the_bundle_for_nuclei_takes_pictures_in_silence_and_tells_thumbnails_and_ct(nuclei_bundle):
    ranges = find_guard(nuclei_bundle).ranges
    own = torch.linspace(0, 200, 1009).repeat(200)[: 400 * 300].reshape(1, 400, 300)
    assert ranges.unlike(own, np.eye(4)) == []
    assert [line.split(" pixels")[0] for line in ranges.unlike(own[:, :90, :120], np.eye(4))] == [
        "its size is 90 x 120"
    ]
    assert any("Hounsfield" in line for line in ranges.unlike(own * 10 - 1000, np.eye(4)))
    assert ranges.implausible({}, {"nucleus": 0.2}) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", VOLUMES)
def test_shipped_bundles_take_their_own_kind_in_silence_and_tell_a_head_and_ct(name):
    guard = find_guard(find_bundle(name))
    assert guard is not None
    size = [round((low + high) / 2) for low, high in guard.ranges.size_mm]
    own = image([length + 8 for length in size], 0.0, guard.ranges.highest[0][0], 4 if "brain" in name else 0)
    if "brain" not in name:
        own = image(size, guard.ranges.lowest[0][0], guard.ranges.highest[0][0], 0)
    assert guard.ranges.unlike(own, np.eye(4)) == []
    ct = image([length + 8 for length in size], -1000.0, 1500.0)
    assert any("Hounsfield" in line for line in guard.ranges.unlike(ct, np.eye(4)))
    soft_tissue = image(size, -40.0, 90.0, 0)
    assert any("below 0" in line for line in guard.ranges.unlike(soft_tissue, np.eye(4)))
    # a head in air: 160 x 220 x 230 mm, in noise without a constant surround
    head = torch.from_numpy(np.random.default_rng(0).normal(500, 90, (1, 80, 110, 115)).astype(np.float32))
    assert any("size" in line for line in guard.ranges.unlike(head, np.diag([2.0, 2.0, 2.0, 1])))


@pytest.mark.parametrize("name", SHIPPED)
def test_real_validation_images_give_no_false_alarm(name):
    folder = Path(os.environ.get("MONAI_UNETPP_DATA", "")) / SHIPPED[name]
    if not (folder / "dataset.json").is_file():
        pytest.skip("needs the data sets in the folder that MONAI_UNETPP_DATA names")
    from monai_unetpp.data import VolumeReader, load_datalist

    guard = find_guard(find_bundle(name))
    told = 0
    cases = load_datalist(folder, "validation")
    for case in cases:
        reader = VolumeReader(len(guard.ranges.size_mm))
        voxels, meta = reader.get_data(reader.read(case["image"]))
        told += bool(guard.ranges.unlike(torch.from_numpy(np.ascontiguousarray(voxels))[None], meta["original_affine"]))
    assert told <= 0.05 * len(cases)
