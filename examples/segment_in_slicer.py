"""Segment a volume that is open in 3D Slicer, from Slicer's Python console.

Install the package once in Slicer's own Python, from a clone of the repository:

    slicer.util.pip_install("-c CLONE/constraints.txt CLONE")

Then, with a volume named "T1" in the scene:

    exec(open("CLONE/examples/segment_in_slicer.py").read())
    segment_volume(slicer.util.getNode("T1"), "brain_tissue_mri_unetpp")
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import slicer

from monai_unetpp.segmentation import segment_files


def segment_volume(volume, bundle, **options):
    """Segment a scalar volume node, and return a new segmentation node with the names and colours of the labels."""
    with TemporaryDirectory() as folder:
        image = Path(folder) / "volume.nii.gz"
        slicer.util.saveNode(volume, str(image))
        summary = segment_files(image, folder, bundle, **options)
        if summary.failures:
            raise ValueError(summary.failures[0])
        colours = slicer.util.loadColorTable(str(Path(folder) / "labels.ctbl"))
        properties = {"name": f"{volume.GetName()} {bundle}", "colorNodeID": colours.GetID()}
        return slicer.util.loadSegmentation(summary.cases[0].output, properties)
