"""Segmenting files with a bundle from Python."""

import json
import re
import shutil
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from json_edits import edit_json
from monai.bundle import ConfigParser, ConfigWorkflow
from tiny_bundle import make_tiny_bundle

from monai_unetpp import NestedUNet, files
from monai_unetpp.bundles import label_names, load_network
from monai_unetpp.data import BlockwiseSpacingd
from monai_unetpp.files import make_output_dir
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.segmentation import SegmentationSummary, segment_files
from monai_unetpp.segmentation_options import SegmentationOptions

#: What stands beside label maps.
BESIDE = {"labels.ctbl", "labels.label", "run.json", "volumes.csv"}


@pytest.fixture(scope="module")
def case(decathlon_dir):
    return decathlon_dir / "imagesTr" / "case_4.nii.gz"


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture
def copied_bundle(hippocampus_bundle, tmp_path):
    return shutil.copytree(
        hippocampus_bundle, tmp_path / "copied", ignore=lambda folder, names: {n for n in names if n == "training"}
    )


@pytest.mark.slow
def test_volumes_are_those_of_the_written_file(hippocampus_bundle, case, tmp_path):
    summary = segment_files(case, tmp_path / "out", hippocampus_bundle, device="cpu")
    assert isinstance(summary, SegmentationSummary)
    assert (summary.bundle, summary.level, summary.device) == ("hippocampus_mri_unetpp", "L2", "cpu")
    assert summary.failures == ()
    (done,) = summary.cases
    assert (done.case, done.image) == ("case_4", str(case))
    assert done.output == str(tmp_path / "out" / "case_4_seg.nii.gz")
    assert done.seconds > 0
    labels = voxels(done.output)
    voxel_ml = 1.0 * 1.2 * 1.5 / 1000
    assert done.volumes_ml == {
        "anterior": pytest.approx((labels == 1).sum() * voxel_ml),
        "posterior": pytest.approx((labels == 2).sum() * voxel_ml),
    }
    assert json.loads(json.dumps(summary.as_dict()))["cases"][0]["volumes_ml"] == done.volumes_ml


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_from_resampling_to_inversion(hippocampus_bundle, case, tmp_path):
    devices = []
    forth, back = BlockwiseSpacingd.__call__, BlockwiseSpacingd.inverse

    def noted(method):
        def call(self, data, *arguments, **options):
            devices.extend(value.device.type for value in data.values() if isinstance(value, torch.Tensor))
            return method(self, data, *arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(BlockwiseSpacingd, "__call__", noted(forth))
        patched.setattr(BlockwiseSpacingd, "inverse", noted(back))
        found = segment_files(case, tmp_path / "gpu", hippocampus_bundle, device="cuda", precision="fp32").cases[0]
    assert len(devices) >= 2
    assert set(devices) == {"cuda"}
    expected = segment_files(case, tmp_path / "cpu", hippocampus_bundle, device="cpu", precision="fp32").cases[0]
    assert (voxels(found.output) != voxels(expected.output)).mean() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("level", [None, "L1"])
def test_the_same_as_the_bundles_own_configuration(hippocampus_bundle, case, tmp_path, level):
    summary = segment_files(case, tmp_path / "ours", hippocampus_bundle, level, device="cpu")
    monai.bundle.run(
        config_file=str(hippocampus_bundle / "configs" / "inference.json"),
        bundle_root=str(hippocampus_bundle),
        input=str(case),
        output_dir=str(tmp_path / "theirs"),
        device="cpu",
        logging_file=False,
        **({"level": level} if level else {}),
    )
    theirs = tmp_path / "theirs" / "case_4_seg.nii.gz"
    assert voxels(theirs).any() or level is None  # the deeper levels find nothing in noise
    assert np.array_equal(voxels(summary.cases[0].output), voxels(theirs))
    assert np.array_equal(nib.load(summary.cases[0].output).affine, nib.load(theirs).affine)


@pytest.mark.slow
def test_a_level_is_the_pruned_network(copied_bundle, case, tmp_path):
    """What ``level`` gives is what a bundle with nothing but the pruned network gives."""
    by_level = segment_files(case, tmp_path / "by_level", copied_bundle, "L1", device="cpu")
    checkpoint = copied_bundle / "models" / "model.pt"
    pruned = NestedUNet.from_checkpoint(checkpoint).prune("L1")
    torch.save(pruned.state_dict(), checkpoint)
    network_def = {"_target_": "monai_unetpp.NestedUNet", **pruned.config}
    edit_json(copied_bundle / "configs" / "inference.json", network_def=network_def, level=None)
    alone = segment_files(case, tmp_path / "alone", copied_bundle, device="cpu")
    assert (by_level.level, alone.level) == ("L1", "L1")
    assert voxels(alone.cases[0].output).any()
    assert np.array_equal(voxels(by_level.cases[0].output), voxels(alone.cases[0].output))


@pytest.mark.slow
def test_the_list_that_is_scored_can_be_segmented(hippocampus_bundle, decathlon_dir, tmp_path):
    root = shutil.copytree(decathlon_dir, tmp_path / "data")
    edit_json(root / "dataset.json", test=["./imagesTr/case_0.nii.gz"])
    options = {"level": "L1", "device": "cpu"}
    assert [done.case for done in segment_files(root, tmp_path / "out", hippocampus_bundle, **options).cases] == [
        "case_0"
    ]
    summary = segment_files(
        root, tmp_path / "out", hippocampus_bundle, list_key="validation", subject_pattern="(case_.)", **options
    )
    assert [done.case for done in summary.cases] == ["case_4", "case_5"]


def test_subjects_are_for_a_list_that_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"subject_pattern must be given with list_key, got '\(\.\)' alone\. Name"):
        SegmentationOptions("a.nii", "out", subject_pattern="(.)")
    with pytest.raises(FileNotFoundError, match=r"s\.csv: no such file\. subjects must be a CSV file with the columns"):
        SegmentationOptions("a.nii", "out", list_key="validation", subjects=tmp_path / "s.csv")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_here(hippocampus_bundle, case, tmp_path):
    with pytest.raises(ValueError, match=r"device 'cuda:0' was asked for, but torch finds no CUDA GPU here"):
        segment_files(case, tmp_path, hippocampus_bundle, device="cuda:0")


def test_a_bundle_without_weights_and_with_broken_ones(copied_bundle, case, tmp_path):
    (copied_bundle / "models" / "model.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"copied/models/model\.pt"):
        segment_files(case, tmp_path / "out", copied_bundle)
    (copied_bundle / "models" / "model.pt").write_bytes(b"nothing that torch wrote")
    with pytest.raises(ValueError, match=r"copied/models/model\.pt"):
        segment_files(case, tmp_path / "out", copied_bundle)


def test_a_bundle_with_another_evaluator(case, tmp_path):
    bundle = make_tiny_bundle(tmp_path / "tiny")

    def name_channels(content):
        content["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": "background", "1": "box"}

    with pytest.raises(ValueError, match=r"metadata\.json: must have .* 'channel_def' is missing"):
        segment_files(case, tmp_path / "out", bundle)
    edit_json(bundle / "configs" / "metadata.json", name_channels)
    with pytest.raises(ValueError, match=r"must be monai_unetpp\.engines\.CaseEvaluator, got SupervisedEvaluator"):
        segment_files(case, tmp_path / "out", bundle)


def test_an_output_folder_that_cannot_be_written_to(hippocampus_bundle, case, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"output_dir must be a folder that can be written to, got '.*file"):
            segment_files(case, place, hippocampus_bundle, "L1", device="cpu")


def test_an_output_folder_without_permission(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("monai_unetpp.files.tempfile.TemporaryFile", refuse)
    with pytest.raises(OSError, match=r"got '.*closed' \(Permission denied\)\. Choose another folder\."):
        make_output_dir(tmp_path / "closed")


@pytest.mark.parametrize(
    ("inputs", "output_dir", "name"),
    [("", "out", "inputs"), (["a.nii", ""], "out", "inputs"), ("a.nii", "", "output_dir")],
)
def test_an_empty_name_is_not_the_working_directory(inputs, output_dir, name):
    with pytest.raises(ValueError, match=rf"^{name} must be a path, got an empty name\. Write \. for the working"):
        SegmentationOptions(inputs, output_dir, "tiny")
    with pytest.raises(OSError, match=r"got '' \(No such file or directory\)\. Choose another folder\."):
        make_output_dir("")


def test_an_output_folder_is_made_and_left_empty(tmp_path):
    folder = make_output_dir(tmp_path / "a" / "b")
    assert folder == tmp_path / "a" / "b"
    assert list(folder.iterdir()) == []
    assert make_output_dir(folder) == folder


def test_channels_of_a_data_set_in_another_order_are_refused(tmp_path):
    bundle, data = make_tiny_bundle(tmp_path / "tiny"), tmp_path / "data"
    with_names = {"modality": {"0": "T2", "1": "t1"}, "labels": {"0": "background", "1": "a"}, "test": ["a.nii.gz"]}
    data.mkdir()
    (data / "dataset.json").write_text(json.dumps(with_names))

    def edit(content):
        content["network_data_format"]["inputs"]["image"]["channel_def"] = {"0": "T1", "1": "T2"}

    edit_json(bundle / "configs" / "metadata.json", edit)
    with pytest.raises(ValueError, match=r"data/dataset\.json: channels must .* got T2, t1; .* names T1, T2\. Reorder"):
        segment_files(data, tmp_path / "out", bundle, device="cpu")
    assert not (tmp_path / "out").exists()


def test_label_names_leave_out_the_background(hippocampus_bundle):
    assert label_names(hippocampus_bundle) == {1: "anterior", 2: "posterior"}


@pytest.fixture
def built(monkeypatch):
    """The evaluators that bundles' configurations have built so far."""
    built = []
    original = ConfigParser.get_parsed_content

    def recording(self, *arguments, **options):
        content = original(self, *arguments, **options)
        if arguments and arguments[0] == "evaluator":
            built.append(content)
        return content

    monkeypatch.setattr(ConfigParser, "get_parsed_content", recording)
    return built


@pytest.mark.slow
def test_settings_take_the_place_of_the_bundles(hippocampus_bundle, case, tmp_path, built):
    small = {"window_shape": (24, 24, 24)}
    segment_files(case, tmp_path / "own", hippocampus_bundle, "L1", device="cpu", **small)
    settings = {**small, "runtime": "torch", "precision": "bf16", "overlap": 0.5, "flips": (0,)}
    segment_files(case, tmp_path / "given", hippocampus_bundle, "L1", device="cpu", **settings)
    assert [set(evaluator.network.nodes) for evaluator in built] == [{"x_0_0", "x_1_0", "x_0_1"}] * 2, "no others"
    own, given = (evaluator.inferer for evaluator in built)
    assert (own.runtime, own.precision, own.overlap, list(own.flips)) == ("auto", "auto", 0.25, [])
    assert (given.runtime, given.precision, given.overlap, list(given.flips)) == ("torch", "bf16", 0.5, [0])
    assert (own.output, given.output) == ("labels", "labels")


@pytest.mark.slow
def test_smooth_borders(hippocampus_bundle, case, tmp_path, built):
    """Here voxels are 1 x 1.2 x 1.5 mm and windows 1 mm: borders differ, the rest is the same."""
    both = [
        segment_files(case, tmp_path / str(smooth), hippocampus_bundle, "L1", device="cpu", smooth=smooth)
        for smooth in (False, True)
    ]
    assert [evaluator.inferer.output for evaluator in built] == ["labels", "logits"]
    nearest, smooth = (voxels(summary.cases[0].output) for summary in both)
    assert smooth.any()
    assert 0 < (nearest != smooth).sum() < 0.3 * (nearest > 0).sum()


def test_settings_that_the_bundle_has_not(copied_bundle, case, tmp_path):
    edit_json(copied_bundle / "configs" / "inference.json", lambda content: content.pop("runtime"))
    message = r"runtime must be left out for copied, got 'torch': its inference\.json has no key 'runtime'\. Add and"
    with pytest.raises(ValueError, match=message):
        segment_files(case, tmp_path / "out", copied_bundle, runtime="torch")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"overlap": 1.0}, r"overlap must be from 0 to below 1, got 1\.0"),
        ({"flips": [0, 0]}, r"axes must be different spatial axes"),
    ],
)
def test_settings_that_cannot_be(hippocampus_bundle, case, tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        segment_files(case, tmp_path / "out", hippocampus_bundle, "L1", device="cpu", **setting)
    assert not (tmp_path / "out").exists()


def test_a_profile_adds_up(hippocampus_bundle, decathlon_dir, tmp_path):
    cases = [decathlon_dir / "imagesTr" / f"case_{number}.nii.gz" for number in (4, 5)]
    summary = segment_files(cases, tmp_path, hippocampus_bundle, "L1", device="cpu", profile=True)
    stages = {
        "load",
        "resample",
        "preprocessing",
        "preparation",
        "windows",
        "network",
        "stitching",
        "argmax",
        "inversion",
        "save",
    }
    for done in summary.cases:
        assert set(done.stages) == {*stages, "volumes", "other"}
        assert sum(done.stages.values()) == pytest.approx(done.seconds, rel=0.3)
    for name, seconds in summary.stages.items():
        assert seconds == pytest.approx(sum(done.stages[name] for done in summary.cases))
    assert json.loads(json.dumps(summary.as_dict()))["stages"] == summary.stages


@pytest.fixture
def two_subjects(decathlon_dir, tmp_path):
    """Images of two subjects under one name."""
    paths = [tmp_path / subject / "T1.nii.gz" for subject in ("s1", "s2")]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        shutil.copy(decathlon_dir / "imagesTr" / f"case_{number}.nii.gz", path)
    return paths


@pytest.mark.slow
def test_the_result_of_another_subject_is_kept_before_the_network_works(
    hippocampus_bundle, two_subjects, tmp_path, monkeypatch
):
    options = {"bundle": hippocampus_bundle, "level": "L1", "device": "cpu", "flips": []}
    (done,) = segment_files(two_subjects[0], tmp_path / "out", **options).cases
    before = Path(done.output).read_bytes()
    worked = []
    call = NestedSlidingWindowInferer.__call__
    monkeypatch.setattr(
        NestedSlidingWindowInferer, "__call__", lambda *arguments, **more: worked.append(1) or call(*arguments, **more)
    )
    summary = segment_files(two_subjects[1], tmp_path / "out", **options)
    assert not worked
    assert summary.failures == (
        f"{two_subjects[1]}: its result would replace {done.output}, which is of another image. Name another output "
        "folder, or replace it with --overwrite (overwrite=True).",
    )
    assert Path(done.output).read_bytes() == before
    assert not segment_files(two_subjects[1], tmp_path / "out", overwrite=True, **options).failures
    assert worked
    assert Path(done.output).read_bytes() != before


@pytest.mark.slow
def test_the_bundles_configuration_replaces_results_with_its_key_overwrite(hippocampus_bundle, two_subjects, tmp_path):
    def run(image, **keys):
        workflow = ConfigWorkflow(
            str(hippocampus_bundle / "configs" / "inference.json"),
            workflow_type="infer",
            bundle_root=str(hippocampus_bundle),
            **{"input": str(image), "output_dir": str(tmp_path / "out"), "device": "cpu", "level": "L1", "flips": []},
            **keys,
        )
        workflow.initialize()
        workflow.run()
        return (tmp_path / "out" / "T1_seg.nii.gz").read_bytes()

    first = run(two_subjects[0])
    with pytest.raises(SystemExit):
        run(two_subjects[1])
    assert (tmp_path / "out" / "T1_seg.nii.gz").read_bytes() == first
    assert run(two_subjects[1], overwrite=True) != first


def test_two_subjects_in_one_run_get_names_of_their_own(hippocampus_bundle, two_subjects, tmp_path):
    summary = segment_files(two_subjects, tmp_path / "out", hippocampus_bundle, "L1", device="cpu", flips=[])
    assert [Path(done.output).name for done in summary.cases] == ["s1_T1_seg.nii.gz", "s2_T1_seg.nii.gz"]


@pytest.mark.slow
def test_the_output_folder_may_be_the_input_folder(hippocampus_bundle, two_subjects):
    folder = two_subjects[0].parent
    for _ in range(2):
        summary = segment_files(folder, folder, hippocampus_bundle, "L1", device="cpu", flips=[])
        assert [done.case for done in summary.cases] == ["T1"]
        assert sorted(path.name for path in folder.iterdir()) == sorted({"T1.nii.gz", "T1_seg.nii.gz"} | BESIDE)


def test_names_that_are_long_and_those_that_are_too_long(hippocampus_bundle, two_subjects, tmp_path):
    long, too_long = (two_subjects[0].with_name(f"{'x' * length}.nii.gz") for length in (240, 248))
    two_subjects[0].rename(long)
    two_subjects[1].rename(too_long)
    summary = segment_files([long, too_long], tmp_path / "out", hippocampus_bundle, "L1", device="cpu", flips=[])
    assert [Path(done.output).name for done in summary.cases] == [f"{'x' * 240}_seg.nii.gz"]
    (failure,) = summary.failures
    assert failure == f"{too_long}: the name of its result would be too long for the file system. Rename it."


@pytest.mark.slow
def test_tildes(hippocampus_bundle, two_subjects, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    two_subjects[0].rename(tmp_path / "~x.nii.gz")
    summary = segment_files("~x.nii.gz", "~/out", hippocampus_bundle, "L1", device="cpu", flips=[])
    assert [done.output for done in summary.cases] == [str(home / "out" / "~x_seg.nii.gz")]
    with pytest.raises(FileNotFoundError, match=r"~nobody/a\.nii: no such file or folder"):
        segment_files("~nobody/a.nii", "out", hippocampus_bundle)


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    with files.temporary_folder(tmp_path) as made:
        left = made
    left.mkdir()
    (left / ".in-use").touch()
    (left / "x_seg.nii.gz").write_text("half")
    make_output_dir(tmp_path)
    assert list(tmp_path.iterdir()) == []


#: Names with a meaning in MONAI's configurations.
NAMES = ("$open('ran', 'w')", "@level", "%level", "a#1", "a::b", "$import os", "@", "$", "%x.json#y", "{}", "_target_")


@pytest.mark.slow
def test_names_of_files_and_folders_are_never_read_as_configuration(hippocampus_bundle, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(hippocampus_bundle, "$x#1")
    for name in NAMES:
        shutil.copy(case, f"{name}.nii.gz")
    for output_dir in ("$out", "@level"):
        given = {"device": "cpu", "level": "L1", "runtime": "torch", "flips": []}
        summary = segment_files([f"{name}.nii.gz" for name in NAMES], output_dir, "$x#1", **given)
        assert summary.failures == ()
        assert {path.name for path in (tmp_path / output_dir).iterdir()} == {
            f"{name}_seg.nii.gz" for name in NAMES
        } | BESIDE
    assert not (tmp_path / "ran").exists()
    assert summary.bundle == "$x#1"


def test_a_data_list_of_such_names(hippocampus_bundle, decathlon_dir, tmp_path):
    root = shutil.copytree(decathlon_dir, tmp_path / "$data")
    (root / "imagesTr" / "case_0.nii.gz").rename(root / "imagesTr" / "$1.nii.gz")
    content = {"@list": [{"image": "imagesTr/$1.nii.gz"}], "training": []}
    (root / "dataset.json").write_text(json.dumps(content))
    given = {"device": "cpu", "level": "L1", "runtime": "torch"}
    summary = segment_files(root, tmp_path / "out", hippocampus_bundle, list_key="@list", **given)
    assert [done.case for done in summary.cases] == ["$1"]


@pytest.mark.parametrize("setting", [{"level": "$1/0"}, {"runtime": "@device"}, {"precision": "%level"}])
def test_settings_are_never_read_as_configuration(hippocampus_bundle, case, tmp_path, setting):
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=rf"{name} must .*got {re.escape(repr(value))}"):
        segment_files(case, tmp_path / "out", hippocampus_bundle, device="cpu", **setting)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("evaluator", None),
        ("evaluator", {"_target_": "monai_unetpp.engines.CaseEvaluator"}),
        ("network_def", None),
        ("network_def", {"_target_": "monai_unetpp.NestedUNet"}),
        ("network_def", "network"),
        ("loaded_network", None),
        ("loaded_network", "x"),
        ("dataloader", None),
        ("dataset", None),
        ("postprocessing", None),
        ("device", "nowhere"),
        ("device", None),
        ("device", []),
        ("flips", "x"),
        ("flips", 5),
        ("overlap", "$1/0"),
        ("overlap", "$torch.nothere"),
        ("overlap", "$1+"),
        ("overlap", "$[][1]"),
        ("overlap", "$exec('assert False')"),
        ("overlap", 7),
        ("precision", "@nothing"),
        ("window_shape", "wide"),
        ("preprocessing", {"_target_": "Compos"}),
        ("dataset", "%nothing.json"),
        ("checkpoint", 5),
        ("image", "$@image"),
        ("imports", ["$import torch as"]),
    ],
)
def test_a_broken_configuration_is_named(copied_bundle, case, tmp_path, key, value):
    edit_json(copied_bundle / "configs" / "inference.json", **{key: value})
    with pytest.raises((TypeError, ValueError), match=r"inference\.json: ") as caught:
        segment_files(case, tmp_path / "out", copied_bundle, level="L1")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_the_depth_of_each_window_can_be_chosen_and_is_told(hippocampus_bundle, case, tmp_path):
    options = {"device": "cpu", "runtime": "torch", "flips": []}
    deepest = segment_files(case, tmp_path / "deepest", hippocampus_bundle, level="L3", **options)
    never = segment_files(case, tmp_path / "never", hippocampus_bundle, adaptive=0.0, **options)
    assert never.depths == never.cases[0].depths == {"L2": 0, "L3": 1}
    assert json.loads(json.dumps(never.as_dict()))["cases"][0]["depths"] == {"L2": 0, "L3": 1}
    assert (voxels(never.cases[0].output) == voxels(deepest.cases[0].output)).all()
    assert deepest.depths == {}
    shallow = segment_files(case, tmp_path / "shallow", hippocampus_bundle, adaptive=1.0, **options)
    assert shallow.level == "L3"
    assert sum(shallow.depths.values()) == 1


@pytest.mark.slow
def test_the_depth_that_is_asked_for_takes_the_place_of_the_bundles_own(copied_bundle, case, tmp_path):
    file = copied_bundle / "configs" / "inference.json"
    options = {"device": "cpu", "runtime": "torch", "flips": []}
    edit_json(file, level="L1")
    assert segment_files(case, tmp_path / "own", copied_bundle, **options).level == "L1"
    assert segment_files(case, tmp_path / "asked", copied_bundle, level="L2", **options).level == "L2"
    adaptive = segment_files(case, tmp_path / "adaptive", copied_bundle, adaptive=0.0, **options)
    assert adaptive.depths == {"L2": 0, "L3": 1}
    edit_json(file, level=None, adaptive_tolerance=1.0)
    assert segment_files(case, tmp_path / "each", copied_bundle, **options).depths.keys() == {"L2", "L3"}
    one = segment_files(case, tmp_path / "one", copied_bundle, level="L2", **options)
    assert (one.level, one.depths) == ("L2", {})


def test_the_depth_cannot_be_chosen_where_there_is_only_one(copied_bundle, case, tmp_path):
    pruned = load_network(copied_bundle / "models" / "model.pt").prune("L1")
    torch.save(pruned.state_dict(), copied_bundle / "models" / "model.pt")
    network = {"_target_": "monai_unetpp.NestedUNet", **pruned.config}
    edit_json(copied_bundle / "configs" / "inference.json", network_def=network)
    with pytest.raises(ValueError, match=r"network must have two or more levels .*, got only L1\."):
        segment_files(case, tmp_path / "out", copied_bundle, adaptive=0.03, device="cpu")


def test_tolerances_that_cannot_be_are_refused(hippocampus_bundle, case, tmp_path):
    with pytest.raises(ValueError, match=r"adaptive must lie between 0 and 1, got 2\.0\. 0\.033 is a good start"):
        segment_files(case, tmp_path, hippocampus_bundle, adaptive=2.0)
    with pytest.raises(ValueError, match=r"adaptive and level exclude each other, got 0\.1 and 'L2'"):
        segment_files(case, tmp_path, hippocampus_bundle, adaptive=0.1, level="L2")


@pytest.mark.parametrize("level", [2, "2", "l2", "L2"])
def test_a_level_may_be_a_number(level):
    assert SegmentationOptions("a.nii", "out", "bundle", level=level).level == "L2"
