# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration files: what differs from what is wanted, how to write it, how to put back what was there before."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._state import (
    STATE_DIR,
    Run,
    load_json,
    remove_empty_parents,
    save_json,
    write_atomically,
)

__all__ = [
    "Action",
    "Host",
    "Node",
    "Records",
    "WantedDirectory",
    "WantedFile",
    "apply",
    "parse_directories",
    "parse_files",
    "plan",
    "with_block",
    "without_block",
]

MARKER = "turnkey.hpc"
HIDDEN = "(a secret that is not shown)\n"


@dataclass(frozen=True)
class WantedFile:
    """One file, or one block in a file of others, as the caller wants it."""

    path: str
    content: str | None = None
    block: str | None = None
    marker: str = MARKER
    replaces: str | None = None
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    present: bool = True
    validate: tuple[str, ...] = ()
    secret: bool = False


@dataclass(frozen=True)
class WantedDirectory:
    """One directory as the caller wants it."""

    path: str
    mode: int = 0o755
    owner: str = "root"
    group: str = "root"
    present: bool = True
    wipe: bool = False


@dataclass(frozen=True)
class Node:
    """What is, or will be, at a path. ``kind`` is one of absent, file, link, directory, other."""

    kind: str = "absent"
    content: bytes = b""
    target: str = ""
    mode: int = 0
    owner: str = ""
    group: str = ""
    empty: bool = True


ABSENT = Node()


@dataclass(frozen=True)
class Action:
    """One step: ``path`` becomes ``after``. ``save``: what is there now is kept as the original."""

    path: str
    before: Node
    after: Node
    save: bool = False
    restored: bool = False
    validate: tuple[str, ...] = ()
    wipe: bool = False
    secret: bool = False

    @property
    def diff(self) -> dict[str, str]:
        """The step for ``--diff``."""
        before, after = _describe(self.before), _describe(self.after)
        result = {"before_header": self.path, "after_header": self.path, "before": "", "after": ""}
        if self.before.content != self.after.content and self.secret:
            result.update(before=HIDDEN * bool(self.before.content), after=HIDDEN * bool(self.after.content))
        elif self.before.content != self.after.content:
            result.update(before=_text(self.before), after=_text(self.after))
        if before != after:
            result.update(
                before_header=f"{self.path} ({before})",
                after_header=f"{self.path} ({after})",
                before=f"# {before}\n" + result["before"],
                after=f"# {after}\n" + result["after"],
            )
        return result


@dataclass
class Records:
    """Which paths are ours: ``files`` whole files, ``blocks`` files that we made for a block, ``directories``."""

    files: set[str] = field(default_factory=set)
    blocks: set[str] = field(default_factory=set)
    directories: set[str] = field(default_factory=set)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Records:
        """Read what ``as_dict`` wrote."""
        return cls(*(set(data.get(part, [])) for part in ("files", "blocks", "directories")))

    def as_dict(self) -> dict[str, Any]:
        """Return what is stored."""
        parts = {"files": self.files, "blocks": self.blocks, "directories": self.directories}
        return {part: sorted(paths) for part, paths in parts.items() if paths}

    def copy(self) -> Records:
        """Return a copy that can be changed."""
        return Records(set(self.files), set(self.blocks), set(self.directories))


def _describe(node: Node) -> str:
    """Return a node's kind and rights in a few words."""
    if node.kind == "absent":
        return "absent"
    if node.kind == "link":
        return f"link to {node.target}"
    return f"{node.kind} {node.mode:04o} {node.owner}:{node.group}"


def _text(node: Node) -> str:
    """Return what a file holds, as text."""
    return node.content.decode("utf-8", "replace")


def _mode(path: str, value: str, problems: list[str]) -> int:
    """Read an octal mode."""
    if re.fullmatch(r"0?[0-7]{3,4}", value):
        return int(value, 8)
    problems.append(f"mode '{value}' of {path} is not octal like '0644'.")
    return 0


def _check_path(path: str, problems: list[str]) -> None:
    """Refuse paths that are relative or not in their plain form."""
    if not path.startswith("/") or os.path.normpath(path) != path:
        problems.append(f"path '{path}' is not absolute and plain (no '..', '//' or '/' at the end).")


def _raise(problems: list[str]) -> None:
    """Report all problems of the input at once."""
    if problems:
        raise InvalidInput(join_problems(problems), "correct the task's files and directories.")


def parse_files(items: list[dict[str, Any]]) -> list[WantedFile]:
    """Check and convert the option ``files``."""
    problems: list[str] = []
    files: list[WantedFile] = []
    whole: set[str] = set()
    blocks: set[tuple[str, str]] = set()
    for item in items:
        path = str(item["path"])
        _check_path(path, problems)
        marker = str(item.get("marker") or MARKER)
        is_block = item.get("block") is not None or item.get("marker") is not None
        present = item.get("state", "present") == "present"
        given = [key for key in ("content", "block") if item.get(key) is not None]
        if present and len(given) != 1:
            problems.append(f"{path} needs exactly one of template, content and block.")
        if is_block and item.get("content") is not None:
            problems.append(f"{path} has content and a marker, but a marker belongs to a block.")
        if is_block:
            twice = (path, marker) in blocks or path in whole
            blocks.add((path, marker))
        else:
            twice = path in whole or any(path == other for other, _marker in blocks)
            whole.add(path)
        if twice:
            problems.append(f"{path} is listed twice.")
        validate = tuple(str(part) for part in item.get("validate") or ())
        if validate and not any("%s" in part for part in validate):
            problems.append(f"validate of {path} lacks the placeholder %s.")
        replaces = item.get("replaces")
        if replaces is not None:
            try:
                re.compile(replaces)
            except re.error as exc:
                problems.append(f"replaces '{replaces}' of {path} is no regular expression: {exc}.")
            if not is_block:
                problems.append(f"{path} has replaces, which only a block may have.")
        files.append(
            WantedFile(
                path=path,
                content=item.get("content"),
                block=item["block"] if item.get("block") is not None else ("" if is_block else None),
                marker=marker,
                replaces=replaces,
                mode=_mode(path, str(item.get("mode") or "0644"), problems),
                owner=str(item.get("owner") or "root"),
                group=str(item.get("group") or "root"),
                present=present,
                validate=validate,
                secret=bool(item.get("secret")),
            )
        )
    _raise(problems)
    return files


def parse_directories(items: list[dict[str, Any]]) -> list[WantedDirectory]:
    """Check and convert the option ``directories``; parents come first."""
    problems: list[str] = []
    directories = []
    for item in items:
        path = str(item["path"])
        _check_path(path, problems)
        directories.append(
            WantedDirectory(
                path=path,
                mode=_mode(path, str(item.get("mode") or "0755"), problems),
                owner=str(item.get("owner") or "root"),
                group=str(item.get("group") or "root"),
                present=item.get("state", "present") == "present",
                wipe=bool(item.get("wipe")),
            )
        )
    _raise(problems)
    return sorted(directories, key=lambda directory: directory.path.count("/"))


def _aside(marker: str) -> str:
    """Return what stands before a line that a block replaces."""
    return f"#[{marker}] "


def _around_block(text: str, marker: str) -> tuple[list[str], list[str]]:
    """Return the lines before and after the block of ``marker``: all are before it if there is none."""
    lines = text.splitlines(keepends=True)
    bare = [line.rstrip("\r\n") for line in lines]
    begin, end = f"# BEGIN {marker}", f"# END {marker}"
    if begin in bare and end in bare[bare.index(begin) :]:
        first = bare.index(begin)
        return lines[:first], lines[bare.index(end, first) + 1 :]
    return lines, []


def _brought_back(lines: list[str], marker: str) -> list[str]:
    """Return ``lines`` as they were before the block of ``marker`` put some of them aside."""
    aside = _aside(marker)
    return [line[len(aside) :] if line.startswith(aside) else line for line in lines]


def without_block(text: str, marker: str) -> str:
    """Return ``text`` without the block of ``marker``; lines that it had put aside are back."""
    head, tail = _around_block(text, marker)
    return "".join(_brought_back(head + tail, marker))


def with_block(text: str, block: str, marker: str, replaces: str | None = None) -> str:
    """Return ``text`` with ``block`` at its end, or where the block of ``marker`` stood before.

    Lines of others that ``replaces`` matches are kept as comments while the block is there.
    """
    head, tail = _around_block(text, marker)
    head, tail = _brought_back(head, marker), _brought_back(tail, marker)
    if replaces:
        pattern, aside = re.compile(replaces), _aside(marker)
        head, tail = ([aside + line if pattern.search(line) else line for line in part] for part in (head, tail))
    if head and not head[-1].endswith("\n"):
        head[-1] += "\n"
    body = block if block.endswith("\n") or not block else block + "\n"
    return "".join([*head, f"# BEGIN {marker}\n", body, f"# END {marker}\n", *tail])


def _differs(before: Node, after: Node) -> bool:
    """Whether a path must be touched to become ``after``."""
    if before.kind != after.kind:
        return True
    if after.kind == "directory":
        return (before.mode, before.owner, before.group) != (after.mode, after.owner, after.group)
    return replace(before, empty=True) != replace(after, empty=True)


def plan(
    files: list[WantedFile],
    directories: list[WantedDirectory],
    records: Records,
    look: Callable[[str], Node],
    original: Callable[[str], Node],
    foretell: bool = False,
) -> tuple[list[Action], Records]:
    """Return the steps in order, and the records as they are after them. Pure: ``look`` and ``original`` only read.

    ``look`` returns what is at a path, ``original`` what was there before the collection wrote it first.
    ``foretell``: only to be told, so a directory that a package would bring may be missing.
    """
    problems: list[str] = []
    records = records.copy()
    now: dict[str, Node] = {}
    actions: list[Action] = []

    def current(path: str) -> Node:
        if path not in now:
            now[path] = look(path)
        return now[path]

    def step(path: str, after: Node, **more: Any) -> None:
        before = current(path)
        if _differs(before, after):
            actions.append(Action(path, before, after, **more))
            now[path] = after

    for directory in directories:
        node = current(directory.path)
        if directory.present:
            if node.kind not in ("absent", "directory"):
                problems.append(f"{directory.path} should be a directory, but is a {node.kind}.")
                continue
            if node.kind == "absent":
                records.directories.add(directory.path)
            rights: dict[str, Any] = {"mode": directory.mode, "owner": directory.owner, "group": directory.group}
            step(directory.path, Node("directory", empty=node.empty, **rights))

    for file in files:
        node = current(file.path)
        if node.kind in ("directory", "other"):
            problems.append(f"{file.path} should be a file, but is a {node.kind}.")
        elif file.block is not None:
            _plan_block(file, node, records, step)
        elif file.present:
            parent = str(Path(file.path).parent)
            if current(parent).kind == "absent" and not foretell:
                problems.append(f"{file.path} can't be written: there is no directory {parent}.")
            content = (file.content or "").encode()
            after = Node("file", content, mode=file.mode, owner=file.owner, group=file.group)
            save = node.kind != "absent" and file.path not in records.files
            step(file.path, after, save=save and _differs(node, after), validate=file.validate, secret=file.secret)
            # A file that is just what is wanted stays its owner's.
            if not save or _differs(node, after):
                records.files.add(file.path)
        elif file.path in records.files:
            step(file.path, original(file.path), restored=True, secret=file.secret)
            records.files.discard(file.path)

    for directory in reversed(directories):
        if not directory.present and directory.path in records.directories:
            inside = directory.path + "/"
            gone = {action.path for action in actions if action.after.kind == "absent"}
            removable = directory.wipe or _empties(look, directory.path, gone, inside)
            if current(directory.path).kind == "directory" and removable:
                step(directory.path, ABSENT, wipe=directory.wipe)
                records.directories.discard(directory.path)
            elif current(directory.path).kind == "absent":
                records.directories.discard(directory.path)
    if problems:
        raise HpcError(
            join_problems(problems), "list missing directories before the files, or move away what is there."
        )
    return actions, records


def _empties(look: Callable[[str], Node], path: str, gone: set[str], inside: str) -> bool:
    """Whether a directory is empty once all of ``gone`` is: the rest is data of others, which stays."""
    node = look(path)
    names = set(filter(None, node.target.split("\0")))
    return names <= {other[len(inside) :] for other in gone if other.startswith(inside)}


def _plan_block(file: WantedFile, node: Node, records: Records, step: Callable[..., None]) -> None:
    """Plan one block in a file that belongs to others."""
    text = node.content.decode("utf-8", "surrogateescape")
    if file.present:
        new = with_block(text, file.block or "", file.marker, file.replaces)
        if node.kind == "absent":
            records.blocks.add(file.path)
            after = Node("file", new.encode(), mode=file.mode, owner=file.owner, group=file.group)
        else:
            after = replace(node, content=new.encode("utf-8", "surrogateescape"))
        step(file.path, after, validate=file.validate, secret=file.secret)
    elif node.kind != "absent":
        new = without_block(text, file.marker)
        if not new and file.path in records.blocks:
            records.blocks.discard(file.path)
            step(file.path, ABSENT, secret=file.secret)
        elif new != text:
            after = replace(node, content=new.encode("utf-8", "surrogateescape"))
            step(file.path, after, validate=file.validate, secret=file.secret)


class Host:
    """The files of this host, below ``root`` (tests use a directory of their own)."""

    def __init__(self, run: Run, root: str = "/") -> None:
        self.run = run
        self.root = Path(root)
        self.state = self.at(STATE_DIR)

    def at(self, path: str) -> Path:
        """Return where ``path`` lies."""
        return self.root / path.lstrip("/")

    def _original_path(self, path: str) -> Path:
        return self.state / "originals" / path.lstrip("/")

    def records(self) -> Records:
        """Return which paths are ours."""
        return Records.from_dict(load_json(self.state / "files.json"))

    def save_records(self, records: Records) -> None:
        """Remember which paths are ours."""
        save_json(self.state / "files.json", records.as_dict())

    def look(self, path: str) -> Node:
        """Return what is at ``path``. A directory's node lists its entries in ``target``, separated by NUL."""
        return self._node(self.at(path), path)

    def original(self, path: str) -> Node:
        """Return what was at ``path`` before we wrote it first."""
        return self._node(self._original_path(path), path)

    def _node(self, place: Path, path: str) -> Node:
        try:
            status = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return ABSENT
        rights: dict[str, Any] = {
            "mode": stat.S_IMODE(status.st_mode),
            "owner": _user_name(status.st_uid),
            "group": _group_name(status.st_gid),
        }
        if stat.S_ISLNK(status.st_mode):
            return Node("link", target=os.readlink(place))  # noqa: PTH115 (the text of the link, as it is)
        if stat.S_ISDIR(status.st_mode):
            entries = sorted(entry.name for entry in place.iterdir())
            return Node("directory", target="\0".join(entries), empty=not entries, **rights)
        if not stat.S_ISREG(status.st_mode):
            return Node("other", **rights)
        return Node("file", place.read_bytes(), **rights)

    def keep_original(self, path: str) -> None:
        """Save what is at ``path`` now."""
        node = self.look(path)
        place = self._original_path(path)
        (self.state / "originals").mkdir(parents=True, exist_ok=True)
        # It may hold secrets of the host that only the saved file's own directory protected.
        (self.state / "originals").chmod(0o700)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        self._put(place, node, path)

    def drop_original(self, path: str) -> None:
        """Forget what was at ``path``."""
        place = self._original_path(path)
        place.unlink(missing_ok=True)
        remove_empty_parents(place)

    def put(self, action: Action) -> None:
        """Make ``action.path`` what the action says."""
        if action.wipe:
            shutil.rmtree(self.at(action.path))
            return
        self._put(self.at(action.path), action.after, action.path, action.before)

    def _put(self, place: Path, node: Node, path: str, before: Node = ABSENT) -> None:
        if node.kind == "absent":
            if before.kind == "directory":
                place.rmdir()
            else:
                place.unlink(missing_ok=True)
            return
        if node.kind == "link":
            place.unlink(missing_ok=True)
            place.symlink_to(node.target)
            return
        owner = _user_id(node.owner, path), _group_id(node.group, path)
        if node.kind == "directory":
            place.mkdir(exist_ok=True, mode=0o700)
            os.chown(place, *owner)
            place.chmod(node.mode)
            return

        write_atomically(place, node.content, node.mode, owner)

    def check(self, action: Action) -> None:
        """Raise if the command that guards a file refuses what is to be written."""
        place = self.at(action.path)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name}.") as stream:
            stream.write(action.after.content)
            stream.flush()
            argv = [part.replace("%s", stream.name) for part in action.validate]
            rc, out, err = self.run(argv, None)
        if rc != 0:
            said = (err or out).strip().replace(stream.name, action.path)
            raise HpcError(
                f"{action.path} was not written, because {argv[0]} refuses the new content: {said}.",
                "correct the variables that it is made from.",
            )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _user_id(name: str, path: str) -> int:
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise HpcError(
            f"{path} should belong to user '{name}', who does not exist.", "create the user first."
        ) from None


def _group_id(name: str, path: str) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise HpcError(f"{path} should belong to group '{name}', which does not exist.", "create it first.") from None


def apply(host: Host, actions: list[Action], before: Records, after: Records) -> None:
    """Carry out ``actions``.

    Nothing is written before every file is found valid, so that a failure does not hide from the next run what changed.
    Originals and records are safe before anything is overwritten, so that a run that is killed loses none.
    """
    merged = Records(before.files | after.files, before.blocks | after.blocks, before.directories | after.directories)
    if merged.as_dict() != before.as_dict():
        for action in actions:
            if action.save:
                host.keep_original(action.path)
        host.save_records(merged)
    directories = [action for action in actions if action.after.kind == "directory"]
    for action in directories:
        host.put(action)
    others = [action for action in actions if action.after.kind != "directory"]
    for action in others:
        if action.validate:
            host.check(action)
    for action in others:
        host.put(action)
        if action.restored:
            host.drop_original(action.path)
    if after.as_dict() != merged.as_dict():
        host.save_records(after)
