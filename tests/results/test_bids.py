"""A BIDS data set in, a derived one out."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from json_edits import edit_json

from monai_unetpp.data import SegmentationSaveImaged, find_cases, writer
from monai_unetpp.results import RunInputs
from monai_unetpp.results.bids import find_bids_images
from monai_unetpp.segmentation import segment_files

OPTIONS = {"device": "cpu", "runtime": "torch", "precision": "fp32", "flips": []}
IMAGES = ("sub-01/anat/sub-01_T1w", "sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w", "sub-02/ses-b/anat/sub-02_ses-b_T1w")


@pytest.fixture
def data_set(decathlon_dir, tmp_path):
    """Two subjects, one with two sessions, and what is not to be segmented."""
    root = tmp_path / "study"
    for number, name in enumerate(IMAGES):
        (root / name).parent.mkdir(parents=True)
        shutil.copy(decathlon_dir / "imagesTr" / f"case_{number}.nii.gz", root / f"{name}.nii.gz")
    shutil.copy(root / f"{IMAGES[0]}.nii.gz", root / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    (root / "sub-01" / "anat" / "sub-01_T1w.json").write_text("{}")
    (root / "code").mkdir()
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Study", "BIDSVersion": "1.8.0"}))
    return root


def segment(data_set, bundle, level="L1", **options):
    return segment_files(data_set, bundle=bundle, level=level, **OPTIONS, **options)


def table(folder):
    with (folder / "volumes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_derived_data_set_with_one_table_of_volumes(data_set, hippocampus_bundle):
    summary = segment(data_set, hippocampus_bundle)
    out = data_set / "derivatives" / "monai-unetpp"
    assert (summary.failures, summary.output_dir) == ((), str(out))
    for name in IMAGES:
        result = nib.load(out / f"{name.removesuffix('_T1w')}_dseg.nii.gz")
        assert result.shape == nib.load(data_set / f"{name}.nii.gz").shape
    assert len(list(out.rglob("*.nii.gz"))) == 3
    rows = [line.split("\t") for line in (out / "dseg.tsv").read_text().splitlines()]
    assert rows == [
        ["index", "name", "color"],
        ["0", "background", "#000000"],
        ["1", "anterior", "#e69f00"],
        ["2", "posterior", "#56b4e9"],
    ]
    described = json.loads((out / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "monai-unetpp"
    assert {row["case"] for row in table(out)} == {"sub-01", "sub-02_ses-a_run-1", "sub-02_ses-b"}
    assert (out / ".bidsignore").read_text().split() == ["volumes.csv", "run.json", "labels.label", "labels.ctbl"]


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(data_set, hippocampus_bundle):
    out = data_set / "derivatives" / "monai-unetpp"
    segment(data_set, hippocampus_bundle)
    before = table(out)
    lost = out / "sub-01" / "anat" / "sub-01_dseg.nii.gz"
    lost.unlink()
    (out / "volumes.csv").unlink()
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    summary = segment(data_set, hippocampus_bundle, skip_existing=True)
    assert ([done.case for done in summary.cases], summary.skipped) == (["sub-01"], 2)
    assert lost.exists()
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert table(out) == before
    assert segment(data_set, hippocampus_bundle, skip_existing=True).skipped == 3
    # another level, and another image
    assert segment(data_set, hippocampus_bundle, level="L2", skip_existing=True).skipped == 0
    shutil.copy(data_set / f"{IMAGES[1]}.nii.gz", data_set / f"{IMAGES[0]}.nii.gz")
    assert segment(data_set, hippocampus_bundle, level="L2", skip_existing=True).skipped == 2


def test_lists_of_a_data_set_come_first(data_set, tmp_path):
    image = str(next(data_set.rglob("*_T1w.nii.gz")).relative_to(data_set))
    (data_set / "dataset.json").write_text(json.dumps({"validation": [{"image": image}]}))
    given = RunInputs.find([str(data_set)], tmp_path, list_key="validation")
    assert (given.paths, given.bids) == ([str(data_set)], None)
    assert RunInputs.find([str(data_set)], tmp_path).bids == data_set


def test_a_saver_may_have_a_postfix_of_its_own(data_set, tmp_path):
    given = RunInputs.find([str(data_set)], tmp_path)
    savers = [SegmentationSaveImaged("pred", tmp_path, postfix) for postfix in ("labels", "mask", "edges")]
    given.name_results([{"image": given.paths[0]}], savers)
    assert [saver.output_postfix for saver in savers] == ["dseg", "desc-brain_mask", "edges"]


def test_another_suffix_and_what_there_is_instead(data_set, tmp_path):
    (found,) = RunInputs.find([str(data_set)], tmp_path / "out", "T2w").images.values()
    assert found == "sub-01/anat/sub-01"
    with pytest.raises(ValueError, match=r"no image with suffix 'FLAIR' .* there are T1w, T2w\. Name another"):
        find_bids_images(data_set, "FLAIR")


def test_what_is_no_bids_data_set_needs_an_output_folder(data_set, tmp_path):
    with pytest.raises(ValueError, match=r"output_dir must name the folder for the results"):
        RunInputs.find([str(tmp_path / "a.nii.gz")], None)
    with pytest.raises(ValueError, match=r"suffix must be left out, got 'T2w'"):
        RunInputs.find([str(tmp_path / "a.nii.gz")], tmp_path, "T2w")
    with pytest.raises(ValueError, match=r"must be the only input, got 2\."):
        RunInputs.find([str(data_set), str(tmp_path / "a.nii.gz")], tmp_path)


@pytest.mark.parametrize("name", ["someone", "monai-unetpp"])
def test_data_sets_of_others_are_not_written_to(data_set, hippocampus_bundle, name):
    out = data_set / "derivatives" / "monai-unetpp"
    out.mkdir(parents=True)
    text = json.dumps({"Name": "x", "GeneratedBy": [{"Name": name, "Description": "bundle other"}]})
    (out / "dataset_description.json").write_text(text)
    expected = "segmentations by bundle other" if name == "monai-unetpp" else "a data set that monai-unetpp did not"
    with pytest.raises(ValueError, match=rf"dataset_description\.json: describes {expected}"):
        segment(data_set, hippocampus_bundle)
    assert [path.name for path in out.iterdir()] == ["dataset_description.json"]


@pytest.mark.slow
def test_the_table_of_labels_stays_that_of_all_results(data_set, hippocampus_bundle, tmp_path):
    bundle, out = shutil.copytree(hippocampus_bundle, tmp_path / hippocampus_bundle.name), tmp_path / "out"
    segment(data_set, bundle, output_dir=out)
    before = (out / "dseg.tsv").read_text()
    edit_json(bundle / "configs" / "metadata.json", labels={"1": "tumour", "2": "edema"})
    shutil.rmtree(data_set / "sub-02")
    with pytest.raises(ValueError, match=r"holds results with other labels, such as sub-02_ses-a_run-1_dseg\.nii\.gz"):
        segment(data_set, bundle, output_dir=out)
    assert (out / "dseg.tsv").read_text() == before


@pytest.mark.slow
def test_what_was_added_to_the_description_of_a_derived_data_set_stays(data_set, hippocampus_bundle):
    out = data_set / "derivatives" / "monai-unetpp"
    segment(data_set, hippocampus_bundle)
    added = {"Authors": ["Ada"], "Name": "Hippocampi", "SourceDatasets": [{"URL": "bids::../..", "Version": "2"}]}
    path, by_hand = out / "dataset_description.json", {"Name": "correction"}
    edit_json(path, lambda content: (content["GeneratedBy"].append(by_hand), content["GeneratedBy"][0].pop("Version")))
    edit_json(path, **added)
    (out / ".bidsignore").write_text("qc/\nrun.json\n")
    table = (out / "dseg.tsv").read_text().replace("#e69f00", "#ffffff")
    (out / "dseg.tsv").write_text(table)
    assert segment(data_set, hippocampus_bundle).failures == ()
    described = json.loads(path.read_text())
    assert described["GeneratedBy"][0].keys() == {"Name", "Version", "Description"}
    assert described["GeneratedBy"][1:] == [by_hand]
    assert {key: described[key] for key in added} == added
    ignored = ["qc/", "run.json", "volumes.csv", "labels.label", "labels.ctbl"]
    assert (out / ".bidsignore").read_text().splitlines() == ignored
    assert (out / "dseg.tsv").read_text() == table


def test_images_of_one_name_in_two_sessions_share_no_row(data_set):
    first, second = (data_set / "sub-02" / f"ses-{name}" / "anat" / "sub-02_T1w.nii.gz" for name in "ab")
    for path in (first, second):
        next(path.parent.glob("*.nii.gz")).rename(path)
    inputs = RunInputs.find([str(data_set)], None)
    items = find_cases(inputs.paths)
    inputs.name_results(items, [])
    assert [item["failure"] for item in items if "failure" in item] == [
        f"{second}: its row in volumes.csv would be that of {first}. Name both with their subject and session, such as "
        "sub-01_ses-1_T1w.nii.gz."
    ]


@pytest.mark.slow
def test_a_label_map_whose_mask_could_not_be_written_is_not_taken_for_corrected_by_hand(
    data_set, hippocampus_bundle, tmp_path, monkeypatch
):
    bundle, write_volume = shutil.copytree(hippocampus_bundle, tmp_path / "bundle"), writer.write_volume
    edit_json(bundle / "configs" / "metadata.json", brain_mask=["anterior", "posterior"])
    segment(data_set, bundle)

    def write_labels(path, array, *arguments):
        if path.name.endswith("_mask.nii.gz"):
            raise OSError(28, "No space left on device")
        write_volume(path, 1 - np.minimum(array, 1), *arguments)

    with monkeypatch.context() as full:
        full.setattr(writer, "write_volume", write_labels)
        summary = segment(data_set, bundle, mask=True)
    assert (len(summary.cases), summary.failures) == (3, ())
    assert [problem.split(": ", 1)[1] for problem in summary.problems] == [
        "post-processing failed with OSError: [Errno 28] No space left on device"
    ] * 3
    again = segment(data_set, bundle, mask=True)
    assert (len(again.cases), again.failures, again.problems) == (3, (), ())


def test_a_mask_of_a_derived_image_has_one_description(data_set):
    anat = data_set / "sub-01" / "anat"
    for name in ("desc-preproc", "space-MNI_desc-denoised", "space-MNI_desc-preproc"):
        shutil.copy(anat / "sub-01_T1w.nii.gz", anat / f"sub-01_{name}_T1w.nii.gz")
    (anat / "sub-01_T1w.nii.gz").unlink()
    inputs = RunInputs.find([str(data_set)], None)

    def named(*keys):
        items = find_cases(inputs.paths)
        savers = [SegmentationSaveImaged(key, inputs.output_dir, key) for key in keys]
        inputs.name_results(items, savers)
        names = {item["case"]: [saver.result_path(item["image"], item).name for saver in savers] for item in items}
        return names, [item["failure"] for item in items if "failure" in item]

    names, failures = named("seg", "mask")
    assert names["sub-01_desc-preproc"] == ["sub-01_desc-preproc_dseg.nii.gz", "sub-01_desc-brain_mask.nii.gz"]
    assert names["sub-02_ses-b"] == ["sub-02_ses-b_dseg.nii.gz", "sub-02_ses-b_desc-brain_mask.nii.gz"]
    first, second = (anat / f"sub-01_space-MNI_desc-{name}_T1w.nii.gz" for name in ("denoised", "preproc"))
    assert failures == [
        f"{second}: its mask would overwrite that of {first}. Leave out the mask, or move one of the two away."
    ]
    assert named("seg")[1] == []
