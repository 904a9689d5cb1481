"""Segmenting files with a bundle, from Python."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ignite.engine import Events

from monai_unetpp.bundles import BundleConfig, find_bundle, read_metadata, read_metadata_entry
from monai_unetpp.data.cases import expand_home
from monai_unetpp.devices import resolve_device
from monai_unetpp.engines import CaseEvaluator, CaseResult
from monai_unetpp.files import remove_leftovers
from monai_unetpp.guard import CaseGuard, find_guard
from monai_unetpp.networks import NestedUNet
from monai_unetpp.progress import Progress, counting
from monai_unetpp.segmentation_options import SegmentationOptions
from monai_unetpp.topology import level_index

__all__ = ["SegmentationSummary", "SegmentedCase", "label_names", "make_output_dir", "segment"]


@dataclasses.dataclass(frozen=True)
class SegmentedCase:
    """One finished case.

    Attributes:
        case: its name.
        image: the file or folder that was read.
        output: the file that was written: NIfTI, or PNG or TIFF for such images.
        volumes_ml: volume of every label in millilitres, by name; empty for 2D images.
        seconds: wall time from asking for the image to the written file; the file may be written while the next case
            is under way.
        stages: seconds by stage of the work, empty unless they were measured.
        instances: number of objects, None unless they were numbered.
        surround: ``value`` and ``share`` of the constant surround of the image, such as 0 and 0.6 of a skull-stripped
            brain; None where there is none, or the bundle does not look for one.
        warnings: in what the image or the result is unlike the cases that the bundle was trained on, one line each.
        depths: windows by the level that they stopped at; empty unless the depth is chosen for each.
    """

    case: str
    image: str
    output: str
    volumes_ml: dict[str, float]
    seconds: float
    stages: dict[str, float] = dataclasses.field(default_factory=dict)
    instances: int | None = None
    surround: dict[str, float] | None = None
    warnings: tuple[str, ...] = ()
    depths: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SegmentationSummary:
    """What :func:`segment` did.

    Attributes:
        bundle: name of the bundle.
        level: the level that was run; the deepest that a window may go to where the depth is chosen for each.
        device: where it was run.
        runtime: what ran the network, such as ``"openvino"``; empty where the bundle has another inferer than
            ``NestedSlidingWindowInferer``, or nothing was run.
        precision: such as ``"bf16"``; empty likewise.
        cases: the finished cases.
        failures: one line for each failed case, which names its file.
        stages: seconds by stage of the work, summed over the finished cases; empty unless they were measured.
        depths: windows by the level that they stopped at, summed likewise; empty unless the depth is chosen for each.
    """

    bundle: str
    level: str
    device: str
    runtime: str
    precision: str
    cases: tuple[SegmentedCase, ...]
    failures: tuple[str, ...]
    stages: dict[str, float] = dataclasses.field(default_factory=dict)
    depths: dict[str, int] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def segment(
    inputs: str | PathLike[str] | Sequence[str | PathLike[str]],
    output_dir: str | PathLike[str],
    bundle: str | PathLike[str] | None = None,
    level: str | None = None,
    device: str | None = None,
    progress: Progress = False,
    **options: Any,
) -> SegmentationSummary:
    """Segment images with a bundle's ``inference.json``; cases that fail are reported and the rest go on.

    The network is loaded once. The next image is loaded and the last result written while it works.

    Args:
        inputs: image files, folders of them, DICOM series folders, or folders with ``dataset.json``.
        output_dir: folder for ``<case>_seg.nii.gz``, or PNG or TIFF for such images: integer labels on the input's own
            grid.
        bundle: name or folder of a bundle. One must be named: each takes other images.
        level: such as ``"L2"``: build and run only what this level needs; by default the deepest.
        device: such as ``"cpu"`` or ``"cuda:0"``; by default a GPU if there is one.
        progress: True shows a bar on standard error, a function is called with a line of text after each case.
        **options: further ones of :class:`~monai_unetpp.segmentation_options.SegmentationOptions`, such as
            ``runtime="openvino"`` or ``flips=[]``.

    Returns:
        The finished cases with their volumes, and the failures.

    Raises:
        ValueError: no bundle; a bundle, level or device that cannot be used, or a setting that the bundle has not;
            the message names it and the remedy.
        FileNotFoundError: no such bundle, or none of the inputs exists.
        TypeError: inputs that are not paths, or an option that there is not.
        OSError: ``output_dir`` cannot be written to.
    """
    chosen = SegmentationOptions(inputs, output_dir, bundle, level=level, device=device, **options)
    folder = find_bundle(chosen.bundle)
    names = label_names(folder)
    evaluator, network = _evaluator(chosen, folder)
    guard = find_guard(folder)
    if guard is not None:
        guard.watch(getattr(getattr(evaluator.data_loader, "dataset", None), "transform", None))
    make_output_dir(expand_home(chosen.output_dir))
    with counting(progress, "segmenting") as count:
        evaluator.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: count(engine.state.iteration, engine.state.epoch_length)
        )
        evaluator.run()
    cases = _segmented_cases(evaluator, names if network.spatial_dims == 3 else {}, guard)
    ran_runtime, ran_precision = getattr(evaluator.inferer, "ran", None) or ("", "")
    return SegmentationSummary(
        bundle=folder.name,
        level=network.levels[-1],
        device=str(evaluator.state.device),
        runtime=ran_runtime,
        precision=ran_precision,
        cases=cases,
        failures=tuple(map(str, evaluator.failures)),
        stages=_summed(case.stages for case in cases),
        depths={level: int(count) for level, count in _summed(case.depths for case in cases).items()},
    )


def _evaluator(chosen: SegmentationOptions, folder: Path) -> tuple[CaseEvaluator, NestedUNet]:
    """The evaluator of a bundle's ``inference.json`` as the options want it, and its network."""
    config = BundleConfig(folder, "inference.json")
    if not any(os.path.lexists(expand_home(path)) for path in chosen.paths):
        raise FileNotFoundError(f"{', '.join(chosen.paths)}: no such file or folder. Check the path.")
    config["output_dir"], config["input"] = fspath(expand_home(chosen.output_dir)), chosen.paths
    if chosen.device is not None:
        config["device"] = resolve_device(chosen.device)
    _change_settings(config, folder, chosen.settings())
    if chosen.level is not None:
        level_index(chosen.level, _check_network(config, "network_def", config.parse("network_def")).levels)
    evaluator = config.parse("evaluator")
    if not isinstance(evaluator, CaseEvaluator):
        raise ValueError(
            f"{config}: the evaluator must be monai_unetpp.engines.CaseEvaluator, got {type(evaluator).__name__}. "
            "Run this bundle with python -m monai.bundle run."
        )
    if not evaluator.has_postprocessing:
        raise ValueError(f"{config}: the evaluator must have postprocessing that writes results, got none. Add it.")
    evaluator.profile = chosen.profile
    return evaluator, _check_network(config, "network", evaluator.network)


def _segmented_cases(
    evaluator: CaseEvaluator, names: Mapping[int, str], guard: CaseGuard | None
) -> tuple[SegmentedCase, ...]:
    """What was finished, with the volumes of the labels of ``names``."""
    return tuple(_segmented_case(done, names, guard) for done in evaluator.completed)


def _segmented_case(done: CaseResult, names: Mapping[int, str], guard: CaseGuard | None) -> SegmentedCase:
    volumes_ml = {name: done.volumes_ml.get(value, 0.0) for value, name in names.items()}
    if guard is not None:
        guard.check_result(done.file, volumes_ml)
    return SegmentedCase(
        case=done.case,
        image=done.file,
        output=str(done.output),
        volumes_ml=volumes_ml,
        seconds=done.seconds,
        stages=done.stages,
        instances=done.instances,
        surround=done.surround,
        warnings=() if guard is None else tuple(guard.warnings.get(done.file, ())),
        depths=done.depths,
    )


def _check_network(config: BundleConfig, key: str, network: Any) -> NestedUNet:
    if not isinstance(network, NestedUNet):
        raise ValueError(f"{config}: {key} must be a monai_unetpp.NestedUNet, got {type(network).__name__}.")
    return network


def _change_settings(config: BundleConfig, folder: Path, settings: Mapping[str, Any]) -> None:
    """Set the keys of a bundle, which must have them, as MONAI would take any other in silence."""
    for key, value in settings.items():
        if key not in config:
            raise ValueError(
                f"{key} must be left out for {folder.name}, got {value!r}: its inference.json has no key {key!r}. "
                "Give it this key and use it there, or take another bundle."
            )
        config[key] = value


def _summed(numbers: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for each in numbers:
        for name, number in each.items():
            total[name] = total.get(name, 0.0) + number
    return total


def label_names(bundle: str | PathLike[str]) -> dict[int, str]:
    """The labels that a bundle writes, without the background, from its metadata: value to name.

    They are the entry ``labels`` where there is one, as where label maps have other values than the output's channels.

    Raises:
        ValueError: metadata without names of the output's channels.
    """
    labels = read_metadata(bundle).get("labels")
    if isinstance(labels, dict) and all(str(value).isdecimal() for value in labels):
        return {int(value): str(name) for value, name in labels.items()}
    channels = read_metadata_entry(bundle, "network_data_format", "outputs", "pred", "channel_def")
    if not isinstance(channels, dict) or not all(str(value).isdecimal() for value in channels):
        raise ValueError(
            f"{Path(bundle) / 'configs' / 'metadata.json'}: channel_def must map values to names like "
            f'{{"0": "background"}}, got {channels!r:.80}. Correct it, or copy the bundle again.'
        )
    return {int(value): str(name) for value, name in channels.items() if int(value) > 0}


def make_output_dir(folder: str | PathLike[str]) -> Path:
    """Make a folder for results, and see that files can be written there before any work is done.

    Args:
        folder: the folder; its missing parents are made too. What killed runs left in it is removed.

    Returns:
        Its path.

    Raises:
        OSError: it cannot be made or written to; the message names it.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            remove_leftovers(path)
    except OSError as e:
        raise OSError(
            f"output_dir must be a folder that can be written to, got {fspath(folder)!r} ({e.strerror}). "
            "Choose another folder."
        ) from e
    return path
