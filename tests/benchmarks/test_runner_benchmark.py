"""What exported folders take and give, as whole processes."""

import dataclasses
import json
import re

import pytest
from runner_bundle import write_bundle, write_image

from benchmarks import runner
from benchmarks.__main__ import main
from monai_unetpp.openvino_loading import has_openvino


@pytest.mark.slow
@pytest.mark.skipif(not has_openvino(), reason="needs the extra openvino")
def test_every_level_has_its_size_time_memory_and_accuracy(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_POINTS", (("fp32", "openvino"),))
    step = {"_target_": "monai_unetpp.data.StandardizeIntensityd", "keys": "image"}
    bundle = write_bundle(tmp_path / "tiny", 3, [step])
    names = [write_image(tmp_path / f"{name}.nii.gz", (18, 17, 16), surround=False).name for name in "ab"]
    folder = runner.export_runner(bundle, tmp_path / "folder").path
    label = runner.Segmenter(folder).segment(tmp_path / names[0], tmp_path)
    cases = [{"image": name, "label": label.name} for name in names]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": cases, "validation": cases}))
    result = runner.measure_runner(str(bundle), str(tmp_path), repeats=1, threads=(1,))
    assert [(folder.level, folder.dice, folder.nsd) for folder in result.folders][-1] == ("L2", 1, 1)
    shallow, deep = result.folders
    assert shallow.size_bytes < deep.size_bytes
    assert len(result.rows) == 2 * 2 * 3
    (outcome,) = result.outcomes
    assert (outcome.point, outcome.state) == ("L1 fp32 openvino", "inconclusive")
    assert all(folder.peak_bytes > 10**7 and folder.seconds[1].median > 0 for folder in result.folders)
    text = runner.format_runner_benchmark(result)
    assert re.search(r"\| L2 \| fp32 \| openvino \|.*\| reference \|", text)
    assert re.search(r"\| L1 \|.*\| \w+ of \w+ [+-][\d.]+ \(.*\| not shown \|", text)
    assert "The smallest that is as good as L2 fp32 openvino: L2 fp32 openvino." in text
    assert "Environment(" not in text
    written = json.loads(json.dumps(dataclasses.asdict(result)))
    assert [row["score"]["dice"] for row in written["rows"]] == [row.score.dice for row in result.rows]
    assert result.instruction_sets in text
    options = ["--levels", "L1", "--precisions", "fp32", "--repeats", "1", "--bundle", str(bundle)]
    assert main(["runner", *options, "--dataset_dir", str(tmp_path), "-o", str(tmp_path / "one.json")]) == 0
    (only,) = json.loads((tmp_path / "one.json").read_text())["folders"]
    assert (only["level"], only["precision"]) == ("L1", "fp32")
    with pytest.raises(ValueError, match="levels must be of L1, L2, got L7"):
        runner.measure_runner(str(bundle), str(tmp_path), levels=["L7"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["runner"], "give --bundle and --dataset_dir"),
        (["training", "--levels", "L1"], "give --bundle and --dataset_dir for kind runner, and these"),
        (["runner", "--bundle", "b", "--dataset_dir", "d", "--precisions", "int8"], "--precisions must have fp32"),
    ],
)
def test_it_asks_for_a_bundle_and_cases(given, message, capsys):
    with pytest.raises(SystemExit):
        main(given)
    assert message in capsys.readouterr().err
