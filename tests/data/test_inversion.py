"""From logits to labels on the input's own grid, class by class."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    CropForegroundd,
    Invertd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    Resized,
    Spacingd,
    SpatialPadd,
)
from scipy.spatial.transform import Rotation

from monai_unetpp.data import BlockwiseSpacingd, InvertProbabilitiesd, SegmentationSaveImaged, VolumeReader
from monai_unetpp.data.transforms import inversion, resampling, spacing

#: Axes swapped and turned, 1.5 x 2 x 3 mm.
AFFINE = np.array([[0, 2.0, 0, 10], [-1.5, 0, 0, 20], [0, 0, -3.0, 5], [0, 0, 0, 1]])

ON_THE_SAME_VOXELS = {
    "orientation": [Orientationd("image", axcodes="RAS", labels=None)],
    "crop": [CropForegroundd("image", source_key="image", margin=1, allow_smaller=True)],
    "pad": [SpatialPadd("image", spatial_size=(20, 16, 18))],
    "all": [
        Orientationd("image", axcodes="RAS", labels=None),
        CropForegroundd("image", source_key="image", margin=1, allow_smaller=True),
        SpatialPadd("image", spatial_size=(20, 16, 18)),
        NormalizeIntensityd("image"),
    ],
}
ON_OTHER_VOXELS = {
    "spacing": [Spacingd("image", pixdim=(1.0, 1.0, 1.0))],
    "coarse": [Spacingd("image", pixdim=(4.0, 4.0, 4.0))],
    "spline": [Spacingd("image", pixdim=(2.0, 2.0, 2.0), mode=3, padding_mode="nearest")],
    "resize": [Resized("image", spatial_size=(9, 11, 13), mode="trilinear")],
    "area": [Resized("image", spatial_size=(36, 42, 30), mode="area")],
    "blocks": [BlockwiseSpacingd("image", pixdim=(1.0, 1.0, 1.0))],
    "all": [
        Orientationd("image", axcodes="RAS", labels=None),
        Spacingd("image", pixdim=(1.0, 1.5, 1.0)),
        CropForegroundd("image", source_key="image", margin=1, allow_smaller=True),
        NormalizeIntensityd("image"),
    ],
}


def prepare(transforms, shape=(12, 14, 10), affine=AFFINE):
    """The preprocessing, and an image with a bright box that went through it."""
    voxels = torch.zeros(1, *shape)
    voxels[(0, *(slice(3, size - 2) for size in shape))] = 1
    preprocessing = Compose(transforms)
    image = MetaTensor(voxels, affine=torch.as_tensor(affine), meta={"filename_or_obj": "a.nii"})
    image.meta["original_affine"] = affine
    return preprocessing, preprocessing({"image": image})["image"]


def smooth_logits(image, classes, seed=0):
    """Random blobs of each class, for the image's grid."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 8 * torch.randn(1, classes, *(4,) * (image.ndim - 1), generator=generator)
    mode = "trilinear" if image.ndim == 4 else "bilinear"
    logits = torch.nn.functional.interpolate(coarse, size=image.shape[1:], mode=mode)[0]
    return MetaTensor(logits).copy_meta_from(image)


def invert(preprocessing, image, logits):
    transform = InvertProbabilitiesd("pred", preprocessing, "image")
    return transform({"image": image, "pred": logits})["pred"]


def nearest(preprocessing, image, logits):
    labels = MetaTensor(torch.as_tensor(logits).argmax(0, keepdim=True)).copy_meta_from(image)
    return Invertd("pred", preprocessing, orig_keys="image")({"image": image, "pred": labels})["pred"]


@pytest.mark.parametrize("name", ON_THE_SAME_VOXELS)
@pytest.mark.parametrize("classes", [2, 5])
def test_the_same_as_inverted_labels_where_voxels_are_only_moved(name, classes):
    preprocessing, image = prepare(ON_THE_SAME_VOXELS[name])
    logits = smooth_logits(image, classes)
    ours, theirs = invert(preprocessing, image, logits), nearest(preprocessing, image, logits)
    assert ours.dtype == torch.uint8
    assert ours.shape == theirs.shape == (1, 12, 14, 10)
    assert set(ours.unique().tolist()) == set(range(classes))
    assert torch.equal(torch.as_tensor(ours).float(), torch.as_tensor(theirs))
    np.testing.assert_allclose(ours.affine, AFFINE)


@pytest.mark.parametrize("name", ON_OTHER_VOXELS)
def test_the_likeliest_class_of_all_inverted_probabilities(name):
    """All maps at once and in double precision, by MONAI's own means, give the same labels but for ties."""
    preprocessing, image = prepare(ON_OTHER_VOXELS[name])
    logits = smooth_logits(image, 4)
    labels = invert(preprocessing, image, logits)
    probabilities = MetaTensor(torch.as_tensor(logits).softmax(0)).copy_meta_from(image)
    inverse = Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False)
    if name == "spline":
        image.applied_operations[0]["extra_info"]["mode"] = 1
    maps = inverse({"image": image, "pred": probabilities})["pred"].as_tensor()
    assert labels.shape == (1, 12, 14, 10)
    np.testing.assert_allclose(labels.affine, AFFINE)
    first, second = maps.topk(2, 0).values
    clear = first - second > 1e-5
    assert clear.float().mean() > (0.3 if name == "all" else 0.99)
    assert torch.equal(maps.argmax(0)[clear], labels.as_tensor()[0][clear].long())
    assert not labels.as_tensor()[0][first == 0].any()  # what was cropped away is background


@pytest.mark.slow
def test_small_classes_are_not_resampled_where_they_cannot_win(monkeypatch):
    """The labels are those of all probabilities, while most blocks of a small class are left out."""
    monkeypatch.setattr(resampling, "_BLOCK_VALUES", 300)
    preprocessing, image = prepare([BlockwiseSpacingd("image", pixdim=(1.0, 1.0, 1.0))])
    logits = torch.full((4, *image.shape[1:]), -4.0)
    logits[0] = 4
    logits[1, 5:9, 6:11, 7:10] = 8
    logits[2, 14:17, 6:11, 20:24] = 8
    logits += 0.5 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    resampled = []
    along_axes = spacing._interpolate_along_axes
    monkeypatch.setattr(spacing, "_interpolate_along_axes", lambda *given: resampled.append(1) or along_axes(*given))
    invert = InvertProbabilitiesd("pred", transform=preprocessing)
    found = invert({"pred": logits, "image": image})["pred"]
    few = len(resampled)
    monkeypatch.setattr(inversion, "find_candidate_box", lambda probability, classes: (slice(None),) * 3)
    assert torch.equal(found, invert({"pred": logits, "image": image})["pred"])
    assert set(found.unique().tolist()) == {0, 1, 2}
    assert few < 0.6 * (len(resampled) - few)


def test_borders_lie_where_probabilities_cross():
    """Prepared voxels are at 0, 4, 8 and 12 mm; from 4 to 8 mm class 1 rises from 0.45 to 1, and is 0.5 at 4.36 mm."""
    preprocessing, image = prepare([Spacingd("image", pixdim=(4.0, 1.0, 1.0))], (13, 6, 6), np.eye(4))
    assert image.shape == (1, 4, 6, 6)
    likely = torch.tensor([0.001, 0.45, 0.999, 0.999])[:, None, None].expand(4, 6, 6)
    logits = MetaTensor(torch.stack([(1 - likely).log(), likely.log()])).copy_meta_from(image)
    labels = invert(preprocessing, image, logits).as_tensor()
    assert labels[0, :, 2, 2].tolist() == [0] * 5 + [1] * 8
    # labels change halfway, at 6 mm
    assert nearest(preprocessing, image, logits).as_tensor()[0, [5, 7], 2, 2].tolist() == [0, 1]


def test_logits_in_half_precision_and_in_2d():
    preprocessing, image = prepare([Spacingd("image", pixdim=(0.7, 0.9))], (12, 14), np.diag([1.5, 2, 1, 1]))
    logits = smooth_logits(image, 3)
    full, half = (invert(preprocessing, image, each).as_tensor() for each in (logits, logits.half()))
    assert full.shape == (1, 12, 14)
    assert (full != half).float().mean() < 0.02


@pytest.mark.slow
def test_more_classes_than_bytes_have_values():
    preprocessing, image = prepare([Orientationd("image", axcodes="RAS", labels=None)], (3, 4, 5))
    logits = torch.zeros(300, *image.shape[1:])
    logits[290] = 1
    labels = invert(preprocessing, image, logits)
    assert labels.unique().tolist() == [290]


def test_what_it_gives_is_written_on_the_grid_of_the_file(tmp_path):
    path = tmp_path / "a.nii.gz"
    voxels = np.zeros((12, 14, 10), np.float32)
    voxels[4:8, 5:9, 3:7] = 1
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)
    preprocessing = Compose(
        [LoadImaged("image", ensure_channel_first=True), *ON_OTHER_VOXELS["all"][:2], *ON_THE_SAME_VOXELS["crop"]]
    )
    image = preprocessing({"image": str(path)})["image"]
    logits = MetaTensor(torch.cat([torch.full_like(image, 0.5), image])).copy_meta_from(image)
    chain = Compose([InvertProbabilitiesd("pred", preprocessing, "image"), SegmentationSaveImaged("pred", tmp_path)])
    chain({"image": image, "pred": logits})
    written = nib.load(tmp_path / "a_seg.nii.gz")
    assert written.get_data_dtype() == np.uint8
    assert np.array_equal(written.affine, nib.load(path).affine)
    assert (np.asarray(written.dataobj) == voxels).mean() > 0.98


def write_oblique(path, order, form):
    """Two balls of 1, of 5 mm, in a volume of 1 x 1 x 2 mm whose axes are oblique; as a header stores them."""
    angle = np.deg2rad([17, -12, 9])
    rotation = np.eye(4)
    for axis, (sine, cosine) in enumerate(zip(np.sin(angle), np.cos(angle), strict=True)):
        turn = np.eye(4)
        first, second = (other for other in range(3) if other != axis)
        turn[[first, first, second, second], [first, second, first, second]] = cosine, -sine, sine, cosine
        rotation = rotation @ turn
    affine = rotation @ order @ np.diag([1, 1, 2, 1])
    shape = (26, 28, 16)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2 + [5, -7, 11]
    header = nib.Nifti1Header()
    header.set_sform(affine, 1 if form == "sform" else 0)
    header.set_qform(affine, 1 if form == "qform" else 0)
    places = np.einsum("ij,j...->i...", affine[:3, :3], np.indices(shape)) + affine[:3, 3, None, None, None]
    voxels = np.zeros(shape, np.float32)
    for centre in ([2, -9, 8], [9, -4, 15]):
        voxels[np.linalg.norm(places - np.reshape(centre, (3, 1, 1, 1)), axis=0) < 5] = 1
    nib.save(nib.Nifti1Image(voxels, None, header), path)
    return voxels


def dice(first, second):
    return 2 * np.sum(first & second) / (np.sum(first) + np.sum(second))


@pytest.mark.parametrize("form", ["sform", "qform"])
@pytest.mark.parametrize(
    "order",
    [np.eye(4), np.eye(4)[:, [2, 0, 1, 3]] * [1, -1, 1, 1], np.eye(4)[:, [1, 0, 2, 3]]],
    ids=["ijk", "jki", "jik"],
)
@pytest.mark.parametrize("pixdim", [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0)], ids=["fine", "coarse"])
def test_oblique_volumes_keep_their_places_through_the_whole_chain(tmp_path, form, order, pixdim):
    """The image, as a network's answer, comes back on the file's grid, without a shift in any direction."""
    voxels = write_oblique(tmp_path / "a.nii.gz", order, form)
    preprocessing = Compose(
        [
            LoadImaged(["image", "label"], reader=VolumeReader(), ensure_channel_first=True),
            Orientationd(["image", "label"], axcodes="RAS", labels=None),
            BlockwiseSpacingd(["image", "label"], pixdim, mode=["bilinear", "nearest"]),
            CropForegroundd(["image", "label"], source_key="image", margin=1, allow_smaller=True),
        ]
    )
    item = preprocessing({"image": str(tmp_path / "a.nii.gz"), "label": str(tmp_path / "a.nii.gz")})
    image, label = item["image"], item["label"]
    np.testing.assert_allclose(image.affine, label.affine)
    # what is learnt lies where the image has it
    assert dice((image.as_tensor() > 0.5).numpy(), (label.as_tensor() == 1).numpy()) > 0.9
    logits = torch.cat([torch.full_like(image, 0.5), image.as_tensor()])
    item["smooth"] = MetaTensor(logits).copy_meta_from(image)
    item["labels"] = MetaTensor(label.as_tensor().clone())
    item = Invertd("labels", preprocessing, orig_keys="image")(item)
    item = InvertProbabilitiesd("smooth", preprocessing, "image")(item)
    for key in ("labels", "smooth"):
        back = item[key].as_tensor()[0].numpy()
        assert back.shape == voxels.shape
        np.testing.assert_allclose(item[key].affine, nib.load(tmp_path / "a.nii.gz").affine, atol=1e-9)
        assert dice(back == 1, voxels == 1) > (0.95 if pixdim[0] == 1 else 0.75)
    moved = np.abs(np.argwhere(back).mean(0) - np.argwhere(voxels).mean(0)).max()
    assert moved < (0.1 if pixdim[0] == 1 else 0.5)  # a quarter of a coarse voxel: it takes every second one
    if pixdim[0] == 1:
        assert np.array_equal(item["labels"].as_tensor()[0].numpy(), voxels)


@pytest.mark.parametrize("shape", [(1, 20, 16), (20, 1, 16), (20, 16, 1), (20, 16), (1, 20, 16, 1)])
def test_one_slice_across_any_axis_comes_back_with_its_own_shape(tmp_path, shape):
    """Through a 2D chain; the slice lies obliquely in space."""
    voxels = np.zeros((20, 16), np.float32)
    voxels[5:15, 4:9] = 1
    nib.save(nib.Nifti1Image(voxels.reshape(shape), AFFINE @ np.diag([1, 1, 0.5, 1])), tmp_path / "a.nii.gz")
    preprocessing = Compose(
        [
            LoadImaged("image", reader=VolumeReader(2), ensure_channel_first=True),
            BlockwiseSpacingd("image", (1.0, 1.0)),
        ]
    )
    image = preprocessing({"image": str(tmp_path / "a.nii.gz")})["image"]
    spacing = np.linalg.norm(AFFINE @ np.diag([1, 1, 0.5, 1]), axis=0)[[k for k, n in enumerate(shape[:3]) if n > 1]]
    assert image.shape == (1, *(round((n - 1) * size + 1) for n, size in zip((20, 16), spacing, strict=True)))
    logits = MetaTensor(torch.cat([torch.full_like(image, 0.5), image])).copy_meta_from(image)
    chain = Compose([InvertProbabilitiesd("pred", preprocessing, "image"), SegmentationSaveImaged("pred", tmp_path)])
    chain({"image": image, "pred": logits})
    written = nib.load(tmp_path / "a_seg.nii.gz")
    assert written.shape == shape
    assert np.array_equal(written.affine, nib.load(tmp_path / "a.nii.gz").affine)
    assert (np.asarray(written.dataobj).reshape(20, 16) == voxels).mean() > 0.97


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_work_stays_on_the_gpu():
    preprocessing, image = prepare(ON_OTHER_VOXELS["all"])
    logits = smooth_logits(image, 3)
    on_gpu = invert(preprocessing, image, logits.cuda())
    assert on_gpu.device.type == "cuda"
    assert (on_gpu.cpu().as_tensor() == invert(preprocessing, image, logits).as_tensor()).float().mean() > 0.999


def test_what_cannot_be_inverted_is_refused():
    preprocessing, image = prepare([Orientationd("image", axcodes="RAS", labels=None)])
    with pytest.raises(ValueError, match=r"pred must have a channel of logits for each class, got shape \(1, "):
        invert(preprocessing, image, image)
    with pytest.raises(TypeError, match=r"image must be the preprocessed image with its metadata, got Tensor"):
        invert(preprocessing, image.as_tensor(), smooth_logits(image, 2))
    with pytest.raises(TypeError, match=r"image must be the preprocessed image .* got NoneType"):
        InvertProbabilitiesd("pred", preprocessing, "image")({"pred": torch.zeros(2, 3, 3, 3)})
    with pytest.raises(ValueError, match=r"transform must be invertible, got NormalizeIntensityd"):
        InvertProbabilitiesd("pred", NormalizeIntensityd("image"))


@pytest.mark.parametrize(
    ("axes", "angles", "sizes"),
    [
        ("xy", (45, 45), (1, 1, 1)),
        ("xy", (-45, 45), (1, 1, 1)),
        ("xz", (45, 135), (1, 1, 1)),
        ("yz", (45, 135), (1.1, 1, 1.2)),
        ("zyx", (90, 135, -45), (1, 1, 1)),
        ("zyx", (135, 45, 90), (1, 1, 1)),
    ],
)
def test_axes_equally_near_to_two_of_the_world_come_back(tmp_path, axes, angles, sizes):
    """MONAI's Orientationd derives the way back anew, so rounding must not decide which axis is which."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler(axes, angles, degrees=True).as_matrix() * sizes
    labels = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "a.nii")
    preprocessing = Compose(
        [
            LoadImaged("image", reader=VolumeReader(3), ensure_channel_first=True),
            Orientationd("image", axcodes="RAS", labels=None),
            BlockwiseSpacingd("image", pixdim=[-1.0]),
        ]
    )
    item = preprocessing({"image": str(tmp_path / "a.nii")})
    back = Invertd("pred", preprocessing, orig_keys="image")({**item, "pred": item["image"].clone()})
    np.testing.assert_array_equal(back["pred"][0], labels)
    saved = SegmentationSaveImaged("pred", tmp_path)(back)["pred"].meta["saved_to"]
    np.testing.assert_array_equal(nib.load(saved).affine, nib.load(tmp_path / "a.nii").affine)
