# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the SDK's models say about requests and answers: names, types, and which parameters are required."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import typing
from dataclasses import dataclass
from typing import Any

PRODUCTS = {"2014-05-26": "alibabacloud_ecs20140526", "2016-04-28": "alibabacloud_vpc20160428"}


class Refused(Exception):
    """An error answer of the service."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


@dataclass(frozen=True)
class Field:
    """One parameter: a scalar ``kind`` (int, bool, float, str), or a ``model``; ``many``: Name.1, Name.2 and so on."""

    name: str
    kind: type
    many: bool
    required: bool
    model: type | None


@functools.cache
def _models(package: str) -> Any:
    return importlib.import_module(f"{package}.models")


@functools.cache
def fields_of(model: type) -> dict[str, Field]:
    """Return the parameters of an SDK model by their name on the wire."""
    initialiser = model.__init__  # type: ignore[misc]
    hints = typing.get_type_hints(initialiser)
    required = _required(inspect.getsource(initialiser))
    empty = model().to_map()
    result = {}
    for attribute, hint in hints.items():
        if attribute == "return":
            continue
        many = typing.get_origin(hint) is list
        kind = typing.get_args(hint)[0] if many else hint
        nested = isinstance(kind, type) and hasattr(kind, "to_map")
        # The models know the wire's names in to_map only: ask each with one attribute set.
        sample: Any = kind() if nested or kind in (int, bool, float, str) else ""
        mapped = model(**{attribute: [sample] if many else sample}).to_map()
        (name,) = (key for key, value in mapped.items() if key not in empty or value != empty[key])
        result[name] = Field(name, str if nested else kind, many, attribute in required, kind if nested else None)
    return result


def _required(source: str) -> set[str]:
    """Return the attributes whose comment says that they are required."""
    found, comment = set(), ""
    for line in source.splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment += text
            continue
        match = re.fullmatch(r"self\.(\w+) = \1", text)
        if match and "This parameter is required." in comment:
            found.add(match[1])
        comment = ""
    return found


def parsed(version: str, action: str, flat: dict[str, str]) -> dict[str, Any]:
    """Return the parameters of a request as nested values; refuse what the SDK's model doesn't have."""
    package = PRODUCTS.get(version)
    if package is None:
        raise Refused("InvalidVersion", f"version {version!r} is none of {sorted(PRODUCTS)}", 404)
    model = getattr(_models(package), f"{action}Request", None)
    if model is None:
        raise Refused("InvalidAction.NotFound", f"{action!r} is no action of version {version}", 404)
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        place = tree
        *path, last = name.split(".")
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return _typed(model, tree, action)


def _typed(model: type, tree: dict[str, Any], where: str) -> dict[str, Any]:
    fields = fields_of(model)
    result = {}
    for name, value in tree.items():
        field = fields.get(name)
        if field is None:
            raise Refused("InvalidParameter", f"{where} has no parameter {name}")
        if not field.many:
            result[name] = _one(field, value, f"{where}.{name}")
            continue
        if not isinstance(value, dict) or sorted(value, key=int) != [str(n) for n in range(1, len(value) + 1)]:
            raise Refused("InvalidParameter", f"{where}.{name} must be numbered from 1, got {value!r}")
        result[name] = [_one(field, value[str(n)], f"{where}.{name}.{n}") for n in range(1, len(value) + 1)]
    missing = sorted(field.name for field in fields.values() if field.required and field.name not in result)
    if missing:
        raise Refused(f"MissingParameter.{missing[0]}", f"{where} needs {', '.join(missing)}")
    return result


def _one(field: Field, value: Any, where: str) -> Any:
    if field.model:
        if not isinstance(value, dict):
            raise Refused("InvalidParameter", f"{where} has parts, got {value!r}")
        return _typed(field.model, value, where)
    if isinstance(value, dict):
        raise Refused("InvalidParameter", f"{where} has no parts, got {value!r}")
    try:
        if field.kind is bool:
            return {"true": True, "false": False}[value.lower()]
        return field.kind(value) if field.kind in (int, float) else value
    except (KeyError, ValueError):
        raise Refused("InvalidParameter", f"{where} must be {field.kind.__name__}, got {value!r}") from None


def check_answer(version: str, action: str, answer: dict[str, Any]) -> None:
    """Raise if the SDK's model of the answer has another shape: the provider would read fields that don't exist."""
    model = getattr(_models(PRODUCTS[version]), f"{action}ResponseBody")
    kept = model().from_map(answer).to_map()
    if kept != answer:
        raise AssertionError(f"{action}: the SDK loses {_lost(answer, kept)}")


def _lost(given: Any, kept: Any, where: str = "") -> list[str]:
    """Return the paths of what is in ``given`` and not in ``kept``."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [path for key in given for path in _lost(given[key], kept.get(key), f"{where}.{key}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return sorted({path for one, other in zip(given, kept) for path in _lost(one, other, f"{where}[]")})
    return [] if given == kept else [where]
