"""Dataclasses to plain values for JSON and back, with every type checked."""

from __future__ import annotations

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

_Kind = TypeVar("_Kind")


def to_plain(value: Any) -> Any:
    """Dataclasses and mappings as dictionaries, sequences as lists, numbers as Python's.

    NaN and infinity become strings, as JSON cannot represent them. Raises a TypeError for values of another type.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        # float() reads the strings "nan" and "inf" back
        return float(value) if math.isfinite(value) else str(float(value))
    raise TypeError(f"a result must hold plain values only, got {value!r} of type {type(value).__name__}.")


def from_plain(kind: type[_Kind], value: Any, where: str) -> _Kind:
    """The inverse of :func:`to_plain`. Unknown entries are ignored.

    A ValueError names an entry that is missing or of the wrong type, by ``where`` it was read.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Spread:
        ...     low: float
        ...     names: tuple[str, ...]
        >>> to_plain(Spread(0.5, ("a",)))
        {'low': 0.5, 'names': ['a']}
        >>> from_plain(Spread, {"low": 1, "names": ["a"]}, "spread")
        Spread(low=1.0, names=('a',))
    """
    return typing.cast(_Kind, _decode(kind, value, where))


# cattrs and dacite convert or ignore values of the wrong type ("4" for 4, true for 1, a string for a list), and not
# both name the entry with its index. With hooks against that, either would take more lines than this.
def _decode(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _decode(inner, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise _wrong(where, " or ".join(map(repr, arguments)), value)
        return value
    if origin is tuple:
        items = _expect(list, value, where)
        kinds = arguments[:1] * len(items) if arguments[-1] is Ellipsis else arguments
        if len(items) != len(kinds):
            raise _wrong(where, f"a list of {len(kinds)} entries", value)
        return tuple(_decode(kinds[i], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        entries = _expect(dict, value, where)
        return {key: _decode(arguments[1], item, f"{where}[{key!r}]") for key, item in entries.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_fields(kind, _expect(dict, value, where), where)
    if kind is float:
        if value in ("nan", "inf", "-inf"):
            return float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong(where, "a number", value)
        return float(value)
    return _expect(kind, value, where)


def _decode_fields(kind: type, entries: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    fields = {}
    for field in dataclasses.fields(kind):
        if field.name in entries:
            fields[field.name] = _decode(hints[field.name], entries[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where} must have the entry {field.name!r}, got {sorted(entries)}.")
    return kind(**fields)


def _expect(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names: dict[type, str] = {
            list: "a list",
            dict: "an object",
            str: "a string",
            int: "a whole number",
            bool: "true or false",
        }
        raise _wrong(where, names[kind], value)
    return value


def _wrong(where: str, rule: str, value: Any) -> ValueError:
    return ValueError(f"{where} must be {rule}, got {str(value)[:80]!r}.")
