"""The parser of the command line: options with - or _, and suggestions for misspelt names."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser that accepts ``--list-key`` for ``--list_key``, and suggests names for misspelt ones.

    Options are declared with underscores, as in MONAI and Python.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse, with option names written with underscores."""
        given = list(map(str, sys.argv[1:] if args is None else args))
        # what follows -- are no options
        end = given.index("--") if "--" in given else len(given)
        given[:end] = map(_with_underscores, given[:end])
        self._check_command(given)
        return super().parse_known_args(given, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse, but the command itself reports unknown arguments."""
        given = list(sys.argv[1:] if args is None else map(str, args))
        options, unknown = self.parse_known_args(given, namespace)
        if unknown:
            responsible = self._commands().get(_first_word(given), self)
            as_given = {_with_underscores(argument): argument for argument in given}
            told = [as_given.get(argument, argument) for argument in unknown]
            misplaced = [argument for argument in unknown if argument in responsible._option_string_actions]
            if misplaced:
                responsible.error(f"{as_given[misplaced[0]]} must be given after the command")
            responsible.error(responsible._unknown_message(told))
        for name, value in vars(options).items():
            # of a variable of the shell that is not set; as a path it would be the working directory
            if value == "" or (isinstance(value, list) and "" in value):
                self._commands().get(_first_word(given), self).error(
                    f"{name} must not be empty. Leave it out, or write . for the working directory"
                )
        return options

    def option_names(self) -> list[str]:
        """The long names of all options."""
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]

    def _unknown_message(self, unknown: Sequence[str]) -> str:
        options = [argument for argument in unknown if argument.startswith("-")]
        if options:
            remedy = _suggestion(options[0].partition("=")[0], self.option_names())
        elif all("=" in argument for argument in unknown):
            remedy = ". Repeat the option before each"
        else:
            takes_several = any(action.nargs in ("*", "+") for action in self._actions if not action.option_strings)
            remedy = ". List all inputs in one place" if takes_several else ". Give one input"
        return f"unrecognized arguments: {' '.join(unknown)}{remedy}"

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit with code 2."""
        self.print_usage(sys.stderr)
        end = "" if message.endswith((".", "?")) else "."
        self.exit(2, f"{self.prog}: error: {message}{end} See {self.prog} --help.\n")

    def _check_command(self, given: Sequence[str]) -> None:
        """Refuse an unknown command: the first argument after options without values."""
        commands = self._commands()
        name = _first_word(given)
        if commands and name and name not in commands:
            self.error(f"there is no command {name!r}{_suggestion(name, commands)}")

    def _commands(self) -> dict[str, Parser]:
        found = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return dict(found[0]) if found else {}


def _first_word(arguments: Sequence[str]) -> str:
    return next((argument for argument in arguments if not argument.startswith("-")), "")


def _with_underscores(argument: str) -> str:
    """``--list-key=a-b`` as ``--list_key=a-b``; anything but a long option is unchanged."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def _suggestion(name: str, names: Iterable[str]) -> str:
    begun = [each for each in names if len(name) > 2 and each.startswith(name)]
    close = begun[:2] or difflib.get_close_matches(name, list(names), n=2, cutoff=0.7)
    return f". Did you mean {' or '.join(close)}?" if close else ""
