import pytest
import torch

from monai_unetpp.inferers.label_maps import LabelMaps, label_dtype, write_labels
from monai_unetpp.inferers.stitching import BatchStitcher, LabelStitcher, LogitStitcher
from monai_unetpp.inferers.window_memory import estimate_window_memory
from monai_unetpp.inferers.windows import WindowGrid, importance_of


def label_stitcher(grid, importance, images, channels, maps=None, level=0):
    maps = maps or LabelMaps(grid, images, (channels,))
    return LabelStitcher(grid, importance, images, channels, torch.float32, "cpu", None, maps, level)


@pytest.mark.parametrize("size", [(40, 9), (9, 40), (7, 5), (30,), (20, 17, 14), (9, 14, 20)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_rows_and_the_whole_buffer_give_the_same_labels(size, overlap):
    grid = WindowGrid.over(size, 8, overlap)
    importance = importance_of(grid, "gaussian", 0.125)
    slabs = label_stitcher(grid, importance, images=2, channels=4)
    whole = LogitStitcher(grid, importance, images=2, channels=4)
    for image in range(2):
        for position in grid.positions:
            logits = torch.randn(4, *[8] * len(size))
            slabs.add(image, position, logits)
            whole.add(image, position, logits)
    assert torch.equal(slabs.result(), whole.result().argmax(1, keepdim=True).to(torch.uint8))


@pytest.mark.parametrize(("stitcher", "labels"), [(label_stitcher, True), (LogitStitcher, False)])
def test_no_more_is_held_than_estimated(stitcher, labels):
    grid = WindowGrid.over((20, 64, 24), 16, 0.5)
    made = stitcher(grid, importance_of(grid, "gaussian", 0.125), images=1, channels=3)
    estimate = estimate_window_memory(
        grid, images=1, in_channels=1, out_channels=3, outputs=1, predicted=1, batch_size=1, labels=labels, blended=True
    )
    held = [*vars(made).values(), *([made._maps.result(0)] if labels else [])]
    held_bytes = sum(each.nbytes for each in held if isinstance(each, torch.Tensor))
    assert held_bytes <= estimate.sums_bytes + estimate.importance_bytes + estimate.labels_bytes
    # a row of 16 x 16 x 24, and 8 shared planes of 20 x 24
    assert estimate.sums_bytes == 3 * (16 * 16 * 24 + 8 * 20 * 24 if labels else 20 * 64 * 24) * 4


@pytest.mark.parametrize("channels", [(3, 3, 3), (1, 4, 2, 1), (5, 300), (7, 7, 7)])
def test_levels_that_share_a_map_give_the_labels_of_each_alone(channels):
    grid = WindowGrid.over((20, 9), 8, 0.25)
    maps = LabelMaps(grid, 1, channels)
    shared = [label_stitcher(grid, None, 1, count, maps, level) for level, count in enumerate(channels)]
    alone = [label_stitcher(grid, None, 1, count) for count in channels]
    for position in grid.positions:
        for count, *stitchers in zip(channels, shared, alone, strict=True):
            logits = torch.randn(count, 8, 8)
            for stitcher in stitchers:
                stitcher.add(0, position, logits)
    for stitcher in shared:
        stitcher.finish()
    expected = [stitcher.result() for stitcher in alone]
    for found, each in zip([stitcher.result() for stitcher in shared], expected, strict=True):
        assert torch.equal(found, each)
        assert found.dtype == each.dtype


def test_the_last_result_of_levels_that_share_a_map_takes_no_more_memory():
    maps = LabelMaps(WindowGrid.over((20, 9), 8, 0.25), 1, (3, 3))
    held = [maps.result(level).data_ptr() for level in (1, 0)]
    assert maps._joined.data_ptr() not in held[:1]
    assert maps._joined.data_ptr() == held[1]


@pytest.mark.parametrize(("length", "levels", "grows"), [(600, 4, True), (600, 1, False), (40, 4, False)])
def test_many_maps_of_a_large_image_take_more_at_the_end_than_the_sums(length, levels, grows):
    grid = WindowGrid.over((20, 20, length), 8, 0.25)
    maps = LabelMaps(grid, 1, (3,) * levels)
    stitchers = {f"L{level}": label_stitcher(grid, None, 1, 3, maps, level) for level in range(levels)}
    assert BatchStitcher(stitchers, maps).grows_at_end is grows


def test_logits_never_take_more_at_the_end():
    grid = WindowGrid.over((20, 20, 600), 8, 0.25)
    assert not BatchStitcher(
        {"L1": LogitStitcher(grid, None, 1, 3), "L2": LogitStitcher(grid, None, 1, 3)}
    ).grows_at_end


def test_labels_are_those_of_argmax_the_first_of_equal_ones():
    logits = torch.randint(0, 3, (5, 30, 20)).float()
    labels = torch.empty(30, 20, dtype=torch.uint8)
    write_labels(logits, labels)
    highest = (logits == logits.max(0)[0]).to(torch.uint8)
    assert torch.equal(labels, highest.argmax(0).to(torch.uint8))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_no_number_is_no_background(channels, value):
    logits = torch.zeros(channels, 6, 5)
    logits[-1, 3, 2] = value
    with pytest.raises(ValueError, match="network must give finite logits, got NaN or infinity"):
        write_labels(logits, torch.empty(6, 5, dtype=torch.uint8))


def test_a_class_that_is_ruled_out_stays_so():
    logits = torch.zeros(3, 6, 5)
    logits[1:] = float("-inf")
    labels = torch.ones(6, 5, dtype=torch.uint8)
    write_labels(logits, labels)
    assert not labels.any()


def test_labels_in_chunks(monkeypatch):
    monkeypatch.setattr("monai_unetpp.inferers.label_maps._CHUNK_VOXELS", 50)
    logits = torch.randn(3, 31, 20)
    labels = torch.empty(31, 20, dtype=torch.uint8)
    write_labels(logits, labels)
    assert torch.equal(labels.long(), logits.argmax(0))


@pytest.mark.parametrize(("channels", "dtype"), [(1, torch.uint8), (256, torch.uint8), (257, torch.int16)])
def test_the_last_class_has_a_label(channels, dtype):
    assert label_dtype(channels) == dtype
    labels = torch.empty(1, 1, dtype=dtype)
    logits = torch.zeros(channels, 1, 1)
    logits[-1] = 1
    write_labels(logits, labels)
    assert labels.item() == max(channels - 1, 1)


def test_logits_in_double_precision_are_summed_in_it():
    grid = WindowGrid.over((8,), 8, 0.5)
    assert LogitStitcher(grid, None, 1, 1, torch.float64).result().dtype == torch.float64
