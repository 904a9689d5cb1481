"""Pictures in colours from a plan to their segmentation."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from coloured_discs import paint_disc, write_folder, write_nnunet
from forked import draw_nothing, measure_briefly
from PIL import Image
from tiny_planning import TINY, slow_machine

from monai_unetpp.bundles import BundleConfig, check_bundle, read_training_record
from monai_unetpp.data.datasets.voxel_hash import hash_voxels
from monai_unetpp.export import export_runner
from monai_unetpp.openvino_loading import has_openvino
from monai_unetpp.planning import load_plan, plan
from monai_unetpp.runner import Segmenter
from monai_unetpp.segmentation import segment_files
from monai_unetpp.training_run import TrainOptions, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Nine pictures in nnU-Net's form, and a bundle that was trained on them for two steps."""
    root = write_nnunet(tmp_path_factory.mktemp("colours") / "data", 9)
    bundle = root.with_name("bundle")
    plan(root, bundle, settings=TINY | {"steps": 2}, device="cpu", measure=slow_machine)
    with pytest.MonkeyPatch.context() as patched:
        measure_briefly(patched)
        draw_nothing(patched)
        train(TrainOptions(root, bundle, minutes=5, device="cpu"))
    return root, bundle


@pytest.mark.slow
def test_a_bundle_of_coloured_pictures_reads_and_normalises_three_channels(trained):
    root, bundle = trained
    made = load_plan(bundle)
    assert (made.channels, made["invert_bright_background"]) == (("R", "G", "B"), False)
    assert check_bundle(bundle) == []
    assert "Colours of pictures are three channels" in (bundle / "docs" / "plan.md").read_text()
    inference = BundleConfig(bundle, "inference.json")
    assert inference.parse("network_def").in_channels == 3
    prepared = inference.parse("preprocessing")({"image": str(root / "imagesTr" / "disc_0_0000.png")})["image"]
    assert prepared.shape == (3, 24, 24)
    np.testing.assert_allclose(prepared.mean(dim=(1, 2)), np.zeros(3), atol=1e-5)
    np.testing.assert_allclose(prepared.std(dim=(1, 2)), np.ones(3), atol=1e-2)
    # what only the colours tell is there
    red, green = prepared[0].numpy(), prepared[1].numpy()
    label = paint_disc(0)[1].T.astype(bool)
    assert red[label].mean() > 0 > green[label].mean()
    record = read_training_record(bundle)
    assert {name: hash_voxels(root / "imagesTr" / f"{name}_0000.png") for name in record.training} == record.training


@pytest.mark.slow
def test_coloured_pictures_are_segmented_and_grey_ones_with_a_warning(trained, tmp_path):
    root, bundle = trained
    (tmp_path / "in").mkdir()
    for number, mode in enumerate(("RGB", "RGBA", "L")):
        picture = Image.fromarray(paint_disc(20)[0]).convert(mode)
        picture.save(tmp_path / "in" / f"case{number}.png")
    done = segment_files([tmp_path / "in", root / "imagesTr"], tmp_path / "out", bundle, device="cpu", runtime="torch")
    assert done.failures == ()
    assert len(done.cases) == 3 + 9
    opaque, transparent, grey = done.cases[:3]
    for case in done.cases:
        with Image.open(case.output) as labels:
            assert (labels.size, labels.mode) == ((24, 24), "L")
    with Image.open(opaque.output) as first, Image.open(transparent.output) as second:
        np.testing.assert_array_equal(first, second)
    assert not any("has no colours" in line for line in (*opaque.warnings, *transparent.warnings))
    assert any("its grey values are taken as red, green and blue" in line.lower() for line in grey.warnings)


@pytest.mark.slow
@pytest.mark.skipif(not has_openvino(), reason="needs the extra openvino")
def test_the_runner_reads_their_channels_from_pictures_and_nifti(trained, tmp_path):
    root, bundle = trained
    export_runner(bundle, tmp_path / "folder")
    runner = Segmenter(tmp_path / "folder")
    picture = root / "imagesTr" / "disc_0_0000.png"
    colours = paint_disc(0)[0].transpose(1, 0, 2)[:, :, None]
    nib.save(nib.Nifti1Image(colours, np.eye(4)), tmp_path / "colours.nii.gz")
    found = segment_files([picture], tmp_path / "out", bundle, device="cpu", runtime="torch").cases[0].output
    with Image.open(found) as labels:
        np.testing.assert_array_equal(runner.label(tmp_path / "colours.nii.gz"), np.asarray(labels).T)
        np.testing.assert_array_equal(runner.label(picture), np.asarray(labels).T)


@pytest.mark.slow
@pytest.mark.parametrize("grey", [0, 1])
def test_the_plan_of_a_folder_says_what_becomes_of_colours(tmp_path, caplog, grey):
    root = write_folder(tmp_path / "data", 5, grey=grey)
    bundle = tmp_path / "bundle"
    # measured when all had colours, and again when one has none
    plan(root, bundle, settings=TINY, device="cpu", measure=slow_machine)
    channels = load_plan(bundle).channels
    text = (bundle / "docs" / "plan.md").read_text()
    assert channels == (("channel_0",) if grey else ("red", "green", "blue"))
    assert ("averaged to one channel" if grey else "all pictures have colours") in caplog.text
    told = "are any, are averaged to one channel" if grey else "Colours of pictures are three channels, where"
    assert told in text
    if not grey:
        Image.fromarray(paint_disc(4)[0]).convert("L").save(root / "images" / "disc_4.png")
        plan(root, bundle, settings=TINY, device="cpu", measure=slow_machine)
        assert load_plan(bundle).channels == ("channel_0",)
