"""Resampling block by block gives what MONAI's ``Spacingd`` gives, forth and back, in less memory."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
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

from monai_unetpp.data import BlockwiseSpacingd, CaseDataset, InvertProbabilitiesd, VolumeReader, spacing
from monai_unetpp.measuring.memory import measure_in_new_process, peak_resident_bytes, reset_peak

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


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """So small that every volume here is cut along each axis."""
    monkeypatch.setattr(spacing, "_BLOCK_VALUES", 150)


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
    blocks = list(spacing._list_blocks((1, *SHAPE), np.eye(3)))
    for block in blocks:
        covered[block] += 1
    assert len(blocks) > 8
    assert (covered == 1).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_blocks_and_what_they_need_are_bounded(channels):
    """A voxel of the result for each 3 x 3 x 3 of the image: the image decides, not the result."""
    blocks = list(spacing._list_blocks((channels, 20, 20, 20), 3 * np.eye(3)))
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


@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_the_same_as_monai_where_the_result_reaches_far_beyond(padding_mode, mode):
    """On the axes of the world an oblique volume leaves corners empty."""
    image = volume(OBLIQUE)
    (_, theirs), (_, ours) = both(image, (0.9, 1.1, 1.3), diagonal=True, mode=mode, padding_mode=padding_mode)
    assert_same(ours, theirs)
    if padding_mode == "zeros":
        assert 0.1 < (ours == 0).float().mean() < 0.9


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
    """Between 0 and 8 lie 2, 4 and 6, four times as fine; labels change in the middle."""
    image = MetaTensor(torch.tensor([0.0, 8.0])[None, :, None, None].expand(1, 2, 2, 2), affine=np.eye(4))
    fine = BlockwiseSpacingd("image", (0.25, 1, 1))({"image": image})["image"]
    assert fine[0, :, 0, 0].tolist() == [0, 2, 4, 6, 8]
    fine = BlockwiseSpacingd("image", (0.25, 1, 1), mode="nearest")({"image": image})["image"]
    assert fine[0, :, 0, 0].tolist() == [0, 0, 8, 8, 8]


@pytest.mark.parametrize("direction", [1, -1])
def test_between_two_labels_the_higher_index_decides(direction):
    """Of voxels of 2 mm each comes back as two of 1 mm, never as one or three; blocks leave no trace."""
    affine = np.diag([direction, 1.0, 1.0, 1.0])
    transform = BlockwiseSpacingd("image", (2.0, 1.0, 1.0))
    coarse = transform({"image": volume(affine, (41, 12, 12))})["image"]
    numbers = torch.arange(21, dtype=torch.uint8)[None, :, None, None].expand(1, 21, 12, 12)
    fine = Invertd("pred", transform, orig_keys="image")({"image": coarse, "pred": MetaTensor(numbers)})["pred"]
    expected = (torch.arange(41) + 1) // 2
    assert torch.equal(fine.as_tensor().long(), expected[None, :, None, None].expand(1, 41, 12, 12))


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


def test_lazy_resampling():
    image = volume(OBLIQUE)
    steps = (each("image", (1.0, 1.1, 1.3)) for each in (Spacingd, BlockwiseSpacingd))
    theirs, ours = (Compose([step], lazy=True)({"image": image.clone()})["image"] for step in steps)
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
    text = json.dumps(config["preprocessing"])
    prepared = []
    for replaced in ((), theirs):
        for each in replaced:
            assert text.count(f"monai_unetpp.data.{each}") == 1
            text = text.replace(f"monai_unetpp.data.{each}", theirs[each].__name__)
        parser = ConfigParser({"image": "image", "device": "cpu", "preprocessing": json.loads(text)})
        prepared.append(parser.get_parsed_content("preprocessing")({"image": str(case)})["image"])
    assert_same(*prepared)


def measure(folder):
    """Write how much the peak rises to the result, and then to labels on the input's grid: for ours and for MONAI's."""
    image = MetaTensor(torch.rand(1, 160, 160, 160), affine=np.diag([0.8, 0.9, 1.1, 1]))
    peaks = []
    for transform_class in (BlockwiseSpacingd, Spacingd):
        transform = transform_class("image", (1.0, 1.0, 1.0))
        transform({"image": image[:, :40, :40, :40]})
        reset_peak()
        before = peak_resident_bytes()
        prepared = transform({"image": image})["image"]
        peaks.append(peak_resident_bytes() - before)
        labels = MetaTensor(torch.ones(prepared.shape, dtype=torch.uint8))
        reset_peak()
        before = peak_resident_bytes()
        Invertd("pred", transform, orig_keys="image")({"image": prepared, "pred": labels})
        peaks.append(peak_resident_bytes() - before)
    (Path(folder) / "peaks").write_text(" ".join(map(str, peaks)), encoding="utf-8")


def test_memory(tmp_path):
    """Beyond the result, 13 MB, ours takes about 100 MB for any size; MONAI's 60 bytes for each voxel, 200 MB here."""
    measure_in_new_process(measure, tmp_path, name="resampling", remedy="take a smaller volume")
    peaks = [int(number) / 2**20 for number in (tmp_path / "peaks").read_text(encoding="utf-8").split()]
    assert max(peaks[:2]) < 130
    assert min(peaks[2:]) > 160


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_work_stays_on_the_gpu():
    image = volume(OBLIQUE)
    transform = BlockwiseSpacingd("image", (1.0, 1.0, 1.0))
    there = transform({"image": image.cuda()})["image"]
    assert there.device.type == "cuda"
    assert_same(there.cpu(), transform({"image": image})["image"])
    assert transform.inverse({"image": there})["image"].device.type == "cuda"
