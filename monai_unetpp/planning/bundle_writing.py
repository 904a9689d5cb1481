"""Writing a complete bundle from a plan, except for the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.bundles.json_files import METADATA_FILE, read_object
from monai_unetpp.files import MARK, remove_leftovers, write_json, write_text
from monai_unetpp.guard import FINGERPRINT_FILE
from monai_unetpp.planning import transforms
from monai_unetpp.planning.documents import bundle_metadata, plan_text, readme_text
from monai_unetpp.planning.fingerprint import Fingerprint, fingerprint_text
from monai_unetpp.planning.network_rules import training_minutes
from monai_unetpp.planning.training_plan import PLAN_FILE, TrainingPlan, in_words

CACHE_FILE = "training/fingerprint_cache.json"
"""The measurements of each case, so that another plan for the same data need not read the images again."""

CHECK_FILE = "training/data_check.json"
"""The state of the data that passed the check and the hashes of their voxels, so that nothing is read again."""

TIME_FILE = "training/time.json"
"""How a training divides its time, and what it began with."""

#: What a training leaves in its folder, or in that of a fold, once it has saved anything.
_TRAINED_FILES = ("checkpoint_*.pt", "model.pt", "outcome.json")
#: Files that exist before there is a plan, and stay when it is replaced.
_MEASURED = (CACHE_FILE, CHECK_FILE)
_TEMPLATE = Path(__file__).with_name("template")
#: The template of the package ``training``: data, which needs no import.
_TRAINING = Path(__file__).parents[1] / "training" / "template" / "configs"
#: Values that the configurations take unchanged from the plan.
_TRAINED = (
    *("spacing_mm", "patch_size", "strides", "kernel_size", "features", "norm", "dropout", "batch_size", "steps"),
    *("learning_rate", "weight_decay", "ema", "distillation", "flip_axes", "window_shape", "overlap", "flips"),
    *("rare_kind_factor", "class_ratios", "class_weights", "late_share", "cache_rate", "num_workers"),
    *("channels_last", "compile"),
)
_INFERRED = (
    *("spacing_mm", "strides", "kernel_size", "features", "norm", "dropout"),
    *("window_shape", "overlap", "flips"),
)
#: Fine-tuning is gentler than training.
_FINETUNING_RATE = 0.25
#: The hash of a plan's values, beside them.
_HASH = "values_sha256"
#: Objects of fewer pixels are removed when objects are numbered.
_SMALLEST_OBJECT = 10


def has_trained(folder: Path) -> bool:
    """Whether a training has saved weights or a checkpoint in its folder, or in that of a fold."""
    return any(any(folder.rglob(name)) for name in _TRAINED_FILES)


def check_free(bundle: str | PathLike[str]) -> None:
    """Refuse, by a ``FileExistsError``, a folder with anything but an earlier plan by which no training has begun."""
    root = Path(bundle)
    # of planning that was killed
    remove_leftovers(root / "training")
    is_empty = root.is_dir() and all(path.is_dir() or path.name.startswith(f".{MARK}") for path in root.rglob("*"))
    begun = (root / "models").exists() or has_trained(root / "training")
    planned = any((root / name).is_file() for name in (PLAN_FILE, *_MEASURED))
    if root.exists() and not is_empty and (begun or not planned):
        what = "is a bundle with weights or a training" if (root / PLAN_FILE).is_file() else "exists"
        raise FileExistsError(f"{root}: the bundle is to be made there, but it {what}. Give another folder.")


def write_bundle(plan: TrainingPlan, fingerprint: Fingerprint, bundle: str | PathLike[str]) -> None:
    """Write the bundle of a plan, without weights, in a folder that :func:`check_free` allows.

    ``configs/plan.json`` is written last, to mark it as complete.
    """
    check_free(bundle)
    root = Path(bundle)
    fingerprint = _by_orientation(plan, fingerprint)
    evaluate = _read("evaluate", _TRAINING)
    configs = {
        "inference": _inference(plan),
        "train": _training(plan),
        # the entries that train.json lacks
        "evaluate": {name: evaluate[name] for name in evaluate if name not in ("validate", "postprocessing")},
        "prune": {**_read("prune"), "flips": plan["flips"]},
        # evaluate.json can be combined with it too
        "multi_gpu_train": {**_read("multi_gpu_train", _TRAINING), **_read("multi_gpu_train")},
        "finetune": {**_read("finetune"), "learning_rate": _FINETUNING_RATE * plan["learning_rate"]},
    }
    for name in (PLAN_FILE, TIME_FILE):
        (root / name).unlink(missing_ok=True)
    for name, content in configs.items():
        write_json(root / "configs" / f"{name}.json", content, indent=4)
    write_text(root / METADATA_FILE, bundle_metadata(plan))
    fingerprint.without_names().write(root / FINGERPRINT_FILE)
    for name in ("LICENSE", "configs/logging.conf", "docs/data_license.txt"):
        write_text(root / name, (_TEMPLATE / name).read_text(encoding="utf-8"))
    write_text(root / "docs" / "plan.md", plan_text(plan, fingerprint))
    write_text(root / "docs" / "README.md", readme_text(plan, fingerprint))
    write_json(root / PLAN_FILE, {**plan.as_dict(), _HASH: _hash_of(plan.values)}, indent=4)


def is_fingerprint_of(bundle: str | PathLike[str], plan: TrainingPlan, fingerprint: Fingerprint) -> bool:
    """Whether the fingerprint in a bundle, whose plan is given, is that of the same cases."""
    path = Path(bundle) / FINGERPRINT_FILE
    now = fingerprint_text(_by_orientation(plan, fingerprint).without_names().as_dict())
    return path.is_file() and path.read_text(encoding="utf-8") == now


def _by_orientation(plan: TrainingPlan, fingerprint: Fingerprint) -> Fingerprint:
    """The fingerprint with the axes in the order that the network is shown them."""
    return fingerprint if plan["orientation"] else fingerprint.as_stored()


def check_unedited(plan: TrainingPlan, bundle: str | PathLike[str]) -> None:
    """Refuse a plan that was edited, or whose ``train.json`` was: it would document another training than its own."""
    path = Path(bundle) / "configs" / "train.json"
    trained = read_object(path)
    for name, planned in _trained(plan).items():
        if trained.get(name, planned) != planned:
            raise ValueError(
                f"{Path(bundle) / PLAN_FILE}: has {name} {in_words(planned)}, but {path} {in_words(trained[name])}. "
                f"Undo the edit, or plan again with --set {name}=..."
            )
    # the other values are in transforms, which may have been edited on purpose
    content = read_object(Path(bundle) / PLAN_FILE)
    # as they are read, as tools may write 1.0 as 1; plans of earlier versions lack some
    values = _hash_of({name: plan.values[name] for name in plan.values if name in content["values"]})
    if content.get(_HASH, values) != values:
        raise ValueError(
            f"{Path(bundle) / PLAN_FILE}: its values were edited, which the other files of the bundle do not follow. "
            "Undo the edit, or plan again with --set NAME=..."
        )


def _hash_of(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _trained(plan: TrainingPlan) -> dict[str, Any]:
    """The plan's values in the form of ``train.json``."""
    return {**{name: plan[name] for name in _TRAINED}, "level_weights": plan.level_weights}


def _read(name: str, folder: Path = _TEMPLATE / "configs") -> dict[str, Any]:
    return read_object(folder / f"{name}.json")


def _chain(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": steps}


def _data(plan: TrainingPlan) -> dict[str, Any]:
    """The entries of a configuration about the data: numbers only."""
    return {
        "spatial_dims": plan.spatial_dims,
        "in_channels": len(plan.channels),
        "out_channels": plan.out_channels,
        "label_values": plan.label_values,
    }


def _training(plan: TrainingPlan) -> dict[str, Any]:
    """``train.json``: the common template with the plan's values and transforms, and a validation."""
    content, evaluation = _read("train", _TRAINING), _read("evaluate", _TRAINING)
    content["planned"] = {"_target_": "monai_unetpp.planning.load_plan", "bundle": "@bundle_root"}
    content |= {"dataset_dir": "$@planned.dataset_dir", "output_dir": "$@bundle_root + '/training'"}
    content |= {name: f"$@planned.{name}_for(@dataset_dir)" for name in ("subjects", "subject_pattern")}
    content |= {**_data(plan), "ignore_label": plan.ignore_label, **_trained(plan)}
    minutes = None if "steps" in plan.by_hand else round(training_minutes(plan.minutes, plan.folds), 2)
    content |= {"minutes": minutes, "runtime": "torch", "val_interval": 1}
    content["preprocessing"] = _chain(transforms.preprocessing(plan, labelled=True))
    content["postprocessing"] = _chain(transforms.postprocessing(plan, discrete=True))
    content["train"] |= {"preparation": transforms.preparation(), "augmentation": _chain(transforms.augmentation(plan))}
    content["train"]["late_augmentation"] = _chain(transforms.augmentation(plan, late=True))
    content["validate"] = {"preprocessing": evaluation["validate"]["dataset"]["transform"], **evaluation["validate"]}
    content["validate"]["dataset"]["transform"] = "@validate#preprocessing"
    content["validate"]["inferer"] = {
        "_target_": "monai_unetpp.inferers.NestedSlidingWindowInferer",
        "roi_size": "@window_shape",
        "overlap": "@overlap",
        "mode": "gaussian",
        "padding_mode": transforms.window_padding(plan),
        "flips": "@flips",
        "runtime": "@runtime",
        "precision": "@precision",
        "output": "logits",
    }
    return content


def _inference(plan: TrainingPlan) -> dict[str, Any]:
    content = _read("inference")
    content |= {**_data(plan), **{name: plan[name] for name in _INFERRED}}
    content["preprocessing"] = _chain(transforms.preprocessing(plan, labelled=False))
    content["inferer"]["padding_mode"] = transforms.window_padding(plan)
    smooth, objects = plan.spatial_dims == 3, transforms.tells_objects(plan)
    steps = transforms.postprocessing(plan, discrete=False, smooth=smooth, objects=objects)
    content["postprocessing"] = _chain([*steps, content.pop("saving")])
    if objects:
        content |= {"instances": False, "min_instance_size": _SMALLEST_OBJECT}
    if not smooth:
        del content["smooth"]
        content["inferer"]["output"] = "labels"
        content["dataset"]["data"]["pictures"] = True
    if transforms.takes_slices(plan):
        content["slice_axis"] = -1
        content["inferer"] = {
            "_target_": "monai_unetpp.inferers.SlicewiseInferer",
            "slice_axis": "@slice_axis",
            "inferer": content["inferer"],
        }
    return content
