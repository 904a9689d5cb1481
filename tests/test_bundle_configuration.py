"""Values from outside in configurations: whatever text they hold, they arrive as they are and none of it is run."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_unetpp.bundles import BundleConfig
from monai_unetpp.bundles.configuration import bundle_code, list_code
from monai_unetpp.data import ImageFileError

CONTENT = {
    "imports": ["$import pathlib"],
    "bundle_root": ".",
    "input": "$@bundle_root + '/data'",
    "alias": "@input",
    "copied": "%input",
    "nested": {"value": None, "others": ["@input", {"deep": "@###value"}]},
    "checkpoint": "$str(@bundle_root) + '/models/model.pt'",
    "call": {"_target_": "$dict", "given": "@input", "also": ["@input"], "entry": "@nested#value"},
    "tuple": "$(@input, @input)",
    "unused": None,
}
#: Text that begins with or holds what MONAI's configurations give a meaning.
TEXTS = st.one_of(
    st.text(max_size=20),
    st.builds(
        lambda sigil, rest: sigil + rest,
        st.sampled_from(
            ["$", "@", "%", "#", "::", "@input", "%input", "$import ", "@bundle_root::", "@##", "%x.json#"]
        ),
        st.text(max_size=12),
    ),
    st.sampled_from(["$1/0", "$import os", "@missing", "%missing.json", "$@input", "_target_", "", "$", "@", "%", "~"]),
)
KEYS = st.one_of(TEXTS, st.sampled_from(["_target_", "_disabled_", "a#b", "a::b", "plain", "_requires_"]))
VALUES = st.recursive(
    st.one_of(TEXTS, TEXTS.map(Path), st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=6,
)
quickly = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make_config(folder: Path, content: object = CONTENT, name: str = "inference.json") -> Path:
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "configs" / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_config(tmp_path_factory.mktemp("bundle"))


@pytest.mark.slow
@quickly
@given(value=VALUES)
def test_any_value_arrives_as_it_is(folder, value):
    config = BundleConfig(folder, "inference.json")
    config["input"] = value
    config["nested#value"] = value
    for key in ("input", "alias", "copied", "nested#value"):
        assert config.parse(key) == value
        assert type(config.parse(key)) is type(value)
    assert config.parse("nested") == {"value": value, "others": [value, {"deep": value}]}
    assert config.parse("call") == {"given": value, "also": [value], "entry": value}
    assert config.parse("tuple") == (value, value)


@pytest.mark.slow
@quickly
@given(name=TEXTS.filter(lambda text: "\0" not in text and "/" not in text and text not in ("", ".", "..")))
def test_a_bundle_in_a_folder_of_any_name(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "names" / name
    try:
        make_config(root)
    except (OSError, UnicodeEncodeError):
        return  # no name that this file system takes
    config = BundleConfig(root, "inference.json")
    assert config.parse("bundle_root") == str(root)
    assert config.parse("checkpoint") == f"{root}/models/model.pt"


NAMES = TEXTS.filter(lambda text: "\0" not in text and "/" not in text and len(text.encode("utf-8", "replace")) < 60)
CASES = {
    "bundle_root": ".",
    "input": None,
    "output_dir": None,
    "cases": {"_target_": "monai_unetpp.data.find_cases", "input": "@input", "strict": False},
    "saver": {"_target_": "monai_unetpp.data.SegmentationSaveImaged", "keys": "pred", "output_dir": "@output_dir"},
}


@pytest.mark.slow
@settings(quickly, max_examples=50)
@given(folder=NAMES, name=NAMES | st.just("\udcff"), output=NAMES, listed=st.booleans())
def test_a_scan_of_any_name_is_one_case_whose_result_lies_in_the_output_folder(
    tmp_path_factory, folder, name, output, listed
):
    root = tmp_path_factory.mktemp("names")
    image = root / f"in {folder}" / f"{name}.nii.gz"
    image.parent.mkdir()
    image.write_bytes(b"x")
    config = BundleConfig(make_config(root, CASES), "inference.json")
    hidden = image.name.startswith(".")
    config["input"] = [str(image if listed or hidden else image.parent)]
    config["output_dir"] = str(root / f"out {output}")
    (case,) = config.parse("cases")
    assert case["image"] == str(image)
    assert case["case"] == (name or ".nii.gz")
    result = config.parse("saver").check_result(case["image"], case)
    assert result == root / f"out {output}" / f"{name or '.nii.gz'}_seg.nii.gz"
    assert not result.exists()


def test_entries_of_a_list_and_of_a_plain_dict_have_ids(tmp_path):
    config = BundleConfig(
        make_config(tmp_path, {**CONTENT, "first": "@input#0", "kidney": "@unused#kidney"}), "inference.json"
    )
    config["input"] = ["$a", "@b"]
    config["unused"] = {"kidney": "%c"}
    assert config.parse("first") == "$a"
    assert config.parse("kidney") == "%c"


def test_nothing_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = BundleConfig(make_config(tmp_path / "bundle"), "inference.json")
    for key in ("input", "unused"):
        config[key] = [f"$open({key!r}, 'w')", {"_target_": "pathlib.Path.touch", "self": f"$@pathlib.Path({key!r})"}]
    config.parse("call")
    config.parse("")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", r"inference\.json: must hold a JSON object, got list"),
        ('{"a": ', r"inference\.json: cannot be read as JSON"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), r"inference\.json: cannot be read as JSON"),
        ({"other": 1}, r"inference\.json: must have the key 'wanted'"),
        ({"wanted": "$1/0"}, r"'wanted' cannot be created from it \(ZeroDivisionError: .*, in '\$1/0'\)"),
        ({"wanted": "$1+"}, r"inference\.json: 'wanted' .*SyntaxError"),
        ({"wanted": "$torch.nothere"}, r"inference\.json: 'wanted' .*AttributeError.*nothere"),
        ({"wanted": "$import nothere_at_all + 1"}, r"inference\.json: 'wanted' .*SyntaxError"),
        ({"wanted": "@gone"}, r"inference\.json: 'wanted' .*`@gone` is not defined"),
        ({"wanted": "@wanted"}, r"inference\.json: 'wanted' .*circular"),
        ({"wanted": "%gone.json#x"}, r"inference\.json: 'wanted' .*FileNotFoundError.*gone\.json"),
        ({"wanted": "%gone"}, r"inference\.json: 'wanted' .*gone"),
        ({"wanted": "@##########x"}, r"inference\.json: 'wanted' .*out of the range"),
        ({"wanted": {"_target_": "no.such.thing"}}, r"inference\.json: 'wanted' .*no\.such\.thing"),
        ({"wanted": {"_target_": "builtins.int", "x": 1}}, r"inference\.json: 'wanted' .*TypeError"),
        ({"wanted": "$exit(3)"}, r"inference\.json: 'wanted' .*SystemExit: 3"),
        (
            {"wanted": {"_target_": "monai_unetpp.NestedUNet", "spatial_dims": 7, "in_channels": 1, "out_channels": 1}},
            r"inference\.json: spatial_dims must",
        ),
        (
            {
                "wanted": {
                    "_target_": "monai_unetpp.NestedUNet",
                    "spatial_dims": 2,
                    "in_channels": 1,
                    "out_channels": 1,
                    "features": [None, 4],
                }
            },
            r"inference\.json: every entry of features must",
        ),
    ],
)
def test_what_is_wrong_names_the_file(tmp_path, content, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        BundleConfig(make_config(tmp_path, content), "inference.json").parse("wanted")
    assert "\n" not in str(caught.value)


def test_imports_of_another_thread_are_no_fault_of_the_configuration(tmp_path, monkeypatch):
    config, found = BundleConfig(make_config(tmp_path), "inference.json"), []
    look_up = config._parser.get_parsed_content

    def interrupted(key):
        found.append(key)
        if len(found) < 3:
            raise RuntimeError("dictionary changed size during iteration")
        return look_up(key)

    monkeypatch.setattr(config._parser, "get_parsed_content", interrupted)
    assert config.parse("bundle_root") == str(tmp_path)
    assert len(found) == 3


def test_what_goes_wrong_while_it_runs_is_not_the_files_fault(tmp_path):
    failing = {"run": ["$(_ for _ in ()).throw(RuntimeError('the loss became nan'))"]}
    with pytest.raises(RuntimeError, match=r"^the loss became nan$"):
        BundleConfig(make_config(tmp_path, failing), "inference.json").run()
    with pytest.raises(ValueError, match=r"inference\.json: 'run' cannot be created from it \(ZeroDivisionError"):
        BundleConfig(make_config(tmp_path, {"run": ["$1/0"]}), "inference.json").run()


@pytest.mark.parametrize("key", ["cases", "run"])
def test_a_case_that_cannot_be_prepared_is_told_by_its_file(tmp_path, key):
    load = {"_target_": "LoadImaged", "keys": "image", "reader": {"_target_": "monai_unetpp.data.VolumeReader"}}
    transform = {"_target_": "Compose", "transforms": [load]}
    cases = {"_target_": "CacheDataset", "data": [{"image": "gone.png"}], "transform": transform, "progress": False}
    make_config(tmp_path, {"cases": cases, "run": "$@cases"})
    config = BundleConfig(tmp_path, "inference.json")
    with pytest.raises(ImageFileError, match=r"^gone\.png: no such file\. Check the path\.$"):
        config.run() if key == "run" else config.parse(key)


@pytest.mark.parametrize("error", ["MemoryError()", "RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')"])
def test_memory_that_runs_out_is_told_as_such(error, tmp_path):
    make_config(tmp_path, {"wanted": f"$(_ for _ in ()).throw({error})"})
    with pytest.raises(MemoryError, match=r"inference\.json: memory ran out for 'wanted' \(.*\)\. Close"):
        BundleConfig(tmp_path, "inference.json").parse("wanted")


def test_a_value_from_outside_is_not_the_files_fault(tmp_path):
    network = {"_target_": "monai_unetpp.NestedUNet", "spatial_dims": "@dims", "in_channels": 1, "out_channels": 1}
    config = BundleConfig(
        make_config(tmp_path, {"spatial_dims": 2, "dims": "@spatial_dims", "net": network}), "inference.json"
    )
    config["spatial_dims"] = 7
    with pytest.raises(ValueError, match=r"^spatial_dims must"):
        config.parse("net")


def test_later_files_go_first_and_all_are_named(tmp_path):
    make_config(tmp_path, {"a": 1, "b": 1}, "train.json")
    make_config(tmp_path, {"b": 2, "c": "$1/0"}, "prune.json")
    config = BundleConfig(tmp_path, "train.json", "prune.json")
    assert (config.parse("a"), config.parse("b")) == (1, 2)
    with pytest.raises(ValueError, match=r"train\.json and .*prune\.json: 'c' cannot"):
        config.parse("c")


def test_code_is_listed_with_its_place():
    content = {
        "imports": ["$import os"],
        "plain": "costs 5 $",
        "reference": "@plain",
        "other": "%train.json#network_def",
        "macro": "%plain",
        "network": {"_target_": "monai_unetpp.NestedUNet", "features": [1, "$2 + 2"]},
        "saver": {"_target_": "os.system", "command": "ls"},
        "bare": {"_target_": "Compose"},
        "run": ["$@network"],
    }
    assert list(list_code(content)) == [
        ("imports#0", "$import os"),
        ("other", "%train.json#network_def"),
        ("network#features#1", "$2 + 2"),
        ("saver#_target_", "os.system"),
        ("run#0", "$@network"),
    ]


@pytest.mark.parametrize(
    "target",
    [
        "builtins.exec",
        "open",
        "torch.os.system",
        "torch.hub.load",
        "torch.load",
        "torch.jit.load",
        "torch.nothing_like_it",
        "monai.utils.module.locate",
        "monai.bundle.load",
        "monai.utils.run_cmd",
        "monai.utils.optional_import",
        "monai.transforms.utils.optional_import",
        "monai.data.utils.pickle.loads",
        "torch.ops.load_library",
        "torch.classes.some.thing",
        "torch.multiprocessing.spawn",
        "torch.distributed.run.main",
        "torch.utils.collect_env.run",
        "monai_unetpp.bundles.load_network",
        "download_and_extract",
        "monai_unetpp.files.os.remove",
        "@name",
        "%name",
    ],
)
def test_targets_that_lead_to_other_code_are_listed(target):
    assert list(list_code({"a": [{"_target_": target}]})) == [("a#0#_target_", target)]


@pytest.mark.parametrize(
    "target", ["LoadImaged", "NestedUNet", "torch.optim.AdamW", "torch.zeros", "torch.nn.functional.relu"]
)
def test_targets_of_known_packages_are_not_listed(target):
    assert list(list_code({"_target_": target})) == []


def test_the_code_of_a_bundle_is_listed_once(tmp_path):
    make_config(tmp_path, {"imports": ["$import os"]}, "train.json")
    make_config(tmp_path, {"imports": ["$import os"], "run": ["$os.getcwd()"]}, "inference.json")
    make_config(tmp_path, "[broken", "prune.json")
    assert bundle_code(tmp_path) == {
        "$import os": ["inference.json imports#0", "train.json imports#0"],
        "$os.getcwd()": ["inference.json run#0"],
    }
