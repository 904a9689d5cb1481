"""The plan of an evaluation: groups that check themselves, and fields by name."""

from __future__ import annotations

import json

import pytest

from monai_unetpp.pruning import PruningPlan, Rules
from monai_unetpp.pruning.doubts import doubts_of_names
from monai_unetpp.pruning.plan import EvaluationData

PIPELINE = {
    "network": None,
    "preprocessing": None,
    "inferer": None,
    "postprocessing": None,
    "labels": {"liver": 1},
    "tolerance_mm": {"liver": 1.0},
    "window_shape": (16, 16, 16),
}


def plan_of(**fields):
    return PruningPlan.of(**PIPELINE, **{"dataset_dir": "data", "output_dir": "out", **fields})


def test_fields_find_their_groups():
    plan = plan_of(alpha=0.025, repeats=3, confirm_dir="other", write="pruned")
    assert (plan.rules.alpha, plan.costs.repeats, plan.data.names) == (0.025, 3, ("data", "other"))
    assert plan.outputs.write.name == "pruned"


def test_every_field_belongs_to_one_group():
    names = PruningPlan.field_names()
    assert len(set(names)) == len(names)


def test_other_values_give_another_plan():
    plan = plan_of(margins=["dice=0.02"])
    other = plan.with_fields(alpha=0.1, margins="nsd=0.1", subjects="table.csv")
    assert (plan.rules.alpha, other.rules.alpha) == (0.05, 0.1)
    assert [str(margin) for margin in other.rules.margins] == ["nsd=0.1"]
    assert other.data.subjects == "table.csv"
    assert other.outputs == plan.outputs


def test_values_that_look_like_configuration_syntax_are_plain_texts():
    name = "$__import__('os').getcwd()"
    plan = plan_of(output_dir=name, subjects="@bundle_root", list_key="%a::b")
    assert (str(plan.outputs.output_dir), plan.data.subjects, plan.data.list_key) == (name, "@bundle_root", "%a::b")


@pytest.mark.parametrize("make", [plan_of, lambda **fields: plan_of().with_fields(**fields)])
def test_unknown_fields_are_refused(make):
    with pytest.raises(ValueError, match=r"has no field 'margin'\. Did you mean 'margins'\?"):
        make(margin=["dice=0.1"])


def test_one_folder_or_several():
    assert EvaluationData("data").dataset_dir == EvaluationData(["data"]).dataset_dir
    assert len(EvaluationData(["a", "b"], confirm_dir="c").folders) == 3


def test_rules_keep_what_is_not_named():
    assert Rules(max_case_drop=["dice=0.3"]).max_case_drop == {"dice": 0.3, "iou": 0.2, "nsd": 0.4}


@pytest.mark.parametrize(
    ("name", "told"),
    [("GM", False), ("Grey_Matter", False), ("grey matter", False), ("hippocampus", True), ("G", True)],
)
def test_other_names_of_a_value_are_told(tmp_path, name, told):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "2": name}, "training": []}))
    doubts = list(doubts_of_names({"CSF": 1, "grey matter": 2}, [tmp_path]))
    assert len(doubts) == told
    if told:
        assert f"calls the value 2 '{name}', the network 'grey matter': they are scored as the same" in doubts[0]
