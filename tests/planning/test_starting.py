"""Plans that start from the weights of another network."""

import json

import pytest
import torch
from disc_images import write_disc_images

from monai_unetpp import NestedUNet
from monai_unetpp.networks import transfer_weights
from monai_unetpp.networks.transfer import shapes_in_weights, shaping_arguments
from monai_unetpp.planning import Machine, load_plan, plan
from monai_unetpp.planning.bundle_writing import PLAN_FILE
from monai_unetpp.planning.starting import compare_start

AFFINE = ["instance", {"affine": True}]
SHAPE = {"features": [4, 8, 24], "kernel_size": [[3, 1], [3, 3], [3, 3]], "norm": AFFINE}


def machine(spatial_dims, device, classes):
    return Machine(1e10, 2**30, 2, "cpu")


@pytest.fixture(scope="module")
def discs_dir(tmp_path_factory):
    return write_disc_images(tmp_path_factory.mktemp("discs"), training=3, validation=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a network that no rule would choose, for two channels and five classes."""
    path = tmp_path_factory.mktemp("before") / "before.pt"
    torch.save(NestedUNet(2, 2, 5, **SHAPE).state_dict(), path)
    return path


def planned(discs_dir, folder, weights, *settings):
    return plan(discs_dir, folder, settings=settings, device="cpu", init=weights, measure=machine)


@pytest.mark.slow
def test_the_plan_has_the_network_whose_weights_are_given_and_says_what_starts_from_them(discs_dir, weights, tmp_path):
    made = planned(discs_dir, tmp_path / "one", weights)
    assert {name: made[name] for name in SHAPE} == SHAPE
    assert all(made.reasons[name].source == "--init" for name in SHAPE)
    assert made.by_hand == ()
    assert (made.start.averaged, made.start.fresh) == (("x_0_0",), ("L1", "L2"))
    text = (tmp_path / "one" / "docs" / "plan.md").read_text()
    assert "starts from `before.pt`: 6 of 8 nodes and heads" in text
    assert f"with {made.start.weights:,} of {made.start.all_weights:,} weights" in text
    assert "- New, with random weights: `L1`, `L2`." in text
    readme = (tmp_path / "one" / "docs" / "README.md").read_text()
    assert "instance normalisation" in readme
    # MONAI's own command takes no weights by itself
    assert "starts from the weights\nof `before.pt`: give their path as `--init WEIGHTS`" in readme
    # what the plan says is what the training does
    network = NestedUNet(2, 1, 2, strides=made["strides"], **SHAPE)
    assert transfer_weights(network, weights).weights == made.start.weights
    planned(discs_dir, tmp_path / "two" / "one", weights)
    assert (tmp_path / "one" / PLAN_FILE).read_bytes() == (tmp_path / "two" / "one" / PLAN_FILE).read_bytes()
    assert load_plan(tmp_path / "one").start == made.start


@pytest.mark.slow
def test_what_is_set_by_hand_goes_before_the_weights(discs_dir, weights, tmp_path):
    made = planned(discs_dir, tmp_path / "some", weights, "features=[4,8,16]")
    assert (made["features"], made["kernel_size"]) == ([4, 8, 16], SHAPE["kernel_size"])
    assert set(made.start.fresh) == {"x_2_0", "x_1_1", "L1", "L2"}
    with pytest.raises(ValueError, match=r"norm is .* there and batch here\. Plan with --set 'norm=\[\"instance\""):
        planned(discs_dir, tmp_path / "none", weights, "norm=batch")
    assert not (tmp_path / "none" / PLAN_FILE).exists()


class PlannedChannels(dict):
    """What of a plan the weights to start from are compared with."""

    spatial_dims, out_channels, dataset_dir = 2, 2, "data"

    def __init__(self, *channels):
        super().__init__({**SHAPE, "strides": [2, 2]})
        self.channels = channels


def test_weights_of_a_bundle_for_channels_in_another_order_are_refused(tmp_path):
    bundle = tmp_path / "bundle"
    for name in ("configs", "models"):
        (bundle / name).mkdir(parents=True)
    (bundle / "configs" / "inference.json").write_text("{}")
    image = {"channel_def": {"0": "CT", "1": "PET"}}
    (bundle / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": {"inputs": {"image": image}}}))
    torch.save(NestedUNet(2, 2, 5, **SHAPE).state_dict(), bundle / "models" / "model.pt")
    assert compare_start(PlannedChannels("ct", "pet"), bundle).fresh == ("L1", "L2")
    assert compare_start(PlannedChannels("T1", "T2"), bundle).fresh == ("L1", "L2")
    with pytest.raises(ValueError, match=r"dataset\.json: channels must be in the order of the network's, got PET, CT"):
        compare_start(PlannedChannels("PET", "CT"), bundle)


def test_weights_for_images_of_other_axes_are_refused(discs_dir, tmp_path):
    torch.save(NestedUNet(3, 1, 2, features=[2, 2, 2]).state_dict(), tmp_path / "solid.pt")
    with pytest.raises(ValueError, match=r"init must be the weights of a 2D network .* got solid\.pt of a 3D one"):
        planned(discs_dir, tmp_path / "bundle", tmp_path / "solid.pt")


@pytest.mark.slow
def test_a_network_that_is_not_described_is_known_by_the_shapes_of_its_weights(discs_dir, weights, tmp_path):
    content = dict(torch.load(weights, weights_only=True))
    torch.save({"state_dict": content}, tmp_path / "bare.pt")
    # instance norm and group norm have weights of the same names and shapes
    made = planned(discs_dir, tmp_path / "bundle", tmp_path / "bare.pt", 'norm=["instance",{"affine":true}]')
    assert {name: made[name] for name in SHAPE} == SHAPE
    assert made.start.fresh == ("L1", "L2")
    with pytest.raises(ValueError, match="none of its weights fit the network, which has other features, kernels"):
        planned(discs_dir, tmp_path / "none", tmp_path / "bare.pt")


@pytest.mark.parametrize("variant", ["unet", "unet++"])
@pytest.mark.parametrize("upsample", ["deconv", "nontrainable"])
@pytest.mark.parametrize("block", ["plain", "residual"])
def test_shapes_of_weights_tell_how_a_network_was_built(upsample, block, variant):
    given = {"features": [4, 8, 6], "kernel_size": [[3, 3, 1], [3, 3, 3], [3, 3, 3]], "norm": "batch"}
    strides = [[2, 2, 1], [2, 2, 2]] if upsample == "deconv" else [[2, 2, 2], [2, 2, 2]]
    network = NestedUNet(3, 2, 5, strides=strides, block=block, upsample=upsample, variant=variant, **given)
    found = shapes_in_weights(network.state_dict())
    assert found == {"spatial_dims": 3, "strides": strides, **given}
    assert {name: shaping_arguments(network.config)[name] for name in found} == found


def test_weights_of_a_single_node_tell_nothing():
    assert shapes_in_weights({"nodes.x_0_0.block.conv_0.conv.weight": torch.zeros(4, 1, 3, 3)}) is None
