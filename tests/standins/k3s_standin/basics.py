# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all parts of the stand-in use: files, commands, and as much YAML as the product writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ETC = Path("/etc/rancher/k3s")


class Refused(Exception):
    """What the stand-in was asked for is wrong, or more than it can do."""


def fatal(text: str) -> None:
    print(f'level=fatal msg="{text}"', file=sys.stderr, flush=True)
    sys.exit(1)


def log(text: str, level: str = "info") -> None:
    print(f'level={level} msg="{text}"', flush=True)


def sh(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.chmod(mode)
    temporary.replace(path)


def scalar(text: str) -> object:
    text = text.strip()
    if text[:1] == '"':
        return json.loads(text)
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1]
    if len(text) > 2 and text[0] == "[" and text[-1] == "]":
        return [scalar(item) for item in text[1:-1].split(",")]
    return {"true": True, "false": False, "[]": [], "{}": {}}.get(text, text)


def parse_documents(text: str) -> list:
    """Read the part of YAML that a plain emitter writes: nested mappings and lists, texts, JSON. Raises Refused."""
    documents = []
    for part in re.split(r"^---\s*$", text, flags=re.M):
        lines = [line.rstrip() for line in part.splitlines()]
        lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not lines:
            continue
        if lines[0][0] in "{[":
            try:
                documents.append(json.loads("\n".join(lines)))
            except ValueError as error:
                raise Refused(f"yaml: {error}") from error
            continue
        found, index = _block(lines, 0, _indent(lines[0]))
        if index != len(lines):
            raise Refused(f"yaml: can't parse {lines[index][:80]!r}")
        documents.append(found)
    return documents


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _block(lines: list, index: int, indent: int) -> tuple:
    if lines[index].lstrip().startswith("- "):
        items = []
        while index < len(lines) and re.match(rf" {{{indent}}}- ", lines[index]):
            rest = lines[index][indent + 2 :]
            if re.match(r"[\w.-]+:(\s|$)", rest):  # a mapping that begins behind the dash
                lines[index] = " " * (indent + 2) + rest
                item, index = _block(lines, index, indent + 2)
                items.append(item)
            else:
                items.append(scalar(rest))
                index += 1
        return items, index
    result: dict = {}
    while index < len(lines) and _indent(lines[index]) == indent and not lines[index].lstrip().startswith("- "):
        found = re.match(r"""\s*("[^"]+"|'[^']+'|[^\s"':][^:]*(?::\d+)?):(?:\s+(.*))?$""", lines[index])
        if not found:
            raise Refused(f"yaml: can't parse {lines[index][:80]!r}")
        key, value = str(scalar(found[1])), found[2]
        index += 1
        if value:
            result[key] = scalar(value)
            continue
        deeper = _indent(lines[index]) if index < len(lines) else -1
        if deeper > indent or (deeper == indent and lines[index].lstrip().startswith("- ")):
            result[key], index = _block(lines, index, deeper)
        else:
            result[key] = None
    return result, index


def parse_yaml(path: Path) -> dict:
    """Read a file of k3s's, or end as it does."""
    try:
        documents = parse_documents(path.read_text())
    except (Refused, ValueError) as error:
        fatal(f"{path}: {error}")
    return documents[0] if documents else {}


def registries() -> dict:
    """Return registries.yaml, which must have known keys only."""
    path = ETC / "registries.yaml"
    found = parse_yaml(path) if path.exists() else {}
    known = {"mirrors": {"endpoint", "rewrite"}, "configs": {"auth", "tls"}}
    for part, entries in found.items():
        if part not in known:
            fatal(f"registries.yaml: unknown field {part}")
        for host, entry in (entries or {}).items():
            unknown = sorted(set(entry or {}) - known[part])
            if unknown:
                fatal(f"registries.yaml: unknown field {unknown[0]} in {part}.{host}")
    return found
