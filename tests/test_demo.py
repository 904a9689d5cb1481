"""The demonstration on the MNI ICBM152 template that comes with nilearn."""

import dataclasses
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import monai_unetpp.demo
from monai_unetpp import NestedUNet
from monai_unetpp.bundles import find_bundle
from monai_unetpp.cli import main
from monai_unetpp.demo import DemoPart, DemoResult, demo
from monai_unetpp.template import crop_box, load_template

README = Path(__file__).resolve().parents[1] / "README.md"


#: Levels of whole brains that are run here, by number of classes: all of them take a minute.
LEVELS = {31: slice(1, 2), 4: slice(1)}


class Network:
    """A network without the others."""

    def __init__(self, network):
        self.levels = network.levels[LEVELS.get(network.config["out_channels"], slice(None))]
        self.prune = network.prune

    @classmethod
    def from_checkpoint(cls, path):
        return cls(NestedUNet.from_checkpoint(path))


@pytest.fixture(scope="module")
def lines():
    """What the command below told while it worked."""
    return []


@pytest.fixture(scope="module")
def result(tmp_path_factory, lines):
    """The result of the README's command, as it stands there, but for the deeper levels of whole brains."""
    pytest.importorskip("nilearn")
    pytest.importorskip("matplotlib")
    block = re.search(r"<!-- demo command -->\n```bash\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    results = []

    def keep(*arguments, progress, **options):
        def tell(line):
            lines.append(line)
            progress(line)

        results.append(demo(*arguments, progress=tell, **options))
        return results[-1]

    folder = tmp_path_factory.mktemp("of a user")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(monai_unetpp.demo, "demo", keep)
        patch.setattr(import_module("monai_unetpp.demo.demo"), "NestedUNet", Network)
        assert main(shlex.split(block[1].split("&&")[-1])[1:]) == 0
    for part in ("brain", "hippocampus"):
        assert (folder / "demo" / part / f"{part}_levels.png").is_file()
    [result] = results
    # absolute, as tests run elsewhere
    parts = [
        dataclasses.replace(
            part,
            image=str(folder / part.image),
            picture=str(folder / part.picture),
            levels=tuple(
                dataclasses.replace(each, case=dataclasses.replace(each.case, output=str(folder / each.case.output)))
                for each in part.levels
            ),
        )
        for part in result.parts
    ]
    return DemoResult(tuple(parts))


@pytest.fixture(scope="module")
def structures(result):
    return result.parts[0]


@pytest.fixture(scope="module")
def brain(result):
    return result.parts[1]


@pytest.fixture(scope="module")
def hippocampus(result):
    return result.parts[2]


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


def centroid_mm(path):
    image = nib.load(path)
    index = np.argwhere(np.asarray(image.dataobj) > 0).mean(axis=0)
    return image.affine[:3, :3] @ index + image.affine[:3, 3]


@pytest.mark.slow
def test_all_parts_at_every_level(result, structures, brain, hippocampus, lines):
    assert isinstance(result, DemoResult)
    assert all(isinstance(part, DemoPart) for part in result.parts)
    assert [(part.name, part.bundle) for part in result.parts] == [
        ("structures", "head_mri_unetpp"),
        ("brain", "brain_tissue_mri_unetpp"),
        ("hippocampus", "hippocampus_mri_unetpp"),
    ]
    assert [each.level for each in structures.levels] == ["L2"]
    assert [each.level for each in brain.levels] == ["L1"]
    assert [each.level for each in hippocampus.levels] == ["L1", "L2", "L3"]
    assert len(lines) == 6
    assert lines[0] == "Segmenting the MNI ICBM152 T1 template, which comes with nilearn ..."
    assert lines[1] == "structures: level L2 of 1 level ..."
    assert lines[2] == "brain: level L1 of 1 level ..."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "shape", "labels"), [(0, (197, 233, 189), 31), (1, (197, 233, 189), 4), (2, (36, 50, 36), 3)]
)
def test_the_files(result, part, shape, labels):
    image = nib.load(result.parts[part].image)
    for each in result.parts[part].levels:
        segmentation = nib.load(each.case.output)
        assert segmentation.shape == image.shape == shape
        assert np.array_equal(segmentation.affine, image.affine)
        assert set(np.unique(segmentation.dataobj)) <= set(range(labels))
    assert set(np.unique(segmentation.dataobj)) == set(range(labels))


@pytest.mark.slow
def test_tissues_agree_with_the_maps_of_the_template(brain):
    """Recomputed here with numpy. The maps were made by other means: they and any segmentation differ at borders."""
    tissues = load_template()[1]
    for each in brain.levels:
        labels = voxels(each.case.output)
        assert list(each.dice) == ["grey matter", "white matter"]
        for value, name in ((2, "grey matter"), (3, "white matter")):
            both = np.logical_and(labels == value, tissues == value).sum()
            expected = 2 * both / ((labels == value).sum() + (tissues == value).sum())
            assert each.dice[name] == pytest.approx(expected, abs=1e-5)
            assert each.dice[name] > 0.75


@pytest.mark.slow
def test_ventricles_lie_in_the_middle_of_the_brain(brain):
    deepest = brain.levels[-1].case
    image = nib.load(deepest.output)
    fluid = np.argwhere(np.asarray(image.dataobj) == 1)
    centre = image.affine[:3, :3] @ fluid.mean(axis=0) + image.affine[:3, 3]
    assert np.linalg.norm(centre - (0, -15, 8)) < 15
    assert 5 < deepest.volumes_ml["CSF"] < 60


@pytest.mark.slow
def test_left_is_left_and_structures_lie_where_atlases_of_the_template_have_them(structures):
    image = nib.load(structures.levels[-1].case.output)
    labels = np.asarray(image.dataobj)
    for values, place_mm in (
        ((13, 27), (26, -22, -14)),
        ((6, 23), (12, -19, 7)),
        ((8, 25), (25, 3, 0)),
        ((7, 24), (13, 10, 10)),
        ((9, 26), (20, -4, -1)),
        ((14, 28), (23, -4, -20)),
    ):
        for value, side in zip(values, (-1, 1), strict=True):
            centre = image.affine[:3, :3] @ np.argwhere(labels == value).mean(axis=0) + image.affine[:3, 3]
            assert np.linalg.norm(centre - (side * place_mm[0], *place_mm[1:])) < 5, value


@pytest.mark.slow
def test_the_left_hippocampus_is_found_where_it_lies(hippocampus):
    """Where atlases of MNI152 space have it, and of a size that hippocampi have in templates: 2 to 6 ml."""
    deepest = hippocampus.levels[-1]
    assert np.linalg.norm(centroid_mm(deepest.case.output) - (-25, -22, -15)) < 5
    assert 2 < deepest.total_ml < 6
    anterior, posterior = (np.argwhere(voxels(deepest.case.output) == value).mean(axis=0) for value in (1, 2))
    assert anterior[1] > posterior[1] + 8, "axis 1 runs to anterior"


@pytest.mark.slow
def test_all_levels_find_the_hippocampus(hippocampus):
    deepest = hippocampus.levels[-1]
    for each in hippocampus.levels:
        assert np.linalg.norm(centroid_mm(each.case.output) - centroid_mm(deepest.case.output)) < 3
        assert each.total_ml == pytest.approx(sum(each.case.volumes_ml[name] for name in each.labels))
        assert each.total_ml == pytest.approx(deepest.total_ml, rel=0.3)
        assert each.dice == {}


@pytest.mark.slow
def test_parameters_are_those_of_the_pruned_networks(result):
    for part in result.parts:
        for each in part.levels:
            checkpoint = find_bundle(part.bundle) / "models" / "model.pt"
            pruned = NestedUNet.from_checkpoint(checkpoint, level=each.level)
            assert each.parameters == sum(p.numel() for p in pruned.parameters())


@pytest.mark.slow
def test_times_leave_out_what_is_done_once(result):
    for part in result.parts:
        for each in part.levels:
            once = each.case.stages.get("preparation", 0.0)
            assert each.seconds == pytest.approx(sum(each.case.stages.values()) - once)
            assert 0 < each.network_s < each.seconds


@pytest.mark.slow
def test_the_picture_of_the_hippocampus(hippocampus):
    image = pytest.importorskip("matplotlib.image")
    pixels = image.imread(hippocampus.picture)
    assert pixels.shape[1] == 1500
    assert 1000 < pixels.shape[0] < 1600
    for colour in ("#e69f00", "#56b4e9"):
        wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        near = np.abs(pixels[..., :3] - wanted).max(axis=-1) < 0.02
        columns = np.flatnonzero(near[:-60].any(axis=0))
        # the first column of panels shows the image alone
        assert columns.min() > 400, colour
        assert all(((columns > start) & (columns < start + 380)).any() for start in (400, 760, 1120)), colour


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "end", "width", "starts"),
    [("structures", -120, 300, (100, 900)), ("brain", -60, 200, range(120, 1213, 364))],
)
def test_pictures_have_colours_in_every_column_but_the_first(request, part, end, width, starts):
    """The image alone is grey; the other columns show levels and maps."""
    image = pytest.importorskip("matplotlib.image")
    pixels = image.imread(request.getfixturevalue(part).picture)[100:end, :, :3]
    assert pixels.shape[1] == 1500
    coloured = np.ptp(pixels, axis=-1) > 0.2
    shares = [coloured[:, start : start + width].mean() for start in starts]
    assert shares[0] == 0
    assert min(shares[1:]) > 0.1


@pytest.mark.parametrize("parts", [["heart"], []])
def test_unknown_parts(tmp_path, parts):
    with pytest.raises(ValueError, match=r"parts must be of structures, brain, hippocampus, got ('heart'|none)"):
        demo(tmp_path / "out", parts=parts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 0.5)])
def test_a_crop_keeps_every_voxel_where_it_was_in_the_world(spacing):
    shape = (40, 44, 48)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-20, -31.5, 7)
    values = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    image = nib.Nifti1Image(values, affine)
    centre = affine[:3, :3] @ (20, 20, 24) + affine[:3, 3]
    crop = crop_box(image, tuple(centre), (12, 16, 10))
    assert np.allclose(np.array(crop.shape) * spacing, (12, 16, 10))
    inside = np.asarray(crop.dataobj)
    for index in ((0, 0, 0), (3, 5, 2), tuple(n - 1 for n in crop.shape)):
        world = crop.affine @ (*index, 1)
        original = np.round(np.linalg.inv(affine) @ world)[:3].astype(int)
        assert inside[index] == values[tuple(original)]
    middle = crop.affine[:3, :3] @ ((np.array(crop.shape) - 1) / 2) + crop.affine[:3, 3]
    assert np.all(np.abs(middle - centre) <= np.array(spacing) / 2 + 1e-9)


def test_a_crop_outside_of_the_image():
    image = nib.Nifti1Image(np.zeros((20, 20, 20), np.uint8), np.eye(4))
    for centre in ((2, 10, 10), (10, 10, 18)):
        with pytest.raises(ValueError, match=r"the box around .* must lie in the image, of \(20, 20, 20\)"):
            crop_box(image, centre, (10, 10, 10))


@pytest.mark.parametrize("affine", [np.diag([-1.0, 1, 1, 1]), np.eye(4)[[1, 0, 2, 3]]])
def test_a_crop_of_an_image_with_other_axes(affine):
    image = nib.Nifti1Image(np.zeros((20, 20, 20), np.uint8), affine)
    with pytest.raises(ValueError, match=r"image must have axes exactly along R, A and S, got"):
        crop_box(image, (10, 10, 10), (4, 4, 4))


@pytest.mark.parametrize("module", ["nilearn.datasets", "matplotlib.figure"])
def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'{module}.*pip install .*\[demo\]"'):
        demo(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_device_that_is_not_here(tmp_path):
    pytest.importorskip("nilearn")
    with pytest.raises(ValueError, match=r"device 'cuda' was asked for"):
        demo(tmp_path / "out", device="cuda")
    assert not (tmp_path / "out").exists()
