"""Networks that begin with the weights of others."""

import pytest
import torch

from monai_unetpp import NestedUNet
from monai_unetpp.networks import transfer_weights
from monai_unetpp.networks.transfer import compare_weights


def net(seed=0, **changes):
    torch.manual_seed(seed)
    return NestedUNet(**{"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": (4, 8, 8), **changes})


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "models" / "model.pt"
    path.parent.mkdir()
    torch.save(net().state_dict(), path)
    return path


def same(one, other, prefix):
    weights = one.state_dict(), other.state_dict()
    keys = [key for key in weights[0] if key.startswith(prefix)]
    assert keys
    return all(torch.equal(weights[0][key], weights[1][key]) for key in keys)


def test_the_same_network_is_taken_whole_also_from_the_folder_of_a_bundle(source):
    network = net(seed=1)
    transfer = transfer_weights(network, source.parents[1])
    assert (transfer.averaged, transfer.fresh) == ((), ())
    assert same(network, net(), "")


def test_another_depth_takes_the_common_nodes(source):
    deeper = net(seed=1, features=(4, 8, 8, 16))
    transfer = transfer_weights(deeper, source)
    assert transfer.fresh == ("x_3_0", "x_2_1", "x_1_2", "x_0_3", "L3")
    image = torch.rand(1, 1, 16, 16)
    before, now = net().eval().forward_levels(image), deeper.eval().forward_levels(image, ["L1", "L2"])
    assert all(torch.equal(before[level], now[level]) for level in before)
    shallower = net(seed=1, features=(4, 8))
    assert transfer_weights(shallower, source).fresh == ()


def test_other_classes_get_fresh_heads(source):
    network = net(seed=1, out_channels=5)
    assert transfer_weights(network, source).fresh == ("L1", "L2")
    assert same(network, net(), "nodes.")


def test_other_channels_begin_with_the_mean(source):
    network = net(seed=1, in_channels=3)
    transfer = transfer_weights(network, source)
    assert (transfer.averaged, transfer.fresh) == (("x_0_0",), ())
    image = torch.rand(1, 1, 16, 16)
    assert torch.allclose(network.eval()(image.repeat(1, 3, 1, 1)), net().eval()(image), atol=1e-5)
    assert "the first layer of x_0_0 as the mean over its channels" in str(transfer)


def test_weights_that_do_not_fit_at_all_are_refused_with_what_would_make_them_fit(source):
    advice = (
        r"features is \[4,8,8\] there and \[3,5\] here\. Plan with --set 'features=\[4,8,8\]', or with --init alone"
    )
    with pytest.raises(ValueError, match=rf"model\.pt: none of its weights fit the network: {advice}"):
        transfer_weights(net(features=(3, 5)), source)
    with pytest.raises(
        ValueError, match=r"norm is .* and batch here\. Plan with --set 'norm=\[\"instance\",\{\"affine\""
    ):
        transfer_weights(net(norm="batch"), source)
    with pytest.raises(ValueError, match=r"block is plain there and residual here\. Give weights of a network like it"):
        transfer_weights(net(block="residual"), source)


def test_weights_without_a_description_are_refused_with_the_norm_that_they_may_have(source):
    torch.save({key: value.clone() for key, value in net().state_dict().items()}, source)
    with pytest.raises(ValueError, match=r"has other features.* not of batch norm .* --set norm=instance\.$"):
        transfer_weights(net(norm="batch"), source)
    with pytest.raises(ValueError, match=r"Give weights of a network like it\.$"):
        transfer_weights(net(features=(3, 5)), source)


def test_what_would_fit_is_told_without_changing_anything(source):
    with torch.device("meta"):
        network = net(out_channels=5, in_channels=3)
    found = compare_weights(network, source)
    heads = 2 * (4 * 5 + 5)
    assert (found.averaged, found.fresh) == (("x_0_0",), ("L1", "L2"))
    assert found.all_weights - found.weights == heads
    assert all(value.is_meta for value in network.state_dict().values())
    # a machine's folders are nobody's business
    assert str(found).startswith(f"from {source.parents[1].name}: 5 of 8 nodes and heads ({found.weights:,} of ")
