"""Grids of inference settings: their forms, their names, and what is refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from monai_unetpp import NestedUNet
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.pruning.points import settings as module
from monai_unetpp.pruning.points.settings import check_grid_inferer, list_settings, parse_settings, with_setting
from monai_unetpp.pruning.results import InferenceSetting


@pytest.fixture
def network() -> NestedUNet:
    torch.manual_seed(0)
    return NestedUNet(spatial_dims=2, in_channels=1, out_channels=2, features=(4, 8, 8)).eval()


@pytest.fixture
def inferer() -> NestedSlidingWindowInferer:
    return NestedSlidingWindowInferer(roi_size=16, overlap=0.25, mode="gaussian", runtime="torch", precision="fp32")


# ---------------------------------------------------------------- forms


def test_texts_and_dicts_are_the_same_grid():
    texts = ["precision=fp32,bf16", "overlap=0,0.25", "flips=none,0,0+1", "runtime=torch, openvino", "windows=own,auto"]
    values = {
        "overlap": [0, 0.25],
        "flips": [[], [0], [1, 0]],
        "precision": ["fp32", "bf16"],
        "runtime": ["torch", "openvino"],
        "windows": ["own", "auto"],
    }
    assert parse_settings(texts) == parse_settings(values)
    assert parse_settings(values) == {
        "overlap": ((0.0,), (0.25,)),
        "flips": ((), (0,), (0, 1)),
        "precision": ("fp32", "bf16"),
        "runtime": ("torch", "openvino"),
        "windows": ("own", "auto"),
    }
    # the order of the settings is always the same
    assert list(parse_settings(texts)) == list(module.SETTINGS)


def test_no_grid_is_empty_and_one_text_is_a_grid():
    assert parse_settings(None) == {}
    assert parse_settings([]) == {}
    assert parse_settings("overlap=0.5,0.5") == {"overlap": ((0.5,),)}


def test_an_overlap_may_differ_by_axis():
    assert parse_settings({"overlap": [[0.5, 0.25], [0.5, 0.5]]}) == {"overlap": ((0.5, 0.25), (0.5,))}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["overlap"],
            r"settings must be a name, '=' and values with commas, got 'overlap'. Write it like overlap=0,0\.25",
        ),
        ([3], "settings must be a name, '=' and values with commas, got 3"),
        (
            ["overlaps=0"],
            "settings must be among overlap, flips, precision, runtime, windows, adaptive, got 'overlaps'",
        ),
        (
            ["overlap=0", "overlap=0.5"],
            "settings must name overlap once, got it twice. Write all values after one overlap=",
        ),
        (["overlap="], r"settings must list one value or more for overlap, got \[\]"),
        ({"overlap": 0.5}, "settings must list one value or more for overlap, got 0.5"),
        ({"precision": "fp32"}, "settings must list one value or more for precision, got 'fp32'"),
        (["overlap=much"], "settings must have an overlap that is a number, got 'much'"),
        (["overlap=1"], "settings must have an overlap from 0 to below 1, got '1'"),
        ({"overlap": [[]]}, r"settings must have an overlap from 0 to below 1, got \[\]"),
        (["precision=fp64"], "settings must have a precision among auto, fp32, bf16, fp16, got 'fp64'"),
        (["runtime=tvm"], "settings must have a runtime among auto, torch, compile, openvino, got 'tvm'"),
        (["flips=x"], "settings must have flips that are different axes from 0 on, got 'x'. Write none, 0, or 0\\+1"),
        (["flips=0+0"], "different axes from 0 on, got '0\\+0'"),
        ({"flips": [[-1]]}, r"different axes from 0 on, got \[-1\]"),
        ({"flips": [[True]]}, r"different axes from 0 on, got \[True\]"),
    ],
)
def test_other_forms_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        parse_settings(given)


def test_names_are_short_and_tell_settings_apart():
    assert InferenceSetting((0.0,), (), "bf16", "openvino").name == "overlap=0 bf16 openvino"
    assert InferenceSetting((0.5, 0.25), (0, 1), "fp32", "torch").name == "overlap=0.5,0.25 flips=0+1 fp32 torch"
    choices = itertools.product(
        ((0.0,), (0.5,), (0.5, 0.25)), ((), (0,), (0, 1)), ("fp32", "bf16"), ("torch", "openvino")
    )
    names = [InferenceSetting(*each).name for each in choices]
    assert len(set(names)) == len(names) == 36


# ---------------------------------------------------------------- all combinations


def test_the_inferers_own_setting_is_first_and_stands_for_what_is_not_named(inferer, network):
    found = list_settings(inferer, parse_settings(["overlap=0,0.25,0.5", "flips=none,1"]), network, "cpu")
    own = InferenceSetting((0.25,), (), "fp32", "torch")
    assert found[0] == own
    assert len(found) == len(set(found)) == 6
    assert {(each.overlap, each.flips) for each in found} == {
        (overlap, flips) for overlap in ((0.0,), (0.25,), (0.5,)) for flips in ((), (1,))
    }
    assert list_settings(inferer, {}, network, "cpu") == (own,)


def test_the_own_setting_is_there_where_the_grid_leaves_it_out(inferer, network):
    found = list_settings(inferer, parse_settings("overlap=0"), network, "cpu")
    assert [each.overlap for each in found] == [(0.25,), (0.0,)]


def test_settings_of_one_name_are_one(inferer, network):
    found = list_settings(inferer, parse_settings("overlap=0.3333333,0.33333334,0.25000001"), network, "cpu")
    assert [each.overlap for each in found] == [(0.25,), (0.3333333,)]


@pytest.mark.slow
def test_auto_is_written_as_what_runs(inferer, network):
    automatic = inferer.with_options(runtime="auto", precision="auto")
    (own,) = list_settings(automatic, {}, network, "cpu")
    assert own.precision in ("fp32", "bf16")
    assert own.runtime in ("torch", "openvino")
    # "auto" and what it stands for are one setting
    assert len(list_settings(automatic, {"precision": ("auto", own.precision)}, network, "cpu")) == 1


def test_with_setting_changes_nothing_else(inferer):
    changed = with_setting(inferer, InferenceSetting((0.5, 0.25), (1,), "bf16", "torch"))
    assert (changed.overlap, changed.flips, changed.precision) == ((0.5, 0.25), (1,), "bf16")
    assert (changed.roi_size, changed.mode) == (16, "gaussian")
    assert inferer.overlap == 0.25


def test_windows_may_be_chosen_for_each_volume(inferer, network):
    own, automatic = list_settings(inferer, parse_settings("windows=own,auto"), network, "cpu")
    assert (own.windows, automatic.windows) == ("own", "auto")
    assert automatic.name == "overlap=0.25 fp32 torch windows=auto"
    changed = with_setting(inferer, automatic)
    assert (changed.roi_size, with_setting(inferer, own).roi_size) == ("auto", 16)
    # all else is the same, and a result of the shape in the configuration does not exist without one
    with pytest.raises(
        ValueError, match=r"windows=own where the inferer chooses its windows\. Give the inferer a shape"
    ):
        list_settings(changed, parse_settings("windows=own,auto"), network, "cpu")
    (kept,) = list_settings(changed, {}, network, "cpu")
    assert kept == automatic


def test_what_the_network_cannot_do_is_refused(inferer, network):
    with pytest.raises(ValueError, match=r"for 2 spatial axes, got 'overlap=0\.25 flips=2 fp32 torch'"):
        list_settings(inferer, parse_settings("flips=2"), network, "cpu")
    with pytest.raises(ValueError, match=r"for 2 spatial axes, got 'overlap=0,0,0\.5 fp32 torch'"):
        list_settings(inferer, parse_settings({"overlap": [[0, 0, 0.5]]}), network, "cpu")


def test_what_the_machine_cannot_do_is_refused_at_once(inferer, network, monkeypatch):
    def fail(*_, precision, **__):
        raise RuntimeError(f"no kernel for {precision}\nand more")

    monkeypatch.setattr(module, "make_predictor", fail)
    message = r"got runtime 'torch' at precision 'fp32' on cpu \(no kernel for fp32\)\. Leave it out"
    with pytest.raises(ValueError, match=message):
        list_settings(inferer, {}, network, "cpu")


def test_other_inferers_have_no_settings(inferer):
    assert check_grid_inferer(inferer) is inferer
    message = "inferer must be a NestedSlidingWindowInferer where settings are given, got SlidingWindowInferer. Put"
    with pytest.raises(TypeError, match=message):
        check_grid_inferer(SlidingWindowInferer(16))
