"""Where the time of an exported network goes."""

import re
from pathlib import Path

import pytest
from runner_bundle import write_bundle

from benchmarks import graph
from monai_unetpp.export import export_runner
from monai_unetpp.openvino_loading import has_openvino, openvino_core


@pytest.mark.slow
@pytest.mark.skipif(not has_openvino(), reason="needs the extra openvino")
def test_the_graph_without_concatenations_gives_the_same_logits(tmp_path, capsys):
    folder = Path(export_runner(write_bundle(tmp_path / "tiny", 2, []), tmp_path / "folder").path)
    assert graph.main([str(folder), "--repeats", "1"]) == 0
    text = capsys.readouterr().out
    assert "| Convolution | " in text
    assert float(re.search(r"logits differ by (\S+) of the largest", text)[1]) < 1e-5
    model = openvino_core().read_model(next(folder.glob("*.xml")))

    def inputs_of_convolutions(model):
        convolutions = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]
        return [node.input_value(0).get_node().get_type_name() for node in convolutions]

    assert "Concat" in inputs_of_convolutions(model)
    assert "Concat" not in inputs_of_convolutions(graph.without_concatenations(model))
