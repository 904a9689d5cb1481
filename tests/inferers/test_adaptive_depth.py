"""Sliding windows that go only as deep as they need."""

import pytest
import torch
from monai.data import MetaTensor

from monai_unetpp import NestedUNet
from monai_unetpp.inferers import NestedSlidingWindowInferer, SlicewiseInferer
from monai_unetpp.inferers.predictors import openvino_conversion

needs_openvino = pytest.mark.skipif(not openvino_conversion.has_openvino(), reason="needs the extra openvino")
RUNTIMES = ["torch", pytest.param("openvino", marks=needs_openvino)]
# with these, the windows of the image below stop at all depths
TOLERANCE = 0.3


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    net = NestedUNet(2, 1, 3, features=(4, 6, 8, 8), norm="batch").eval()
    with torch.no_grad():
        for level in net.levels[1:]:
            # nearly the same head on every level, or no two would ever agree
            net.heads[level].weight.copy_(net.heads["L1"].weight + 0.02 * torch.rand(3, 4, 1, 1))
            net.heads[level].bias.copy_(net.heads["L1"].bias)
    return net


@pytest.fixture(scope="module")
def image():
    image = torch.rand(2, 1, 40, 33, generator=torch.Generator().manual_seed(3))
    return image * torch.linspace(0, 3, 33)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def inferer(**options):
    return NestedSlidingWindowInferer(16, **{"precision": "fp32", "runtime": "torch", "sw_batch_size": 4, **options})


def adaptive(**options):
    return inferer(**{"levels": "adaptive", "adaptive_tolerance": TOLERANCE, **options})


def counted(net, image, **options):
    """What a gate gives that sees all levels, and how deep the windows go then."""
    whole = inferer(levels=[*net.levels, f"adaptive={TOLERANCE}"], **options)
    return whole(image, net)[f"adaptive={TOLERANCE}"], whole.depths[f"adaptive={TOLERANCE}"]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("options", [{}, {"flips": [0]}, {"output": "labels"}, {"sw_batch_size": 1}])
def test_windows_that_stop_early_give_what_a_gate_over_all_levels_gives(net, image, cache_dir, runtime, options):
    expected, depths = counted(net, image, **options)
    assert len([count for count in depths.values() if count]) > 1
    run = adaptive(runtime=runtime, cache_dir=cache_dir, **options)
    found = run(image, net)
    assert run.ran == (runtime, "fp32")
    assert run.depths == {"adaptive": depths}
    assert sum(depths.values()) == 2 * 12 * (2 if "flips" in options else 1)
    if runtime == "torch" or "output" in options:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    else:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_tolerance_zero_is_the_deepest_level_and_one_the_second(net, image, cache_dir, runtime):
    for tolerance, level in ((0.0, "L3"), (1.0, "L2")):
        run = adaptive(adaptive_tolerance=tolerance, runtime=runtime, cache_dir=cache_dir)
        torch.testing.assert_close(run(image, net), inferer(levels=level)(image, net), rtol=0, atol=1e-4)
        if tolerance == 0:
            assert run.depths == {"adaptive": {"L2": 0, "L3": 24}}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_changed_weights_are_seen(net, image, cache_dir, runtime):
    changed = net.prune("L3") if False else NestedUNet(**net.config).eval()
    changed.load_state_dict(net.state_dict())
    run = adaptive(runtime=runtime, cache_dir=cache_dir, adaptive_tolerance=0.0)
    before = run(image, changed)
    with torch.no_grad():
        changed.heads["L3"].bias.add_(1.0)
    torch.testing.assert_close(run(image, changed), before + 1.0, rtol=0, atol=1e-4)


def test_work_that_no_window_needs_is_not_done(net, image):
    seen = []
    hooks = [
        net.nodes[name].register_forward_pre_hook(lambda module, args, name=name: seen.append((name, len(args[0][0]))))
        for name in ("x_0_2", "x_0_3")
    ]
    try:
        adaptive()(image, net)
    finally:
        for hook in hooks:
            hook.remove()
    _, depths = counted(net, image)
    assert sum(size for name, size in seen if name == "x_0_2") == 24
    assert sum(size for name, size in seen if name == "x_0_3") == depths["L3"] < 24


def test_constant_windows_that_are_skipped_are_not_counted(net):
    image = torch.zeros(1, 1, 48, 48)
    run = adaptive(skip_constant=True)
    run(image, net)
    assert sum(run.depths["adaptive"].values()) == 1


def test_slices_are_counted_together_and_metadata_kept(net):
    volume = MetaTensor(torch.rand(1, 1, 16, 16, 3), affine=torch.eye(4))
    run = SlicewiseInferer(adaptive(output="labels"))
    assert isinstance(run(volume, net), MetaTensor)
    assert sum(run.depths["adaptive"].values()) == 3
    run(volume[..., 0], net)
    assert sum(run.depths["adaptive"].values()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": "adaptive"}, "adaptive_tolerance must be given with levels='adaptive' and only there, got None"),
        (
            {"adaptive_tolerance": 0.1},
            "adaptive_tolerance must be given with levels='adaptive' and only there, got 0.1",
        ),
        ({"levels": "adaptive", "adaptive_tolerance": 1.5}, "adaptive_tolerance must lie between 0 and 1, got 1.5"),
        ({"levels": ["adaptive", "L1"]}, "levels must be None"),
        ({"levels": "adaptive", "adaptive_tolerance": 0.1, "runtime": "compile"}, "runtime must be auto, torch or"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        inferer(**options)
    with pytest.raises(TypeError, match="adaptive_tolerance must be a number such as 0.03, got '0.1'"):
        inferer(levels="adaptive", adaptive_tolerance="0.1")


def test_networks_without_levels_to_choose_from_are_refused(net, image):
    with pytest.raises(ValueError, match="network must have two levels or more for levels='adaptive', got L2 alone"):
        adaptive()(image, net.prune("L2"))
    with pytest.raises(TypeError, match="network must have levels for levels='adaptive', got function"):
        adaptive()(image, lambda x: x)
