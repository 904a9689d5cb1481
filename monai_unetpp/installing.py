"""The command that installs missing extras: the one place that knows whether the package is on an index."""

from __future__ import annotations

from pathlib import Path

#: Whether ``pip install monai-unetpp`` finds the package on an index. Until then it is installed from a clone.
PUBLISHED = False

_CLONE = Path(__file__).resolve().parents[1]


def install_command(extra: str) -> str:
    """The command that installs one of the package's extras, such as ``"report"``.

    From a clone it works in any folder. With neither an index nor a clone, it holds a placeholder for the clone's
    folder.
    """
    if PUBLISHED:
        return f'pip install "monai-unetpp[{extra}]"'
    if (_CLONE / "pyproject.toml").is_file():
        return f'pip install -c "{_CLONE / "constraints.txt"}" -e "{_CLONE}[{extra}]"'
    return f'pip install "FOLDER_OF_THE_CLONE[{extra}]"'
