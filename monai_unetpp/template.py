"""The MNI ICBM152 T1 template that comes with nilearn, and the position of the hippocampus in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from monai_unetpp.installing import install_command

if TYPE_CHECKING:
    import numpy.typing as npt

#: Box around the left hippocampus of the template in mm (RAS), as large as the crops that the hippocampus bundle was
#: trained on.
HIPPOCAMPUS_CENTRE_MM = (-23.0, -23.0, -12.0)
HIPPOCAMPUS_SIZE_MM = (36, 50, 36)

#: Labels of the template's own tissues, those of the brain-tissue bundle.
GREY_MATTER, WHITE_MATTER = 2, 3


def load_template() -> tuple[Any, npt.NDArray[np.uint8]]:
    """The skull-stripped T1 template at 1 mm as a float32 image, and its tissues from nilearn's maps.

    They are an array of its shape: 2 for grey and 3 for white matter, whichever is more probable, or 0 where neither
    has a probability of at least 0.5. Without nilearn, an ImportError has the command that installs it.
    """
    try:
        from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
    except ImportError as e:
        raise ImportError(f"{e}. The template needs: {install_command('demo')}") from e
    loaded = load_mni152_template(resolution=1)
    image = nib.Nifti1Image(np.asarray(loaded.dataobj, dtype=np.float32), loaded.affine)
    image.header.set_xyzt_units("mm")
    grey, white = (
        np.asarray(load(resolution=1).dataobj, dtype=np.float32)
        for load in (load_mni152_gm_template, load_mni152_wm_template)
    )
    tissues = np.where(grey >= white, GREY_MATTER, WHITE_MATTER).astype(np.uint8)
    tissues[np.maximum(grey, white) < 0.5] = 0
    return image, tissues


def crop_box(image: Any, centre_mm: tuple[float, ...], size_mm: tuple[int, ...]) -> Any:
    """Cut a box out of a 3D nibabel image with a positive diagonal affine, so with axes along R, A and S.

    Every voxel stays where it was in the world. The box must lie in the image.
    """
    axes = "".join(nib.aff2axcodes(image.affine))
    spacing = np.diag(image.affine)[:3]
    if axes != "RAS" or np.count_nonzero(image.affine[:3, :3]) != 3:
        raise ValueError(f"image must have axes exactly along R, A and S, got {axes} with affine {image.affine}.")
    size = np.round(np.array(size_mm) / spacing).astype(int)
    first_mm = np.array(centre_mm) - (size - 1) * spacing / 2
    start = np.round((first_mm - image.affine[:3, 3]) / spacing).astype(int)
    stop = start + size
    if (start < 0).any() or (stop > image.shape).any():
        raise ValueError(f"the box around {centre_mm} mm of size {size_mm} mm must lie in the image, of {image.shape}.")
    return image.slicer[tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))]
