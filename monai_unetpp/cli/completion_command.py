"""``monai-unetpp completion``: what it takes and prints."""

from __future__ import annotations

import argparse
from typing import Any

from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import DONE

__all__ = ["COMPLETION"]

_EXAMPLES = """\
  monai-unetpp completion bash > ~/.local/share/bash-completion/completions/monai-unetpp
  monai-unetpp completion zsh > ~/.zfunc/_monai-unetpp
  monai-unetpp completion tcsh > ~/.monai-unetpp.tcsh

For bash the folder must exist, and the package bash-completion. For zsh the folder must be in fpath, before compinit.
For tcsh source the file in ~/.tcshrc. A new shell then completes commands, options and choices with the tab key.
"""


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="the shell that you use")


def _run(shell: str) -> int:
    import shtab

    from monai_unetpp.cli.program import make_parser

    parser: Any = make_parser()
    print(shtab.complete(parser, shell))
    return DONE


COMPLETION = Command("completion", "print a script that lets your shell complete commands", _EXAMPLES, _declare, _run)
