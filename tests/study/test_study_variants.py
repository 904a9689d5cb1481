"""What a study trains, and the rows of its table."""

import pytest

from monai_unetpp.study.variants import (
    MEAN_OF_HEADS,
    PARAMETER_TOLERANCE,
    REFERENCE,
    choose_names,
    count_parameters,
    list_rows,
    list_variants,
    match_wide_features,
    variant_names,
)

FEATURES = (4, 8, 8, 16, 16)


def config(features, variant="unet++", **options):
    return {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 2,
        "features": features,
        "variant": variant,
        "deep_supervision": False,
        **options,
    }


@pytest.fixture(scope="module")
def variants():
    return list_variants(FEATURES, (5, 10, 10, 20, 20))


def test_all_networks_of_the_paper(variants):
    assert {each.name: (each.variant, len(each.features) - 1, each.deep_supervision) for each in variants} == {
        "unet_L1": ("unet", 1, False),
        "unet_L2": ("unet", 2, False),
        "unet_L3": ("unet", 3, False),
        "unet_L4": ("unet", 4, False),
        "unet_wide": ("unet", 4, False),
        "unet_e": ("unet_e", 4, True),
        "unet+": ("unet+", 4, False),
        "unet+_ds": ("unet+", 4, True),
        "unet++": ("unet++", 4, False),
        "unet++_ds": ("unet++", 4, True),
        "unet++_L2_alone": ("unet++", 2, True),
        "unet++_L3_alone": ("unet++", 3, True),
    }
    # equal terms: but for the wide one, every network has the first of the same features
    assert all(each.features == FEATURES[: len(each.features)] for each in variants if each.name != "unet_wide")


def test_every_row_has_a_network_that_is_trained_and_every_network_a_row(variants):
    rows = list_rows(FEATURES)
    assert {row.variant for row in rows} == {each.name for each in variants}
    assert len({row.name for row in rows}) == len(rows)
    deepest = {each.name: f"L{len(each.features) - 1}" for each in variants}
    supervised = {each.name for each in variants if each.deep_supervision}
    for row in rows:
        if row.level == MEAN_OF_HEADS or row.kind == "embedded":
            assert row.variant in supervised
        else:
            assert row.level == deepest[row.variant]
    (reference,) = [row for row in rows if row.name == REFERENCE]
    assert (reference.variant, reference.level) == ("unet++_ds", "L4")


def test_embedded_and_isolated_levels():
    rows = list_rows(FEATURES)
    assert [(row.level, row.variant) for row in rows if row.kind == "embedded"] == [
        ("L1", "unet++_ds"),
        ("L2", "unet++_ds"),
        ("L3", "unet++_ds"),
    ]
    # UNet++ L1 is the U-Net of depth 1: it is not trained twice
    assert [(row.level, row.variant) for row in rows if row.kind == "isolated"] == [
        ("L1", "unet_L1"),
        ("L2", "unet++_L2_alone"),
        ("L3", "unet++_L3_alone"),
    ]
    assert count_parameters(config((4, 8), "unet")) == count_parameters(config((4, 8), "unet++"))


def test_without_wide_features_there_is_no_wide_network():
    assert "unet_wide" not in [each.name for each in list_variants(FEATURES, None)]


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_the_wide_network_has_the_parameters_of_unetplusplus(dims):
    features = (4, 8, 16, 32)
    wide = match_wide_features(features, spatial_dims=dims, out_channels=3)
    options = {"spatial_dims": dims, "out_channels": 3}
    target = count_parameters(config(features, **options))
    assert abs(count_parameters(config(wide, "unet", **options)) / target - 1) <= PARAMETER_TOLERANCE
    assert count_parameters(config(features, "unet", **options)) < (1 - PARAMETER_TOLERANCE) * target
    # proportional: some factor brings every feature within one channel of its own
    low = max((mine - 1) / theirs for mine, theirs in zip(wide, features, strict=True))
    high = min((mine + 1) / theirs for mine, theirs in zip(wide, features, strict=True))
    assert high > 1
    assert low < high


@pytest.mark.slow
@pytest.mark.parametrize(
    ("features", "dims"), [((8, 16, 32), 2), ((8, 8, 8), 2), ((8, 8, 8), 3), ((4, 4, 4), 3), ((8,) * 5, 2)]
)
def test_few_channels_have_a_wide_network_near_the_proportion(features, dims):
    wide = match_wide_features(features, spatial_dims=dims)
    target = count_parameters(config(features, spatial_dims=dims))
    assert abs(count_parameters(config(wide, "unet", spatial_dims=dims)) / target - 1) <= PARAMETER_TOLERANCE
    assert all(mine >= theirs for mine, theirs in zip(wide, features, strict=True))


def test_features_too_small_to_match():
    with pytest.raises(ValueError, match=r"features must be large enough .* got \[2, 4, 4\].*leave unet_wide out"):
        match_wide_features((2, 4, 4), spatial_dims=2)


def test_variants_by_name_and_pattern(variants):
    names = variant_names(FEATURES)
    assert names == tuple(each.name for each in variants)
    assert choose_names(names, None) == names
    assert choose_names(names, ["unet++*", "unet_L1"]) == (
        "unet_L1",
        "unet++",
        "unet++_ds",
        "unet++_L2_alone",
        "unet++_L3_alone",
    )
    with pytest.raises(
        ValueError, match=r"variants must be names or patterns of unet_L1, .* unet_wide, .* got 'resnet'"
    ):
        choose_names(names, ["unet_L1", "resnet"])
