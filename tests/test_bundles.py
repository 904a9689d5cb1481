"""Finding, loading and checking bundles."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from json_edits import edit_json
from tiny_bundle import NETWORK, make_tiny_bundle

from monai_unetpp import NestedUNet, bundles
from monai_unetpp.bundles import (
    check_bundle,
    checking,
    find_bundle,
    finding,
    label_names,
    list_bundles,
    load_network,
    read_metadata,
    read_network_def,
    read_network_names,
    weights_entry,
)
from monai_unetpp.data.datasets.network_names import NetworkNames

Edit = Callable[[dict[str, Any]], Any]

ALL = ["bundle_root", "device", "dataset_dir", "output_dir"]
ZOO_KEYS = {
    "inference.json": [*ALL, "network_def", "inferer", "dataset", "evaluator"],
    "train.json": [
        *ALL,
        *("train#trainer", "train#trainer#max_epochs", "train#dataset", "train#dataset#data", "train#handlers"),
        *("train#inferer", "validate#evaluator", "validate#handlers", "validate#dataset", "validate#dataset#data"),
        "val_interval",
    ],
}


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    return make_tiny_bundle(tmp_path / "tiny_unetpp")


class TestFindBundle:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        monkeypatch.delenv(bundles.BUNDLES_VARIABLE, raising=False)

    def test_path(self, tiny_bundle: Path) -> None:
        assert find_bundle(tiny_bundle) == tiny_bundle.resolve()
        assert find_bundle("../tiny_unetpp") == tiny_bundle.resolve()

    def test_name_in_folder_of_the_variable(self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(bundles.BUNDLES_VARIABLE, str(tiny_bundle.parent))
        assert find_bundle("tiny_unetpp") == tiny_bundle.resolve()
        assert list_bundles()["tiny_unetpp"] == tiny_bundle.resolve()
        monkeypatch.setenv("HOME", str(tiny_bundle.parent.parent))
        monkeypatch.setenv("USERPROFILE", str(tiny_bundle.parent.parent))
        monkeypatch.setenv(bundles.BUNDLES_VARIABLE, f"~/{tiny_bundle.parent.name}")
        assert find_bundle("tiny_unetpp") == tiny_bundle.resolve()

    def test_variable_goes_before_working_directory(self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        here = Path("bundles/tiny_unetpp/configs/metadata.json")
        here.parent.mkdir(parents=True)
        here.write_text("{}", encoding="utf-8")
        assert find_bundle("tiny_unetpp") == here.parent.parent.resolve()
        monkeypatch.setenv(bundles.BUNDLES_VARIABLE, str(tiny_bundle.parent))
        assert find_bundle("tiny_unetpp") == tiny_bundle.resolve()

    def test_beside_the_source(self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tiny_bundle.parent / "bundles"
        folder.mkdir()
        tiny_bundle.rename(folder / "renamed")
        monkeypatch.setattr(finding, "__file__", str(tiny_bundle.parent / "monai_unetpp" / "bundles" / "finding.py"))
        assert find_bundle("renamed") == (folder / "renamed").resolve()

    def test_installed_data(self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tiny_bundle.parent / "share" / "monai-unetpp" / "bundles"
        folder.mkdir(parents=True)
        tiny_bundle.rename(folder / "installed")
        with monkeypatch.context() as installed:
            installed.setattr(finding.sysconfig, "get_path", lambda name, scheme=None: str(tiny_bundle.parent))
            assert find_bundle("installed") == (folder / "installed").resolve()
        # pip install --user
        with monkeypatch.context() as installed:
            installed.setitem(finding.sysconfig.get_config_vars(), "userbase", str(tiny_bundle.parent))
            assert find_bundle("installed") == (folder / "installed").resolve()
        # pip install --target
        monkeypatch.setattr(finding, "__file__", str(tiny_bundle.parent / "monai_unetpp" / "bundles" / "finding.py"))
        assert find_bundle("installed") == (folder / "installed").resolve()

    def test_unknown_name_lists_what_there_is(self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(bundles.BUNDLES_VARIABLE, str(tiny_bundle.parent))
        with pytest.raises(FileNotFoundError, match=r"got 'nothing'\. Looked in .*work.bundles.*found .*tiny_unetpp"):
            find_bundle("nothing")

    def test_folder_that_is_no_bundle(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="not the folder of a bundle"):
            find_bundle(tmp_path / "work")

    def test_a_folder_named_like_the_beginning_of_a_bundle(
        self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(bundles.BUNDLES_VARIABLE, str(tiny_bundle.parent))
        Path("tiny_u").mkdir()
        with pytest.raises(FileNotFoundError, match=r"For tiny_unetpp, give the whole name\."):
            find_bundle("tiny_u")


class TestLoadNetwork:
    def test_whole_network_in_eval_mode(self, tiny_bundle: Path) -> None:
        network = load_network(tiny_bundle / "models" / "model.pt", device=torch.device("cpu"))
        assert not network.training
        assert network.levels == ("L1", "L2")

    def test_level_is_that_of_the_whole(self, tiny_bundle: Path) -> None:
        path = tiny_bundle / "models" / "model.pt"
        image = torch.rand(1, 1, 16, 16, 16)
        with torch.no_grad():
            expected = load_network(path).forward_levels(image, ["L1"])["L1"]
            assert torch.equal(load_network(path, level="L1")(image), expected)

    @pytest.mark.parametrize("kind", ["network", "arguments"])
    def test_file_without_configuration(self, tiny_bundle: Path, tmp_path: Path, kind: str) -> None:
        network = load_network(tiny_bundle / "models" / "model.pt")
        torch.save(dict(network.state_dict()), tmp_path / "bare.pt")
        with pytest.raises(
            ValueError, match=r"bare\.pt: this file does not say how its network was built.*network_def"
        ):
            load_network(tmp_path / "bare.pt")
        defined = network if kind == "network" else {"_target_": "monai_unetpp.NestedUNet", **network.config}
        loaded = load_network(tmp_path / "bare.pt", network_def=defined)
        assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in network.state_dict().items())

    def test_stored_configuration_wins_with_a_warning(
        self, tiny_bundle: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = NestedUNet(3, 1, 3, features=(4, 8))
        with caplog.at_level(logging.WARNING, logger="monai_unetpp.bundles"):
            loaded = load_network(tiny_bundle / "models" / "model.pt", network_def=other)
        assert loaded.levels == ("L1", "L2")
        assert "network_def differs in features" in caplog.text

    def test_no_warning_where_only_the_writing_differs(
        self, tiny_bundle: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        same = {**NETWORK, "features": (4, 8, 8), "strides": [2, [2, 2, 2]]}
        with caplog.at_level(logging.WARNING, logger="monai_unetpp.bundles"):
            load_network(tiny_bundle / "models" / "model.pt", network_def=same)
        assert not caplog.text

    def test_unknown_level_names_the_file(self, tiny_bundle: Path) -> None:
        with pytest.raises(ValueError, match=r"model\.pt: level must be one of L1, L2, got 'L7'"):
            load_network(tiny_bundle / "models" / "model.pt", level="L7")


class TestRead:
    def test_metadata_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"metadata\.json: no such file"):
            read_metadata(tmp_path)

    def test_metadata_that_is_no_object(self, tiny_bundle: Path) -> None:
        (tiny_bundle / "configs" / "metadata.json").write_text("[]", encoding="utf-8")
        with pytest.raises(ValueError, match=r"metadata\.json: must hold a JSON object, got list"):
            read_metadata(tiny_bundle)

    @pytest.mark.parametrize("labels", [["one", "two"], {"10": "one", "twenty": "two"}])
    def test_values_of_labels_that_are_no_numbers(self, tiny_bundle: Path, labels: Any) -> None:
        edit_json(tiny_bundle / "configs" / "metadata.json", labels={"10": "one", "20": "two"})
        assert label_names(tiny_bundle) == {10: "one", 20: "two"}
        edit_json(tiny_bundle / "configs" / "metadata.json", labels=labels)
        with pytest.raises(ValueError, match=r"metadata\.json: labels must map values to names"):
            label_names(tiny_bundle)

    def test_names_of_labels_and_channels_for_a_comparison(self, tiny_bundle: Path, tmp_path: Path) -> None:
        def edit(content: dict[str, Any]) -> None:
            form = content["network_data_format"]
            form["inputs"]["image"]["channel_def"] = {"1": "T2", "0": "T1"}
            form["outputs"]["pred"]["channel_def"] = {"0": "background", "1": "one", "2": "two"}

        path = tiny_bundle / "configs" / "metadata.json"
        edit_json(path, edit)
        # values 7 and 8 are one class, 9 is background, and 200 is ignored
        names = read_network_names(tiny_bundle, [10, 7, 8, 9, 200], [1, 2, 2, 0, 3])
        assert names == NetworkNames(str(path), {"one": [10], "two": [7, 8]}, ["T1", "T2"])
        edit_json(path, network_data_format={"inputs": [], "outputs": {"pred": {"channel_def": {"1": "one"}}}})
        assert read_network_names(tiny_bundle, [10], [1]) == NetworkNames(str(path), {}, [])
        assert read_network_names(tmp_path / "none", [10], [1]).labels == {}

    def test_network_def_with_references(self, tiny_bundle: Path) -> None:
        assert read_network_def(tiny_bundle) == NETWORK

    def test_network_def_missing(self, tiny_bundle: Path) -> None:
        edit_json(tiny_bundle / "configs" / "inference.json", lambda content: content.pop("network_def"))
        with pytest.raises(ValueError, match=r"inference\.json: network_def cannot be resolved"):
            read_network_def(tiny_bundle)


class TestCheckBundle:
    def test_good_bundle_has_no_problems(self, tiny_bundle: Path) -> None:
        assert check_bundle(tiny_bundle) == []

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="none: no such folder"):
            check_bundle(tmp_path / "none")

    @pytest.mark.parametrize("name", checking._FILES)
    def test_missing_and_empty_files(self, tiny_bundle: Path, name: str) -> None:
        (tiny_bundle / name).write_text("", encoding="utf-8")
        assert f"{name}: empty." in check_bundle(tiny_bundle)
        (tiny_bundle / name).unlink()
        assert f"{name}: missing." in check_bundle(tiny_bundle)

    def test_train_configuration_is_optional(self, tiny_bundle: Path) -> None:
        (tiny_bundle / "configs" / "train.json").unlink()
        assert check_bundle(tiny_bundle) == []

    def test_large_file(self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        size = (tiny_bundle / "models" / "model.pt").stat().st_size
        monkeypatch.setattr(checking, "_MAX_FILE_BYTES", size)
        assert check_bundle(tiny_bundle) == []
        monkeypatch.setattr(checking, "_MAX_FILE_BYTES", size - 1)
        [problem] = check_bundle(tiny_bundle)
        assert problem.startswith("models/model.pt: must be at most")

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("configs/extra.yaml", "a: 1\n", "configurations must be JSON"),
            ("configs/train.json", "{", "cannot be read as JSON"),
            ("configs/logging.conf", "no sections", "not a logging configuration"),
            ("configs/logging.conf", "[loggers]\n[handlers]\n", "must have a section [formatters]."),
            ("models/model.pt", "no weights", "not a file of weights that can be read safely"),
        ],
    )
    def test_files_of_another_kind(self, tiny_bundle: Path, name: str, text: str, message: str) -> None:
        (tiny_bundle / name).write_text(text, encoding="utf-8")
        [problem] = check_bundle(tiny_bundle)
        assert problem.startswith(f"{name}: {message}")

    @pytest.mark.parametrize(
        ("stored", "message"),
        [
            (lambda network: network, "not a file of weights that can be read safely"),
            (lambda network: dict(network.state_dict()), "does not say how its network was built"),
            (
                lambda network: {
                    "state_dict": dict(network.state_dict()),
                    "config": {**network.config, "out_channels": 7},
                },
                "the weights do not fit",
            ),
            (
                lambda network: {"heads.L1.weight": "text", "nodes.x_0_0.a": torch.zeros(1)},
                "the weights must be tensors, got str for 'heads.L1.weight'",
            ),
        ],
        ids=["whole network", "no configuration", "another configuration", "no tensors"],
    )
    def test_weights_of_another_kind(self, tiny_bundle: Path, stored: Callable[..., Any], message: str) -> None:
        path = tiny_bundle / "models" / "model.pt"
        torch.save(stored(load_network(path)), path)
        [problem] = check_bundle(tiny_bundle)
        assert problem.startswith(f"models/model.pt: {message}")

    @pytest.mark.parametrize("key", checking._METADATA_KEYS)
    def test_metadata_keys(self, tiny_bundle: Path, key: str) -> None:
        edit_json(tiny_bundle / "configs" / "metadata.json", lambda content: content.pop(key))
        assert f"configs/metadata.json: must have the key {key!r}." in check_bundle(tiny_bundle)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m: m.update(version="1.2", changelog={"1.2": ""}), "version must have the form 1.2.3, got '1.2'."),
            (lambda m: m.update(version="1.2.4"), "changelog must have an entry for version '1.2.4'."),
            (lambda m: m.update(changelog="none"), "changelog must have an entry for version '1.2.3'."),
            (
                lambda m: m["network_data_format"]["inputs"].pop("image"),
                "must have the key 'network_data_format#inputs#image#num_channels', which verify_net_in_out reads.",
            ),
            (
                lambda m: m["network_data_format"]["outputs"]["pred"].update(num_channels=2),
                "network_data_format#outputs#pred#num_channels must be 3, the out_channels of the network, got 2.",
            ),
        ],
    )
    def test_metadata_values(self, tiny_bundle: Path, change: Edit, message: str) -> None:
        edit_json(tiny_bundle / "configs" / "metadata.json", change)
        assert check_bundle(tiny_bundle) == [f"configs/metadata.json: {message}"]

    def test_schema(self, tiny_bundle: Path, tmp_path: Path) -> None:
        schema = tmp_path / "schema.json"
        schema.write_text(
            json.dumps({"type": "object", "required": ["task"], "properties": {"task": {"type": "string"}}}),
            encoding="utf-8",
        )
        assert check_bundle(tiny_bundle, schema=schema) == []
        edit_json(tiny_bundle / "configs" / "metadata.json", task=3)
        assert check_bundle(tiny_bundle, schema=schema) == [
            "configs/metadata.json: task: 3 is not of type 'string' (by schema.json)."
        ]

    def test_schema_that_cannot_be_used(self, tiny_bundle: Path, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"none\.json: no such file\. schema must name"):
            check_bundle(tiny_bundle, schema=tmp_path / "none.json")
        (tmp_path / "schema.json").write_text('{"type": 3}', encoding="utf-8")
        with pytest.raises(ValueError, match=r"schema\.json: not a JSON schema"):
            check_bundle(tiny_bundle, schema=tmp_path / "schema.json")

    @pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in ZOO_KEYS.items() for key in keys])
    def test_zoo_keys(self, tiny_bundle: Path, name: str, key: str) -> None:
        def remove(content: dict[str, Any]) -> None:
            *path, last = key.split("#")
            for step in path:
                content = content[step]
            del content[last]

        edit_json(tiny_bundle / "configs" / name, remove)
        assert f"configs/{name}: must have the key {key!r}." in check_bundle(tiny_bundle)

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            (
                "inference.json",
                lambda c: c["evaluator"].update(val_handlers=[]),
                "evaluator#val_handlers must be '@handlers', got [].",
            ),
            (
                "inference.json",
                lambda c: c.pop("handlers"),
                "must have the key 'handlers', which evaluator#val_handlers refers to.",
            ),
            (
                "train.json",
                lambda c: c["validate"]["dataset"].update(transform="@train#preprocessing"),
                "validate#dataset#transform must be '@validate#preprocessing', got '@train#preprocessing'.",
            ),
            (
                "train.json",
                lambda c: c["train"]["handlers"][0].update(interval=2),
                "interval of ValidationHandler must be '@val_interval', got 2.",
            ),
        ],
    )
    def test_properties_are_used_by_their_name(self, tiny_bundle: Path, name: str, change: Edit, message: str) -> None:
        edit_json(tiny_bundle / "configs" / name, change)
        assert check_bundle(tiny_bundle) == [f"configs/{name}: {message}"]

    def test_properties_in_expressions_and_new_separators_are_fine(self, tiny_bundle: Path) -> None:
        configs = tiny_bundle / "configs"
        edit_json(configs / "inference.json", lambda c: c["evaluator"].update(val_handlers="$@handlers[:1]"))
        edit_json(configs / "train.json", lambda c: c["train"]["trainer"].update(train_handlers="@train::handlers"))
        assert check_bundle(tiny_bundle) == []

    @pytest.mark.parametrize("target", ["Nonexistent", "monai_unetpp.Nonexistent"])
    def test_targets(self, tiny_bundle: Path, target: str) -> None:
        edit_json(tiny_bundle / "configs" / "evaluate.json", extra=[{"deep": {"_target_": target}}])
        message = f"_target_ {target!r} names nothing that is installed."
        assert check_bundle(tiny_bundle) == [f"configs/evaluate.json: {message}"]

    def test_target_that_is_an_expression_is_not_evaluated(self, tiny_bundle: Path) -> None:
        edit_json(tiny_bundle / "configs" / "evaluate.json", extra={"_target_": "$1 / 0"})
        assert check_bundle(tiny_bundle) == []

    @pytest.mark.parametrize("target", ["own_module.Thing", "own_module.Nonexistent", "builtins.dict", "dict"])
    def test_modules_of_other_packages_are_not_run(
        self, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
    ) -> None:
        (tmp_path / "own_module.py").write_text("raise RuntimeError('was run')", encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        edit_json(tiny_bundle / "configs" / "evaluate.json", extra={"_target_": target})
        assert check_bundle(tiny_bundle) == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda c: c["network_def"].update(features=[4, 8, 16]),
                "network_def must be that of models/model.pt, but differs in features.",
            ),
            (
                lambda c: c["network_def"].update(features="@nowhere"),
                "network_def cannot be resolved",
            ),
            (
                lambda c: c["network_def"].update(_target_="UNet"),
                "network_def must have '_target_': 'monai_unetpp.NestedUNet', got",
            ),
            (lambda c: c["network_def"].update(depth=3), "network_def: NestedUNet has no argument 'depth'."),
        ],
    )
    def test_network_def(self, tiny_bundle: Path, change: Edit, message: str) -> None:
        edit_json(tiny_bundle / "configs" / "train.json", change)
        [problem] = check_bundle(tiny_bundle)
        assert problem.startswith(f"configs/train.json: {message}")

    def test_weights_that_are_not_finite(self, tiny_bundle: Path) -> None:
        weights = torch.load(tiny_bundle / "models" / "model.pt", weights_only=True)
        key = next(key for key in weights if key.endswith("weight"))
        weights[key].view(-1)[0] = float("nan")
        torch.save(weights, tiny_bundle / "models" / "model.pt")
        [problem] = check_bundle(tiny_bundle)
        assert problem.startswith(f"models/model.pt: the weights must be finite, got NaN or infinity in {key}")

    @pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
    def test_a_flipped_bit_in_the_weights(self, tiny_bundle: Path, at: float) -> None:
        path = tiny_bundle / "models" / "model.pt"
        content = bytearray(path.read_bytes())
        content[int(at * len(content))] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.pt: .*damaged.*Copy"):
            load_network(path)
        assert any(problem.startswith("models/model.pt: ") for problem in check_bundle(tiny_bundle))

    def test_the_hash_of_the_weights(self, tiny_bundle: Path) -> None:
        entry = weights_entry(tiny_bundle)
        content = (tiny_bundle / "models" / "model.pt").read_bytes()
        assert entry == {"sha256": {"models/model.pt": hashlib.sha256(content).hexdigest()}}
        edit_json(tiny_bundle / "configs" / "metadata.json", **entry)
        assert check_bundle(tiny_bundle) == []
        edit_json(tiny_bundle / "configs" / "metadata.json", sha256={"models/model.pt": "0" * 64})
        assert "models/model.pt: not the file that configs/metadata.json describes" in check_bundle(tiny_bundle)[0]

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("abc", r"sha256 must map files of the bundle to their SHA-256, got 'abc'"),
            ({"models/model.pt": 5}, r"sha256 must map files"),
            ({"../secret": "0"}, r"sha256 must name files of the bundle, got '\.\./secret'"),
            ({"models/gone.pt": "0"}, r"models/gone\.pt: missing, though"),
        ],
    )
    def test_hashes_that_cannot_be(self, tiny_bundle: Path, value: Any, message: str) -> None:
        edit_json(tiny_bundle / "configs" / "metadata.json", sha256=value)
        assert re.search(message, "\n".join(check_bundle(tiny_bundle)))

    @pytest.mark.parametrize(
        ("named", "message"),
        [
            (["background", "a", "b"], "must map channels to names"),
            ("background", "must map channels to names"),
            ({"0": "background", "1": "a"}, "must name the channels 0 to 2, got 0, 1"),
            ({"0": "background", "1": "a", "3": "b"}, "must name the channels 0 to 2"),
            ({"0": "background", "one": "a", "2": "b"}, "must have whole numbers from 0 as keys, got 'one'"),
            ({"0": "background", "-1": "a", "2": "b"}, "must have whole numbers from 0 as keys, got '-1'"),
            ({"0": "background", "1": "a", "2": "a"}, "must give each channel a different name"),
            ({"0": "background", "1": "", "2": "a"}, "must give names"),
            ({"0": "background", "1": ["a"], "2": "a"}, "must give names"),
            ({}, "must name the channels 0 to 2, got none"),
        ],
    )
    def test_names_of_labels(self, tiny_bundle: Path, named: Any, message: str) -> None:
        def change(content: dict[str, Any]) -> None:
            content["network_data_format"]["outputs"]["pred"]["channel_def"] = named

        edit_json(tiny_bundle / "configs" / "metadata.json", change)
        key = "configs/metadata.json: network_data_format#outputs#pred#channel_def "
        assert any(problem.startswith(f"{key}{message}") for problem in check_bundle(tiny_bundle))

    @pytest.mark.parametrize(
        ("key", "value", "problem"),
        [
            ("level", "L7", "level must be one of L1, L2, got 'L7'."),
            ("level", "L1", None),
            ("level", "$'L' + '2'", None),
            ("overlap", 1.5, "overlap must be from 0 to below 1, got 1.5."),
            ("overlap", [0.5, 0.5], None),
            ("label_values", [1, 1], "label_values must differ and not be 0, as labels would be merged, got [1, 1]."),
            ("label_values", [0, 7], "label_values must differ and not be 0, as labels would be merged, got [0, 7]."),
            ("label_values", [7, 3], None),
        ],
    )
    def test_values_that_a_run_would_refuse_or_not_notice(
        self, tiny_bundle: Path, key: str, value: Any, problem: str | None
    ) -> None:
        path = tiny_bundle / "configs" / "inference.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**content, key: value}), encoding="utf-8")
        assert check_bundle(tiny_bundle) == ([] if problem is None else [f"configs/inference.json: {problem}"])

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["metadata.json", "inference.json", "train.json"])
    @pytest.mark.parametrize("value", [None, 5, "$1/0", "@gone", "%gone.json#x", [], [5], {"_target_": 5}])
    def test_entries_of_another_kind_are_told_of(
        self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
    ) -> None:
        # the weights stay the same
        stored = checking._check_weights(tiny_bundle / "models" / "model.pt", [])
        monkeypatch.setattr(checking, "_check_weights", lambda *_: stored)
        content = json.loads((tiny_bundle / "configs" / name).read_text(encoding="utf-8"))
        for key in content:
            (tiny_bundle / "configs" / name).write_text(json.dumps({**content, key: value}), encoding="utf-8")
            assert all("\n" not in problem for problem in check_bundle(tiny_bundle))


def test_the_shipped_weights_have_their_hash(bundle: Path) -> None:
    stored = read_metadata(bundle)["sha256"]
    assert stored == {"models/model.pt": hashlib.sha256((bundle / "models" / "model.pt").read_bytes()).hexdigest()}
