# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The syntax of Slurm's configuration files: values, lines, and reading back what was written."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["line", "parse_line", "value_text"]

_PAIR = re.compile(r'(\w+)\s*\+?=\s*("[^"]*"|\S+)')


def value_text(value: object) -> tuple[str, str]:
    """Return a value as Slurm reads it and nothing, or nothing and what is wrong with it."""
    if isinstance(value, bool):
        return ("yes" if value else "no"), ""
    if isinstance(value, (list, tuple)):
        parts = [value_text(part) for part in value]
        wrong = next((problem for _text, problem in parts if problem), "")
        return ("", wrong) if wrong else (",".join(text for text, _problem in parts), "")
    if not isinstance(value, (str, int, float)):
        return "", f"is {value!r}, which is no text, number, true, false or list of these."
    text = str(value).strip()
    if not text:
        return "", "is empty; null removes a key."
    if "\n" in text or '"' in text.strip('"'):
        return "", f"is {text!r}; a line break or a quotation mark can't be in a value."
    # A '#' begins a comment unless it is escaped.
    return re.sub(r"(?<!\\)#", r"\\#", text), ""


def quoted(text: str) -> str:
    """Return a value for a line: white space would end it."""
    return f'"{text}"' if re.search(r"\s", text) and not text.startswith('"') else text


def line(key: str, value: str, pairs: Iterable[tuple[str, str]] = ()) -> str:
    """Return one line of a file."""
    return " ".join(f"{name}={quoted(text)}" for name, text in ((key, value), *pairs))


def parse_line(text: str) -> list[tuple[str, str]]:
    """Return the keys and values of a line, or nothing for a comment."""
    if text.lstrip().startswith("#"):
        return []
    return [(key, value.strip('"')) for key, value in _PAIR.findall(text)]
