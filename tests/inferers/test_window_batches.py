import torch

from monai_unetpp.inferers.window_batches import WindowBatches
from monai_unetpp.inferers.windows import WindowGrid

CPU = torch.device("cpu")


def batches_of(batches):
    return iter(batches.next_batch, None)


def test_windows_come_in_the_order_of_the_grid():
    x = torch.rand(2, 1, 10)
    grid = WindowGrid.over((10,), 4, 0.25)
    batches = batches_of(WindowBatches(x, grid, 4, CPU))
    found = [(p.image, p.position, b.windows[p.slot].clone()) for b in batches for p in b.placed]
    assert [place for *place, _ in found] == [[image, (start,)] for image in range(2) for start in (0, 3, 6)]
    for image, (start,), window in found:
        assert torch.equal(window, x[image, :, start : start + 4])


def test_the_last_batch_is_filled_up_only_where_asked():
    grid = WindowGrid.over((10,), 4, 0.25)
    for fixed, last in ((False, 1), (True, 2)):
        batches = WindowBatches(torch.rand(1, 1, 10), grid, 2, CPU, fixed_size=fixed)
        sizes = [len(b.windows) for b in batches_of(batches)]
        assert sizes == [2, last]


def test_equal_constant_windows_share_a_slot():
    x = torch.zeros(1, 1, 16)
    x[..., 4:8] = torch.rand(4)
    batches = WindowBatches(x, WindowGrid.over((16,), 4, 0.0), 2, CPU, skip_constant=True)
    first, second = batches_of(batches)
    assert [p.slot for p in first.placed] == [0, 1]
    assert first.kept_slot == 0
    assert [p.slot for p in second.placed] == [None, None]
    assert len(second.windows) == 0
