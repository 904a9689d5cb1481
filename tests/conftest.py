"""Fixtures that several test modules share."""

import contextlib
import functools
import gc
import importlib
import json
import logging
import os
import shutil
import sys
from pathlib import Path

# two workers with several threads each wait for each other most of the time; before torch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel as nib
import numpy as np
import pytest
from json_edits import edit_json

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Escape what is no text in captured output: reports that hold it cannot be sent from worker to main process."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_collection_finish():
    """Less to look through: half a million objects of the libraries for the garbage collector, and loggers."""
    _spare_what_was_imported()
    gc.set_threshold(20_000, 50, 10)
    # for every test, pytest would add its handlers to each of torch's sixty loggers that keep their records, six times
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.split(".")[0] == "torch":
            logger.propagate = True
    # else the first test that makes a graph would have torch's traces, which are always of level DEBUG, in its records
    logging.getLogger("torch.__trace").handlers.clear()


_imported = 0


def _spare_what_was_imported():
    """Keep the garbage collector, which many tests call, from looking through libraries again, which never go."""
    global _imported
    if len(sys.modules) > _imported + 100:
        gc.collect()
        gc.freeze()
        _imported = len(sys.modules)


@pytest.fixture(scope="module", autouse=True)
def _libraries_of_earlier_tests_are_spared():
    """Tests import more than their modules do."""
    _spare_what_was_imported()


@pytest.fixture(autouse=True)
def _standard_error_stays_open(monkeypatch):
    """absl, of which libraries make use, closes its handler's stream with the handler: here that is pytest's."""
    absl = sys.modules.get("absl.logging")
    if absl is not None:
        monkeypatch.setattr(absl.PythonHandler, "close", logging.Handler.close)


@pytest.fixture(autouse=True)
def _logging_as_before():
    """What a bundle's logging.conf changes ends with the test that ran the bundle."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session", autouse=True)
def _classes_of_monai_are_listed_once():
    """MONAI lists the classes of all its modules for every parser: here once for the same modules."""
    from monai.bundle import ComponentLocator

    found, list_classes = {}, ComponentLocator._find_classes_or_functions

    def listed(self, names):
        key = tuple(names)
        if key not in found:
            found[key] = list_classes(self, names)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ComponentLocator, "_find_classes_or_functions", listed)
        yield


@pytest.fixture(scope="session", autouse=True)
def _libraries_look_up_once():
    """What MONAI and torch ask anew for every layer and every graph; and no graph notes where its operations come from.

    Names that the installed version of torch lacks are passed over.
    """
    from monai.networks.layers import utils as layers
    from torch._export import utils as export

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "has_option", functools.cache(layers.has_option))
        materialize = getattr(export, "_materialize_cpp_cia_ops", None)
        if materialize is not None:
            patch.setattr(export, "_materialize_cpp_cia_ops", functools.cache(materialize))
        with contextlib.suppress(ImportError):
            patch.setattr(importlib.import_module("torch.fx.config"), "do_not_emit_stack_traces", True, raising=False)
        yield


@pytest.fixture(scope="session")
def hippocampus_bundle():
    """The folder of the hippocampus bundle in the repository."""
    return REPOSITORY / "bundles" / "hippocampus_mri_unetpp"


@pytest.fixture(
    scope="session",
    params=sorted(path.parents[1] for path in REPOSITORY.glob("bundles/*/models/model.pt")),
    ids=lambda path: path.name,
)
def bundle(request):
    """The folder of each bundle in the repository that has its weights, in turns."""
    return request.param


@pytest.fixture(
    scope="session",
    params=[path for path in sorted(REPOSITORY.glob("bundles/*")) if not (path / "configs" / "plan.json").is_file()],
    ids=lambda path: path.name,
)
def written_bundle(request):
    """The folder of each bundle in the repository whose configurations were written by hand, not by a plan."""
    return request.param


@pytest.fixture(scope="session")
def brain_bundle():
    """The folder of the brain-tissue bundle in the repository."""
    return REPOSITORY / "bundles" / "brain_tissue_mri_unetpp"


@pytest.fixture(scope="session")
def head_bundle():
    """The folder of the head bundle in the repository."""
    return REPOSITORY / "bundles" / "head_mri_unetpp"


@pytest.fixture(scope="session")
def nuclei_bundle():
    """The folder of the nuclei bundle in the repository."""
    return REPOSITORY / "bundles" / "nuclei_microscopy_unetpp"


@pytest.fixture(scope="session")
def nuclei_dir(tmp_path_factory):
    """Six small images in Decathlon form, every second one with a bright background: four for training."""
    root = tmp_path_factory.mktemp("nuclei")
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    generator = np.random.default_rng(0)
    entries = []
    for number in range(6):
        label = np.zeros((40, 36), np.uint8)
        label[4:12, 5:13] = 1
        label[20:32, 18:30] = 1
        image = 20 + 150 * label + generator.integers(0, 20, label.shape)
        name = f"cells_{number}.nii.gz"
        pixels = (image if number % 2 else 255 - image).astype(np.uint8)
        nib.save(nib.Nifti1Image(pixels, np.eye(4)), root / "imagesTr" / name)
        nib.save(nib.Nifti1Image(label, np.eye(4)), root / "labelsTr" / name)
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    (root / "dataset.json").write_text(json.dumps({"training": entries[:4], "validation": entries[4:]}))
    return root


@pytest.fixture(scope="session")
def decathlon_dir(tmp_path_factory):
    """Six small volumes with two boxes each, in Decathlon form: four for training, two for validation."""
    root = tmp_path_factory.mktemp("decathlon")
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    generator = np.random.default_rng(0)
    affine = np.array([[-1.0, 0, 0, 10], [0, 1.2, 0, -20], [0, 0, 1.5, 5], [0, 0, 0, 1]])
    entries = []
    for number in range(6):
        label = np.zeros((20, 18, 16), np.uint8)
        label[4:10, 4:12, 4:10] = 1
        label[10:16, 4:12, 4:10] = 2
        image = 100 * label + generator.normal(200, 10, label.shape)
        name = f"case_{number}.nii.gz"
        nib.save(nib.Nifti1Image(image.astype(np.float32), affine), root / "imagesTr" / name)
        nib.save(nib.Nifti1Image(label, affine), root / "labelsTr" / name)
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    labels = {"0": "background", "1": "anterior", "2": "posterior"}
    content = {"labels": labels, "training": entries[:4], "validation": entries[4:]}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def heads_dir(decathlon_dir, tmp_path_factory):
    """The same with the labels 17 and 53 instead of 1 and 2, as the head bundle takes them."""
    folder = tmp_path_factory.mktemp("heads") / "data"
    shutil.copytree(decathlon_dir, folder)
    for path in (folder / "labelsTr").iterdir():
        label = nib.load(path)
        voxels = np.array([0, 17, 53], np.uint8)[np.asarray(label.dataobj).astype(int)]
        nib.save(nib.Nifti1Image(voxels, label.affine), path)
    edit_json(folder / "dataset.json", labels={"background": 0, "left": 17, "right": 53})
    return folder
