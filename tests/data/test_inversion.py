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

from monai_unetpp.data import InvertProbabilitiesd, SegmentationSaveImaged
from monai_unetpp.measuring.memory import peak_resident_bytes, reset_peak

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


def test_memory_does_not_grow_with_the_number_of_classes():
    """The logits are coarse here; 24 maps on the input's grid, in single precision alone, would take 24 map sizes."""
    shape = (96, 96, 96)
    preprocessing, image = prepare([Spacingd("image", pixdim=(6.0, 6.0, 6.0))], shape, np.eye(4))
    logits = smooth_logits(image, 24)
    reset_peak()
    before = peak_resident_bytes()
    invert(preprocessing, image, logits)
    assert peak_resident_bytes() - before < 18 * 4 * np.prod(shape)


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
