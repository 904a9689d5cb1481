"""Options of the command line that are fields of dataclasses."""

from __future__ import annotations

import argparse
import dataclasses

import pytest

from monai_unetpp.cli.terminal import is_first_process
from monai_unetpp.options import (
    add_input,
    add_options,
    as_level,
    as_levels,
    option,
    option_names,
    own_shard,
    separate_names,
    whole_numbers,
)
from monai_unetpp.torchrun import torchrun_place


@dataclasses.dataclass(frozen=True)
class Rules:
    folder: str = option(flags=("-o", "--output"), metavar="DIR", help="where to write")
    alpha: float = option(0.05, type=float, help="error level")
    margins: tuple[str, ...] = option(("a=1", "b=2"), flags=("--margin",), action="append", help="what to accept")
    overwrite: bool = option(False, help="replace")
    share: float | None = option(None, type=float, help="kept back")
    progress: bool = True


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser, Rules)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    "variables", [{"RANK": "3"}, {"WORLD_SIZE": "4"}, {"RANK": "", "WORLD_SIZE": "2"}, {"RANK": "3", "WORLD_SIZE": "1"}]
)
def test_variables_of_batch_systems_alone_are_not_torchrun(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (own_shard(None), torchrun_place(), is_first_process()) == ((1, 1), (0, 1), True)


def test_options_are_named_after_the_fields_and_none_where_not_given():
    given = parse("-o", "out", "--margin", "a=3", "--margin", "b=4", "--alpha", "0.1", "--overwrite")
    assert vars(given) == {
        "folder": "out",
        "alpha": 0.1,
        "margins": ["a=3", "b=4"],
        "overwrite": True,
        "share": None,
    }
    # so that another default, such as a bundle's, can hold
    assert vars(parse("-o", "out")) | {"folder": None} == dict.fromkeys(option_names(Rules)[:-1])


def test_fields_without_a_default_are_required(capsys):
    with pytest.raises(SystemExit):
        parse()
    assert "-o/--output" in capsys.readouterr().err


def test_help_tells_the_defaults():
    parser = argparse.ArgumentParser()
    add_options(parser, Rules)
    text = " ".join(parser.format_help().split())
    assert "error level (default: 0.05)" in text
    assert "what to accept (default: a=1 and b=2)" in text
    assert "replace (default" not in text
    assert "kept back (default" not in text


@dataclasses.dataclass(frozen=True)
class Work:
    inputs: tuple[str, ...] = option(flags=("inputs",), nargs="+", metavar="INPUT", help="what to read")
    sizes: tuple[int, ...] = option((8, 16), nargs="+", type=int, help="of it", group="shape")
    window: tuple[int, ...] = option((3, 4), type=whole_numbers, help="of it (default: 3,4)", group="shape")
    levels: tuple[str, ...] | None = option(None, type=separate_names, help="of it", group="shape")


def test_options_in_groups_and_their_defaults():
    parser = argparse.ArgumentParser()
    add_options(parser, Work, defaults=True, groups={"shape": "as it comes"})
    assert vars(parser.parse_args(["a", "b"])) == {
        "inputs": ["a", "b"],
        "sizes": (8, 16),
        "window": (3, 4),
        "levels": None,
    }
    given = parser.parse_args(["a", "--window", "5,6", "--levels", "L1, L2,"])
    assert (given.window, given.levels) == ((5, 6), ["L1", "L2"])
    text = " ".join(parser.format_help().split())
    assert "shape: as it comes --sizes" in text
    assert "of it (default: 8 16) --window" in text
    assert text.count("(default: 3,4)") == 1


def test_an_argument_without_a_name_is_required(capsys):
    parser = argparse.ArgumentParser()
    add_options(parser, Work)
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert "required: INPUT" in capsys.readouterr().err


@dataclasses.dataclass(frozen=True)
class Reading:
    images: tuple[str, ...] = option(flags=("images", "-i", "--input"), nargs="+", metavar="IMAGE", help="to read")
    folder: str = option(flags=("folder", "--folder"), metavar="FOLDER", help="to look into")


@pytest.mark.parametrize("given", [["-i", "a", "b", "--folder", "f"], ["--folder", "f", "a", "b"]])
def test_inputs_stand_by_themselves_or_behind_an_option(given):
    parser = argparse.ArgumentParser()
    add_options(parser, Reading)
    assert vars(parser.parse_args(given)) == {"images": ["a", "b"], "folder": "f"}


def test_a_repeated_option_adds_inputs_or_is_refused_where_there_is_one(capsys):
    parser = argparse.ArgumentParser()
    add_options(parser, Reading)
    given = ["-i", "a", "b", "--input", "c", "--folder", "f"]
    assert vars(parser.parse_args(given)) == {"images": ["a", "b", "c"], "folder": "f"}
    with pytest.raises(SystemExit):
        parser.parse_args([*given, "--folder", "g"])
    assert "argument --folder: takes one FOLDER, got a second one, g" in capsys.readouterr().err


@pytest.mark.parametrize("given", [[], ["a", "-i", "b"]])
def test_inputs_are_given_once(given, capsys):
    parser = argparse.ArgumentParser()
    add_input(parser, "images", ("-i", "--input"), nargs="+", metavar="IMAGE", help="to read")
    with pytest.raises(SystemExit):
        parser.parse_args(given)
    assert "IMAGE" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "level"), [("2", "L2"), ("l2", "L2"), ("L02", "L2"), ("deep", "deep"), ("-2", "-2")])
def test_a_level_is_a_number_or_its_name(text, level):
    assert as_level(text) == level
    assert as_levels(f"L1, {text}") == ["L1", level]
