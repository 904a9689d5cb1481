"""Fields of dataclasses that are options of the command line too: name, help and default are stated once."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["add_options", "option", "option_names", "separate_names", "whole_numbers"]

_KEY = "option"


def option(
    default: Any = dataclasses.MISSING, *, help: str, flags: Sequence[str] = (), group: str = "", **arguments: Any
) -> Any:
    """A field of a dataclass that :func:`add_options` makes an option of.

    Args:
        default: of the field; without one the option is required.
        help: what it is for. The default is added, unless it is None, False or empty, or ``help`` tells it itself.
        flags: such as ``("-o", "--output")``; by default two dashes and the field's name. One without a dash makes it
            an argument without a name, such as a list of files.
        group: heading of the help under which it stands.
        **arguments: further ones of ``ArgumentParser.add_argument``, such as ``metavar`` or ``type``.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Rules:
        ...     alpha: float = option(0.05, help="one-sided error level", type=float, metavar="ALPHA")
        >>> parser = argparse.ArgumentParser()
        >>> add_options(parser, Rules)
        >>> parser.parse_args(["--alpha", "0.025"]).alpha
        0.025
    """
    told = {"help": help, "flags": tuple(flags), "group": group, **arguments}
    return dataclasses.field(default=default, metadata={_KEY: told})


def add_options(
    parser: argparse._ActionsContainer, owner: type[Any], *, defaults: bool = False, groups: Mapping[str, str] = {}
) -> None:
    """Add an option for every field of ``owner`` that was made by :func:`option`.

    Args:
        parser: what they are added to.
        owner: the dataclass.
        defaults: whether what is not given on the command line has the field's default. Otherwise it is None: then
            another default, such as that of a bundle, holds.
        groups: sentences below the headings of groups.
    """
    places: dict[str, argparse._ActionsContainer] = {"": parser}
    for field in dataclasses.fields(owner):
        if _KEY not in field.metadata:
            continue
        arguments = dict(field.metadata[_KEY])
        group, flags = arguments.pop("group"), arguments.pop("flags") or (f"--{field.name}",)
        if group not in places:
            places[group] = parser.add_argument_group(group, groups.get(group))
        if field.default is dataclasses.MISSING:
            arguments.setdefault("required", True)
        else:
            arguments["help"] += _default_text(field.default, arguments)
            arguments["default"] = field.default if defaults else None
        if field.default is False:
            arguments.setdefault("action", "store_true")
        if flags[0].startswith("-"):
            arguments["dest"] = field.name
        else:
            arguments.pop("required", None)
        places[group].add_argument(*flags, **arguments)


def option_names(owner: type[Any]) -> tuple[str, ...]:
    """Names of the fields of ``owner``."""
    return tuple(field.name for field in dataclasses.fields(owner))


def whole_numbers(text: str) -> tuple[int, ...]:
    """For ``type`` of an option: whole numbers between commas."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"must be whole numbers between commas, got {text!r}") from e


def separate_names(text: str) -> list[str]:
    """For ``type`` of an option: names between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _default_text(default: Any, arguments: Mapping[str, Any]) -> str:
    if default is None or default is False or default == () or "(default" in arguments["help"]:
        return ""
    if isinstance(default, tuple):
        # as they are typed: one option with several values, or several options
        default = (" " if "nargs" in arguments else " and ").join(map(str, default))
    return f" (default: {default})"
