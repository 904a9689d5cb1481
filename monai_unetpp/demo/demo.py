"""Run the demonstration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import compute_dice

from monai_unetpp.bundles import WEIGHTS_FILE, find_bundle, label_names
from monai_unetpp.data.formats.label_table import make_labels
from monai_unetpp.data.formats.nifti import open_nifti, read_voxels
from monai_unetpp.demo.picture import Panel, draw_levels
from monai_unetpp.devices import resolve_device
from monai_unetpp.errors import counted
from monai_unetpp.files import atomic_path, make_output_dir, write_figure
from monai_unetpp.installing import install_command
from monai_unetpp.measuring.size import count_parameters
from monai_unetpp.networks import NestedUNet
from monai_unetpp.reporting.numbers import percent
from monai_unetpp.segmentation import SegmentedCase, segment_files
from monai_unetpp.template import HIPPOCAMPUS_CENTRE_MM, HIPPOCAMPUS_SIZE_MM, crop_box, load_template
from monai_unetpp.window_layout import AUTO

PARTS = ("structures", "brain", "hippocampus")
"""The parts of the template that can be segmented."""

_DPI = 100


@dataclasses.dataclass(frozen=True)
class LevelResult:
    """The result of one level.

    Attributes:
        level: such as ``"L2"``.
        parameters: number of parameters of the network pruned to this level.
        labels: names of the labels.
        case: its segmentation, volumes and times.
        dice: Dice coefficient against the template's tissue maps by label name; empty if there are none.
    """

    level: str
    parameters: int
    labels: tuple[str, ...]
    case: SegmentedCase
    dice: dict[str, float]

    @property
    def total_ml(self) -> float:
        """Volume of all labels together in millilitres."""
        return sum(self.case.volumes_ml[name] for name in self.labels)

    @property
    def seconds(self) -> float:
        """Wall time from the file to the written segmentation, without one-time preparation."""
        return sum(seconds for stage, seconds in self.case.stages.items() if stage != "preparation")

    @property
    def network_s(self) -> float:
        """The part of these seconds spent in the network."""
        return self.case.stages.get("network", 0.0)


@dataclasses.dataclass(frozen=True)
class DemoPart:
    """One image at every level of one bundle.

    Attributes:
        name: one of :data:`PARTS`.
        bundle: the bundle that segmented it.
        device: device of the network.
        runtime: its runtime, such as ``"openvino"``.
        precision: such as ``"bf16"``.
        image: the segmented NIfTI file.
        picture: a PNG file that shows all levels on it.
        levels: shallowest first.
    """

    name: str
    bundle: str
    device: str
    runtime: str
    precision: str
    image: str
    picture: str
    levels: tuple[LevelResult, ...]


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """Files and figures of the demonstration, whose parts are in the requested order."""

    parts: tuple[DemoPart, ...]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What to segment, with which options, and how to show it."""

    bundle: str
    image: Any
    file_name: str
    title: str
    colours: tuple[str, ...] | None = None
    label_suffix: str = ""
    filled: bool = False
    position_mm: tuple[float, float, float] | None = None
    reference: npt.NDArray[Any] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def demo(
    output_dir: str | PathLike[str],
    device: str | None = None,
    parts: Sequence[str] = PARTS,
    progress: Callable[[str], None] | None = None,
) -> DemoResult:
    """Segment the MNI ICBM152 T1 template at every level: the brain's structures and tissues, and a hippocampus.

    The template comes with the installed nilearn package; nothing is downloaded. Writes for each part the image, a
    segmentation per level and a picture. Grey and white matter are compared with nilearn's own tissue maps.

    Args:
        output_dir: folder for the files.
        device: such as ``"cpu"``; by default a GPU if there is one.
        parts: of ``"structures"``, ``"brain"`` and ``"hippocampus"``.
        progress: called with a line of text when the work begins, and before each segmentation.

    Raises:
        FileNotFoundError: a bundle is not installed.
        ImportError: nilearn or matplotlib is missing; the message contains the install command.
        OSError: ``output_dir`` cannot be written to.
        ValueError: a part or the device is unknown, or the image could not be segmented.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise ValueError(f"parts must be of {', '.join(PARTS)}, got {', '.join(map(repr, unknown)) or 'none'}.")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as e:
        raise ImportError(f"{e}. The demonstration needs: {install_command('demo')}") from e
    template, tissues = load_template()
    resolve_device(device)
    folder = make_output_dir(output_dir)
    say = progress or (lambda line: None)
    say("Segmenting the MNI ICBM152 T1 template, which comes with nilearn ...")
    done = [_run_part(part, _plan(part, template, tissues), folder / part, device, say) for part in parts]
    return DemoResult(tuple(done))


def _plan(part: str, template: Any, tissues: npt.NDArray[Any]) -> _Plan:
    if part == "structures":
        return _Plan(
            bundle="head_mri_unetpp",
            image=template,
            file_name="mni152_brain.nii.gz",
            title="Structures of the MNI ICBM152 template, segmented by one nested U-Net pruned to each level",
            filled=True,
            position_mm=(-26.0, -18.0, 4.0),
        )
    if part == "brain":
        return _Plan(
            bundle="brain_tissue_mri_unetpp",
            image=template,
            file_name="mni152_brain.nii.gz",
            title="Tissues of the MNI ICBM152 template, segmented by one nested U-Net pruned to each level",
            colours=("#56b4e9", "#e69f00", "#009e73"),
            filled=True,
            position_mm=(10.0, -16.0, 8.0),
            reference=tissues,
            # the template is slightly longer than the bundle's window; as one window, it takes half of the time
            options={"window_shape": AUTO},
        )
    return _Plan(
        bundle="hippocampus_mri_unetpp",
        image=crop_box(template, HIPPOCAMPUS_CENTRE_MM, HIPPOCAMPUS_SIZE_MM),
        file_name="mni152_left_hippocampus.nii.gz",
        title="Left hippocampus of the MNI ICBM152 template, segmented by one nested U-Net pruned to each level",
        colours=("#e69f00", "#56b4e9"),
        label_suffix=" part",
    )


def _run_part(part: str, plan: _Plan, folder: Path, device: str | None, say: Callable[[str], None]) -> DemoPart:
    bundle = find_bundle(plan.bundle)
    names = label_names(bundle)
    image_path = make_output_dir(folder) / plan.file_name
    with atomic_path(image_path) as temporary:
        nib.save(plan.image, temporary)
    full = NestedUNet.from_checkpoint(bundle / WEIGHTS_FILE)
    levels, maps = [], []
    for level in full.levels:
        say(f"{part}: level {level} of {counted(len(full.levels), 'level')} ...")
        summary = segment_files(image_path, folder / level, bundle, level, device, profile=True, **plan.options)
        if summary.failures:
            raise ValueError(summary.failures[0])
        output = summary.cases[0].output
        labels = read_voxels(open_nifti(output), output)
        parameters = count_parameters(full.prune(level))
        dice = _dice(labels, plan.reference, names)
        levels.append(LevelResult(level, parameters, tuple(names.values()), summary.cases[0], dice))
        maps.append(labels)

    shown_as, structures = _without_sides(names)
    panels: list[Panel] = [("T1-weighted MRI", None)]
    panels += [(_heading(each, levels[-1]), shown_as[labels]) for each, labels in zip(levels, maps, strict=True)]
    if plan.reference is not None:
        panels.append(("nilearn's tissue maps\n(no ventricles)", plan.reference))
    figure = draw_levels(
        plan.image,
        panels,
        {value: name + plan.label_suffix for value, name in structures.items()},
        plan.colours or [label.hex_colour for label in make_labels(structures)],
        plan.title,
        position=_position(plan, maps[-1]),
        filled=plan.filled,
    )
    picture = folder / f"{part}_levels.png"
    write_figure(picture, figure, dpi=_DPI)
    return DemoPart(
        part,
        bundle.name,
        summary.device,
        summary.runtime,
        summary.precision,
        str(image_path),
        str(picture),
        tuple(levels),
    )


def _dice(labels: npt.NDArray[Any], reference: npt.NDArray[Any] | None, names: Mapping[int, str]) -> dict[str, float]:
    """Dice coefficients of the labels in the reference."""
    if reference is None:
        return {}
    prediction, truth = (torch.from_numpy(np.asarray(array)) for array in (labels, reference))
    return {
        name: float(compute_dice((prediction == value)[None, None], (truth == value)[None, None]))
        for value, name in names.items()
        if (reference == value).any()
    }


def _without_sides(names: Mapping[int, str]) -> tuple[npt.NDArray[Any], dict[int, str]]:
    """Merge left and right labels for the picture: a lookup table by value, and the names."""
    plain = {value: name.removeprefix("left ").removeprefix("right ") for value, name in names.items()}
    structures = list(dict.fromkeys(plain.values()))
    table = np.zeros(max(names) + 1, np.uint8)
    for value, name in plain.items():
        table[value] = 1 + structures.index(name)
    return table, dict(enumerate(structures, start=1))


def _position(plan: _Plan, labels: npt.NDArray[Any]) -> list[int]:
    """The voxel in all planes of the picture: by default the centre of the segmentation."""
    if plan.position_mm is not None:
        inverse = np.linalg.inv(plan.image.affine)
        return [round(float(x)) for x in inverse[:3, :3] @ np.array(plan.position_mm) + inverse[:3, 3]]
    found = np.argwhere(labels > 0)
    return [round(float(x)) for x in (found.mean(axis=0) if len(found) else np.array(labels.shape) / 2)]


def _heading(result: LevelResult, deepest: LevelResult) -> str:
    parameters = f"{result.parameters / 1e6:.2f} M parameters ({percent(result.parameters / deepest.parameters)})"
    if result.dice:
        return f"{result.level}: mean Dice {np.mean(list(result.dice.values())):.3f}\n{parameters}"
    decimals = 0 if result.total_ml >= 100 else 2
    return f"{result.level}: {result.total_ml:.{decimals}f} ml\n{parameters}"
