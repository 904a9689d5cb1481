import pytest
import torch
from monai.inferers import SlidingWindowInferer

from monai_unetpp.inferers import FlipInferer


def shifted(x):
    """Moves the image by one along the first spatial axis: what flips average out."""
    return torch.roll(x, 1, dims=2)


def test_the_average_of_both_directions():
    x = torch.rand(1, 1, 5, 4)
    expected = (torch.roll(x, 1, dims=2) + torch.roll(x, -1, dims=2)) / 2
    torch.testing.assert_close(FlipInferer(axes=[0])(x, shifted), expected)


def test_two_axes_give_four_runs():
    runs = []

    def network(x):
        runs.append(x.clone())
        return x

    x = torch.rand(1, 1, 3, 4)
    torch.testing.assert_close(FlipInferer(axes=[0, 1])(x, network), x)
    assert len(runs) == 4
    assert torch.equal(runs[3], x.flip([2, 3]))


@pytest.mark.parametrize("form", [list, dict])
def test_lists_and_dicts_keep_their_form(form):
    def network(x):
        return [x, 2 * x] if form is list else {"L1": x, "L2": 2 * x}

    x = torch.rand(1, 1, 4, 4)
    result = FlipInferer(axes=[1])(x, network)
    assert isinstance(result, form)
    first, second = result if form is list else result.values()
    torch.testing.assert_close(second, 2 * first)
    torch.testing.assert_close(first, x)


def test_no_axes_is_the_inferer_itself():
    x = torch.rand(1, 1, 9, 7)
    window = SlidingWindowInferer((4, 4), overlap=0.5)
    assert torch.equal(FlipInferer(window)(x, shifted), window(x, shifted))


def test_half_precision_is_averaged_in_float32():
    x = torch.rand(1, 1, 6, 5)
    found = FlipInferer(axes=[0, 1])(x, lambda flipped: shifted(flipped).bfloat16())
    assert found.dtype == torch.float32
    exact = FlipInferer(axes=[0, 1])(x.bfloat16().float(), shifted)
    torch.testing.assert_close(found, exact, atol=0, rtol=1e-6)
    assert FlipInferer()(x, lambda whole: whole.bfloat16()).dtype == torch.bfloat16


def test_labels_are_not_averaged():
    with pytest.raises(TypeError, match=r"the inferer must give logits to average over flips, got torch\.uint8\. Use"):
        FlipInferer(axes=[0])(torch.rand(1, 1, 4, 4), lambda x: (x > 0.5).to(torch.uint8))


@pytest.mark.parametrize("axes", [[0, 0], [-1]])
def test_wrong_axes(axes):
    with pytest.raises(ValueError, match="axes must be different spatial axes from 0 on"):
        FlipInferer(axes=axes)


def test_an_axis_that_the_image_has_not():
    with pytest.raises(ValueError, match=r"axes must be spatial axes of the image, 2, got \[2\]"):
        FlipInferer(axes=[2])(torch.rand(1, 1, 4, 4), shifted)
