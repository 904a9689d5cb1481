"""Fields of dataclasses that are options of the command line too: name, help and default are stated once."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

__all__ = ["add_options", "option", "option_names"]

_KEY = "option"


def option(default: Any = dataclasses.MISSING, *, help: str, flags: Sequence[str] = (), **arguments: Any) -> Any:
    """A field of a dataclass that :func:`add_options` makes an option of.

    Args:
        default: of the field; without one the option is required.
        help: what it is for. The default is added, unless it is None, False or empty.
        flags: such as ``("-o", "--output")``; by default two dashes and the field's name.
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
    return dataclasses.field(default=default, metadata={_KEY: {"help": help, "flags": tuple(flags), **arguments}})


def add_options(parser: argparse._ActionsContainer, group: type[Any]) -> None:
    """Add an option for every field of ``group`` that was made by :func:`option`.

    What is not given on the command line is None: then another default, such as that of a bundle, holds.
    """
    for field in dataclasses.fields(group):
        if _KEY not in field.metadata:
            continue
        arguments = dict(field.metadata[_KEY])
        flags = arguments.pop("flags") or (f"--{field.name}",)
        required = field.default is dataclasses.MISSING
        if not required:
            arguments["help"] += _default_text(field.default)
        if field.default is False:
            arguments.setdefault("action", "store_true")
        parser.add_argument(*flags, dest=field.name, default=None, required=required, **arguments)


def option_names(group: type[Any]) -> tuple[str, ...]:
    """Names of the fields of ``group``."""
    return tuple(field.name for field in dataclasses.fields(group))


def _default_text(default: Any) -> str:
    if default is None or default is False or default == ():
        return ""
    text = " and ".join(map(str, default)) if isinstance(default, tuple) else default
    return f" (default: {text})"
