# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts that are the same on every node: conflicts first, then what to do, then doing it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._state import (
    STATE_DIR,
    Run,
    load_json,
    save_json,
    write_atomically,
)

__all__ = [
    "Account",
    "Group",
    "Host",
    "Step",
    "System",
    "User",
    "apply",
    "conflicts",
    "parse_accounts",
    "parse_groups",
    "parse_users",
    "plan",
]

NAME = re.compile(r"^[a-z_][a-z0-9_-]{0,30}$")
KEY = re.compile(r"^[^\n]*\b(ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,3}( [^\n]*)?$")
# Below are the system's own accounts, above are nobody and those that systemd gives out.
UIDS = range(1000, 60000)
SUDOERS = "{name} ALL=(ALL:ALL) NOPASSWD: ALL\n"


@dataclass(frozen=True)
class Account:
    """An account as the caller wants it. None means: not looked at."""

    name: str
    uid: int
    gid: int
    comment: str = ""
    groups: tuple[str, ...] | None = None
    shell: str = "/bin/bash"
    home: str = ""
    authorized_keys: tuple[str, ...] | None = None
    sudo: bool = False
    present: bool = True


@dataclass(frozen=True)
class User:
    """A line of passwd."""

    name: str
    uid: int
    gid: int
    comment: str
    home: str
    shell: str


@dataclass(frozen=True)
class Group:
    """A line of group."""

    name: str
    gid: int
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class System:
    """What the host has. ``homes``: owner of each home directory that exists; ``keys``, ``sudoers``: text of a file."""

    users: dict[str, User]
    groups: dict[str, Group]
    homes: dict[str, int] = field(default_factory=dict)
    directories: frozenset[str] = frozenset()
    keys: dict[str, str] = field(default_factory=dict)
    sudoers: dict[str, str] = field(default_factory=dict)

    def groups_of(self, name: str) -> tuple[str, ...]:
        """Return the supplementary groups of a user."""
        return tuple(sorted(group.name for group in self.groups.values() if name in group.members))


@dataclass(frozen=True)
class Step:
    """One thing to do: run ``argv``, or write ``text`` (None: remove) as the keys or the sudo rule of ``name``."""

    name: str
    what: str
    before: str
    after: str
    argv: tuple[str, ...] = ()
    text: str | None = None


def parse_users(text: str) -> dict[str, User]:
    """Read the output of ``getent passwd``."""
    users: dict[str, User] = {}
    for line in text.splitlines():
        name, _password, uid, gid, comment, home, shell = line.split(":")
        users.setdefault(name, User(name, int(uid), int(gid), comment, home, shell))
    return users


def parse_groups(text: str) -> dict[str, Group]:
    """Read the output of ``getent group``."""
    groups: dict[str, Group] = {}
    for line in text.splitlines():
        name, _password, gid, members = line.split(":")
        groups.setdefault(name, Group(name, int(gid), tuple(filter(None, members.split(",")))))
    return groups


def parse_accounts(items: list[dict[str, Any]]) -> list[Account]:
    """Check and convert the option ``accounts``; all problems are reported at once."""
    problems: list[str] = []
    accounts: list[Account] = []
    for item in items:
        name, uid = str(item["name"]), int(item["uid"])
        gid = uid if item.get("gid") is None else int(item["gid"])
        keys = item.get("authorized_keys")
        groups = item.get("groups")
        account = Account(
            name=name,
            uid=uid,
            gid=gid,
            comment=item.get("comment") or "",
            groups=None if groups is None else tuple(sorted(set(groups))),
            shell=item.get("shell") or "/bin/bash",
            home=item.get("home") or f"/home/{name}",
            authorized_keys=None if keys is None else tuple(key.strip() for key in keys if key.strip()),
            sudo=bool(item.get("sudo")),
            present=(item.get("state") or "present") == "present",
        )
        if not NAME.match(name):
            problems.append(f"'{name}' can't be a login name: use a-z, 0-9, '_' and '-', at most 31, no digit first.")
        for label, number in (("uid", uid), ("gid", gid)):
            if number not in UIDS:
                problems.append(f"{label} {number} of {name} is not between {UIDS[0]} and {UIDS[-1]}.")
        if re.search(r"[:\n]", account.comment):
            problems.append(f"The comment '{account.comment}' of {name} has a ':' or a line break.")
        for label, path in (("home", account.home), ("shell", account.shell)):
            if not re.fullmatch(r"(/[^/:\s]+)+", path) or ".." in path.split("/"):
                problems.append(f"The {label} '{path}' of {name} is no absolute path.")
        problems.extend(
            f"'{key[:40]}' is no public SSH key of {name}."
            for key in account.authorized_keys or ()
            if not KEY.match(key)
        )
        for other in accounts:
            if other.name == name:
                problems.append(f"{name} is listed twice.")
            elif other.uid == uid:
                problems.append(f"uid {uid} is given to both {other.name} and {name}.")
            elif other.gid == gid:
                problems.append(f"gid {gid} is given to both {other.name} and {name}: each has a group of their own.")
        accounts.append(account)
    if problems:
        raise InvalidInput(join_problems(problems), "correct the list of accounts.")
    return accounts


def conflicts(accounts: list[Account], system: System) -> list[str]:
    """Return why the accounts can't be made on this host: one text each."""
    problems = []
    uids = {user.uid: user.name for user in system.users.values()}
    gids = {group.gid: group.name for group in system.groups.values()}
    for account in accounts:
        name, user, group = account.name, system.users.get(account.name), system.groups.get(account.name)
        if not account.present:
            continue
        if user and user.uid != account.uid:
            problems.append(f"{name} should have uid {account.uid}, but exists with uid {user.uid}.")
        elif not user and account.uid in uids:
            problems.append(f"uid {account.uid} of {name} belongs to {uids[account.uid]}.")
        if group and group.gid != account.gid:
            problems.append(f"Group {name} should have gid {account.gid}, but exists with gid {group.gid}.")
        elif not group and account.gid in gids:
            problems.append(f"gid {account.gid} of {name} belongs to group {gids[account.gid]}.")
        elif user and user.gid != account.gid:
            problems.append(f"{name} should have the own group {account.gid}, but is in group {user.gid}.")
        if user and user.home != account.home:
            problems.append(f"{name} should live in {account.home}, but lives in {user.home}.")
        own = {other.name for other in accounts if other.present}
        problems.extend(
            f"{name} should be in group {wanted}, which does not exist."
            for wanted in account.groups or ()
            if wanted not in system.groups and wanted not in own
        )
        parent = str(Path(account.home).parent)
        if account.home in system.homes:
            owner = system.homes[account.home]
            if owner != account.uid:
                problems.append(f"{account.home} of {name} belongs to uid {owner}, not {account.uid}.")
        elif parent not in system.directories:
            problems.append(f"{account.home} of {name} can't be made: there is no directory {parent}.")
    return problems


def plan(accounts: list[Account], system: System, made: set[str], wipe_homes: bool = False) -> list[Step]:
    """Return what to do. Accounts that are not in ``made`` existed before us and are never removed."""
    steps: list[Step] = []
    present = [account for account in accounts if account.present]
    for account in present:
        if account.name not in system.groups:
            add = ("groupadd", "--gid", str(account.gid), account.name)
            steps.append(Step(account.name, "group", "absent", f"gid {account.gid}", add))
    for account in present:
        steps.extend(_plan_user(account, system))
        if account.authorized_keys is not None:
            text = "".join(f"{key}\n" for key in account.authorized_keys)
            before = system.keys.get(account.name, "")
            if text != before:
                steps.append(Step(account.name, "authorized_keys", before or "none", text or "none", text=text or None))
        steps.extend(_plan_sudo(account, system))
    for account in accounts:
        if account.present:
            continue
        steps.extend(_plan_sudo(account, system))
        if account.name in made and account.name in system.users:
            argv = ("userdel", *(["--remove"] if wipe_homes else []), account.name)
            after = "absent with its home" if wipe_homes else "absent"
            steps.append(Step(account.name, "account", f"uid {account.uid}", after, argv))
        elif account.name in made and account.name in system.groups:
            # A run was killed between the group and its user.
            steps.append(Step(account.name, "group", "present", "absent", ("groupdel", account.name)))
    return steps


def _plan_user(account: Account, system: System) -> Iterator[Step]:
    """Plan the line in passwd and the supplementary groups."""
    name, user = account.name, system.users.get(account.name)
    groups = ",".join(account.groups or ())
    if user is None:
        argv = ["useradd", "--uid", str(account.uid), "--gid", str(account.gid), "--comment", account.comment]
        # "*" and not "!": nobody can log in with a password, but sshd does not take the account for locked.
        argv += ["--home-dir", account.home, "--shell", account.shell, "--password", "*"]
        argv += (
            ["--create-home", "--key", "HOME_MODE=0700"] if account.home not in system.homes else ["--no-create-home"]
        )
        argv += ["--groups", groups] if groups else []
        after = f"uid {account.uid}, {account.home}, {account.shell}, groups: {groups or 'none'}"
        yield Step(name, "account", "absent", after, (*argv, name))
        return
    changes: list[tuple[str, str, str, str]] = [
        ("comment", "--comment", user.comment, account.comment),
        ("shell", "--shell", user.shell, account.shell),
    ]
    if account.groups is not None:
        changes.append(("groups", "--groups", ",".join(system.groups_of(name)), groups))
    for what, option, before, after in changes:
        if before != after:
            yield Step(name, what, before or "none", after or "none", ("usermod", option, after, name))
    if account.home not in system.homes:
        yield Step(name, "home", "absent", account.home, ("mkhomedir_helper", name, "0077"))


def _plan_sudo(account: Account, system: System) -> Iterator[Step]:
    """Plan the sudo rule."""
    before = system.sudoers.get(account.name)
    after = SUDOERS.format(name=account.name) if account.sudo and account.present else None
    if before != after:
        yield Step(account.name, "sudo", before or "none", after or "none", text=after)


@contextmanager
def _as_user(uid: int, gid: int) -> Iterator[None]:
    """Touch files with the rights of a user: links that the user set up then lead nowhere that they could not go.

    It also serves where root has no rights in a home, as on NFS with root_squash.
    """
    if os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([gid])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


class Host:
    """The accounts of this host; files lie below ``root`` (tests use a directory of their own)."""

    def __init__(self, run: Run, root: str = "/", pause: Callable[[float], None] = time.sleep) -> None:
        self.run = run
        self.root = Path(root)
        self.pause = pause
        self.state = self.at(STATE_DIR) / "accounts.json"

    def at(self, path: str) -> Path:
        """Return where ``path`` lies."""
        return self.root / path.lstrip("/")

    def made(self) -> set[str]:
        """Return the accounts that were made here."""
        return set(load_json(self.state).get("made", []))

    def remember(self, made: set[str]) -> None:
        """Store the accounts that were made here."""
        save_json(self.state, {"made": sorted(made)})

    def leaving(self) -> list[Account]:
        """Return all that was made here, as accounts that should be absent."""
        rules = self._rule("").parent.glob(self._rule("*").name)
        names = self.made() | {rule.name[len(self._rule("").name) :] for rule in rules}
        users = parse_users(self._getent("passwd")) if names else {}
        nobody = User("", 0, 0, "", "/", "")
        return [
            Account(name, users.get(name, nobody).uid, users.get(name, nobody).gid, home="/", present=False)
            for name in sorted(names)
        ]

    def _getent(self, database: str) -> str:
        out: str
        rc, out, err = self.run(["getent", database], None)
        if rc != 0:
            raise HpcError(f"getent {database} failed: {err.strip()}.", "repair the host's name service.")
        return out

    def system(self, accounts: list[Account]) -> System:
        """Return what the host has, as far as it matters for ``accounts``."""
        users = parse_users(self._getent("passwd"))
        homes: dict[str, int] = {}
        directories: set[str] = set()
        keys: dict[str, str] = {}
        sudoers: dict[str, str] = {}
        for account in accounts:
            parent = Path(account.home).parent
            if self.at(str(parent)).is_dir():
                directories.add(str(parent))
            user = users.get(account.name)
            if self.at(account.home).exists():
                homes[account.home] = self.at(account.home).stat().st_uid
                if user and account.present and account.authorized_keys is not None:
                    keys[account.name] = self._keys(user)
            rule = self._rule(account.name)
            if rule.exists():
                sudoers[account.name] = rule.read_text(encoding="utf-8")
        groups = parse_groups(self._getent("group"))
        return System(users, groups, homes, frozenset(directories), keys, sudoers)

    def _rule(self, name: str) -> Path:
        return self.at(f"/etc/sudoers.d/turnkey-user-{name}")

    def _keys(self, user: User) -> str:
        with _as_user(user.uid, user.gid):
            try:
                return (self.at(user.home) / ".ssh" / "authorized_keys").read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                return ""
            except OSError as exc:
                remedy = "repair the rights of that directory."
                raise HpcError(f"The keys of {user.name} can't be read ({exc.strerror}).", remedy) from exc

    def write_keys(self, account: Account, text: str | None) -> None:
        """Write the account's keys, as the user."""
        directory = self.at(account.home) / ".ssh"
        with _as_user(account.uid, account.gid):
            try:
                if text is None:
                    (directory / "authorized_keys").unlink(missing_ok=True)
                    return
                directory.mkdir(mode=0o700, exist_ok=True)
                write_atomically(directory / "authorized_keys", text.encode(), 0o600)
            except OSError as exc:
                remedy = "repair the rights of the home directory."
                raise HpcError(f"The keys of {account.name} can't be written ({exc.strerror}).", remedy) from exc

    def write_rule(self, name: str, text: str | None) -> None:
        """Write or remove a sudo rule; visudo has to accept it first."""
        rule = self._rule(name)
        if text is None:
            rule.unlink(missing_ok=True)
            return
        if not rule.parent.is_dir():
            raise HpcError(f"{name} should get sudo, but sudo is not installed.", "install the package sudo first.")
        rc, out, err = self.run(["visudo", "--check", "--file=-"], text)
        if rc != 0:
            raise HpcError(f"visudo refuses the rule of {name}: {(err or out).strip()}.", "report this as a bug.")
        write_atomically(rule, text.encode(), 0o440)

    def call(self, step: Step) -> None:
        """Run a step's command."""
        argv = list(step.argv)
        rc, out, err = self.run(argv, None)
        if argv[0] == "userdel":
            # 8: processes of the user live; what is left of a login ends some seconds after it.
            for command in (["loginctl", "terminate-user", step.name], ["pkill", "-KILL", "-U", step.name]):
                if rc == 8:
                    self.run(command, None)
                for _attempt in range(5 if rc == 8 else 0):
                    self.pause(1)
                    rc, out, err = self.run(argv, None)
                    if rc != 8:
                        break
        if rc != 0:
            what = f"{argv[0]} for {step.name} failed with code {rc}: {(err or out).strip()}."
            raise HpcError(what, "repair it on the host, then run again.")


def apply(host: Host, accounts: list[Account], steps: list[Step], made: set[str]) -> None:
    """Carry out ``steps``. What is going to be made is noted first: a run that is killed leaves nothing unknown."""
    by_name = {account.name: account for account in accounts}
    new = {step.name for step in steps if step.what == "account" and step.before == "absent"}
    if new - made:
        host.remember(made | new)
    for step in steps:
        if step.argv:
            host.call(step)
        elif step.what == "authorized_keys":
            host.write_keys(by_name[step.name], step.text)
        else:
            host.write_rule(step.name, step.text)
    gone = {account.name for account in accounts if not account.present}
    if (made | new) - gone != made | new:
        host.remember((made | new) - gone)
