"""Network, patch and batch within memory and time."""

import dataclasses
import math
import re
from pathlib import Path

import pytest
from fingerprints import fingerprint
from monai.losses import DiceCELoss

from monai_unetpp import free_memory
from monai_unetpp.planning import machine
from monai_unetpp.planning.machine import Machine, StepCost, count_step, measure_machine
from monai_unetpp.planning.network_rules import (
    NetworkTask,
    Source,
    choose_network,
    choose_window,
    kernels_of,
    patch_of,
    strides_of,
)
from monai_unetpp.planning.plan_making import _choose_for_machine

CPU = Machine(1e11, 2**34, 2, "cpu")
SMALL = {"strides": [[2, 2, 2], [2, 2, 2]], "features": [2, 2, 2]}


def task(shape=(64, 64, 64), spacing=(1.0, 1.0, 1.0), **others):
    values = {"spatial_dims": len(shape), "in_channels": 1, "out_channels": 2, "square": False, "minutes": 60.0}
    return NetworkTask(**{**values, "folds": 0, **others}, shape=shape, spacing_mm=spacing)


def cheap(config, patch, batch):
    """Nearly what a step costs, without building networks."""
    operations = 6e4 * batch * math.prod(patch) * (config["features"][0] / 12) ** 2
    return StepCost(operations, int(batch * math.prod(patch) * config["features"][0] * 100))


def chosen(given=None, machine=CPU, **others):
    return {name: choice.value for name, choice in choose_network(task(**others), machine, cheap, given or {}).items()}


def test_axes_are_halved_while_four_voxels_are_left():
    assert strides_of([40, 56, 40], None) == [[2, 2, 2]] * 3
    assert strides_of([64, 64], None) == [[2, 2]] * 4
    assert strides_of([1024, 1024], None) == [[2, 2]] * 4
    # even the smallest patch has a level to prune to
    assert strides_of([4, 4], None) == [[2, 2], [2, 2]]
    assert strides_of([8, 8, 1], None) == [[2, 2, 1], [2, 2, 1]]


def test_thick_slices_are_halved_and_convolved_once_they_are_as_thin_as_the_rest():
    strides = strides_of([64, 64, 16], [0.5, 0.5, 3.0])
    assert strides == [[2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]]
    kernels = kernels_of(strides, [0.5, 0.5, 3.0], 3)
    assert kernels == [[3, 3, 1], [3, 3, 1], [3, 3, 3], [3, 3, 3], [3, 3, 3]]


@pytest.mark.parametrize(
    ("patch", "spacing"), [([160, 160, 8], [1.0, 1.0, 1.0]), ([12, 8, 6], None), ([256, 256, 12], [1.0, 1.0, 1.9])]
)
def test_kernels_do_not_shrink_along_axes_that_strides_made_coarser_than_a_short_one(patch, spacing):
    strides = strides_of(patch, spacing)
    assert [2, 2, 1] in strides
    assert kernels_of(strides, spacing, 3) == [[3, 3, 3]] * (len(strides) + 1)


def test_it_is_told_where_what_was_set_by_hand_may_not_fit_the_memory(caplog):
    chosen({"batch_size": 2})
    assert "may run out" not in caplog.text
    assert chosen({"patch_size": [512, 512, 512]})["patch_size"] == [512, 512, 512]
    assert "A training step needs about 200.0 GiB of memory, and half of the 16.0 GiB here is kept" in caplog.text


@pytest.mark.parametrize(
    ("shape", "spacing", "edge"),
    [((36, 50, 36), (1.0, 1.0, 1.0), 64), ((512, 512, 30), (0.7, 0.7, 5.0), 64), ((300, 200), None, 128)],
)
def test_patches_are_no_larger_than_allowed_and_divisible(shape, spacing, edge):
    patch = patch_of(task(shape, spacing), edge)
    strides = strides_of(patch, spacing)
    assert all(length % math.prod(s[axis] for s in strides) == 0 for axis, length in enumerate(patch))
    assert math.prod(patch) <= 1.3 * edge ** len(shape)
    # beyond the images only to the next multiple
    assert all(length < size + 16 for length, size in zip(patch, shape, strict=True))


def test_patches_that_are_turned_by_quarters_are_square():
    assert patch_of(task((300, 200), None, square=True), 128) == [128, 128]
    assert patch_of(task((300, 200), None, square=True), 100, [[3, 3], [3, 3]]) == [99, 99]


def test_patches_fit_strides_set_by_hand():
    assert patch_of(task((100, 100, 100)), 64, [[3, 3, 3], [3, 3, 3]]) == [63, 63, 63]


@pytest.mark.parametrize("shape", [(2, 300), (3, 3), (1, 1, 40)])
def test_patches_of_tiny_images_leave_more_than_one_voxel_at_the_lowest_resolution(shape):
    patch = patch_of(task(shape, (1.0,) * len(shape)), 64)
    steps = [math.prod(along) for along in zip(*strides_of(patch, (1.0,) * len(shape)), strict=True)]
    assert any(edge > step for edge, step in zip(patch, steps, strict=True))


def test_the_reason_says_where_nothing_fits_the_memory():
    small = Machine(1e15, 2**20, 1, "cpu")
    reason = choose_network(task(), small, cheap, {}, check=False)["patch_size"].reason
    assert reason.startswith("The smallest of the series, as none fits the memory")


def test_more_time_buys_a_larger_network_and_memory_limits_it():
    short, long = chosen(minutes=10.0), chosen(minutes=600.0)
    assert long["features"][0] > short["features"][0]
    assert short["steps"] >= 1000
    small = chosen(minutes=600.0, machine=Machine(1e11, 2**28, 2, "cpu"))
    assert math.prod(small["patch_size"]) * small["features"][0] < math.prod(long["patch_size"]) * long["features"][0]


def test_without_enough_time_the_smallest_network_is_taken_and_the_plan_says_so(caplog):
    choices = choose_network(task(minutes=0.1), CPU, cheap, {})
    assert choices["features"].value[0] == 8
    assert "as the time allows only about" in choices["patch_size"].reason
    assert choices["steps"].value >= 1
    assert "several hundred to learn anything. Give --minutes " in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patch_size": [10**6] * 3}, r"patch_size, features and kernel_size must not be that large, got \[1000000, "),
        ({"features": [10**9, 8, 8]}, r"patch_size, features and kernel_size must not be that large, got .*1000000000"),
        (
            {"patch_size": [10**5] * 3, **SMALL},
            r"must fit the memory, got \[100000, .* GiB, and there are 16\. Set smaller",
        ),
        (
            {"patch_size": [8] * 3, "batch_size": 10**12, **SMALL},
            r"must fit the memory, got .* 1000000000000, .*Set smaller ones",
        ),
        ({"kernel_size": [[3] * 3] * 3}, r"one entry per resolution, 5 for 4 levels, got 3\. Give one fewer"),
        ({"kernel_size": [[2] * 3] * 5}, r"kernel_size must be odd, got \[\[2, 2, 2\], .*Use 3, or 1 along an axis"),
        ({"patch_size": [1, 1, 1]}, r"2 voxels or more at the lowest resolution, got \[1, 1, 1\], .*such as \["),
        (
            {"patch_size": [4, 4, 8], "strides": [[2, 2, 4], [2, 2, 2]], "norm": "instance"},
            r"got \[4, 4, 8\], which the strides, 4 x 4 x 8 in all, reduce to one\. Set a larger .* \[8, 8, 16\]",
        ),
    ],
)
def test_values_that_cannot_be_trained_are_refused_by_name(given, message):
    with pytest.raises(ValueError, match=message):
        choose_network(task(), CPU, count_step, given)


def test_two_voxels_at_the_lowest_resolution_are_enough():
    given = {"patch_size": [5, 4, 4], **SMALL}
    assert choose_network(task(), CPU, count_step, given)["patch_size"].value == [5, 4, 4]


def test_it_is_told_where_steps_set_by_hand_take_longer_than_the_minutes(caplog):
    affordable = chosen()["steps"] // 2
    chosen({"steps": affordable - 1})
    assert "steps" not in caplog.text
    chosen({"steps": 3 * affordable})
    (told,) = caplog.messages
    assert re.match(rf"steps: {3 * affordable} steps take about \d+ minutes in all, longer than the", told)


def test_start_and_report_take_a_minute_of_short_trainings_too(caplog):
    by_hand = {"features": [8, 16, 32], "patch_size": [32, 32, 32]}
    steps = {minutes: chosen(by_hand, minutes=minutes)["steps"] / 2 for minutes in (1.0, 2.0, 6.0, 12.0)}
    assert steps[12] == pytest.approx(2 * steps[6], abs=1)
    # of 2 minutes 0.8 are left, not 1.6, and of one a twentieth
    assert steps[2] == pytest.approx(steps[6] / 6, abs=1)
    assert steps[1] == pytest.approx(steps[6] * 0.05 / 4.8, abs=1)
    caplog.clear()
    slow = Machine(4e9, 2**34, 2, "cpu")
    chosen(by_hand, slow, minutes=2.0)
    advised = float(re.search(r"Give --minutes (\d+) or more", caplog.text)[1])
    assert chosen(by_hand, slow, minutes=advised)["steps"] / 2 >= 300
    assert chosen(by_hand, slow, minutes=advised - 1)["steps"] / 2 < 300


def test_folds_share_the_time():
    assert chosen(folds=5)["steps"] <= chosen()["steps"] or chosen(folds=5)["features"] != chosen()["features"]


def test_what_is_set_by_hand_is_followed_by_the_rest():
    values = chosen({"features": [4, 8, 8], "patch_size": [32, 32, 32]})
    assert values["features"] == [4, 8, 8]
    assert values["patch_size"] == [32, 32, 32]
    assert len(values["strides"]) == 2
    assert len(values["kernel_size"]) == 3


SOURCE = Source("head", 3, [16, 32, 96, 96], [[2, 2, 2], [2, 2, 1], [2, 2, 2]], [[3, 3, 3]] * 4, "instance")


def test_features_set_by_hand_have_their_steps_down_where_the_patch_allows_them():
    features = [2, 4, 4, 8]
    shallow = Source("a", 3, [2, 4, 4], [[2, 2, 2]] * 2, [[3, 3, 3]] * 3, "batch")
    deeper = chosen({"features": features}, source=shallow)
    assert (deeper["strides"], len(deeper["kernel_size"])) == ([[2, 2, 2]] * 3, 4)
    assert chosen({"features": features, "patch_size": [16, 16, 4]})["strides"] == [[2, 2, 1], [2, 2, 1], [2, 2, 2]]
    with pytest.raises(ValueError, match="patch_size must leave 2 voxels or more at the lowest resolution"):
        chosen({"features": features, "patch_size": [8, 8, 8]})


def test_the_network_to_start_from_is_followed_as_far_as_it_goes():
    values = chosen(source=SOURCE)
    assert values["features"] == [16, 32, 96, 96]
    assert values["strides"] == SOURCE.strides
    assert values["norm"] == "instance"
    # a smaller patch has fewer levels, and all weights of these fit
    small = chosen({"patch_size": [24, 24, 16]}, source=SOURCE)
    assert small["strides"] == SOURCE.strides[:2]
    assert small["features"] == [16, 32, 96]
    # thick slices do not change kernels of which weights are there
    assert chosen(source=SOURCE, spacing=(0.5, 0.5, 3.0))["kernel_size"][0] == [3, 3, 3]
    reasons = choose_network(task(source=SOURCE), CPU, cheap, {})
    assert reasons["norm"].reason.startswith("As in head, so that its weights fit")
    by_hand = chosen({"features": [4, 8, 8], "norm": "batch"}, source=SOURCE)
    assert (by_hand["features"], by_hand["norm"]) == ([4, 8, 8], "batch")


def test_less_time_takes_smaller_patches_of_the_network_to_start_from_or_refuses_it(caplog):
    short, long = chosen(source=SOURCE, minutes=20.0), chosen(source=SOURCE, minutes=2000.0)
    assert math.prod(short["patch_size"]) < math.prod(long["patch_size"])
    advice = r"Give --minutes \d+ or more, or --set features=\[16,32,96,96\] to take them all the same"
    with pytest.raises(ValueError, match=rf"init: the features of head, \[16,32,96,96\], leave time for .*\. {advice}"):
        chosen(source=SOURCE, minutes=0.5)
    assert chosen({"features": [16, 32, 96, 96]}, source=SOURCE, minutes=0.5)["features"] == [16, 32, 96, 96]
    with pytest.raises(ValueError, match=r"need more memory than there is\. Leave init out"):
        chosen(source=SOURCE, machine=Machine(1e11, 2**24, 2, "cpu"))


def test_windows_grow_with_batch_norm_only():
    strides = [[2, 2, 2]] * 3
    memory = 16 * 2**30
    assert choose_window([48, 48, 48], [[94, 114, 60]], strides, "batch", 12, memory).value == [96, 120, 64]
    assert choose_window([48, 48, 48], [[94, 114, 60]], strides, "instance", 12, memory).value == [48, 48, 48]
    # a window is never smaller than a patch, also where images are
    assert choose_window([48, 48, 48], [[30, 114, 60]], strides, "batch", 12, memory).value == [48, 120, 64]
    slides = choose_window([64, 64], [[20001, 30000]], strides, "batch", 12, memory).value
    assert math.prod(slides) / 64**2 > 10
    assert math.prod(slides) * 4 * 16 * 12 <= 4 * 2**30


def test_windows_compute_as_little_as_possible_for_all_images_together():
    strides, memory = [[2, 2, 2]] * 3, 16 * 2**30
    usual, rare = [35, 50, 36], [35, 50, 44]
    # windows that hold the rare ones as well would compute a fifth more of the others
    assert choose_window([40, 56, 40], [usual] * 9 + [rare], strides, "batch", 16, memory).value == [40, 56, 40]
    assert choose_window([40, 56, 40], [usual] * 2 + [rare] * 8, strides, "batch", 16, memory).value == [40, 56, 48]


def test_windows_that_do_not_fit_into_memory_compute_as_little_as_possible_twice():
    strides, memory = [[2, 2, 2]] * 4, 16 * 2**30
    brains = [[151, 182, 153], [150, 180, 150]]
    assert choose_window([64, 80, 64], brains, strides, "batch", 12, memory).value == [160, 192, 160]
    # of twice the channels: several windows along one axis, not along all
    slabs = choose_window([64, 80, 64], brains, strides, "batch", 24, memory).value
    assert slabs == [64, 192, 160]
    assert math.prod(slabs) * 4 * 16 * 24 <= 4 * 2**30
    # the logits of many classes take memory, too
    many = choose_window([64, 80, 64], brains, strides, "batch", 12, memory, 105).value
    assert 4 * (16 * 12 + 3 * 105 * len(strides)) * math.prod(many) <= 2 * memory / 4
    small = choose_window([64, 80, 64], brains, strides, "batch", 12, 4 * 2**30).value
    assert math.prod(small) * 4 * 16 * 12 <= 2**30
    large = choose_window([96, 96, 96], [[400, 400, 400]], strides, "batch", 32, memory).value
    assert min(large) >= 96
    assert math.prod(large) * 4 * 16 * 32 <= 4 * 2**30
    # patches are what the network was trained with, whatever they need
    assert choose_window([96, 96, 96], [[400, 400, 400]], strides, "batch", 512, 2**30).value == [96, 96, 96]


def test_machines_of_one_class_are_equal():
    # 64 billion, whatever between a half and the double of it was measured
    assert Machine(4e10, 14 * 2**30, 2, "cpu") == Machine(1e11, 19 * 2**30, 2, "cpu")
    # a computer reports a little less memory than it has
    assert Machine(4e10, int(15.5 * 2**30), 2, "cpu").memory_bytes == 16 * 2**30
    assert Machine(4e10, 2**30, 2, "cuda", int(62.7 * 2**30)).host_bytes == 64 * 2**30
    assert str(Machine(4e10, int(23.4 * 2**30), 2, "cpu")).endswith("64 billion operations/s, 2 cores, 24 GiB")


@pytest.mark.slow
def test_a_step_is_counted_without_computing_and_grows_with_the_patch():
    config = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": [4, 8], "norm": "batch"}
    small, large = count_step(config, [64, 64], 1), count_step(config, [64, 64], 4)
    assert large.operations == 4 * small.operations
    assert 2 * small.memory_bytes < large.memory_bytes < 4 * small.memory_bytes


@pytest.mark.slow
def test_the_loss_of_many_classes_needs_memory():
    config = {"spatial_dims": 2, "in_channels": 1, "features": [4, 8, 8], "norm": "batch"}
    few, many = (count_step({**config, "out_channels": classes}, [64, 64], 2) for classes in (2, 102))
    # six tensors of four bytes for each of two levels, two patches and 100 more classes, and their weights
    assert many.memory_bytes - few.memory_bytes == pytest.approx(6 * 4 * 2 * 2 * 100 * 64**2, rel=0.05)


def test_the_loss_of_many_classes_takes_time():
    config = {"spatial_dims": 2, "in_channels": 1, "features": [4, 8, 8], "norm": "batch"}
    few, many = (count_step({**config, "out_channels": classes}, [64, 64], 2) for classes in (2, 102))
    # two levels, two patches
    assert (few.logits, many.logits) == (2 * 2 * 2 * 64**2, 2 * 2 * 102 * 64**2)
    measured = Machine(64e9, 2**34, 2, "cpu", logits_per_s=2e6)
    assert measured.logits_per_s == 4e6 or measured.logits_per_s == 1e6
    assert measured.seconds(many) == pytest.approx(many.operations / 64e9 + many.logits / measured.logits_per_s)
    assert "64 billion operations/s and " in str(measured)

    def steps(machine):
        def count(config, patch, batch):
            return dataclasses.replace(cheap(config, patch, batch), logits=102 * 4 * batch * math.prod(patch))

        choices = choose_network(task(), machine, count, {"features": [8, 16, 32], "patch_size": [32, 32, 32]})
        return choices["steps"].value

    assert steps(measured) < steps(CPU) / 4


@pytest.mark.slow
def test_the_loss_that_is_timed_is_that_of_the_training_with_its_classes_and_heads(monkeypatch):
    seen, real = [], machine._training_loss()

    def noted(heads, label):
        seen.append((len(heads), heads[0].shape[1], int(label.max()) + 1))
        return real(heads, label)

    monkeypatch.setattr(machine, "_training_loss", lambda: noted)
    found = measure_machine(2, "cpu", classes=5)
    assert set(seen) == {(3, 5, 5)}
    assert isinstance(real.loss, DiceCELoss)
    assert 1e6 <= found.logits_per_s < math.inf


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({"cpu.max": "150000 100000", "memory.max": "1073741824"}, 1, 2**30),
        ({"cpu.max": "max 100000", "memory.max": "max"}, None, None),
        (
            {
                "cpu/cpu.cfs_quota_us": "100000",
                "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "4096",
            },
            1,
            4096,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None, None),
        ({}, None, None),
    ],
)
def test_the_limits_of_a_container_hold(tmp_path, monkeypatch, files, cores, memory):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    moved = [
        tuple(str(tmp_path / Path(file).relative_to("/sys/fs/cgroup")) for file in each) for each in machine._QUOTAS
    ]
    monkeypatch.setattr(machine, "_QUOTAS", moved)
    groups = [
        (str(tmp_path / Path(folder).relative_to("/sys/fs/cgroup")), *names)
        for folder, *names in free_memory._CONTROL_GROUPS
    ]
    monkeypatch.setattr(free_memory, "_CONTROL_GROUPS", groups)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert machine._usable_cores() == (cores or 8)
    assert machine._total_bytes() == (
        memory or machine.os.sysconf("SC_PAGE_SIZE") * machine.os.sysconf("SC_PHYS_PAGES")
    )


def test_the_cache_is_in_the_memory_of_the_computer():
    data = fingerprint(shape=(100, 100, 100), spacings=[(1.0, 1.0, 1.0)] * 10)
    for host, rate in ((2**26, 0.67), (2**40, 1.0)):
        gpu = Machine(1e13, 2**24, 8, "cuda", host)
        assert _choose_for_machine(data, [[100, 100, 100]] * 10, gpu)["cache_rate"].value == rate
        # few large images count as many small ones
        unequal = [[25, 100, 100]] * 6 + [[850, 100, 100]]
        assert _choose_for_machine(data, unequal, gpu)["cache_rate"].value == rate
    assert str(gpu).endswith("8 cores, 0.015625 GiB, 1024 GiB of the computer")


@pytest.mark.slow
def test_this_machine_has_a_class(monkeypatch):
    monkeypatch.setattr(machine, "_usable_cores", lambda: 4)
    monkeypatch.setattr(machine, "_total_bytes", lambda: 2**34)
    found = measure_machine(2, "cpu")
    # each process of torchrun has its share; its speed is not measured again
    monkeypatch.setattr(machine, "_time_step", lambda *_: (1.0, 1.0))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    shared = measure_machine(2, "cpu")
    assert (found.cores, found.memory_bytes, shared.cores, shared.memory_bytes) == (4, 2**34, 2, 2**33)
    assert found.device == "cpu"
    again = Machine(found.operations_per_s, found.memory_bytes, 4, "cpu", logits_per_s=found.logits_per_s)
    assert found == again


def test_cores_without_a_thread_do_not_speed_a_training_up(monkeypatch):
    """As ``torchrun`` leaves each process one thread."""
    monkeypatch.setattr(machine, "_usable_cores", lambda: 16)
    monkeypatch.setattr(machine, "_time_step", lambda *_: (1.0, 1.0))
    monkeypatch.setattr(machine.torch, "set_num_threads", lambda _: None)
    found = {}
    for threads in (1, 16, 64):
        monkeypatch.setattr(machine.torch, "get_num_threads", lambda threads=threads: threads)
        found[threads] = measure_machine(2, "cpu")
    assert [found[threads].operations_per_s / found[1].operations_per_s for threads in found] == [1, 16, 16]
    assert {each.cores for each in found.values()} == {16}


def test_the_reason_of_the_steps_says_which_command_ends_by_them():
    reason = choose_network(task(), CPU, cheap, {})["steps"].reason
    assert "The command train ends when the time is up, or after this number if it is set by hand" in reason
