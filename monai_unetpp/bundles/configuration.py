"""A bundle's configurations, with values set from outside that MONAI never interprets."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from traceback import walk_tb
from typing import Any, NoReturn

from monai.bundle import ConfigParser

from monai_unetpp.bundles.json_files import read_object
from monai_unetpp.bundles.targets import is_other_code
from monai_unetpp.errors import cause_of, is_deliberate
from monai_unetpp.measuring.memory import is_out_of_memory

#: How often to look again for classes in the modules that are imported, and MONAI's error if a thread imports others.
_ATTEMPTS, _IMPORTED_MEANWHILE = 20, "dictionary changed size during iteration"
#: Name of the list of values set from outside, for use in expressions.
_GIVEN = "_given_values_"
#: The entry that says what a configuration does, which may fail though the configuration is right.
_WORK = "run"


class BundleConfig:
    """One or several combined configurations of a bundle, in which values are set as objects.

    MONAI interprets every string of a configuration: ``$`` starts Python code, ``@`` and ``%`` refer to other entries
    and files, and ``#`` and ``::`` separate the parts of such a reference. Names from users, of files or labels, can
    contain any of these. So a value set here never becomes part of the configuration: an expression that gets it from a
    list takes its place. References and expressions of the bundle see the value.

    Args:
        bundle: the folder of the bundle, which becomes ``bundle_root``.
        names: files in its ``configs``; later ones override earlier ones.
        values: values to set, by key.

    Attributes:
        files: their paths.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is not a JSON object.

    Example:
        >>> config = BundleConfig("bundles/hippocampus_mri_unetpp", "inference.json")
        >>> config["output_dir"] = "$HOME"
        >>> config.parse("output_dir")
        '$HOME'
    """

    def __init__(self, bundle: str | PathLike[str], *names: str, values: Mapping[str, Any] = {}) -> None:
        self._folder = Path(bundle)
        self.files = tuple(self._folder / "configs" / name for name in names)
        self.keys = {key for file in self.files for key in read_object(file)}
        self._given: list[Any] = []
        self._set: set[str] = set()
        self._parser = ConfigParser(globals={_GIVEN: self._given})
        try:
            self._parser.read_config([str(file) for file in self.files])
        except (KeyError, IndexError, TypeError, ValueError) as e:
            raise ValueError(f"{self}: the entries cannot be combined ({_in_words(e)}). Correct the file.") from e
        for key, value in {"bundle_root": str(bundle), **values}.items():
            self[key] = value

    def __str__(self) -> str:
        return " and ".join(map(str, self.files))

    def __contains__(self, key: str) -> bool:
        return key in self._parser

    def __setitem__(self, key: str, value: Any) -> None:
        """Set ``key``, in MONAI's form such as ``"train#inferer"``, to ``value``, whatever text it contains."""
        self._parser[key] = self._stand_in(value)
        self._set.add(key)

    def change(self, settings: Mapping[str, Any]) -> None:
        """Set keys that the configuration must have, as MONAI would silently accept any other.

        A level takes the place of the bundle's tolerance for adaptive depth, and the other way round.

        Args:
            settings: values by key.

        Raises:
            ValueError: the configuration lacks a key.
        """
        for key, value in settings.items():
            if key not in self:
                raise ValueError(
                    f"{key} must be left out for {self._folder.name}, got {value!r}: its {self.files[-1].name} has no "
                    f"key {key!r}. Add and use this key there, or use another bundle."
                )
            self[key] = value
        for asked, other in (("level", "adaptive_tolerance"), ("adaptive_tolerance", "level")):
            if settings.get(asked) is not None and other in self:
                self[other] = None

    def parse(self, key: str) -> Any:
        """The object that an entry describes.

        Raises:
            ValueError: it cannot be created; the message names the files.
            MemoryError: memory does not suffice.
            Exception: errors of this package about values that were set, unchanged.
        """
        if key not in self:
            raise ValueError(f"{self}: must have the key {key!r}. Add it, or copy the bundle again.")
        wrapped: BaseException
        for _ in range(_ATTEMPTS):
            try:
                return self._parser.get_parsed_content(key)
            # an expression can also exit the program
            except (Exception, SystemExit) as e:
                wrapped = e
                if _IMPORTED_MEANWHILE not in str(cause_of(e)):
                    break
        # outside of the except block, so that the error keeps its own cause
        self._explain(key, wrapped)

    def run(self) -> None:
        """Do what the entry ``run`` says.

        Raises:
            ValueError: it cannot be created; the message names the files.
            RuntimeError: the work failed, which is not the fault of the configuration.
            MemoryError: memory does not suffice.
            Exception: errors of this package, as :meth:`parse` raises them.
        """
        self.parse(_WORK)

    def _stand_in(self, value: Any) -> Any:
        """The placeholder of a value in the configuration, without any of the value's own text."""
        if isinstance(value, (bool, int, float)) or value is None:
            return value
        if type(value) is list:
            return [self._stand_in(entry) for entry in value]
        # MONAI's ids can address the entries of a dict if its keys are plain words
        if type(value) is dict and all(isinstance(key, str) and re.fullmatch(r"[a-zA-Z]\w*", key) for key in value):
            return {key: self._stand_in(entry) for key, entry in value.items()}
        self._given.append(value)
        return f"${_GIVEN}[{len(self._given) - 1}]"

    def _explain(self, key: str, wrapped: BaseException) -> NoReturn:
        """Raise the cause of MONAI's errors, which name neither file nor remedy."""
        error = cause_of(wrapped)
        if _is_own(error):
            if self._is_at_fault(error):
                raise type(error)(f"{self}: {error}") from error
            raise error
        if is_out_of_memory(error):
            raise MemoryError(
                f"{self}: memory ran out for {key!r} ({_in_words(error)}). Close other programs, or take another "
                "device."
            ) from error
        if key == _WORK and isinstance(error, RuntimeError):
            raise error
        told = _in_words(error) + _place(wrapped)
        raise ValueError(f"{self}: {key!r} cannot be created from it ({told}). Correct the configuration.") from error

    def _is_at_fault(self, error: BaseException) -> bool:
        """Whether an error is about an argument that was not set from outside, and names no other file."""
        if type(error) not in (TypeError, ValueError):
            return False
        subject, rule, _ = str(error).partition(" must ")
        if rule:
            return not self._set.intersection(re.findall(r"\w+", subject)) and "/" not in subject
        return not re.search(r"[/\\.]", subject.partition(": ")[0])


def list_strings(content: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Place, in MONAI's form, and text of every string in the content of a configuration."""
    if isinstance(content, str):
        yield place, content
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        yield from list_strings(value, f"{place}#{key}" if place else str(key))


def list_code(content: Any) -> Iterator[tuple[str, str]]:
    """The code that a configuration would run beyond components of MONAI, torch and this package.

    Nothing in the ``content`` of the file is evaluated, and no other package is imported.

    Yields:
        Place in MONAI's form and text of every expression (``$``), every reference to another file (``%``), and every
        ``_target_`` that is none of these or refers to another entry.
    """
    for place, text in list_strings(content):
        foreign = place.endswith("_target_") and (text.startswith(("@", "%")) or is_other_code(text))
        other_file = text.startswith("%") and ConfigParser.split_path_id(text[1:])[0]
        if text.startswith("$") or foreign or other_file:
            yield place, text


def bundle_code(bundle: str | PathLike[str]) -> dict[str, list[str]]:
    """The code that the configurations of a bundle would run, with the places of each piece of code.

    Nothing is evaluated. Unreadable files are skipped, as nothing in them can run.
    """
    found: dict[str, list[str]] = {}
    for file in sorted((Path(bundle) / "configs").glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            for place, text in list_code(read_object(file)):
                found.setdefault(text, []).append(f"{file.name} {place}")
    return found


def _in_words(error: BaseException) -> str:
    # a KeyError's text is its key, quoted
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = text.strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _place(wrapped: BaseException) -> str:
    """The innermost expression that MONAI could not evaluate, for a message; empty if there is none."""
    cause, error, place = cause_of(wrapped), wrapped, ""
    while error is not cause and error.__cause__ is not None:
        found = re.search(r"ConfigExpression: \n(.*)", str(error), re.DOTALL)
        place = f", in {' '.join(found[1].split())}" if found else place
        error = error.__cause__
    return place


def _is_own(error: BaseException) -> bool:
    """Whether this package raised the error, or it is about a file that this package opened."""
    names = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
    inside = [name.startswith("monai_unetpp.") and name != __name__ for name in names]
    if isinstance(error, (OSError, ImportError, MemoryError)):
        return any(inside)
    return bool(inside) and inside[-1] and isinstance(error, (TypeError, ValueError)) and is_deliberate(error)
