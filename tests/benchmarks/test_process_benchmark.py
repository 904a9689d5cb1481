"""Whole processes against each other; here each command runs in this process."""

import json
import shutil
import sys
from pathlib import Path

import monai.bundle
import nibabel
import pytest
from runner_bundle import write_bundle, write_image

from benchmarks import launching, monai_route, process
from benchmarks.launching import Launched, instruction_sets, launch
from monai_unetpp import cli
from monai_unetpp.bundles.json_files import read_object
from monai_unetpp.measuring.environment import describe_environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.openvino_loading import has_openvino
from monai_unetpp.runner.__main__ import main as runner_main

STEPS = [
    {"_target_": "monai_unetpp.data.BlockwiseSpacingd", "keys": "image", "pixdim": [1.0, 1.2, 0.9]},
    {"_target_": "monai_unetpp.data.StandardizeIntensityd", "keys": "image"},
]


@pytest.mark.slow
def test_a_process_is_measured_by_itself():
    block = launch([sys.executable, "-S", "-c", "block = bytearray(10**8)"])
    assert block.peak_bytes > 10**8
    assert min(block.seconds, block.cpu_seconds) > 0
    # not the memory of the process that asks for it
    assert launch([sys.executable, "-S", "-c", "pass"]).peak_bytes < 10**8
    with pytest.raises(RuntimeError, match=r"ended with status \d+\. no such thing"):
        launch([sys.executable, "-c", "import sys; sys.exit('no such thing')"])


def test_variables_reach_the_process():
    code = "import os, sys; sys.exit(os.environ['ONEDNN_MAX_CPU_ISA'] != 'AVX2')"
    launch([sys.executable, "-S", "-c", code], launching.HOLDS["avx2"])
    assert instruction_sets("avx2").endswith("; libraries held to AVX2")


@pytest.mark.slow
@pytest.mark.skipif(not has_openvino(), reason="needs the extra openvino")
def test_every_way_is_measured_beside_monais(tmp_path, monkeypatch):
    calls = []

    def run_here(command, variables):
        calls.append(variables)
        if command[1] == "-m":
            program, arguments = command[2], command[3:]
            if program == "monai.bundle":
                given = dict(zip(arguments[1::2], arguments[2::2], strict=True))
                monai.bundle.run(**{key.removeprefix("--"): value for key, value in given.items()})
            else:
                assert {"monai_unetpp": cli.main, "monai_unetpp.runner": runner_main}[program](arguments) == 0
        return Launched(2.0 if "monai.bundle" in command else 0.5, 1.0, 10**8)

    monkeypatch.setattr(process, "launch", run_here)
    bundle = write_bundle(tmp_path / "tiny", 3, STEPS, overlap="@overlap", flips="@flips")
    image = write_image(tmp_path / "head.nii.gz", (18, 17, 16), surround=False)
    output = tmp_path / "figures"
    options = ["--levels", "L1", "--windows", "16x16x8", "bundle", "auto", "--repeats", "2", "--threads", "1"]
    options += ["--hold_to", "avx2", "-o", str(output)]
    assert process.main([str(bundle), str(image), *options]) == 0
    assert all(variables["ONEDNN_MAX_CPU_ISA"] == "AVX2" for variables in calls)
    text = output.with_suffix(".md").read_text()
    assert "libraries held to AVX2" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    fixed = ["16x16x8", "x".join(map(str, read_object(bundle / "configs" / "inference.json")["window_shape"]))]
    own = [(route, windows) for windows in (*fixed, "auto") for route in ("segment", "runner")]
    assert [(row[0], row[3]) for row in rows[2:]] == [("MONAI", windows) for windows in fixed] + own
    assert [row[7] for row in rows[2:]] == ["1.00 (1.00 to 1.00)"] * 2 + ["4.00 (4.00 to 4.00)"] * 6
    assert [row[9] for row in rows[2:6]] == ["", "", "100.000 %", "100.000 %"]
    # the runner has the windows of segment
    assert (rows[6][9], rows[8][9]) == (rows[7][9], rows[9][9])
    figures = json.loads(output.with_suffix(".json").read_text())
    assert figures["parameters"] is None


@pytest.mark.slow
def test_monais_route_has_monais_network_and_transforms(brain_bundle, tmp_path):
    copied = shutil.copytree(brain_bundle / "configs", tmp_path / "brain" / "configs").parent
    config = json.loads((copied / "configs" / "inference.json").read_text())
    config["window_shape"] = [32, 32, 32]
    (copied / "configs" / "inference.json").write_text(json.dumps(config))
    image = write_image(tmp_path / "head.nii.gz", (28, 31, 26))
    route = monai_route.write_monai_route(copied, image, tmp_path, ["python"])
    assert route.network == "BasicUNetPlusPlus"
    text = (tmp_path / "monai.json").read_text()
    assert "monai_unetpp" not in text
    # the norm of the bundle, which is not MONAI's default
    assert json.loads(text)["network"]["norm"] == "batch"
    assert all(name in text for name in ("Spacingd", "CropForegroundd", "NormalizeIntensityd", "SlidingWindowInferer"))
    monai.bundle.run(config_file=str(tmp_path / "monai.json"), bundle_root=str(tmp_path))
    found = nibabel.load(tmp_path / "monai" / "head_seg.nii.gz")
    assert found.shape == (28, 31, 26)


def test_what_monai_has_not_is_named(tmp_path):
    with pytest.raises(ValueError, match="MedianSmooth: MONAI has no such transform"):
        monai_route.step_in_monai({"_target_": "monai_unetpp.data.MedianSmooth", "keys": "image"})


def test_int8_needs_cases(capsys):
    with pytest.raises(SystemExit):
        process.main(["bundle", "image.nii", "--precisions", "int8"])
    assert "give --calibration for int8" in capsys.readouterr().err


def test_nnunet_works_at_the_spacing_of_the_bundle_with_the_axes_of_its_reader(tmp_path, monkeypatch):
    bundle = write_bundle(tmp_path / "tiny", 3, STEPS)
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config))
    image = write_image(tmp_path / "head.nii.gz", (18, 17, 16), surround=False)
    described = []

    def write_model(command):
        described.append(json.loads(command[-1]))
        model = Path(command[-2])
        model.mkdir()
        (model / "parameters.json").write_text("1234")

    monkeypatch.setattr(process, "launch", write_model)
    for number, spacing in enumerate(([1.0, 1.2, 0.9], 2.0, None)):
        (tmp_path / str(number)).mkdir()
        path.write_text(json.dumps(config | {"spacing_mm": spacing}))
        own = tmp_path / str(number)
        _, count = process._way_of_nnunet(bundle, image, own, "L2", "16x24x32", tmp_path / "python")
        assert count == 1234
    assert [each["patch_size"] for each in described] == [[32, 24, 16]] * 3
    assert [each["spacing"] for each in described[:2]] == [[0.9, 1.2, 1.0], [2.0] * 3]
    turned = nibabel.load(tmp_path / "2" / "nnunet_images" / "image_0000.nii.gz")
    assert nibabel.aff2axcodes(turned.affine) == ("R", "A", "S")
    assert turned.shape == (17, 18, 16)
    assert described[2]["spacing"] == pytest.approx(list(turned.header.get_zooms())[::-1])


def test_nnunet_sets_its_own_threads(capsys):
    with pytest.raises(SystemExit):
        process.main(["bundle", "image.nii", "--nnunet", "python", "--threads", "1000"])
    assert "--threads must be left out with --nnunet, got 1000" in capsys.readouterr().err


def test_both_networks_are_named_with_their_sizes():
    quartiles = Quartiles.of([1.0, 2.0])
    figures = process.ProcessFigures("nnU-Net", "L4", "fp32", "96x96x96", *[quartiles] * 4, 10**9, None)
    result = process.ProcessBenchmark(
        "brain", "BasicUNetPlusPlus", (8, 8, 8), 2, "AVX2", (figures,), describe_environment(), (3_690_000, 3_170_000)
    )
    text = process.format_process_benchmark(result)
    assert "BasicUNetPlusPlus, nnU-Net's a plain U-Net of 3.17 M parameters (the bundle's network has 3.69 M)\n" in text
