"""The network in MONAI's engines and inferers, with no glue code."""

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, decollate_batch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanDice, from_engine
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.transforms import AsDiscreted, Compose

from monai_unetpp import NestedDeepSupervisionLoss, NestedUNet


@pytest.fixture(params=[2, 3], ids=["2D", "3D"])
def dims(request):
    return request.param


@pytest.fixture
def loader(dims):
    """Two noisy images of a bright cube, with its mask."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for start in (3, 6):
        label = torch.zeros(1, *(16,) * dims)
        label[(0, *(slice(start, start + 7),) * dims)] = 1
        cases.append({"image": label + 0.1 * torch.randn(label.shape, generator=generator), "label": label})
    return DataLoader(Dataset(cases), batch_size=2)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["unet", "unet_e", "unet+", "unet++"])
def test_training_reduces_the_loss(dims, loader, variant):
    torch.manual_seed(0)
    net = NestedUNet(dims, 1, 2, features=(4, 6, 8), variant=variant)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    losses = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=8,
        train_data_loader=loader,
        network=net,
        optimizer=torch.optim.Adam(net.parameters(), 0.02),
        loss_function=NestedDeepSupervisionLoss(DiceCELoss(softmax=True, to_onehot_y=True)),
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output[0]["loss"]))
    trainer.run()
    assert len(losses) == 8
    assert losses[-1] < losses[0]
    unchanged = [name for name, parameter in net.named_parameters() if torch.equal(parameter, before[name])]
    # a bias before instance norm is taken out again by the norm, so its gradient is rounding noise or zero
    assert [name for name in unchanged if not name.endswith("conv.bias")] == []


@pytest.mark.parametrize("sliding", [False, True])
def test_evaluation_gives_metrics(dims, loader, sliding):
    torch.manual_seed(0)
    inferer = SlidingWindowInferer(roi_size=(8,) * dims, overlap=0.25, mode="gaussian") if sliding else SimpleInferer()
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader,
        network=NestedUNet(dims, 1, 2, features=(4, 6, 8)),
        inferer=inferer,
        postprocessing=Compose(
            [AsDiscreted("pred", argmax=True, to_onehot=2), AsDiscreted("label", to_onehot=2)],
        ),
        key_val_metric={"dice": MeanDice(include_background=True, output_transform=from_engine(["pred", "label"]))},
    )
    evaluator.run()
    assert 0 <= evaluator.state.metrics["dice"] <= 1


@pytest.mark.slow
def test_windows_of_one_level_equal_windows_of_the_pruned_network(dims):
    net = NestedUNet(dims, 1, 2, features=(4, 6, 8)).eval()
    image = torch.rand(1, 1, *(19, 16, 13)[:dims])
    inferer = SlidingWindowInferer(roi_size=(8,) * dims, sw_batch_size=2, overlap=0.5)
    with torch.no_grad():
        levels = inferer(image, net.forward_levels)
        assert sorted(levels) == ["L1", "L2"]
        for level, output in levels.items():
            assert output.shape == (1, 2, *image.shape[2:])
            assert torch.allclose(output, inferer(image, net.prune(level)), atol=1e-6)


def test_decollated_outputs_are_single_cases(dims):
    outputs = NestedUNet(dims, 1, 2, features=(4, 6)).eval()(torch.rand(2, 1, *(8,) * dims))
    assert [case.shape for case in decollate_batch(outputs)] == [(2, *(8,) * dims)] * 2
