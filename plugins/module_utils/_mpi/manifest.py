# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of an MPI application: ``mpi.yml``, or ``mpi.xml`` with lines ``key: value``, which never was XML.

The head node has no YAML library, so this reads the part of YAML that a manifest needs, and refuses the rest with file
and line. Values are texts; the key says what a text means.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, Union

from .._errors import InvalidInput, join_problems

__all__ = ["NAMES", "OVERRIDES", "Manifest", "change", "missing_sources", "parse", "seconds"]

NAMES = ("mpi.yml", "mpi.xml")
MOST_BYTES = 64 * 1024
MOST_HOSTS = 10_000
MOST_RANKS_PER_HOST = 4096
MOST_CPUS_PER_RANK = 1024
OLD_KEYS = ("from", "to", "hosts")
SOURCES = re.compile(r"\.(c|cc|cpp|cxx|c\+\+|C|f|f77|f90|f95|f03|f08|F|F90|F95|F03|F08)$")
COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=@,-]*|\.[A-Za-z0-9_][A-Za-z0-9._+=@,-]*")
TIME = re.compile(r"(\d{1,6})([smhd])|(\d{1,4}):(\d\d):(\d\d)")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# What would steer the programs that start the ranks, or the loader and shells, instead of the application.
STEERS = re.compile(
    r"(SLURM|SRUN|SBATCH|PMIX|PRTE|ORTE|OPAL|LD|GIT|SSH|PYTHON|TURNKEY)_?.*|OMPI_(?!MCA_(btl|coll|io|mtl|osc|pml)_).*"
    r"|PATH|HOME|USER|LOGNAME|SHELL|IFS|ENV|BASH_.*|TMPDIR|GCONV_PATH|LOCPATH|NLSPATH"
)

Place = int
Text = tuple[Place, str]
Value = Union[str, "list[Text]", "dict[str, Text]"]


class Line(NamedTuple):
    """A key of the file with its value, and where it stands."""

    number: int
    key: str
    value: Value


@dataclass(frozen=True)
class Manifest:
    """What an application is made of, and how it runs. ``time_limit`` is in seconds, 0 stands for no limit."""

    file: str
    sources: tuple[str, ...] = ()
    target: str = ""
    hosts: int = 1
    ranks_per_host: int = 1
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    time_limit: int = 0
    partition: str = ""
    build: tuple[str, ...] = ()
    cpus_per_rank: int = 1

    @property
    def ranks(self) -> int:
        """Number of processes."""
        return self.hosts * self.ranks_per_host

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


class Malformed(ValueError):
    """A value that can't be used. The text says what would do."""


# --- what the keys mean ----------------------------------------------------------------------------------------------


def one(value: Value) -> str:
    """Return a value that is one text."""
    if not isinstance(value, str):
        raise Malformed("has several values where one is wanted")
    if not value:
        raise Malformed("has no value")
    return value


def several(value: Value) -> list[str]:
    """Return the texts of a list."""
    if isinstance(value, dict):
        raise Malformed("has keys of its own where a list is wanted")
    return [text for _number, text in value] if isinstance(value, list) else [value]


def number(most: int) -> Callable[[Value], int]:
    """Return what reads a whole number from 1 to ``most``."""

    def read(value: Value) -> int:
        text = one(value)
        if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
            raise Malformed(f"is {text!r}, which is no whole number from 1 to {most}")
        return int(text)

    return read


def inside(text: str) -> str:
    """Return a path that stays inside of the source tree, and that no program takes for an option."""
    if len(text) > 255 or not all(COMPONENT.fullmatch(part) and part != ".git" for part in text.split("/")):
        raise Malformed(
            f"is {text!r}, which is no plain path inside of the source tree (letters, digits and ._+=@,-; no '..')"
        )
    return text


def sources(value: Value) -> tuple[str, ...]:
    """Return the source files."""
    paths = [path for text in several(value) for path in text.split()]
    if not paths:
        raise Malformed("names no file")
    for path in paths:
        if not SOURCES.search(inside(path)):
            raise Malformed(
                f"is {path!r}, which is no source of C, C++ or Fortran by its suffix; use 'build' for others"
            )
    return tuple(paths)


def seconds(value: Value) -> int:
    """Return the seconds of a time such as ``90s``, ``10m``, ``2h``, ``1d`` or ``1:30:00``."""
    text = one(value)
    found = TIME.fullmatch(text)
    if not found:
        raise Malformed(f"is {text!r}, which is no time such as 90s, 10m, 2h or 1:30:00")
    total = int(found[1]) * UNITS[found[2]] if found[1] else int(found[3]) * 3600 + int(found[4]) * 60 + int(found[5])
    if not 1 <= total <= 366 * 86400:
        raise Malformed(f"is {text!r}, which is not between a second and a year")
    return total


def partition(value: Value) -> str:
    """Return the name of a partition."""
    text = one(value)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", text):
        raise Malformed(f"is {text!r}, which is no name of a partition")
    return text


def arguments(value: Value) -> tuple[str, ...]:
    """Return the arguments of the program: a list, or one text that is split like a shell does, and not expanded."""
    if not isinstance(value, str):
        return tuple(several(value))
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise Malformed(f"is {value!r}, which can't be split into arguments: {error}") from error


def environment(value: Value) -> dict[str, str]:
    """Return the environment of the ranks."""
    if not isinstance(value, dict):
        raise Malformed("is no list of lines 'NAME: value'")
    for name in value:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name):
            raise Malformed(f"has {name!r}, which is no name of a variable")
        if STEERS.fullmatch(name):
            raise Malformed(f"has {name}, which would steer what starts the application; choose another name")
    return {name: text for name, (_number, text) in value.items()}


def commands(value: Value) -> tuple[str, ...]:
    """Return the commands of a build."""
    found = tuple(text for text in several(value) if text.strip())
    if not found:
        raise Malformed("has no command")
    return found


class Key(NamedTuple):
    """What a key is called in `Manifest`, and what reads its value."""

    attribute: str
    read: Callable[[Value], Any]


KEYS = {
    "from": Key("sources", sources),
    "to": Key("target", lambda value: inside(one(value))),
    "hosts": Key("hosts", number(MOST_HOSTS)),
    "ranks_per_host": Key("ranks_per_host", number(MOST_RANKS_PER_HOST)),
    "cpus_per_rank": Key("cpus_per_rank", number(MOST_CPUS_PER_RANK)),
    "args": Key("args", arguments),
    "env": Key("env", environment),
    "time_limit": Key("time_limit", seconds),
    "partition": Key("partition", partition),
    "build": Key("build", commands),
}
OVERRIDES = ("hosts", "ranks_per_host", "cpus_per_rank", "args", "time_limit", "partition")
"""Keys that a single run may have another value for."""


def nearest(key: str, known: Sequence[str]) -> str:
    """Return what to do about an unknown key."""
    close = difflib.get_close_matches(key.lower(), known, 1, 0.5)
    return f"did you mean '{close[0]}'?" if close else f"known keys are {', '.join(known)}."


def parse(file: str, data: bytes) -> Manifest:
    """Read a manifest; all that is wrong with it is one error, with file and line each."""
    if len(data) > MOST_BYTES:
        raise InvalidInput(f"{file}: {len(data)} bytes, which is no manifest.", f"at most {MOST_BYTES} bytes are read.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidInput(f"{file}:{line}: not UTF-8.", "save the file as UTF-8.") from error
    control = re.search(r"[^\t\n\r -\x7e\x80-\U0010ffff]|[\x80-\x9f\u2028\u2029]", text)
    if control:
        line = text[: control.start()].count("\n") + 1
        raise InvalidInput(f"{file}:{line}: the character {control[0]!r}.", "take it out.")
    problems: list[str] = []
    old = file.endswith(".xml")
    lines = (plain_lines if old else yaml_lines)(file, text.split("\n"), problems)
    values: dict[str, Any] = {}
    seen: dict[str, int] = {}
    for entry in lines:
        where = f"{file}:{entry.number}"
        if entry.key in seen:
            problems.append(f"{where}: '{entry.key}' stands in line {seen[entry.key]} already.")
        elif entry.key not in KEYS:
            known = OLD_KEYS if old else list(KEYS)
            problems.append(f"{where}: unknown key '{entry.key}', {nearest(entry.key, known)}")
        elif old and entry.key not in OLD_KEYS:
            problems.append(f"{where}: '{entry.key}' needs a manifest mpi.yml; write these lines there instead.")
        else:
            try:
                values[KEYS[entry.key].attribute] = KEYS[entry.key].read(entry.value)
            except Malformed as error:
                problems.append(f"{where}: '{entry.key}' {error}.")
        seen.setdefault(entry.key, entry.number)
    if "from" in seen and "build" in seen:
        problems.append(f"{file}:{seen['from']}: 'from' and 'build' exclude each other; 'build' compiles by itself.")
    wanted = ["to", "hosts"] + ["from"] * (not seen.keys() & {"from", "build"})
    missing = [key for key in wanted if key not in seen]
    if missing:
        problems.append(f"{file}: missing: {', '.join(missing)} (for instance {example(missing[0])}).")
    if problems:
        raise InvalidInput(join_problems(problems))
    return Manifest(file, **values)


def example(key: str) -> str:
    """Return a line that shows a key."""
    return {"from": "'from: app.c'", "to": "'to: app'", "hosts": "'hosts: 4'"}[key]


def change(manifest: Manifest, overrides: Sequence[str]) -> Manifest:
    """Return the manifest with other values for one run, each given as ``key=value``."""
    problems = []
    values: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or key not in OVERRIDES:
            problems.append(f"option '{text}': {nearest(key, OVERRIDES)} Write for instance hosts=8.")
            continue
        try:
            values[KEYS[key].attribute] = KEYS[key].read(value)
        except Malformed as error:
            problems.append(f"option '{text}': '{key}' {error}.")
    if problems:
        raise InvalidInput(join_problems(problems))
    return replace(manifest, **values)


def missing_sources(manifest: Manifest, files: Sequence[str]) -> list[str]:
    """Return what is wrong with the sources of a manifest in a tree that consists of ``files``."""
    known = set(files)
    problems = []
    for path in manifest.sources:
        if path not in known:
            close = difflib.get_close_matches(path, files, 1, 0.6)
            hint = f"did you mean '{close[0]}'?" if close else "add the file to the tree."
            problems.append(f"{manifest.file}: 'from' names {path}, which is no file of the tree; {hint}")
    return problems


# --- how the lines are read ------------------------------------------------------------------------------------------


def plain_lines(file: str, lines: Sequence[str], problems: list[str]) -> list[Line]:
    """Read the old format: a line ``key: value`` each."""
    found = []
    for place, raw in enumerate(lines, start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z_]+)\s*:\s*(.*)", line)
        if match:
            found.append(Line(place, match[1], match[2]))
        else:
            problems.append(f"{file}:{place}: {line[:60]!r} is no line 'key: value'.")
    return found


def yaml_lines(file: str, lines: Sequence[str], problems: list[str]) -> list[Line]:
    """Read YAML as far as manifests need it: keys with texts, with lists, with blocks of text, ``env`` with keys."""
    reader = Reader(lines)
    found = []
    while reader.more():
        place = reader.place
        try:
            found.append(reader.entry())
        except Malformed as error:
            problems.append(f"{file}:{reader.place or place}: {error}.")
            reader.skip()
    return found


class Reader:
    """Goes through the lines of a YAML file."""

    def __init__(self, lines: Sequence[str]) -> None:
        """Begin at the first line."""
        self.lines = [line.rstrip("\r") for line in lines]
        self.next = 0
        self.place = 0
        self.begun = False

    def more(self) -> bool:
        """Go to the next line that says something, and return whether there is one."""
        while self.next < len(self.lines) and re.fullmatch(r"\s*(#.*)?|---\s*", self.lines[self.next]):
            if self.lines[self.next].startswith("---") and self.begun:
                break
            self.next += 1
        self.place = self.next + 1
        return self.next < len(self.lines)

    def skip(self) -> None:
        """Leave out what belongs to a line that can't be read."""
        self.next = max(self.next, self.place)
        while self.next < len(self.lines) and re.match(r"\s+\S|\s*-\s|\s*#|\s*$", self.lines[self.next]):
            self.next += 1

    def take(self) -> str:
        """Return the next line, and go on."""
        self.place = self.next + 1
        self.next += 1
        return self.lines[self.next - 1]

    def entry(self) -> Line:
        """Return a key with its value."""
        line = self.take()
        place = self.place
        self.begun = True
        key, rest = self.key_of(line)
        if re.match(r"\s", line):
            raise Malformed(f"{line.strip()[:60]!r} is indented, but belongs to nothing")
        if rest in ("|", "|-"):
            return Line(place, key, [(place, self.block())])
        if rest:
            return Line(place, key, value_of(rest, place))
        return Line(place, key, self.nested())

    @staticmethod
    def key_of(line: str) -> tuple[str, str]:
        """Return key and rest of a line."""
        match = re.fullmatch(r"""\s*([A-Za-z_][\w-]*|"[^"\\]*"|'[^']*')\s*:(?:\s+(.*?))?\s*""", line)
        if not match:
            raise Malformed(f"{line.strip()[:60]!r} is no line 'key: value'")
        rest = match[2] or ""
        return match[1].strip("\"'"), "" if rest.startswith("#") else rest

    def block(self) -> str:
        """Return the lines of a literal block."""
        begin = self.next
        while self.next < len(self.lines) and re.match(r" +\S|\s*$", self.lines[self.next]):
            self.next += 1
        body = self.lines[begin : self.next]
        margin = min((len(line) - len(line.lstrip(" ")) for line in body if line.strip()), default=0)
        return "\n".join(line[margin:] for line in body).strip("\n")

    def nested(self) -> Value:
        """Return the list or the keys that follow a line which ends in a colon."""
        items: list[Text] = []
        names: dict[str, Text] = {}
        indent = None
        while self.next < len(self.lines):
            line = self.lines[self.next]
            if re.fullmatch(r"\s*(#.*)?", line):
                self.next += 1
                continue
            depth = len(line) - len(line.lstrip())
            if not depth and not re.match(r"-(\s|$)", line):
                break
            self.take()
            if "\t" in line[:depth]:
                raise Malformed("is indented with a tab, which YAML doesn't allow")
            indent = depth if indent is None else indent
            if depth != indent:
                raise Malformed(f"{line.strip()[:60]!r} is indented in another way than the line above")
            item = re.fullmatch(r"\s*-(?:\s+(.*?))?\s*", line)
            if item and not names:
                items.append((self.place, scalar(item[1] or "")))
            elif not item and not items:
                name, rest = self.key_of(line)
                if name in names:
                    raise Malformed(f"'{name}' stands in line {names[name][0]} already")
                names[name] = (self.place, scalar(rest))
            else:
                raise Malformed("mixes a list with keys")
        return names or items or ""


def value_of(text: str, place: int) -> Value:
    """Return the value behind a key: a text, or a list or keys in brackets."""
    if text.startswith("["):
        return [(place, scalar(part)) for part in flow(text, "]")]
    if text.startswith("{"):
        names: dict[str, Text] = {}
        for part in flow(text, "}"):
            name, rest = Reader.key_of(part)
            names[name] = (place, scalar(rest))
        return names
    return scalar(text)


def flow(text: str, close: str) -> list[str]:
    """Return the parts of a list or of keys in brackets on one line."""
    body = re.fullmatch(rf"""[\[{{]((?:[^"'\[\]{{}}#]|"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')*)\{close}\s*(?:#.*)?""", text)
    if not body:
        raise Malformed(f"{text[:60]!r} does not end with '{close}' on its line, or has brackets or '#' without quotes")
    parts = re.findall(r"""((?:[^,"']|"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')+)""", body[1])
    return [part.strip() for part in parts if part.strip()]


def scalar(text: str) -> str:
    """Return the text that a scalar stands for."""
    quoted = re.fullmatch(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s*(?:#.*)?""", text)
    if quoted and text[0] == "'":
        return quoted[1][1:-1].replace("''", "'")
    if quoted:
        try:
            return str(json.loads(quoted[1]))
        except ValueError as error:
            raise Malformed(f"{quoted[1][:60]} has an escape that is not known here") from error
    text = re.sub(r"(^|\s)#.*", "", text).strip()
    if text[:1] in tuple("&*!|>%@`\"'{}[],") or re.match(r"[-?:](\s|$)", text):
        raise Malformed(f"{text[:60]!r} needs quotes, or is YAML that a manifest has no use for")
    if re.search(r":(\s|$)", text):
        raise Malformed(f"{text[:60]!r} has a colon, which needs quotes around the text")
    return text
