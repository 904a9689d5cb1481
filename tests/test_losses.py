"""Deep supervision by level."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.losses import (
    AsymmetricUnifiedFocalLoss,
    DiceCELoss,
    DiceLoss,
    FocalLoss,
    GeneralizedWassersteinDiceLoss,
    TverskyLoss,
)
from torch import nn

from monai_unetpp import NestedDeepSupervisionLoss, NestedUNet, losses
from monai_unetpp.losses import SparseVoxelLoss


@pytest.fixture
def outputs():
    """Logits of L3, L2 and L1, in this order."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 8, 8, generator=generator, requires_grad=True) for _ in range(3)]


@pytest.fixture
def target():
    return torch.randint(0, 3, (2, 1, 8, 8), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def monai_loss():
    return DiceCELoss(softmax=True, to_onehot_y=True)


class RecordingLoss(nn.Module):
    """Keeps the shapes it is given."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, prediction, target):
        self.shapes.append((tuple(prediction.shape), tuple(target.shape)))
        return prediction.mean()


def test_equals_the_sum_over_the_levels(outputs, target, monai_loss):
    expected = sum(monai_loss(output, target) for output in outputs)
    assert torch.allclose(NestedDeepSupervisionLoss(monai_loss)(outputs, target), expected)


def test_takes_tuples_and_dicts_alike(outputs, target, monai_loss):
    loss = NestedDeepSupervisionLoss(monai_loss)
    by_level = dict(zip(("L3", "L2", "L1"), outputs, strict=True))
    assert torch.equal(loss(tuple(outputs), target), loss(outputs, target))
    assert torch.equal(loss(by_level, target), loss(outputs, target))


def test_takes_a_bare_tensor_unweighted(outputs, target, monai_loss):
    loss = NestedDeepSupervisionLoss(monai_loss, level_weights=[5.0, 1.0, 1.0])
    assert torch.equal(loss(outputs[0], target), monai_loss(outputs[0], target))


def test_weights_by_order_start_with_the_deepest(outputs, target, monai_loss):
    terms = [monai_loss(output, target) for output in outputs]
    loss = NestedDeepSupervisionLoss(monai_loss, level_weights=(1.0, 0.5, 0.25))
    assert torch.allclose(loss(outputs, target), terms[0] + 0.5 * terms[1] + 0.25 * terms[2])


def test_weights_by_name_equal_weights_by_order_whatever_the_order_of_the_dict(outputs, target, monai_loss):
    by_order = NestedDeepSupervisionLoss(monai_loss, level_weights=(1.0, 0.5, 0.25))
    by_name = NestedDeepSupervisionLoss(monai_loss, level_weights={"L1": 0.25, "L3": 1.0, "L2": 0.5})
    shallowest_first = {"L1": outputs[2], "L2": outputs[1], "L3": outputs[0]}
    assert torch.allclose(by_name(outputs, target), by_order(outputs, target))
    assert torch.allclose(by_order(shallowest_first, target), by_order(outputs, target))


def test_numbers_of_numpy_are_weights_too(outputs, target, monai_loss):
    plain = NestedDeepSupervisionLoss(monai_loss, [1.0, 0.5, 2.0], distillation=0.5)(outputs, target)
    weights = [np.int64(1), np.float32(0.5), np.float16(2)]
    of_numpy = NestedDeepSupervisionLoss(monai_loss, weights, distillation=np.float32(0.5))
    assert torch.equal(of_numpy(outputs, target), plain)


def test_a_weight_of_zero_leaves_the_level_out(outputs, target, monai_loss):
    loss = NestedDeepSupervisionLoss(monai_loss, level_weights={"L1": 0, "L2": 0, "L3": 2})
    total = loss(outputs, target)
    assert torch.allclose(total, 2 * monai_loss(outputs[0], target))
    total.backward()
    assert outputs[0].grad is not None
    assert outputs[1].grad is None


def test_in_distributed_training_a_level_left_out_still_gets_the_gradients_that_are_waited_for(
    outputs, target, monai_loss, monkeypatch
):
    monkeypatch.setattr(losses, "in_process_group", lambda: True)
    outputs[1] = torch.full_like(outputs[1], torch.inf).requires_grad_()
    total = NestedDeepSupervisionLoss(monai_loss, level_weights=[2, 0, 0])(outputs, target)
    assert torch.allclose(total, 2 * monai_loss(outputs[0], target))
    total.backward()
    assert bool((outputs[0].grad != 0).any())
    assert all(bool((output.grad == 0).all()) for output in outputs[1:])


def test_distillation_of_a_single_channel_is_that_of_foreground_and_background(outputs, target):
    none = RecordingLoss()
    single = [output[:, :1] for output in outputs]
    pairs = [torch.cat([torch.zeros_like(output), output], dim=1) for output in single]
    mask = (target > 0).float()
    found, expected = (
        NestedDeepSupervisionLoss(none, [1, 1, 0.5], distillation=3.0)(heads, mask)
        - NestedDeepSupervisionLoss(none, [1, 1, 0.5])(heads, mask)
        for heads in (single, pairs)
    )
    assert float(found.detach()) > 0.1
    torch.testing.assert_close(found, expected)


def test_half_precision_is_distilled_in_float32(outputs, target):
    halves = [output.detach().bfloat16() for output in outputs]
    loss = NestedDeepSupervisionLoss(lambda prediction, truth: prediction.float().mean() * 0, distillation=1.0)
    found = loss(halves, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss([half.float() for half in halves], target), atol=0, rtol=1e-6)


def test_a_single_level_is_not_weighted_however_it_is_given(outputs, target, monai_loss):
    loss = NestedDeepSupervisionLoss(monai_loss, level_weights={"L1": 1, "L2": 0.5, "L3": 2})
    for given in (outputs[0], outputs[:1], {"L3": outputs[0]}):
        assert torch.equal(loss(given, target), monai_loss(outputs[0], target))


@pytest.mark.parametrize("dims", [2, 3])
def test_weights_of_classes_with_spatial_axes_also_weigh_what_is_not_ignored(dims):
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(2, 3, *[4] * dims, generator=generator)
    target = torch.randint(0, 2, output.shape, generator=generator).float()
    target[:, :, 2:] = 255
    weights = torch.tensor([1.0, 2.0, 3.0]).view(3, *[1] * dims)
    loss = NestedDeepSupervisionLoss(nn.BCEWithLogitsLoss(pos_weight=weights), ignore_label=255)
    torch.testing.assert_close(loss(output, target), loss.loss(output[:, :, :2], target[:, :, :2]))


def test_gradients_reach_every_level_in_proportion(outputs, target):
    NestedDeepSupervisionLoss(DiceLoss(softmax=True, to_onehot_y=True), (1.0, 3.0, 1.0))(outputs, target).backward()
    alone = outputs[1].detach().clone().requires_grad_()
    DiceLoss(softmax=True, to_onehot_y=True)(alone, target).backward()
    assert torch.allclose(outputs[1].grad, 3 * alone.grad)


def test_targets_are_never_resized(outputs, target):
    recorder = RecordingLoss()
    NestedDeepSupervisionLoss(recorder)(outputs, target)
    assert recorder.shapes == [((2, 3, 8, 8), (2, 1, 8, 8))] * 3


@pytest.mark.parametrize("variant", ["unet", "unet++"])
def test_fits_the_network_in_training_and_in_evaluation(variant, monai_loss):
    net = NestedUNet(2, 1, 3, features=(2, 4, 6), variant=variant)
    image, target = torch.rand(2, 1, 16, 16), torch.randint(0, 3, (2, 1, 16, 16))
    loss = NestedDeepSupervisionLoss(monai_loss)
    assert loss(net.train()(image), target).dim() == 0
    assert loss(net.eval()(image), target).dim() == 0


@pytest.mark.parametrize(
    ("error", "weights", "message"),
    [(TypeError, weights, "must be a mapping .* got ") for weights in ("L1", 1.0, {1.0})]
    + [
        (ValueError, weights, "must not be negative and at least one must be positive, got")
        for weights in ([], {}, [0, 0], [1, -1], {"L1": -0.5})
    ],
)
def test_weights_that_cannot_work(error, weights, message):
    with pytest.raises(error, match=f"level_weights {message}"):
        NestedDeepSupervisionLoss(DiceLoss(), weights)


def test_weights_that_do_not_match_the_levels(outputs, target, monai_loss):
    with pytest.raises(ValueError, match=r"level_weights must have one entry per level, 3, got 2"):
        NestedDeepSupervisionLoss(monai_loss, [1, 1])(outputs, target)
    with pytest.raises(ValueError, match=r"level_weights must name the network's levels L1, L2, L3, got L1, L4"):
        NestedDeepSupervisionLoss(monai_loss, {"L1": 1, "L4": 1})(outputs, target)


def test_predictions_of_another_kind(target, monai_loss):
    loss = NestedDeepSupervisionLoss(monai_loss)
    with pytest.raises(TypeError, match=r"predictions must be a tensor, a list or a dict of tensors, got int"):
        loss(3, target)
    with pytest.raises(ValueError, match=r"predictions must hold at least one level, got none"):
        loss([], target)


LOSSES = {
    "Dice of the batch": DiceLoss(softmax=True, to_onehot_y=True, batch=True),
    "Dice of each sample": DiceLoss(softmax=True, to_onehot_y=True, include_background=False),
    "Dice and cross-entropy": DiceCELoss(softmax=True, to_onehot_y=True, batch=True),
    "both, of each sample": DiceCELoss(softmax=True, to_onehot_y=True),
    "focal": FocalLoss(to_onehot_y=True),
    "Tversky": TverskyLoss(softmax=True, to_onehot_y=True),
    "unified focal": AsymmetricUnifiedFocalLoss(to_onehot_y=True, num_classes=3),
    "Wasserstein": GeneralizedWassersteinDiceLoss(torch.ones(3, 3) - torch.eye(3)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_what_is_not_ignored_is_that_of_the_rest_alone(outputs, target, name):
    partly = target.clone()
    partly[..., 5:] = 9
    loss = NestedDeepSupervisionLoss(LOSSES[name], ignore_label=9)
    found = loss(outputs, partly)
    rest = NestedDeepSupervisionLoss(LOSSES[name])([output[..., :5] for output in outputs], target[..., :5])
    assert torch.allclose(found, rest, atol=1e-6)
    found.backward()
    for output in outputs:
        assert bool((output.grad[..., 5:] == 0).all())
        assert bool((output.grad[..., :5] != 0).any())


@pytest.mark.parametrize(
    ("inner", "options"),
    [
        *((DiceLoss, {"softmax": True}), (DiceLoss, {"softmax": True, "batch": True}), (DiceCELoss, {"softmax": True})),
        *((FocalLoss, {}), (FocalLoss, {"use_softmax": True})),
    ],
)
def test_a_sum_stays_a_sum_where_voxels_are_ignored(outputs, target, inner, options):
    partly = target.clone()
    partly[..., 5:] = 9
    summing = inner(**options, to_onehot_y=True, reduction="sum")
    found = NestedDeepSupervisionLoss(summing, ignore_label=9)(outputs[0], partly)
    torch.testing.assert_close(found, summing(outputs[0][..., :5], target[..., :5]))


def test_a_loss_that_is_not_reduced_is_refused_where_voxels_are_ignored(outputs, target):
    partly = target.clone()
    partly[0, ..., 5] = 9
    for inner in (DiceLoss(softmax=True, to_onehot_y=True, reduction="none"), nn.CrossEntropyLoss(reduction="none")):
        truth = partly if isinstance(inner, DiceLoss) else partly[:, 0]
        with pytest.raises(ValueError, match=r"loss must give one number .* Give it reduction='mean' or 'sum'"):
            NestedDeepSupervisionLoss(inner, ignore_label=9)(outputs, truth)


def test_samples_with_metadata_of_their_own_are_taken_one_by_one(outputs, target):
    partly = target.clone()
    partly[..., 5:] = 9
    loss = NestedDeepSupervisionLoss(LOSSES["Dice of each sample"], ignore_label=9)
    batches = []
    for values in (*outputs, partly):
        batch = MetaTensor(values.detach(), meta={"affine": torch.eye(4).repeat(2, 1, 1), "odd": [1]})
        batch.is_batch = True
        batches.append(batch)
    assert float(loss(batches[:-1], batches[-1])) == pytest.approx(float(loss(outputs, partly).detach()))


def test_a_sample_that_is_ignored_whole_counts_for_nothing(outputs, target):
    partly = target.clone()
    partly[0] = 9
    for inner in (LOSSES["both, of each sample"], LOSSES["Dice and cross-entropy"]):
        found = NestedDeepSupervisionLoss(inner, ignore_label=9)(outputs, partly)
        rest = NestedDeepSupervisionLoss(inner)([output[1:] for output in outputs], target[1:])
        assert torch.allclose(found, rest, atol=1e-6)


def test_without_any_labelled_voxel_the_loss_is_0_and_reaches_all_weights(outputs, target, monai_loss):
    loss = NestedDeepSupervisionLoss(monai_loss, ignore_label=9)(outputs, torch.full_like(target, 9))
    assert float(loss) == 0
    loss.backward()
    assert all(output.grad is not None and bool((output.grad == 0).all()) for output in outputs)


def test_targets_without_a_channel_axis_are_ignored_voxel_by_voxel(outputs, target):
    partly = target[:, 0].clone()
    partly[:, ::3, 1:] = 255
    found = NestedDeepSupervisionLoss(nn.CrossEntropyLoss(), ignore_label=255)(outputs, partly)
    right = sum(nn.CrossEntropyLoss(ignore_index=255)(output, partly) for output in outputs)
    torch.testing.assert_close(found, right)

    alone, distilling = (
        NestedDeepSupervisionLoss(RecordingLoss(), ignore_label=255, distillation=weight) for weight in (0.0, 1.0)
    )
    divergences = [distilling(outputs, truth) - alone(outputs, truth) for truth in (partly, partly[:, None])]
    assert float(divergences[1].detach()) > 0.1
    torch.testing.assert_close(*divergences)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (2, 1, 8, 4), (2, 8), (1, 8, 8)])
def test_a_target_of_another_size_is_refused(outputs, monai_loss, shape):
    with pytest.raises(ValueError, match=r"target must have the batch and spatial size of the predictions, \[2, 3, 8"):
        NestedDeepSupervisionLoss(monai_loss, ignore_label=255)(outputs, torch.full(shape, 255))


def test_nothing_changes_where_nothing_is_ignored(outputs, target, monai_loss):
    plain, ignoring = (NestedDeepSupervisionLoss(monai_loss, ignore_label=value) for value in (None, 9))
    assert torch.equal(plain(outputs, target), ignoring(outputs, target))


@pytest.mark.parametrize(("ignore_label", "wrapped"), [(-1, 255), (300, 44)])
def test_a_value_to_ignore_that_the_type_of_a_target_cannot_hold_is_no_other_value(ignore_label, wrapped):
    outputs = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    target[..., :4] = wrapped
    loss = NestedDeepSupervisionLoss(lambda found, truth: nn.MSELoss()(found, truth.float()), ignore_label=ignore_label)
    assert torch.equal(loss(outputs, target), nn.MSELoss()(outputs, target.float()))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int64, torch.float16, torch.bool])
def test_a_value_to_ignore_is_found_in_targets_of_any_type(dtype):
    assert losses.has_label(torch.tensor([0, 1, 1]).to(dtype), 1).tolist() == [False, True, True]


def test_losses_of_every_voxel_cannot_be_distilled(outputs, target):
    loss = NestedDeepSupervisionLoss(DiceLoss(softmax=True, to_onehot_y=True, reduction="none"), distillation=1.0)
    with pytest.raises(ValueError, match=r"one number with distillation, got the shape \[2, 3.*Give it reduction="):
        loss(outputs, target)


def test_a_sparse_loss_looks_at_every_second_voxel_of_all_heads_and_at_all_in_the_long_run(outputs, target):
    seen = torch.zeros(8, 8)
    places = torch.arange(64.0).reshape(1, 1, 8, 8)
    loss = SparseVoxelLoss(lambda heads, voxels: (heads, voxels))
    for _ in range(40):
        heads, voxels = loss([places, places + 100], places)
        assert voxels.shape == (1, 1, 4, 4)
        assert torch.equal(heads[0], voxels)
        assert torch.equal(heads[1], voxels + 100)
        seen.flatten()[voxels.flatten().long()] = 1
    assert bool(seen.all())


def test_a_sparse_loss_takes_levels_by_name_and_targets_without_a_channel_axis():
    places = torch.arange(64.0).reshape(1, 1, 8, 8)
    heads, voxels = SparseVoxelLoss(lambda heads, voxels: (heads, voxels))({"L1": places, "L2": places}, places[:, 0])
    assert voxels.shape == (1, 4, 4)
    assert list(heads) == ["L1", "L2"]
    assert all(torch.equal(head[:, 0], voxels) for head in heads.values())


def test_a_sparse_loss_of_every_voxel_is_the_loss_itself(outputs, target, monai_loss):
    whole = NestedDeepSupervisionLoss(monai_loss)
    assert torch.equal(SparseVoxelLoss(whole, step=1)(outputs, target), whole(outputs, target))
    thin = torch.zeros(1, 3, 8, 1), torch.zeros(1, 1, 8, 1)
    assert torch.isfinite(SparseVoxelLoss(monai_loss, step=4)(*thin)), "an axis shorter than the step"


def test_a_step_that_is_no_whole_number_above_zero_is_refused(monai_loss):
    with pytest.raises(TypeError, match=r"step must be a whole number, got 1\.5"):
        SparseVoxelLoss(monai_loss, step=1.5)
    with pytest.raises(ValueError, match="step must be at least 1, got 0"):
        SparseVoxelLoss(monai_loss, step=0)
