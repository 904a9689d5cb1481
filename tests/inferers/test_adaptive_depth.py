"""Sliding windows that go only as deep as they need."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from monai.data import MetaTensor

from monai_unetpp import NestedUNet
from monai_unetpp.inferers import NestedSlidingWindowInferer, SlicewiseInferer, depth_gate, predictors
from monai_unetpp.openvino_loading import has_openvino

needs_openvino = pytest.mark.skipif(not has_openvino(), reason="needs the extra openvino")
RUNTIMES = ["torch", pytest.param("openvino", marks=needs_openvino)]
TOLERANCE = 0.1
#: Where the levels cut between background and foreground: L1 and L4 far from L2 and L3.
CUTS = {"L1": 1.0, "L2": 1.2, "L3": 1.21, "L4": 1.5}


@pytest.fixture(scope="module")
def net():
    """A network that passes the image on, so that heads may cut it; other weights are small, but matter."""
    torch.manual_seed(0)
    net = NestedUNet(2, 1, 2, features=(2, 3, 4, 4, 4), norm=None).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.002)
        for name, node in net.nodes.items():
            if name.startswith("x_0_"):
                for convolution in (node.block.conv_0.conv, node.block.conv_1.conv):
                    convolution.weight[0, 0, 1, 1] += 1.0
        for level, cut in CUTS.items():
            net.heads[level].weight[1, 0] += 1.0
            net.heads[level].bias[1] -= cut
    return net


@pytest.fixture(scope="module")
def image():
    """Windows without anything, such in which L2 and L3 agree, and such in which no levels do, in three columns."""
    image = torch.rand(2, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    image[..., :16] *= 0.5
    image[..., 16:32].mul_(0.5).add_(0.9)
    image[..., 32:].mul_(0.02).add_(1.2)
    return image


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def inferer(**options):
    return NestedSlidingWindowInferer(
        16, overlap=0.0, **{"precision": "fp32", "runtime": "torch", "sw_batch_size": 4, **options}
    )


def adaptive(**options):
    return inferer(**{"levels": "adaptive", "adaptive_tolerance": TOLERANCE, **options})


def counted(net, image, **options):
    """What a gate gives that sees all levels, and how deep the windows go then."""
    whole = inferer(levels=[*net.levels, f"adaptive={TOLERANCE}"], **options)
    return whole(image, net)[f"adaptive={TOLERANCE}"], whole.depths[f"adaptive={TOLERANCE}"]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("options", [{}, {"flips": [0], "sw_batch_size": 1}, {"output": "labels", "mode": "constant"}])
def test_windows_that_stop_early_give_what_a_gate_over_all_levels_gives(net, image, cache_dir, runtime, options):
    expected, depths = counted(net, image, **options)
    times = 2 if "flips" in options else 1
    assert depths == {"L2": 4 * times, "L3": 4 * times, "L4": 4 * times}
    run = adaptive(runtime=runtime, cache_dir=cache_dir, **options)
    torch.testing.assert_close(run(image, net), expected, rtol=0, atol=1e-5)
    assert run.ran == (runtime, "fp32")
    assert run.depths == {"adaptive": depths}


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_at_tolerance_zero_all_windows_go_to_the_deepest_level_and_changed_weights_are_seen(
    net, image, cache_dir, runtime
):
    changed = NestedUNet(**net.config).eval()
    changed.load_state_dict(net.state_dict())
    run = adaptive(adaptive_tolerance=0.0, runtime=runtime, cache_dir=cache_dir)
    before = run(image, changed)
    torch.testing.assert_close(before, inferer(levels="L4")(image, net), rtol=0, atol=1e-5)
    assert run.depths == {"adaptive": {"L2": 0, "L3": 0, "L4": 12}}
    with torch.no_grad():
        changed.heads["L4"].bias.add_(1.0)
    torch.testing.assert_close(run(image, changed), before + 1.0, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_volumes_of_sizes_that_strides_do_not_divide_equal_the_whole_network(cache_dir, runtime):
    torch.manual_seed(0)
    net, volume = NestedUNet(3, 1, 3, features=(2, 3, 4, 4)).eval(), torch.rand(1, 1, 9, 7, 11)
    settings = {"roi_size": (9, 7, 6), "precision": "fp32", "runtime": runtime, "cache_dir": cache_dir}
    found = NestedSlidingWindowInferer(**settings, levels="adaptive", adaptive_tolerance=0.0)(volume, net)
    expected = NestedSlidingWindowInferer((9, 7, 6), precision="fp32", runtime="torch")(volume, net)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_work_that_no_window_needs_is_not_done(net, image):
    seen = dict.fromkeys(("x_0_2", "x_0_3", "x_0_4"), 0)

    def count(name, windows):
        seen[name] += windows

    hooks = [
        net.nodes[name].register_forward_hook(lambda node, taken, given, name=name: count(name, len(given)))
        for name in seen
    ]
    try:
        adaptive()(image, net)
    finally:
        for hook in hooks:
            hook.remove()
    assert seen == {"x_0_2": 12, "x_0_3": 8, "x_0_4": 4}


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
    with pytest.raises(TypeError, match=r"adaptive_tolerance must be a number such as 0\.033, got '0\.1'"):
        inferer(levels="adaptive", adaptive_tolerance="0.1")


def test_networks_without_levels_to_choose_from_are_refused(net, image):
    with pytest.raises(ValueError, match="network must have two or more levels for levels='adaptive', got only L2"):
        adaptive()(image, net.prune("L2"))
    whole = NestedUNet(2, 1, 2, features=(2, 4), norm=None).eval()
    for levels in ("adaptive=0.1", ["L1", "adaptive=0.1"]):
        with pytest.raises(ValueError, match=r"network must have two or more levels .*, got only L1"):
            inferer(levels=levels)(image, whole)
    with pytest.raises(TypeError, match="network must have levels for levels='adaptive', got function"):
        adaptive()(image, lambda x: x)


@pytest.mark.slow
@needs_openvino
def test_an_image_with_one_channel_is_not_taken_for_one_with_three(cache_dir):
    torch.manual_seed(0)
    net = NestedUNet(2, 3, 2, features=(2, 3, 4)).eval()
    run = adaptive(runtime="openvino", cache_dir=cache_dir)
    run(torch.rand(1, 3, 16, 16), net)
    with pytest.raises(ValueError, match="windows must have the 3 channels of the network, got 1"):
        run(torch.rand(1, 1, 16, 16), net)


def test_a_subclass_that_computes_levels_in_its_own_way_is_refused(net, image):
    class Standardizing(NestedUNet):
        def forward_levels(self, x, levels=None):
            return super().forward_levels(x - x.mean(), levels)

    with pytest.raises(TypeError, match=r"got Standardizing with its own forward_levels. Use levels='adaptive=...'"):
        adaptive()(image, Standardizing(**net.config).eval())


@pytest.mark.parametrize("options", [{"levels": ["adaptive=0.1"]}, {"levels": "adaptive", "adaptive_tolerance": 0.1}])
def test_depths_of_several_threads_are_not_added_up(net, image, options, monkeypatch):
    used = inferer(**options)
    used(image, net)
    alone, agree = used.depths, depth_gate.levels_agree

    def while_another_thread_runs(*given):
        for module in (depth_gate, predictors.adaptive):
            monkeypatch.setattr(module, "levels_agree", agree)
        with ThreadPoolExecutor(1) as other:
            other.submit(used, image, net).result()
        return agree(*given)

    for module in (depth_gate, predictors.adaptive):
        monkeypatch.setattr(module, "levels_agree", while_another_thread_runs)
    used(image, net)
    assert used.depths == alone
