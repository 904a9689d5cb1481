"""Resampling block by block gives what MONAI's ``Spacingd`` gives, forth and back, in less memory."""

import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import MetaTensor, ThreadDataLoader, decollate_batch
from monai.transforms import (
    Compose,
    CropForegroundd,
    Invertd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    Spacingd,
)

from monai_unetpp.data import BlockwiseSpacingd, CaseDataset, ImageFileError, InvertProbabilitiesd, VolumeReader
from monai_unetpp.data.transforms import resampling

SHAPE = (14, 11, 9)


def rotation(angle, first, second):
    matrix = np.eye(4)
    matrix[[first, first, second, second], [first, second, first, second]] = (
        np.cos(angle),
        -np.sin(angle),
        np.sin(angle),
        np.cos(angle),
    )
    return matrix


OBLIQUE = rotation(0.4, 0, 1) @ rotation(-0.3, 1, 2) @ np.diag([0.83, 1.21, 2.37, 1])
SHEARED = OBLIQUE @ np.array([[1, 0.1, 0, 0], [0, 1, 0.05, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
AFFINES = {
    "straight": np.diag([0.83, 1.21, 2.37, 1]) + np.eye(4, k=3) * 7,
    "flipped and swapped": np.array([[0, -1.21, 0, 5], [0.83, 0, 0, -3], [0, 0, -2.37, 2], [0, 0, 0, 1.0]]),
    "oblique": OBLIQUE,
    "sheared": SHEARED,
}


def as_stored(affine, rounding):
    """An affine as a header gives it back."""
    header = nib.Nifti1Header()
    header.set_data_shape((2, 2, 2))
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    return {"exact": affine, "sform": header.get_sform(), "qform": header.get_qform()}[rounding]


def random_rotation(seed):
    """By up to about 20 degrees about any axis."""
    angles = np.random.default_rng(seed).uniform(-0.35, 0.35, 3)
    return rotation(angles[0], 0, 1) @ rotation(angles[1], 1, 2) @ rotation(angles[2], 0, 2)


def all_orders():
    """The 48 ways in which axes can be swapped and flipped."""
    for permutation in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            order = np.eye(4)
            order[:3, :3] = np.eye(3)[:, permutation] * signs
            yield order


def to_simpleitk(voxels, affine):
    """Voxels ``(H, W, D)`` with an affine in RAS, as another library has them."""
    image = SimpleITK.GetImageFromArray(voxels.T)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def resample_by_simpleitk(image, like, nearest=False):
    """What another library gives on the grid of ``like``, and where that lies within the image."""
    voxels = image.as_tensor()[0].numpy()
    grid = to_simpleitk(np.zeros(like.shape[1:], np.float32), like.affine.numpy())
    how = SimpleITK.sitkNearestNeighbor if nearest else SimpleITK.sitkLinear
    moved = SimpleITK.Resample(to_simpleitk(voxels, image.affine.numpy()), grid, SimpleITK.Transform(), how, -1000)
    matrix = np.linalg.solve(image.affine.numpy(), like.affine.numpy())
    places = np.einsum("ij,j...->i...", matrix[:3, :3], np.indices(like.shape[1:])) + matrix[:3, 3, None, None, None]
    inside = np.logical_and.reduce([(p > 1e-3) & (p < n - 1.001) for p, n in zip(places, voxels.shape, strict=True)])
    clear = np.logical_and.reduce([np.abs(p % 1 - 0.5) > 1e-3 for p in places]) if nearest else True
    return SimpleITK.GetArrayFromImage(moved).T, inside & clear


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """So small that every volume here is cut along each axis."""
    monkeypatch.setattr(resampling, "_BLOCK_VALUES", 500)


@pytest.fixture
def _large_blocks(_small_blocks, monkeypatch):
    """Where many volumes are resampled, and blocks are not what is tested."""
    monkeypatch.setattr(resampling, "_BLOCK_VALUES", 2**16)


def volume(affine, shape=SHAPE, channels=1, seed=0):
    voxels = torch.rand(channels, *shape, generator=torch.Generator().manual_seed(seed)) * 100
    return MetaTensor(voxels, affine=torch.as_tensor(affine))


def label_map(like, shape, dtype=torch.uint8):
    voxels = torch.randint(0, 4, (1, *shape), generator=torch.Generator().manual_seed(1))
    return MetaTensor(voxels.to(dtype), meta=like.meta)


def both(image, *arguments, **options):
    """The image as MONAI and as we resample it, with the transforms."""
    for transform in (Spacingd("image", *arguments, **options), BlockwiseSpacingd("image", *arguments, **options)):
        yield transform, transform({"image": image.clone()})["image"]


def assert_same(ours, theirs):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-12)
    torch.testing.assert_close(ours.as_tensor().float(), theirs.as_tensor().float(), rtol=1e-5, atol=1e-4)


def test_the_blocks_are_many_and_cover_everything_once():
    covered = np.zeros(SHAPE, int)
    blocks = list(resampling.list_blocks((1, *SHAPE), np.eye(3)))
    for block in blocks:
        covered[block] += 1
    assert len(blocks) > 8
    assert (covered == 1).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_blocks_and_what_they_need_are_bounded(channels):
    """A voxel of the result for each 3 x 3 x 3 of the image: the image decides, not the result."""
    blocks = list(resampling.list_blocks((channels, 20, 20, 20), 3 * np.eye(3)))
    sizes = [channels * np.prod([3 * (part.stop - part.start - 1) + 1 for part in block]) for block in blocks]
    assert max(sizes) <= 150


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("pixdim", [(1.0, 1.0, 1.0), (2.9, 0.77, 3.1)], ids=["even", "uneven"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_the_same_as_monai(affine, pixdim, mode):
    (_, theirs), (_, ours) = both(volume(affine, channels=2), pixdim, mode=mode)
    assert_same(ours, theirs)
    assert ours.dtype == theirs.dtype == torch.float32
    assert ours.shape != (2, *SHAPE)


@pytest.mark.usefixtures("_large_blocks")
@pytest.mark.parametrize("rounding", ["exact", "sform", "qform"])
@pytest.mark.parametrize("pixdim", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0), (2.0, 1.0, 0.7)], ids=str)
def test_however_a_volume_is_turned_the_voxels_are_the_same(rounding, pixdim):
    """Same voxels, same spacing: same result, and back, whatever the direction and however the header rounds it."""
    straight = np.diag([1.0, 1.0, 2.0, 1.0])
    transform = BlockwiseSpacingd(("image", "label"), pixdim, mode=("bilinear", "nearest"))

    def resample(affine):
        image = volume(affine)
        there = transform({"image": image, "label": label_map(image, SHAPE)})
        return there, transform.inverse({key: value.clone() for key, value in there.items()})

    expected, expected_back = resample(straight)
    for seed in range(12):
        turned = random_rotation(seed) @ straight + 30 * seed * np.eye(4, k=3)
        affine = as_stored(turned, rounding)
        there, back = resample(affine)
        np.testing.assert_allclose(there["image"].affine[:3, 3], affine[:3, 3], atol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(there["image"].affine[:3, :3], axis=0), pixdim, rtol=1e-6)
        for ours, theirs in ((there, expected), (back, expected_back)):
            assert torch.equal(ours["label"].as_tensor(), theirs["label"].as_tensor())
            torch.testing.assert_close(ours["image"].as_tensor(), theirs["image"].as_tensor(), rtol=0, atol=1e-3)
        np.testing.assert_allclose(back["image"].affine, affine, atol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("_large_blocks")
@pytest.mark.parametrize("turned", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize("nearest", [False, True], ids=["linear", "nearest"])
def test_all_orders_of_axes_are_as_another_library_resamples_them(turned, nearest):
    for seed, order in enumerate(all_orders()):
        affine = as_stored((random_rotation(seed) if turned else np.eye(4)) @ order @ AFFINES["straight"], "sform")
        pixdim = [(1.0, 1.0, 1.0), (2.9, 0.77, 1.1), (0.6, 2.0, 3.1)][seed % 3]
        image = volume(affine, (9, 8, 7), seed=seed)
        ours = BlockwiseSpacingd("image", pixdim, mode="nearest" if nearest else "bilinear")({"image": image})["image"]
        theirs, compared = resample_by_simpleitk(image, ours, nearest)
        assert compared.any()
        np.testing.assert_allclose(ours.as_tensor()[0].numpy()[compared], theirs[compared], atol=0.01)


@pytest.mark.parametrize("affine", [OBLIQUE, SHEARED, random_rotation(3) @ SHEARED], ids=["oblique", "sheared", "both"])
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
def test_a_box_of_right_angles_encloses_sheared_volumes_and_those_on_the_axes_of_the_world(
    affine, diagonal, mode, padding_mode
):
    affine = as_stored(affine, "sform")
    image = volume(affine)
    transform = BlockwiseSpacingd("image", (0.9, 1.1, 1.3), diagonal, mode, padding_mode)
    ours = transform({"image": image})["image"]
    axes = ours.affine[:3, :3].numpy()
    np.testing.assert_allclose(axes.T @ axes, np.diag([0.9, 1.1, 1.3]) ** 2, atol=1e-6)
    if diagonal:
        np.testing.assert_allclose(axes, np.diag([0.9, 1.1, 1.3]), atol=1e-12)
    corners = np.array(list(itertools.product(*((0, n - 1) for n in SHAPE), [1])))[:, :4].T
    reached = np.linalg.solve(ours.affine.numpy(), affine @ corners)[:3]
    np.testing.assert_allclose(reached.min(axis=1), 0, atol=1e-4)
    assert (np.abs(reached.max(axis=1) - (np.array(ours.shape[1:]) - 1)) <= 0.5 + 1e-4).all()
    theirs, compared = resample_by_simpleitk(image, ours, mode == "nearest")
    assert compared.mean() > 0.1
    np.testing.assert_allclose(ours.as_tensor()[0].numpy()[compared], theirs[compared], atol=0.01)
    if diagonal and padding_mode == "zeros":
        assert 0.1 < (ours == 0).float().mean() < 0.9
    back = transform.inverse({"image": ours})["image"]
    assert back.shape == image.shape
    np.testing.assert_allclose(back.affine, affine, atol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("_large_blocks")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    spacing=st.sampled_from([0.05, 0.4, 0.7, 0.9, 1.0, 1.2, 2.4, 5.0]),
    factor=st.sampled_from([0.4, 0.5, 0.75, 1.0, 1.25, 2.0]),
    length=st.integers(2, 40),
)
def test_neither_grid_nor_values_depend_on_the_rounding_of_a_header(seed, spacing, factor, length):
    exact = random_rotation(seed) @ np.diag([spacing, spacing, 2 * spacing, 1])
    transform = BlockwiseSpacingd(("image", "label"), spacing * factor, mode=("bilinear", "nearest"))
    done = []
    for rounding in ("exact", "sform", "qform"):
        image = volume(as_stored(exact, rounding), (length, 5, 6))
        done.append(transform({"image": image, "label": label_map(image, (length, 5, 6))}))
    for other in done[1:]:
        assert other["image"].shape == done[0]["image"].shape
        assert torch.equal(other["label"].as_tensor(), done[0]["label"].as_tensor())
        torch.testing.assert_close(other["image"].as_tensor(), done[0]["image"].as_tensor(), rtol=0, atol=0.01)


def test_voxels_of_micrometres_are_resampled_to_others_of_micrometres():
    image = volume(np.diag([0.0505, 0.05, 0.05, 1]), (40, 5, 5))
    finer = BlockwiseSpacingd("image", 0.05)({"image": image})["image"]
    np.testing.assert_allclose(np.diag(finer.affine), [0.05, 0.05, 0.05, 1], rtol=1e-12)


@pytest.mark.parametrize(
    ("affine", "shape", "pixdim", "message"),
    [
        (
            np.eye(4) * [0.001, 0.001, 0.001, 1],
            (30, 20, 10),
            1.0,
            r"30 x 20 x 10 voxels of 0\.001 x 0\.001 x 0\.001 mm",
        ),
        (
            np.eye(4) * [0.001, 0.001, 0.001, 1],
            (512, 4, 4),
            1.0,
            r"would become 2 x 1 x 1 of 1 x 1 x 1 mm, nearly nothing",
        ),
        (np.eye(4) * [1, 1, 0.001, 1], (9, 8, 7), 1.0, r"would become 9 x 8 x 1 of .*nearly nothing\. Correct the"),
        (np.eye(4) * [1e5, 1e5, 1e5, 1], (30, 20, 10), 1.0, r"would become .* of 1 x 1 x 1 mm, more than memory holds"),
        (
            OBLIQUE * [1e6, 1, 1, 1],
            (30, 20, 10),
            1e-4,
            r"more than memory holds\. Correct the voxel size in its header",
        ),
    ],
)
def test_what_a_wrong_voxel_size_would_make_of_a_volume_is_refused(affine, shape, pixdim, message):
    image = volume(affine, shape)
    image.meta["filename_or_obj"] = "scans/a.nii.gz"
    with pytest.raises(ImageFileError, match=message) as caught:
        BlockwiseSpacingd("image", pixdim).spacing_transform(image)
    assert str(caught.value).startswith("scans/a.nii.gz: its ")


@pytest.mark.usefixtures("_large_blocks")
def test_thin_volumes_and_small_voxels_are_not_refused():
    fine = volume(np.diag([0.05, 0.05, 0.05, 1]), (100, 90, 80))
    assert BlockwiseSpacingd("image", 1.0)({"image": fine})["image"].shape == (1, 6, 5, 5)
    slab = volume(np.diag([1, 1, 0.2, 1]), (10, 10, 3))
    assert BlockwiseSpacingd("image", 1.0)({"image": slab})["image"].shape == (1, 10, 10, 1)
    slice_ = volume(np.diag([1, 1, 0.001, 1]), (10, 10, 1))
    assert BlockwiseSpacingd("image", 1.0)({"image": slice_})["image"].shape == (1, 10, 10, 1)


@pytest.mark.parametrize("plane", [(0, 1), (0, 2), (1, 2), (2, 0)])
@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_a_slice_is_resampled_within_its_plane_wherever_that_lies(plane, seed, mode):
    """Oblique, coronal, sagittal: as a slice along the axes of the world with the same pixels."""
    space = np.eye(4) if seed is None else as_stored(random_rotation(seed), "qform")
    affine = space @ np.eye(4)[:, [*plane, 3 - sum(plane), 3]] @ np.diag([0.8, 1.5, 4, 1])
    affine[:3, 3] = 10, -20, 30
    transform = BlockwiseSpacingd("image", (1.0, 1.1), mode=mode)
    flat, turned = (volume(each, (25, 18)) for each in (np.diag([0.8, 1.5, 4, 1]), affine))
    expected, ours = (transform({"image": each})["image"] for each in (flat, turned))
    torch.testing.assert_close(ours.as_tensor(), expected.as_tensor(), rtol=0, atol=1e-3)
    assert ours.shape == (1, 20, 24)
    np.testing.assert_allclose(ours.affine[:3, :2], affine[:3, :2] * [1 / 0.8, 1.1 / 1.5], atol=1e-6)
    np.testing.assert_allclose(ours.affine[:3, 3], affine[:3, 3])
    back = transform.inverse({"image": ours.clone()})["image"]
    assert back.shape == (1, 25, 18)
    np.testing.assert_allclose(back.affine, affine, atol=1e-9)
    flat_back = transform.inverse({"image": expected})["image"].as_tensor()
    torch.testing.assert_close(back.as_tensor(), flat_back, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 11, 9), (14, 1, 9), (14, 11, 1), (1, 1, 1)])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_axes_of_one_voxel(shape, mode):
    (_, theirs), (_, ours) = both(volume(OBLIQUE, shape), 0.4, mode=mode)
    assert_same(ours, theirs)


@pytest.mark.parametrize("affine", [np.diag([1.5, 0.7, 1, 1]), rotation(0.5, 0, 1) @ np.diag([1.5, 0.7, 1, 1])])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_2d(affine, mode):
    image = volume(affine, (31, 26))
    (their_transform, theirs), (our_transform, ours) = both(
        image, (1.03, 0.93), mode=mode
    )  # no place is between two voxels
    assert_same(ours, theirs)
    assert_same(our_transform.inverse({"image": ours})["image"], their_transform.inverse({"image": theirs})["image"])


def test_voxels_of_a_quarter_of_the_size_by_hand():
    """Between 0 and 8 lie 2, 4 and 6, four times as fine; in the middle the label is that of voxel 0, an even one."""
    image = MetaTensor(torch.tensor([0.0, 8.0])[None, :, None, None].expand(1, 2, 2, 2), affine=np.eye(4))
    fine = BlockwiseSpacingd("image", (0.25, 1, 1))({"image": image})["image"]
    assert fine[0, :, 0, 0].tolist() == [0, 2, 4, 6, 8]
    fine = BlockwiseSpacingd("image", (0.25, 1, 1), mode="nearest")({"image": image})["image"]
    assert fine[0, :, 0, 0].tolist() == [0, 0, 0, 8, 8]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.usefixtures("_large_blocks")
def test_a_place_on_a_voxel_has_its_value_alone(axis):
    """Else a surround of zeros has traces of what it surrounds, and is cropped elsewhere."""
    image = MetaTensor(torch.zeros(1, 60, 60, 61), affine=np.diag([-3.0, 2.7, -1.8, 1]))
    image.movedim(1 + axis, 0)[::2] = 200
    fine = BlockwiseSpacingd("image", (1.0, 0.9, 0.6))({"image": image})["image"].movedim(1 + axis, 0)
    assert fine[0::6].unique().tolist() == [200]
    assert fine[3::6].unique().tolist() == [0]


@pytest.mark.parametrize("direction", [1, -1])
def test_between_two_labels_the_even_one_decides_so_that_none_moves(direction):
    """Voxels of 2 mm come back as three or one of 1 mm, in turn, each around its own centre; blocks leave no trace."""
    affine = np.diag([direction, 1.0, 1.0, 1.0])
    transform = BlockwiseSpacingd("image", (2.0, 1.0, 1.0))
    coarse = transform({"image": volume(affine, (41, 12, 12))})["image"]
    numbers = torch.arange(21, dtype=torch.uint8)[None, :, None, None].expand(1, 21, 12, 12)
    fine = Invertd("pred", transform, orig_keys="image")({"image": coarse, "pred": MetaTensor(numbers)})["pred"]
    expected = torch.arange(41).div(2).round().long()
    assert torch.equal(fine.as_tensor().long(), expected[None, :, None, None].expand(1, 41, 12, 12))
    assert all((expected == k).nonzero().float().mean() == 2 * k for k in range(1, 20))


@pytest.mark.usefixtures("_large_blocks")
@pytest.mark.parametrize("rounding", ["exact", "sform", "qform"])
def test_labels_of_2_mm_come_back_from_1_mm_as_they_were(rounding):
    affine = as_stored(OBLIQUE @ np.diag([2 / 0.83, 2 / 1.21, 2 / 2.37, 1]), rounding)
    transform = BlockwiseSpacingd("image", 1.0, mode="nearest")
    labels = label_map(volume(affine), SHAPE)
    fine = transform({"image": labels})["image"]
    assert fine.shape == (1, *(2 * length - 1 for length in SHAPE))
    assert torch.equal(transform.inverse({"image": fine})["image"].as_tensor(), labels.as_tensor())


@pytest.mark.slow
@pytest.mark.usefixtures("_large_blocks")
@pytest.mark.parametrize("rounding", ["exact", "sform", "qform"])
def test_labels_of_1_mm_keep_their_places_and_volumes_through_2_mm(rounding):
    """On the whole, that is: a box of an odd number of voxels cannot keep its size, but boxes must not wander."""
    affine = as_stored(OBLIQUE @ np.diag([1 / 0.83, 1 / 1.21, 1 / 2.37, 1]), rounding)
    transform = BlockwiseSpacingd("image", 2.0, mode="nearest")
    shifts, sizes = [], []
    for seed in range(60):
        start = np.random.default_rng(seed).integers(4, 10, 3)
        label = torch.zeros(1, 30, 30, 30, dtype=torch.uint8)
        label[(0, *(slice(first, first + 12) for first in start))] = 1
        there = transform({"image": MetaTensor(label, affine=torch.as_tensor(affine))})["image"]
        back = transform.inverse({"image": there})["image"].as_tensor()
        shifts.append((back[0].nonzero().double().mean(0) - label[0].nonzero().double().mean(0)).numpy())
        sizes.append(back.sum().item() / label.sum().item())
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.15
    assert np.mean(sizes) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("nearest", [True, False])
def test_the_inverse_is_monais(affine, nearest):
    (their_transform, theirs), (our_transform, ours) = both(volume(affine), (1.0, 1.03, 1.1))
    pred = label_map(theirs, theirs.shape[1:])
    inverted = [
        Invertd("pred", transform, orig_keys="image", nearest_interp=nearest)({"image": image, "pred": pred.clone()})
        for transform, image in ((their_transform, theirs), (our_transform, ours))
    ]
    assert_same(inverted[1]["pred"], inverted[0]["pred"])
    assert inverted[1]["pred"].shape == (1, *SHAPE)
    np.testing.assert_allclose(inverted[1]["pred"].affine, affine, atol=1e-9)
    assert inverted[1]["pred"].dtype == (torch.uint8 if nearest else torch.float32)
    assert inverted[1]["pred"].applied_operations == []


def test_there_and_back():
    """A linear ramp survives, away from the border; coarse labels come back as they were."""
    ramp = torch.arange(14.0)[None, :, None, None].expand(1, 14, 11, 9)
    image = MetaTensor(ramp, affine=np.diag([0.83, 1.21, 2.37, 1]))
    transform = BlockwiseSpacingd("image", (0.5, 0.6, 0.7))
    back = transform.inverse(transform({"image": image}))["image"]
    assert back.shape == image.shape
    torch.testing.assert_close(back.as_tensor()[:, 1:-1], ramp[:, 1:-1], atol=1e-4, rtol=0)
    labels = label_map(image, SHAPE)
    transform = BlockwiseSpacingd("image", (0.3, 0.3, 0.3), mode="nearest")
    assert torch.equal(transform.inverse(transform({"image": labels}))["image"].as_tensor(), labels.as_tensor())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.bool])
def test_labels_keep_their_type(dtype):
    image = volume(OBLIQUE)
    labels = label_map(image, SHAPE, dtype)
    (_, theirs), (_, ours) = both(labels, (1.0, 1.0, 1.0), mode="nearest")
    assert_same(ours, theirs)
    assert ours.dtype == dtype
    assert BlockwiseSpacingd("image", 1.0)({"image": labels})["image"].dtype == torch.float32


@pytest.mark.parametrize("affine", [np.eye(4), rotation(0.4, 0, 2)], ids=["straight", "oblique"])
def test_nothing_is_copied_where_the_voxels_have_the_size(affine):
    image = volume(affine)
    transform = BlockwiseSpacingd("image", (1.0, 1.0, 1.0))
    same = transform({"image": image})["image"]
    assert same.data_ptr() == image.data_ptr()
    assert len(same.applied_operations) == 1
    labels = label_map(same, SHAPE)
    back = Invertd("pred", transform, orig_keys="image")({"image": same, "pred": labels})["pred"]
    assert back.data_ptr() == labels.data_ptr()
    assert back.dtype == torch.uint8
    assert back.applied_operations == []


@pytest.mark.parametrize(
    "options",
    [
        {"mode": 3, "padding_mode": "nearest"},
        {"padding_mode": "reflection"},
        {"align_corners": True},
        {"align_corners": True, "scale_extent": True},
        {"dtype": np.float32},
        {"min_pixdim": 1.0, "max_pixdim": 2.0},
        {"recompute_affine": True},
    ],
    ids=str,
)
def test_further_arguments_mean_what_they_mean_in_monai(options):
    (their_transform, theirs), (our_transform, ours) = both(volume(OBLIQUE), (1.7, 1.7, 1.7), **options)
    assert_same(ours, theirs)
    assert_same(our_transform.inverse({"image": ours})["image"], their_transform.inverse({"image": theirs})["image"])


@pytest.mark.parametrize("own", [None, np.nan, 0])
def test_an_axis_without_a_size_keeps_its_own_as_in_monai(own):
    (_, theirs), (_, ours) = both(volume(OBLIQUE), (own, 1.7, 1.7))
    assert_same(ours, theirs)


def test_the_trace_is_monais():
    (_, theirs), (_, ours) = both(volume(OBLIQUE), (1.0, 1.1, 1.3))
    for name in ("orig_size", "do_transforms", "tracing"):
        assert ours.applied_operations[0][name] == theirs.applied_operations[0][name]
    their_info, our_info = (each.applied_operations[0]["extra_info"] for each in (theirs, ours))
    assert our_info.keys() == their_info.keys()
    torch.testing.assert_close(our_info.pop("src_affine"), their_info.pop("src_affine"))
    assert our_info == their_info


def test_a_plain_tensor_has_voxels_of_one_millimetre():
    plain = volume(np.eye(4)).as_tensor()
    with pytest.warns(UserWarning, match="assuming affine to be identity"):
        ours = BlockwiseSpacingd("image", (2.0, 1.0, 1.0))({"image": plain})["image"]
    torch.testing.assert_close(torch.as_tensor(ours).as_subclass(torch.Tensor)[:, :7], plain[:, ::2])


def test_image_and_label_map_get_one_shape_and_missing_keys_are_passed_over():
    image = volume(AFFINES["straight"])
    slightly_off = AFFINES["straight"] * np.array([1.0001, 1.0001, 1.0001, 1])
    label = MetaTensor(torch.ones(1, *SHAPE), affine=torch.as_tensor(slightly_off))
    transform = BlockwiseSpacingd(("image", "label"), 0.3, mode=("bilinear", "nearest"), allow_missing_keys=True)
    done = transform({"image": image, "label": label})
    assert done["image"].shape == done["label"].shape
    assert set(transform({"image": image})) == {"image"}
    with pytest.raises(KeyError, match="label"):
        BlockwiseSpacingd(("image", "label"), 1.0)({"image": image})


@pytest.fixture
def case(tmp_path):
    """A NIfTI file with a bright box, off the target's voxel size, turned and flipped."""
    voxels = np.zeros((20, 18, 12), np.int16)
    voxels[5:15, 4:14, 3:10] = np.random.default_rng(0).integers(50, 900, (10, 10, 7))
    path = tmp_path / "case.nii.gz"
    nib.save(nib.Nifti1Image(voxels, AFFINES["flipped and swapped"]), path)
    return path


def chain(step):
    return Compose(
        [
            LoadImaged("image", reader=VolumeReader(), ensure_channel_first=True),
            Orientationd("image", axcodes="RAS", labels=None),
            step,
            CropForegroundd("image", source_key="image", margin=1, allow_smaller=True),
        ]
    )


def test_within_a_chain_and_through_a_loader(case):
    """Collated, taken apart again and inverted, labels and probabilities lie on the file's own grid."""
    results = []
    for each in (Spacingd, BlockwiseSpacingd):
        preprocessing = chain(each("image", (1.0, 1.03, 1.1)))
        loader = ThreadDataLoader(CaseDataset([{"image": str(case)}], preprocessing), batch_size=1, num_workers=0)
        batch = next(iter(loader))
        item = decollate_batch(batch)[0]
        item["pred"] = MetaTensor((item["image"].as_tensor() > 100).to(torch.uint8))
        item["logits"] = torch.stack([100 - item["image"].as_tensor()[0], item["image"].as_tensor()[0] - 100]) / 50
        item = Invertd("pred", preprocessing, orig_keys="image")(item)
        results.append(InvertProbabilitiesd("logits", preprocessing, "image")(item))
    theirs, ours = results
    for key in ("image", "pred"):
        assert_same(ours[key], theirs[key])
    assert ours["pred"].shape == (1, 20, 18, 12)
    np.testing.assert_allclose(ours["pred"].affine, nib.load(case).affine, atol=1e-6)
    assert 400 < ours["pred"].sum() < 1400
    differing = ours["logits"].as_tensor() != theirs["logits"].as_tensor()
    assert differing.float().mean() < 0.001


BUNDLES = Path(__file__).parents[2] / "bundles"


@pytest.mark.parametrize("name", ["brain_tissue_mri_unetpp", "hippocampus_mri_unetpp"])
def test_bundles_prepare_volumes_as_with_monais_own(name, case):
    config = ConfigParser.load_config_file(BUNDLES / name / "configs" / "inference.json")
    theirs = {"BlockwiseSpacingd": Spacingd, "StandardizeIntensityd": NormalizeIntensityd}
    text = json.dumps(config["preprocessing"]).replace(', "inside_surround": true', "")  # MONAI has no such option
    prepared = []
    for replaced in ((), theirs):
        for each in replaced:
            assert text.count(f"monai_unetpp.data.{each}") == 1
            text = text.replace(f"monai_unetpp.data.{each}", theirs[each].__name__)
        known = {"image": "image", "device": "cpu", "spacing_mm": config.get("spacing_mm")}
        parser = ConfigParser({**known, "preprocessing": json.loads(text)})
        prepared.append(parser.get_parsed_content("preprocessing")({"image": str(case)})["image"])
    assert_same(*prepared)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_work_stays_on_the_gpu():
    image = volume(OBLIQUE)
    transform = BlockwiseSpacingd("image", (1.0, 1.0, 1.0))
    there = transform({"image": image.cuda()})["image"]
    assert there.device.type == "cuda"
    assert_same(there.cpu(), transform({"image": image})["image"])
    assert transform.inverse({"image": there})["image"].device.type == "cuda"


def test_entries_that_only_begin_like_the_image_are_left_alone(case):
    """MONAI Label keeps the path as ``image_path`` and metadata as ``image_meta_dict``."""
    loaded = LoadImaged("image", reader=VolumeReader(), ensure_channel_first=True)({"image": str(case)})
    given = {**loaded, "image_path": str(case), "image_meta_dict": {}}
    found = BlockwiseSpacingd("image", (1.0, 1.03, 1.1))(given)
    assert found["image_path"] == str(case)
    assert found["image_meta_dict"]["filename_or_obj"] == str(case)
