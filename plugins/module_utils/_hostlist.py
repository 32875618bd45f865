# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folded host lists in Slurm's syntax: ``node[1-3,7]``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput

__all__ = ["expand", "fold", "natural_key"]

# More names than the largest clusters have: a slip like [1-99999999] must not eat the memory.
MAX_NAMES = 1_000_000

_RANGE = re.compile(r"(?P<low>[0-9]+)(?:-(?P<high>[0-9]+))?")
_SYNTAX = "write names as in node[1-3,7],login1"


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key under which node2 comes before node10, and node02 beside node2."""
    return [
        (1, int(part), part) if part[0] in "0123456789" else (0, 0, part)
        for part in re.findall(r"[0-9]+|[^0-9]+", text)
    ]


def fold(names: Iterable[str]) -> str:
    """Return ``names`` as one host list, sorted, without duplicates.

    Only the number at the end of a name is folded, because that is what every version of Slurm reads.
    """
    numbers_of: dict[str, list[str]] = {}
    for name in sorted(set(names), key=natural_key):
        if not name or re.search(r"[\[\],\s]", name):
            raise InvalidInput(f"{name!r} can't be in a host list.", "use names without spaces, commas and brackets.")
        stem = name.rstrip("0123456789")
        numbers_of.setdefault(stem, []).append(name[len(stem) :])
    parts = []
    for stem, numbers in numbers_of.items():
        if "" in numbers:
            parts.append(stem)
        parts.extend(_fold_numbers(stem, [number for number in numbers if number]))
    return ",".join(parts)


def _fold_numbers(stem: str, numbers: list[str]) -> list[str]:
    if not numbers:
        return []
    if len(numbers) == 1:
        return [stem + numbers[0]]
    # node08 and node10 belong to one range of two digits, node8 and node10 to one without padding.
    padded_widths = {len(number) for number in numbers if len(number) > 1 and number[0] == "0"}
    by_width: dict[int, list[int]] = {}
    for number in numbers:
        width = len(number) if len(number) in padded_widths else 1
        by_width.setdefault(width, []).append(int(number))
    ranges: list[tuple[int, int, int]] = []
    for width, values in by_width.items():
        start = previous = None
        for value in sorted(values):
            if previous is None or value != previous + 1:
                if start is not None and previous is not None:
                    ranges.append((start, previous, width))
                start = value
            previous = value
        if start is not None and previous is not None:
            ranges.append((start, previous, width))
    texts = [
        f"{low:0{width}d}" if low == high else f"{low:0{width}d}-{high:0{width}d}"
        for low, high, width in sorted(ranges)
    ]
    return [f"{stem}[{','.join(texts)}]"]


def expand(text: str) -> list[str]:
    """Return the names of a host list, in the order in which it gives them."""
    names: list[str] = []
    if not text:
        return names
    for item in _split(text):
        names.extend(_expand_item(item, text))
        if len(names) > MAX_NAMES:
            raise _too_long(text)
    return names


def _too_long(text: str) -> InvalidInput:
    return InvalidInput(f"Host list {text!r} has more than {MAX_NAMES} names.", "check its ranges.")


def _split(text: str) -> list[str]:
    """Cut at the commas outside of brackets."""
    items = [""]
    depth = 0
    for character in text:
        if character.isspace():
            raise InvalidInput(f"Host list {text!r} has white space in it.", _SYNTAX + ".")
        depth += {"[": 1, "]": -1}.get(character, 0)
        if depth not in (0, 1):
            what = "a bracket within a bracket" if depth > 1 else "a ']' without a '['"
            raise InvalidInput(f"Host list {text!r} has {what}.", _SYNTAX + ".")
        if character == "," and depth == 0:
            items.append("")
        else:
            items[-1] += character
    if depth:
        raise InvalidInput(f"Host list {text!r} has a '[' without a ']'.", _SYNTAX + ".")
    if "" in items:
        raise InvalidInput(f"Host list {text!r} has an empty name.", "remove the extra comma.")
    return items


def _expand_item(item: str, text: str) -> list[str]:
    names = [""]
    for part in re.findall(r"\[[^\]]*\]|[^\[]+", item):
        choices = _expand_brackets(part[1:-1], text) if part[0] == "[" else [part]
        if len(names) * len(choices) > MAX_NAMES:
            raise _too_long(text)
        names = [name + choice for name in names for choice in choices]
    return names


def _expand_brackets(inside: str, text: str) -> list[str]:
    numbers: list[str] = []
    for token in inside.split(","):
        match = _RANGE.fullmatch(token)
        if match is None:
            raise InvalidInput(
                f"Host list {text!r} has {token!r} in brackets, which is neither a number nor a range.", _SYNTAX + "."
            )
        low, high = match["low"], match["high"] or match["low"]
        if int(high) < int(low):
            raise InvalidInput(
                f"Host list {text!r} has the range {token!r}, which runs backwards.", f"write {high}-{low}."
            )
        if int(high) - int(low) >= MAX_NAMES:
            raise _too_long(text)
        numbers.extend(f"{value:0{len(low)}d}" for value in range(int(low), int(high) + 1))
    return numbers
