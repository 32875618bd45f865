# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the collection: every one names the item, the value and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["HpcError", "InvalidInput", "errors_end", "join_problems"]


class HpcError(Exception):
    """Something the user can act on. Plugins turn it into one clear message, never into a traceback."""

    def __init__(self, what: str, remedy: str = "") -> None:
        """Say what is wrong (with the offending value) and what to do about it."""
        super().__init__(f"{what} Remedy: {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


class InvalidInput(HpcError):
    """A value the user gave can't be used."""


def join_problems(problems: list[str]) -> str:
    """Return one message for all ``problems``: the bare text of a single one, else a numbered list."""
    if len(problems) == 1:
        return problems[0]
    lines = [f"{number}. {text}" for number, text in enumerate(problems, start=1)]
    return f"{len(problems)} problems:\n" + "\n".join(lines)


@contextmanager
def errors_end(module: Any) -> Iterator[None]:
    """End ``module`` (an ``AnsibleModule``) with one clear message if the block meets an error of ours or of a file."""
    try:
        yield
    except HpcError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'A file'} can't be read or written: {error.strerror or error}.")
