"""``monai-unetpp completion``: its options and output."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import DONE

_EXAMPLES = """\
  monai-unetpp completion bash > ~/.local/share/bash-completion/completions/monai-unetpp
  monai-unetpp completion zsh > ~/.zfunc/_monai-unetpp
  monai-unetpp completion tcsh > ~/.monai-unetpp.tcsh

For bash the folder must exist, and the package bash-completion must be installed. For zsh the folder must be in fpath
before compinit runs. For tcsh, source the file in ~/.tcshrc. A new shell then completes commands, options and choices
with the tab key.
"""


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="your shell")


def completion_command(make_parser: Callable[[], Any]) -> Command:
    """The command that prints completions for a parser, which is built only when it runs."""

    def run(shell: str) -> int:
        import shtab

        print(shtab.complete(make_parser(), shell))
        return DONE

    return Command("completion", "print a script that lets your shell complete commands", _EXAMPLES, _declare, run)
