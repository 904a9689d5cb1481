import pytest
import torch

from monai_unetpp.inferers.head_averaging import mean_of_heads


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_probabilities_of_the_result_are_the_mean_of_the_probabilities(channels):
    heads = [3 * torch.randn(2, channels, 6, 5) for _ in range(4)]
    probabilities = torch.sigmoid if channels == 1 else lambda logits: logits.softmax(1)
    expected = sum(probabilities(head) for head in heads) / 4
    torch.testing.assert_close(probabilities(mean_of_heads(heads)), expected)


@pytest.mark.parametrize("channels", [1, 2])
def test_extreme_logits_stay_finite_and_right(channels):
    heads = [torch.full((1, channels, 2), 1e4) * torch.tensor([1.0, -1.0]) for _ in range(2)]
    if channels == 2:
        heads = [torch.stack([head[:, 0], -head[:, 0]], 1) for head in heads]
    result = mean_of_heads(heads)
    assert torch.isfinite(result).all()
    assert result[0, 0, 0] > 0.0 - 1e-6
    assert result[0, 0, 1] < -80


def test_heads_are_not_changed_and_half_precision_is_left():
    heads = [torch.randn(1, 2, 4).bfloat16() for _ in range(2)]
    copies = [head.clone() for head in heads]
    assert mean_of_heads(heads).dtype == torch.float32
    assert all(torch.equal(*pair) for pair in zip(heads, copies, strict=True))


@pytest.mark.parametrize("channels", [1, 2])
def test_the_mean_can_be_trained_through(channels):
    heads = [torch.randn(1, channels, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda *given: mean_of_heads(given), heads)
