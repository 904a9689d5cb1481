"""The rules of a plan: what the data ask for."""

import dataclasses

import pytest
from fingerprints import BRIGHT, DARK, fingerprint

from monai_unetpp.planning import data_rules


def test_images_are_resampled_to_the_median_voxel_size():
    data = fingerprint(spacings=[(1.0, 1.0, 1.0), (1.0, 1.0, 2.0), (1.0, 1.0, 2.5)])
    assert data_rules.choose_spacing(data).value == [1.0, 1.0, 2.0]


def test_of_thick_slices_the_finer_cases_count():
    data = fingerprint(spacings=[(0.5, 0.5, mm) for mm in (2.0, 5.0, 5.0, 6.0, 6.0)])
    found = data_rules.choose_spacing(data)
    assert found.value[:2] == [0.5, 0.5]
    # the tenth percentile of 2, 5, 5, 6, 6
    assert found.value[2] == pytest.approx(3.2)
    assert "axis 2" in found.reason


def test_thick_slices_never_become_finer_than_the_other_axes():
    data = fingerprint(spacings=[(1.0, 1.0, mm) for mm in (0.5, 5.0, 5.0)])
    assert data_rules.choose_spacing(data).value == pytest.approx([1.0, 1.0, 1.4])
    data = fingerprint(spacings=[(1.0, 1.0, mm) for mm in (0.5, 0.5, 5.0, 5.0, 5.0)])
    assert data_rules.choose_spacing(data).value == [1.0, 1.0, 1.0]


def test_images_of_one_pixel_size_stay_as_they_are():
    assert data_rules.choose_spacing(fingerprint(shape=(64, 64))).value is None
    two = fingerprint(shape=(64, 64), spacings=[(1.0, 1.0), (1.0, 1.0), (2.0, 2.0)])
    assert data_rules.choose_spacing(two).value == [1.0, 1.0]


def test_tiny_voxels_and_intensities_keep_their_digits():
    cells = fingerprint(shape=(64, 64), spacings=[(0.00025, 0.00025), (0.00025, 0.0005), (0.00035, 0.0005)])
    assert data_rules.choose_spacing(cells).value == [0.00025, 0.0005]
    assert data_rules.choose_tolerance(cells).value == pytest.approx(2 * (0.00025 * 0.0005) ** 0.5, rel=1e-5)
    assert data_rules.choose_tolerance(fingerprint(spacings=[(2e-4,) * 3])).value == pytest.approx(2e-4)
    tiny = dataclasses.replace(DARK, p0_5=1e-6, p99_5=1.23456789e-4, mean=2e-5, sd=3e-5)
    found = data_rules.choose_intensity_range(fingerprint(modality="CT", foreground=tiny), "range")
    assert found.value == [1e-6, 1.23457e-4, 2e-5, 3e-5]


def test_ct_keeps_its_scale_and_other_images_have_their_own():
    ct = fingerprint(modality="CT", surround=True)
    assert not data_rules.choose_crop_background(ct).value
    assert data_rules.choose_normalization(ct, False).value == "range"
    assert data_rules.choose_intensity_range(ct, "range").value == [0.0, 100.0, 15.0, 20.0]
    # nothing is known of the foreground, or of which channel is CT
    assert data_rules.choose_normalization(fingerprint(modality="CT", foreground=None), False).value == "volume"
    assert data_rules.choose_normalization(fingerprint(modality="CT", channels=("CT", "PET")), False).value == "volume"
    # a phantom, whose labels have one value
    for flat in (dataclasses.replace(DARK, sd=0.0), dataclasses.replace(DARK, p0_5=7.0, p50=7.0, p99_5=7.0)):
        phantom = fingerprint(modality="CT", foreground=flat)
        assert data_rules.choose_normalization(phantom, False).value == "volume"
    brain = fingerprint(surround=True)
    assert data_rules.choose_crop_background(brain).value
    assert data_rules.choose_normalization(brain, True).value == "inside"
    assert data_rules.choose_normalization(fingerprint(), False).value == "volume"


def clipped(data, normalization="volume", crop=False):
    return data_rules.choose_clip_percentiles(data, normalization, crop)


def test_outliers_are_clipped_as_always_where_no_label_lies_beyond():
    for level in (0.0, 50.0, 100.0):
        data = fingerprint(medians={"organ": (level,)})
        assert clipped(data).value == [0.5, 99.5]
        assert clipped(data, "inside", True).value == [0.0, 99.5]
        assert clipped(data, "range").value == [0.5, 99.5]
    assert clipped(fingerprint()).value == [0.5, 99.5]


def test_nothing_is_clipped_on_the_side_on_which_most_of_a_label_lies():
    bright = fingerprint(labels={"vessel": 1, "organ": 2}, medians={"vessel": (101.0,), "organ": (50.0,)})
    assert clipped(bright).value == [0.5, 100.0]
    assert "above, as most of vessel is brighter than the 99.5th percentile in some cases" in clipped(bright).reason
    assert clipped(bright, "inside", True).value == [0.0, 100.0]
    dark = fingerprint(medians={"organ": (-1.0,)})
    assert clipped(dark).value == [0.0, 99.5]
    assert "below, as most of organ is darker than the 0.5th percentile in some cases" in clipped(dark).reason
    # one channel is enough
    both = fingerprint(channels=("T1", "T2"), medians={"organ": (50.0, 101.0)}, bounds=((0.0, 100.0),) * 2)
    assert clipped(both).value == [0.5, 100.0]
    assert clipped(both, "inside", True).value == [0.0, 100.0]


def test_a_label_beyond_the_bounds_in_few_cases_changes_nothing():
    data = fingerprint(spacings=((1.0, 1.0, 1.0),) * 10, medians={"organ": (101.0,)})
    ordinary = [dataclasses.replace(case, medians={"organ": (99.0,)}) for case in data.cases]
    for beyond, value in ((1, [0.5, 99.5]), (2, [0.5, 100.0])):
        mixed = dataclasses.replace(data, cases=(*ordinary[beyond:], *data.cases[:beyond]))
        assert clipped(mixed).value == value
    # cases without the label do not count
    without = [dataclasses.replace(case, medians={}) for case in data.cases[:3]]
    assert clipped(dataclasses.replace(data, cases=(*without, *data.cases[3:4]))).value == [0.5, 100.0]


def test_bounds_are_those_of_what_is_left_after_cropping():
    data = fingerprint(surround=True, medians={"organ": (101.0,)}, bounds=((0.0, 120.0),))
    assert clipped(data, "inside", True).value == [0.0, 99.5]
    assert clipped(data, "inside", False).value == [0.0, 100.0]


def test_a_fixed_range_has_the_percentiles_that_are_asked_for():
    ct = fingerprint(modality="CT")
    assert data_rules.choose_intensity_range(ct, "range", [0.0, 100.0]).value == [-50.0, 150.0, 15.0, 20.0]
    found = data_rules.choose_intensity_range(ct, "range", [5.0, 95.0]).value
    assert found == pytest.approx([1.0, 80.0, 15.0, 20.0], abs=1)


def test_a_surround_that_holds_labels_is_no_background():
    data = fingerprint(surround=True, labels={"a": 1, "b": 2, "c": 3}, in_surround={"a": 0.4, "b": 0.001, "c": 0.03})
    choice = data_rules.choose_crop_background(data)
    assert not choice.value
    assert "40 % of a and 3 % of c lie in it and would never be found" in choice.reason
    # mean and deviation are still those of the content
    assert data_rules.choose_normalization(data, choice.value).value == "inside"
    few = fingerprint(surround=True, in_surround={"organ": 0.01})
    assert data_rules.choose_crop_background(few).value


def test_images_of_both_backgrounds_are_made_alike():
    def inverts(*whole):
        data = fingerprint(shape=(64, 64), modality="other", whole=whole)
        return data_rules.choose_inversion(data, "volume").value

    assert inverts(DARK, BRIGHT)
    assert not inverts(DARK, DARK)
    assert not inverts(BRIGHT)
    # a few in between are fine
    assert inverts(*[DARK] * 80, *[BRIGHT] * 19, _with_median(50.0))


def _with_median(value):
    return dataclasses.replace(DARK, p50=value)


def test_medians_around_the_middle_of_the_range_are_no_two_backgrounds():
    grey = [_with_median(value) for value in (40.0, 45.0, 49.0, 51.0, 55.0, 58.0)]
    whole = {"one kind": grey, "many between": [DARK, BRIGHT, *grey], "a volume": [DARK, BRIGHT]}
    for name, intensities in whole.items():
        shape = (64, 64, 64) if name == "a volume" else (64, 64)
        data = fingerprint(shape=shape, modality="other", whole=intensities)
        assert not data_rules.choose_inversion(data, "volume").value, name


def test_cases_of_rare_kinds_of_images_are_drawn_more_often():
    def factor(whole, shape=(64, 64)):
        return data_rules.choose_rare_kind_factor(fingerprint(shape=shape, modality="other", whole=whole))

    found = factor([DARK] * 40 + [BRIGHT] * 2)
    assert found.value == 5.0
    assert "There are 2 kinds of images by shape and background." in found.reason
    one, alike = factor([DARK] * 40), factor([DARK] * 20 + [BRIGHT] * 15)
    assert (one.value, alike.value) == (1.0, 1.0)
    assert "tell no kinds of images apart" in one.reason
    assert "none of which is rare" in alike.reason
    volumes = factor([DARK] * 40 + [BRIGHT] * 2, shape=(64, 64, 64))
    assert (volumes.value, volumes.reason) == (1.0, "Only 2D images are sorted into kinds.")


def hearts(tilt=45.0, axes=((0, 1, 2), (2, 0, 1), (1, 2, 0)), spacing=(1.4, 1.4, 10.0)):
    """Volumes whose third axis, as stored, has the thick slices, and is nearest to another axis of the body in each."""
    data = fingerprint(shape=(80, 90, 12), spacings=(spacing,) * len(axes))
    cases = []
    for case, order in zip(data.cases, axes, strict=True):
        sizes = {
            name: tuple(getattr(case, name)[axis] for axis in order) for name in ("shape", "spacing_mm", "size_mm")
        }
        cases.append(dataclasses.replace(case, **sizes, stored_axes=order, tilt_degrees=tilt, faces={"a": order}))
    return dataclasses.replace(data, cases=tuple(cases))


def mirrored(data, count):
    """The same where the first cases are stored as mirror images."""
    turned = [dataclasses.replace(case, left_handed=True) for case in data.cases[:count]]
    return dataclasses.replace(data, cases=(*turned, *data.cases[count:]))


def test_tilted_thick_slices_are_taken_as_they_are_stored():
    found = data_rules.choose_orientation(hearts())
    assert found.value is None
    assert "100 % of the cases are thick and tilted so far" in found.reason
    stored = hearts().as_stored()
    assert {case.shape for case in stored.cases} == {(80, 90, 12)}
    assert {case.spacing_mm for case in stored.cases} == {(1.4, 1.4, 10.0)}
    assert {case.faces["a"] for case in stored.cases} == {(0, 1, 2)}
    assert (stored.median_shape, stored.median_spacing_mm) == ((80, 90, 12), (1.4, 1.4, 10.0))
    assert data_rules.choose_spacing(stored).value == [1.4, 1.4, 10.0]
    assert data_rules.choose_flip_axes(stored, False, None).value == []
    assert (stored.ranges.as_stored, stored.ranges.left_handed) == (True, 0.0)
    assert stored.ranges.size_mm[2] == (120.0, 120.0)
    assert data_rules.choose_orientation(mirrored(hearts(), 3)).value is None
    assert mirrored(hearts(), 3).as_stored().ranges.left_handed == 1.0
    assert not hearts().ranges.as_stored


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(hearts(tilt=10.0), id="hardly tilted: other planes were meant"),
        pytest.param(hearts(axes=((0, 1, 2),) * 3), id="all alike"),
        pytest.param(hearts(spacing=(1.4, 1.4, 2.0)), id="not thick"),
        pytest.param(fingerprint(), id="of an older version"),
        pytest.param(mirrored(hearts(), 1), id="a third is stored as a mirror image"),
    ],
)
def test_other_volumes_are_brought_to_one_orientation(data):
    assert data_rules.choose_orientation(data).value == "RAS"
    assert [case.as_stored().as_stored() for case in data.cases] == [case.as_stored() for case in data.cases]


def test_rare_labels_are_drawn_more_often_and_background_for_a_fifth():
    data = fingerprint(labels={"b": 7, "a": 2}, voxels={"a": 1600, "b": 100})
    assert data_rules.choose_class_ratios(data, False).value == [0.75, 1.0, 2.0]
    # a lesion in a brain has other tissue around it
    assert data_rules.choose_class_ratios(data, True).value == [0.75, 1.0, 2.0]
    never = fingerprint(labels={"a": 1, "b": 2}, voxels={"a": 10**6, "b": 0})
    assert data_rules.choose_class_ratios(never, False).value == [0.5, 1.0, 1.0]


def test_no_patches_are_around_a_surround_whose_content_is_labelled():
    labels, voxels = {"a": 1, "b": 2}, {"a": 1600, "b": 1600}
    data = fingerprint(shape=(20, 20, 20), spacings=((2.0, 2.0, 2.0),), labels=labels, voxels=voxels)
    brains, trunks = (
        dataclasses.replace(data, cases=tuple(dataclasses.replace(case, surround_share=share) for case in data.cases))
        for share in (0.5, 0.3)
    )
    assert data_rules.choose_class_ratios(brains, True).value == [0.0, 1.0, 1.0]
    assert data_rules.choose_class_ratios(brains, False).value == [0.5, 1.0, 1.0]
    # of the trunk, 3200 of 5600 voxels have a label
    assert data_rules.choose_class_ratios(trunks, True).value == [0.5, 1.0, 1.0]
    # of 4000 and 5600 voxels inside, 2300 and 4000 are ignored
    for data, ignored, outside in ((brains, 4600, 0.5), (trunks, 4000, 0.0)):
        change = {"voxels": {"a": 800, "b": 700}, "ignored": ignored, "ignored_in_surround": outside}
        partly = dataclasses.replace(data, cases=tuple(dataclasses.replace(case, **change) for case in data.cases))
        assert data_rules.choose_class_ratios(partly, True).value[0] == 0.0
    unknown = tuple(dataclasses.replace(case, voxels={"a": 0, "b": 0}, ignored=8000) for case in trunks.cases)
    assert data_rules.choose_class_ratios(dataclasses.replace(trunks, cases=unknown), True).value[0] > 0


def test_rare_labels_weigh_more_and_the_background_least():
    data = fingerprint(labels={"b": 7, "a": 2}, voxels={"a": 1600, "b": 100})
    assert data_rules.choose_class_weights(data).value == [0.67, 0.67, 1.33]
    never = fingerprint(labels={"a": 1, "b": 2}, voxels={"a": 10**6, "b": 0})
    assert data_rules.choose_class_weights(never).value == [1.0, 1.0, 1.0]
    assert data_rules.choose_class_weights(fingerprint(labels={"a": 1}, voxels={"a": 5})).value is None


def test_a_label_of_one_side_forbids_mirror_images_where_the_other_has_none():
    for shape in ((64, 64, 64), (64, 64)):
        data = fingerprint(shape=shape, modality="other", labels={"left kidney": 1, "spleen": 2})
        found = data_rules.choose_flip_axes(data, rotate90=False)
        assert found.value == []
        assert found.reason.startswith("left kidney is on one side,")
        assert not data_rules.choose_rotate90(data).value
    # such pairs are known by the beginnings of words only
    pair = {"labels": {"leftlung": 1, "rightlung": 2}, "left_right": (("leftlung", "rightlung"),)}
    assert not data_rules.choose_rotate90(fingerprint(shape=(64, 64), modality="other", **pair)).value
    unnamed = data_rules.choose_flip_axes(fingerprint(labels={"label_1": 1, "label_2": 2}), False)
    assert unnamed.value == [0]
    assert unnamed.reason.endswith("If some are of the left side and others of the right, none is better.")


@pytest.mark.parametrize("name", ["chest X-ray", "xray", "US", "B-mode ultrasound", "OCT", "mammography"])
def test_pictures_that_are_called_upright_are_not_turned(name):
    data = fingerprint(shape=(64, 64), modality="other", channels=(name,))
    assert not data_rules.choose_rotate90(data).value
    assert data_rules.choose_flip_axes(data, False).value == [0]


@pytest.mark.parametrize("name", ["microscopy", "focus", "octane", "nuclei_us2"])
def test_other_names_tell_no_orientation(name):
    data = fingerprint(shape=(64, 64), modality="other", channels=(name,))
    found = data_rules.choose_rotate90(data)
    assert found.value
    assert found.reason.startswith(f"Images called {name} are taken for ones without a fixed orientation")


def test_left_and_right_labels_forbid_mirror_images():
    sided = fingerprint(labels={"left": 1, "right": 2}, left_right=(("left", "right"),))
    assert data_rules.choose_flip_axes(sided, False).value == []
    assert data_rules.choose_flip_axes(fingerprint(), False).value == [0]
    cells = fingerprint(shape=(64, 64), modality="other")
    assert data_rules.choose_rotate90(cells).value
    assert data_rules.choose_flip_axes(cells, True).value == [0, 1]
    assert not data_rules.choose_rotate90(fingerprint(shape=(64, 64), modality="MR")).value


def test_images_of_oblong_pixels_are_not_rotated_by_right_angles():
    oblong, square = (fingerprint(shape=(64, 64), modality="other", spacings=[(0.004, mm)]) for mm in (0.012, 0.00401))
    assert not data_rules.choose_rotate90(oblong).value
    assert data_rules.choose_rotate90(oblong, [0.01, 0.01]).value
    assert data_rules.choose_rotate90(square).value
    assert not data_rules.choose_rotate90(square, square=False).value


def test_several_channels_have_no_common_range_that_is_measured():
    assert data_rules.choose_intensity_range(fingerprint(modality="CT", channels=("CT", "PET")), "range").value is None


def test_the_augmentation_says_that_it_is_not_chosen_by_the_modality():
    chosen = [data_rules.choose_augmentation(fingerprint(modality=modality)) for modality in ("CT", "MR", "other")]
    assert {choice.value for choice in chosen} == {"strong"}
    assert all(choice.reason.startswith("The same for every kind of image: ") for choice in chosen)
    assert all("not tuned to the modality" in choice.reason for choice in chosen)


def test_surfaces_may_be_a_voxel_apart_in_3d_and_two_pixels_in_2d():
    assert data_rules.choose_tolerance(fingerprint(spacings=[(1.0, 1.0, 8.0)])).value == 2.0
    assert data_rules.choose_tolerance(fingerprint(shape=(64, 64))).value == 2.0


def test_typical_shapes_are_those_after_resampling_and_cropping():
    data = fingerprint(shape=(60, 50, 40), spacings=[(1.0, 1.0, 2.0)])
    # from the centre of the first slice to that of the last
    assert data_rules.typical_shape(data, [1.0, 1.0, 1.0], False) == [60, 50, 79]
    # 250/256 mm, rounded to six digits
    assert data_rules.typical_shape(fingerprint(spacings=[(0.9765625,) * 3]), [0.976562] * 3, False) == [64, 64, 64]
    # a margin of 4 voxels on each side of the content
    assert data_rules.typical_shape(data, [1.0, 1.0, 1.0], True) == [68, 58, 88]
