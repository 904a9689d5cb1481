"""Where the time of an exported network goes."""

import re
from pathlib import Path

import pytest
from runner_bundle import write_bundle

from benchmarks import graph
from monai_unetpp.export import export_runner
from monai_unetpp.openvino_loading import has_openvino, openvino_core


@pytest.mark.skipif(not has_openvino(), reason="needs the extra openvino")
def test_the_graph_without_concatenations_gives_the_same_logits(tmp_path, capsys):
    folder = Path(export_runner(write_bundle(tmp_path / "tiny", 2, []), tmp_path / "folder").path)
    assert graph.main([str(folder), "--repeats", "1"]) == 0
    text = capsys.readouterr().out
    assert "| Convolution | " in text
    assert float(re.search(r"logits differ by (\S+) of the largest", text)[1]) < 1e-5
    model = openvino_core().read_model(next(folder.glob("*.xml")))
    kinds = [node.get_type_name() for node in graph.without_concatenations(model).get_ordered_ops()]
    assert "Concat" not in kinds
    assert kinds.count("Convolution") > [node.get_type_name() for node in model.get_ordered_ops()].count("Convolution")
