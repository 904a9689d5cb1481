"""Dataclass fields that are also command-line options: name, help and default are stated once."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from monai_unetpp.torchrun import torchrun_place

_KEY = "option"
#: Flags of the output of every command.
OUTPUT_FLAGS = ("-o", "--output", "--output_dir")


class OnOrOff(argparse.Action):
    """For ``action`` of an option with two flags, such as ``--smooth`` and ``--no_smooth``: True, False or neither.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument("--smooth", "--no_smooth", action=OnOrOff)
        >>> [parser.parse_args(arguments).smooth for arguments in ([], ["--smooth"], ["--no_smooth"])]
        [None, True, False]
    """

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: str | None = None
    ) -> None:
        """Set the value by the flag."""
        setattr(namespace, self.dest, not str(flag).startswith("--no_"))


def option(
    default: Any = dataclasses.MISSING, *, help: str, flags: Sequence[str] = (), group: str = "", **arguments: Any
) -> Any:
    """A dataclass field that :func:`add_options` turns into an option.

    Args:
        default: default of the field; without one the option is required.
        help: help text. The default is appended, unless it is None, False or empty, or ``help`` states it.
        flags: by default two dashes and the field's name. A first flag without a dash makes it a positional argument,
            such as a list of files; the flags after it are alternatives.
        group: heading in the help under which it is listed.
        **arguments: further arguments of ``ArgumentParser.add_argument``, such as ``metavar`` or ``type``.

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
    """Add an option for every field of ``owner`` that :func:`option` declares, in groups with descriptions.

    With ``defaults``, an option that is not given has the field's default. Otherwise it is None, so that another
    default, such as the bundle's, applies.
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
            places[group].add_argument(*flags, dest=field.name, **arguments)
        else:
            add_input(places[group], field.name, flags[1:], **arguments)


def add_input(
    parser: argparse._ActionsContainer, name: str, flags: Sequence[str], *, required: bool = True, **arguments: Any
) -> None:
    """Add the input of a command as a positional argument, or alternatively as an option with ``flags``, if any.

    ``arguments`` are those of ``add_argument``: ``metavar``, ``help`` and, for several, ``nargs="+"`` or
    ``action="append"``.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_input(parser, "images", ("-i", "--input"), nargs="+", metavar="IMAGE", help="to segment")
        >>> parser.parse_args(["a", "b"]) == parser.parse_args(["-i", "a", "b"])
        True
    """
    if not flags:
        parser.add_argument(name, **arguments)
        return
    several = arguments.get("nargs") == "+" or arguments.get("action") == "append"
    # no default, as it would overwrite the option's value
    unnamed = {"metavar": arguments["metavar"], "help": arguments["help"], "default": argparse.SUPPRESS}
    either = parser.add_mutually_exclusive_group(required=required)
    either.add_argument(name, nargs="*" if several else "?", **unnamed)
    repeated: dict[str, Any] = {} if arguments.get("action") else {"action": "extend" if several else _Once}
    either.add_argument(*flags, dest=name, **(arguments | repeated | {"help": f"the same as {arguments['metavar']}"}))


class _Once(argparse.Action):
    """An option that would silently replace the value of an earlier one, and so may not be repeated."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if getattr(namespace, self.dest, None) is not None:
            parser.error(f"argument {option_string}: takes one {self.metavar}, got a second one, {values}")
        setattr(namespace, self.dest, values)


def option_names(owner: type[Any]) -> tuple[str, ...]:
    """Names of the fields of ``owner``."""
    return tuple(field.name for field in dataclasses.fields(owner))


def whole_numbers(text: str) -> tuple[int, ...]:
    """``type`` of an option: whole numbers separated by commas."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"must be whole numbers separated by commas, got {text!r}") from e


def as_level(text: str) -> str:
    """``type`` of an option: the name of a level; ``2`` and ``l2`` become ``L2``."""
    found = re.fullmatch(r"[Ll]?(\d+)", text.strip())
    return f"L{int(found[1])}" if found else text


def as_levels(text: str) -> list[str]:
    """``type`` of an option: names of levels separated by commas."""
    return [as_level(name) for name in separate_names(text)]


def separate_names(text: str) -> list[str]:
    """``type`` of an option: names separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _default_text(default: Any, arguments: Mapping[str, Any]) -> str:
    if default is None or default is False or default == () or "(default" in arguments["help"]:
        return ""
    if isinstance(default, tuple):
        # as they are typed: several values of one option, or a repeated option
        default = (" " if "nargs" in arguments else " and ").join(map(str, default))
    return f" (default: {default})"


def own_shard(shard: str | None) -> tuple[int, int]:
    """K and N of this process, which does every N-th piece of work starting from the K-th.

    They are those of ``shard``, ``"K/N"``; without it, rank and number of processes under ``torchrun``, else 1 and 1.
    """
    rank, processes = torchrun_place()
    if shard is None:
        return (rank + 1, processes) if processes > 1 else (1, 1)
    if processes > 1:
        raise ValueError(f"shard must not be given under torchrun, got {shard!r}. Its processes share the work.")
    parts = shard.split("/")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"shard must be K/N, got {shard!r}. For two processes give 1/2 and 2/2.")
    k, n = int(parts[0]), int(parts[1])
    if not 1 <= k <= n:
        raise ValueError(f"shard must be K/N with K from 1 to N, got {k}/{n}. For two processes give 1/2 and 2/2.")
    return k, n
