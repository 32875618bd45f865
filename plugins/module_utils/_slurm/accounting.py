# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts, users, QoS and limits in Slurm's accounting database: what is wanted, what is there, what to do.

Everything is a dictionary of items, ``{Key: {field: text}}``, with fields and values in the spelling of ``sacctmgr``,
so that reading, comparing, changing and the diff are the same for all of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Callable

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run

__all__ = [
    "ASSOCIATION_LIMITS",
    "QOS_LIMITS",
    "Accounting",
    "Change",
    "Database",
    "Key",
    "Step",
    "Wanted",
    "check",
    "parse",
    "plan",
]

NAME = re.compile(r"[a-z0-9_][a-z0-9_.@-]*")
# How many names are put on one command line: far below the kernel's limit.
MAX_NAMES = 1000
TRES = ("cpu", "mem", "energy", "node", "billing", "vmem", "pages")
# These exist only where AccountingStorageTRES names them (fs/disk always does), and are known by their type until then.
TRES_TYPES = ("fs", "gres", "license", "bb", "ic")
UNITS = {"": 1, "K": 1, "M": 1, "G": 1024, "T": 1024**2, "P": 1024**3}
LEVELS = {"none": "None", "operator": "Operator", "administrator": "Administrator"}
QOS_FLAGS = (
    "DenyOnLimit",
    "EnforceUsageThreshold",
    "NoDecay",
    "NoReserve",
    "OverPartQOS",
    "PartitionMaxNodes",
    "PartitionMinNodes",
    "PartitionTimeLimit",
    "Relative",
    "RequiresReservation",
    "UsageFactorSafe",
)
PREEMPT_MODES = ("cancel", "cluster", "gang", "off", "requeue", "suspend", "within")


class Kind:
    """How a value is written. ``cleared`` is what says "no limit", ``default`` what Slurm then shows."""

    default = ""
    cleared = "-1"

    def given(self, value: Any) -> str:
        """Return a value that the user wrote, as Slurm shows it; raise ValueError, which says what it must be."""
        raise NotImplementedError

    def read(self, text: str) -> str:
        """Return a value that Slurm wrote, in the form that ``given`` has."""
        return text

    def option(self, before: str, after: str) -> str:
        """Return what stands behind the "=" for sacctmgr to change ``before`` to ``after``."""
        return after if after != self.default else self.cleared


class Count(Kind):
    """A number, not negative."""

    def __init__(self, default: str = "", cleared: str = "-1") -> None:
        self.default, self.cleared = default, cleared

    def given(self, value: Any) -> str:
        """Accept 10 and "10"."""
        if isinstance(value, bool) or not re.fullmatch(r"[0-9]+", str(value)):
            raise ValueError("must be a whole number, not negative")
        return str(int(value))


class Share(Count):
    """A number of shares, or "parent"."""

    def given(self, value: Any) -> str:
        """Accept 10, "10" and "parent"."""
        return "parent" if value == "parent" else super().given(value)


class Number(Kind):
    """A number with a fraction."""

    def __init__(self, default: str = "") -> None:
        self.default = self.read(default)

    def given(self, value: Any) -> str:
        """Accept 1, 1.5 and "1.5"."""
        if isinstance(value, bool) or not re.fullmatch(r"[0-9]+(\.[0-9]+)?", str(value)):
            raise ValueError("must be a number, not negative")
        return f"{float(value):g}"

    def read(self, text: str) -> str:
        """Drop the zeros."""
        return f"{float(text):g}" if text else ""


class Duration(Kind):
    """A time. ``unit`` is what a bare number counts, in seconds."""

    def __init__(self, unit: int, default: str = "", cleared: str = "-1") -> None:
        self.unit, self.default, self.cleared = unit, default, cleared

    def given(self, value: Any) -> str:
        """Accept numbers and Slurm's ways to write a time."""
        text = str(value)
        match = re.fullmatch(r"(?:([0-9]+)-)?([0-9]+)(?::([0-9]+))?(?::([0-9]+))?", text)
        if isinstance(value, bool) or match is None:
            what = "minutes" if self.unit == 60 else "seconds"
            raise ValueError(f"must be {what}, or a time as in '1-12:00:00' (in quotes, or YAML reads another number)")
        days, *rest = match.groups()
        numbers = [int(part) for part in rest if part is not None]
        if days is not None:  # D-HH[:MM[:SS]]
            hours, minutes, seconds = [*numbers, 0, 0][:3]
        elif len(numbers) == 1:
            return self._text(numbers[0] * self.unit)
        elif len(numbers) == 2:  # MM:SS
            hours, (minutes, seconds) = 0, numbers
        else:
            hours, minutes, seconds = numbers
        total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
        return self._text(total)

    def option(self, before: str, after: str) -> str:
        """Return seconds as a number: Slurm takes a time only where it counts minutes."""
        if self.unit != 1:
            return super().option(before, after)
        days, _dash, clock = after.rpartition("-")
        hours, minutes, seconds = (int(part) for part in clock.split(":"))
        return str(((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds)

    def _text(self, seconds: int) -> str:
        # Slurm keeps minutes, and rounds up.
        seconds = -(-seconds // self.unit) * self.unit
        hours, rest = divmod(seconds, 3600)
        days, hours = divmod(hours, 24)
        text = f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}"
        return f"{days}-{text}" if days else text


class Resources(Kind):
    """A limit for each of some trackable resources (TRES)."""

    def given(self, value: Any) -> str:
        """Accept {cpu: 4, mem: 10G} and "cpu=4,mem=10G"."""
        if isinstance(value, str):
            pairs = [item.partition("=")[::2] for item in value.split(",") if item]
        elif isinstance(value, dict):
            pairs = [(str(name), "" if number is None else str(number)) for name, number in value.items()]
        else:
            pairs = []
        if not pairs:
            raise ValueError("must be a dictionary of resources as in {cpu: 4, mem: 10G}")
        counts = {}
        for name, number in pairs:
            if number in ("", "-1"):
                continue
            if not re.fullmatch(r"[0-9]+[KMGTP]?", number.upper()):
                raise ValueError(f"wants a whole number for {name}, with K, M, G, T or P behind it at most")
            counts[name.lower()] = number
        return self._text(counts)

    def read(self, text: str) -> str:
        """Bring units into one form."""
        return self._text(self.counts(text))

    @staticmethod
    def counts(text: str) -> dict[str, str]:
        """Split "cpu=4,mem=10G"."""
        return dict(item.partition("=")[::2] for item in text.split(",") if item)

    @staticmethod
    def _text(counts: dict[str, str]) -> str:
        return ",".join(f"{name}={_amount(name, number)}" for name, number in sorted(counts.items()))

    def option(self, before: str, after: str) -> str:
        """Take off what is not in ``after`` any more: Slurm leaves alone what is not named."""
        wanted = self.counts(after)
        gone = {name: "-1" for name in self.counts(before) if name not in wanted}
        return ",".join(f"{name}={number}" for name, number in {**wanted, **gone}.items())


def _amount(name: str, text: str) -> str:
    """Return a number with its unit in one form: memory in MB, the rest as a plain number."""
    number, unit = re.fullmatch(r"([0-9]+)([KMGTP]?)", text.upper()).groups()  # type: ignore[union-attr]
    if name in ("mem", "vmem") or name.startswith("bb/"):
        value = int(number) // 1024 if unit == "K" else int(number) * UNITS[unit]
        return f"{value}M"
    return str(int(number) * {"": 1, **{unit: 1000 ** (power + 1) for power, unit in enumerate("KMGTP")}}[unit])


class Names(Kind):
    """A list of names. The order doesn't count."""

    cleared = ""

    def __init__(self, choices: tuple[str, ...] = (), cleared: str = "") -> None:
        self.choices = {choice.lower(): choice for choice in choices}
        self.cleared = cleared

    def given(self, value: Any) -> str:
        """Accept a list, and text with commas."""
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) and item.strip() for item in items):
            raise ValueError("must be a list of names")
        names = {item.strip() for item in items}
        unknown = sorted(name for name in names if self.choices and name.lower() not in self.choices)
        if unknown:
            raise ValueError(f"has {', '.join(unknown)}, which is none of {', '.join(self.choices.values())}")
        return ",".join(sorted(self.choices.get(name.lower(), name) for name in names))

    def read(self, text: str) -> str:
        """Sort."""
        return ",".join(sorted(filter(None, text.split(","))))


class Choice(Kind):
    """One of some words."""

    def __init__(self, choices: dict[str, str], default: str, cleared: str) -> None:
        self.choices, self.default, self.cleared = choices, default, cleared

    def given(self, value: Any) -> str:
        """Accept any case, and YAML's off."""
        word = "off" if value is False else str(value).lower()
        if word not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}")
        return self.choices[word]


class Text(Kind):
    """Free text in one line. Slurm keeps it in small letters."""

    def given(self, value: Any) -> str:
        """Refuse what separates the fields."""
        text = str(value).lower()
        if re.search(r"[|\n\"']", text):
            raise ValueError("must be text in one line, without '|' and quotes")
        return text


class Name(Text):
    """The name of something else, or nothing."""


MINUTES, TRES_LIMIT, COUNT = Duration(60), Resources(), Count()
SHARED: dict[str, Kind] = {
    "GrpJobs": COUNT,
    "GrpJobsAccrue": COUNT,
    "GrpSubmitJobs": COUNT,
    "GrpTRES": TRES_LIMIT,
    "GrpTRESMins": TRES_LIMIT,
    "GrpTRESRunMins": TRES_LIMIT,
    "GrpWall": MINUTES,
    "MaxTRESMinsPerJob": TRES_LIMIT,
    "MaxTRESPerJob": TRES_LIMIT,
    "MaxTRESPerNode": TRES_LIMIT,
    "MaxWallDurationPerJob": MINUTES,
}
ASSOCIATION_LIMITS: dict[str, Kind] = {
    **SHARED,
    "DefaultQOS": Name(),
    "Fairshare": Share("1", "1"),
    "MaxJobs": COUNT,
    "MaxJobsAccrue": COUNT,
    "MaxSubmitJobs": COUNT,
    "Priority": COUNT,
    "QOS": Names(),
}
"""Limits and other settings of accounts and of users in them, by the names under which sacctmgr sets and shows them."""

QOS_LIMITS: dict[str, Kind] = {
    **SHARED,
    "Description": Text(),
    "Flags": Names(QOS_FLAGS, "-1"),
    "GraceTime": Duration(1, "00:00:00", "0"),
    "LimitFactor": Number(),
    "MaxJobsAccruePerAccount": COUNT,
    "MaxJobsAccruePerUser": COUNT,
    "MaxJobsPerAccount": COUNT,
    "MaxJobsPerUser": COUNT,
    "MaxSubmitJobsPerAccount": COUNT,
    "MaxSubmitJobsPerUser": COUNT,
    "MaxTRESPerAccount": TRES_LIMIT,
    "MaxTRESPerUser": TRES_LIMIT,
    "MaxTRESRunMinsPerAccount": TRES_LIMIT,
    "MaxTRESRunMinsPerUser": TRES_LIMIT,
    "MinTRESPerJob": TRES_LIMIT,
    "Preempt": Names(),
    "PreemptExemptTime": MINUTES,
    "PreemptMode": Choice({mode: mode for mode in PREEMPT_MODES}, "cluster", ""),
    "Priority": Count("0", "0"),
    "UsageFactor": Number("1"),
    "UsageThreshold": Number(),
}
"""Limits and other settings of a QoS."""

SINCE = {"MaxTRESRunMinsPerAccount": (23, 11), "MaxTRESRunMinsPerUser": (23, 11)}
"""The releases of Slurm that brought a limit, where not all that this collection works with have it."""

ACCOUNT: dict[str, Kind] = {"Parent": Name(), "Description": Text(), "Organization": Text(), **ASSOCIATION_LIMITS}
USER: dict[str, Kind] = {"DefaultAccount": Name(), "AdminLevel": Choice(LEVELS, "None", "None")}
KINDS = {"qos": QOS_LIMITS, "account": ACCOUNT, "user": USER, "association": ASSOCIATION_LIMITS}

# Slurm's own; they can be given limits and are never removed.
PERMANENT = {("qos", "normal"), ("account", "root"), ("user", "root"), ("association", "root")}


@dataclass(frozen=True, order=True)
class Key:
    """What an item is: its kind (qos, account, user, association), its name, and for an association its account."""

    kind: str
    name: str
    account: str = ""

    def __str__(self) -> str:
        return f"user {self.name} in {self.account}" if self.account else f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Accounting:
    """What is in the database, or should be. ``shared``: other clusters are in it, too."""

    items: dict[Key, dict[str, str]] = field(default_factory=dict)
    cluster: bool = True
    shared: bool = False
    tres: frozenset[str] = frozenset(TRES)


@dataclass(frozen=True)
class Wanted:
    """What the user declares. ``purge``: what is not declared goes."""

    cluster: str
    items: dict[Key, dict[str, str]]
    purge: bool = False


@dataclass(frozen=True)
class Change:
    """What becomes of one field of an item, or of the item as a whole."""

    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.what}: {self.before} -> {self.after}"


@dataclass(frozen=True)
class Step:
    """One call of sacctmgr, and what it changes."""

    argv: tuple[str, ...]
    changes: tuple[Change, ...]


def parse(
    qos: list[dict[str, Any]], accounts: list[dict[str, Any]], users: list[dict[str, Any]]
) -> dict[Key, dict[str, str]]:
    """Check and convert what the user declares; all problems are reported at once."""
    problems: list[str] = []
    items: dict[Key, dict[str, str]] = {}

    def put(key: Key, values: dict[str, Any]) -> None:
        if key in items:
            problems.append(f"{key} is declared twice.")
        if not NAME.fullmatch(key.name):
            problems.append(f"'{key.name}' can't be the name of a {key.kind}: Slurm wants small letters and digits.")
        items[key] = _values(key, values, problems)

    for item in qos:
        put(Key("qos", item["name"]), item.get("limits") or {})
    for item in accounts:
        name = item["name"]
        own = {"Parent": item.get("parent") or ("" if name == "root" else "root")}
        own.update({label: item[label.lower()] for label in ("Description", "Organization") if item.get(label.lower())})
        put(Key("account", name), {**(item.get("limits") or {}), **own})
    for item in users:
        name, own_accounts = item["name"], item["accounts"]
        level = item.get("admin_level") or "none"
        put(Key("user", name), {"DefaultAccount": (own_accounts or [""])[0], "AdminLevel": level})
        if not own_accounts:
            problems.append(f"user {name} has no account.")
        special = item.get("account_limits") or {}
        problems += [
            f"account_limits of user {name} has '{account}', which is none of its accounts ({', '.join(own_accounts)})."
            for account in special
            if account not in own_accounts
        ]
        for account in own_accounts:
            put(Key("association", name, account), {**(item.get("limits") or {}), **(special.get(account) or {})})
    problems += _cycles({key.name: values.get("Parent", "") for key, values in items.items() if key.kind == "account"})
    if problems:
        raise InvalidInput(join_problems(problems), "correct the declaration; nothing was changed.")
    return items


def _values(key: Key, values: dict[str, Any], problems: list[str]) -> dict[str, str]:
    """Convert the fields of one item, and note what is wrong with them."""
    kinds = KINDS[key.kind]
    known = {name.lower(): name for name in kinds if name not in ("Parent", "Organization")}
    result = {}
    for name, value in values.items():
        if name not in kinds:
            close = get_close_matches(str(name).lower(), known, 1)
            hint = f"did you mean {known[close[0]]}?" if close else f"known are {', '.join(sorted(known.values()))}."
            problems.append(f"{name} of {key} is no limit that Slurm knows; {hint}")
            continue
        if value is None:
            result[name] = kinds[name].default
            continue
        try:
            result[name] = kinds[name].given(value)
        except ValueError as error:
            problems.append(f"{name} of {key} is {value!r}, and {error}.")
    return result


def _cycles(parents: dict[str, str]) -> list[str]:
    """Return a text for each account that is below itself."""
    problems = []
    for name in parents:
        seen, above = {name}, parents[name]
        while above in parents and above not in seen:
            seen.add(above)
            above = parents[above]
        if above == name:
            problems.append(f"account {name} is below itself.")
    return problems


def check(wanted: Wanted, found: Accounting, release: tuple[int, int] | None) -> None:
    """Refuse what the database can't take: references to what is nowhere, unknown resources, limits of later releases.

    ``release`` is that of Slurm on this host, None if it is not installed yet.
    """
    keys = set(wanted.items) if wanted.purge else set(wanted.items) | set(found.items)
    keys |= {Key("qos", "normal"), Key("account", "root"), Key("user", "root")}
    qos = {key.name for key in keys if key.kind == "qos"}
    accounts = {key.name for key in keys if key.kind == "account"}
    problems = []
    for key, values in wanted.items.items():
        for name, value in values.items():
            kind = KINDS[key.kind][name]
            if isinstance(kind, Resources):
                problems += [
                    f"{name} of {key} names the resource '{tres}', which Slurm doesn't know; "
                    f"it knows {', '.join(sorted(found.tres))}."
                    for tres in kind.counts(value)
                    if tres not in found.tres and (release or tres.partition("/")[0] not in TRES_TYPES)
                ]
            if name in ("QOS", "DefaultQOS", "Preempt"):
                problems += [
                    f"{name} of {key} names the QoS '{other}', which is neither declared nor there."
                    for other in value.split(",")
                    if other and other not in qos
                ]
            if release and release < SINCE.get(name, release):
                since, here = (f"{major}.{minor:02d}" for major, minor in (SINCE[name], release))
                problems.append(f"{name} of {key} came with Slurm {since}, and here is {here}.")
        account = key.account or values.get("Parent", "")
        if account and account not in accounts:
            problems.append(f"{key} needs the account '{account}', which is neither declared nor there.")
    if problems:
        raise InvalidInput(
            join_problems(problems),
            "correct the declaration (a resource like gres/gpu must be in AccountingStorageTRES); nothing was changed.",
        )


def plan(wanted: Wanted, found: Accounting) -> list[Step]:
    """Return what to do, in order; equal changes of several items are one call."""
    steps: list[Step] = []
    if not found.cluster:
        steps.append(Step(("add", "cluster", wanted.cluster), (_new(f"cluster {wanted.cluster}"),)))
    new = {key: values for key, values in wanted.items.items() if key not in found.items}
    steps += _add(new, wanted)
    steps += _modify(wanted, found)
    if wanted.purge:
        steps += _delete(wanted, found)
    return steps


def _add(new: dict[Key, dict[str, str]], wanted: Wanted) -> Iterator[Step]:
    """Plan the items that are not there: bare, their limits follow."""
    here = f"cluster={wanted.cluster}"
    for names in _chunks(key.name for key in new if key.kind == "qos"):
        yield Step(("add", "qos", ",".join(names)), tuple(_new(f"qos {name}") for name in names))
    groups: dict[tuple[int, str], list[str]] = {}
    for key, values in new.items():
        if key.kind == "account" and key.name != "root":
            groups.setdefault((_depth(key.name, wanted.items), values["Parent"]), []).append(key.name)
    for (_level, parent), group in sorted(groups.items()):
        for names in _chunks(group):
            argv = ("add", "account", ",".join(names), here, f"parent={parent}")
            yield Step(argv, tuple(Change(f"account {name}", "absent", f"below {parent}") for name in names))
    members: dict[str, list[str]] = {}
    for key in new:
        if key.kind == "association":
            members.setdefault(key.name, []).append(key.account)
    users: dict[tuple[str, ...], list[str]] = {}
    for user, accounts in members.items():
        fresh = Key("user", user) in new
        default = [f"defaultaccount={wanted.items[Key('user', user)]['DefaultAccount']}"] * fresh
        users.setdefault((here, f"account={','.join(sorted(accounts))}", *default), []).append(user)
    for options, group in sorted(users.items()):
        for names in _chunks(group):
            changes = [_new(f"user {name} in {account}") for name in names for account in members[name]]
            yield Step(("add", "user", ",".join(names), *options), tuple(changes))


def _depth(account: str, items: dict[Key, dict[str, str]]) -> int:
    """Return how far below an account that is not declared ``account`` is."""
    depth = 0
    while Key("account", account) in items:
        account = items[Key("account", account)].get("Parent", "")
        depth += 1
    return depth


def _modify(wanted: Wanted, found: Accounting) -> Iterator[Step]:
    """Plan the fields that differ, one call for all items with the same change."""
    groups: dict[tuple[int, int, str, str, tuple[str, ...]], list[tuple[str, list[Change]]]] = {}
    order = {"qos": 0, "account": 1, "user": 2, "association": 3}
    for key, values in wanted.items.items():
        before = found.items.get(key) or _fresh(key, values)
        options: list[str] = []
        changes: list[Change] = []
        for name, after in sorted(_declared(key, values, before, wanted.purge).items()):
            kind = KINDS[key.kind][name]
            was = before.get(name, kind.default)
            if was != after:
                options.append(f"{name}={kind.option(was, after)}")
                changes.append(Change(f"{key}: {name}", was or "none", after or "none"))
        if options:
            depth = _depth(key.name, wanted.items) if key.kind == "account" else 0
            group = (order[key.kind], depth, key.kind, key.account, tuple(options))
            groups.setdefault(group, []).append((key.name, changes))
    for (_order, _level, entity, account, group_options), members in sorted(groups.items()):
        for chunk in _chunks(members):
            where = ["where", f"name={','.join(name for name, _changes in chunk)}"]
            where += [f"account={account}"] if account else []
            where += [] if entity == "qos" else [f"cluster={wanted.cluster}"]
            argv = ("modify", "user" if entity == "association" else entity, *where, "set", *group_options)
            yield Step(argv, tuple(change for _name, changes in chunk for change in changes))


def _fresh(key: Key, values: dict[str, str]) -> dict[str, str]:
    """Return what an item has that has just been added."""
    if key.kind == "account":
        return {"Parent": values.get("Parent", "")}
    if key.kind == "user":
        return {"DefaultAccount": values["DefaultAccount"]}
    return {}


def _declared(key: Key, values: dict[str, str], before: dict[str, str], purge: bool) -> dict[str, str]:
    """Return the fields to look at: with ``purge`` also the limits that are set and not declared, as cleared."""
    if not purge or key.kind == "user":
        return values
    # The access of the root account to QoS is where all other accounts have theirs from.
    kept = {"Parent", "Description", "Organization"} | ({"QOS"} if key == Key("account", "root") else set())
    return {**{name: KINDS[key.kind][name].default for name in before if name not in kept}, **values}


def _delete(wanted: Wanted, found: Accounting) -> Iterator[Step]:
    """Plan the removal of what is not declared: users, then accounts from the leaves, then QoS."""
    going = sorted(key for key in set(found.items) - set(wanted.items) if (key.kind, key.name) not in PERMANENT)
    # Without a cluster Slurm also forgets the name itself, which other clusters may still use.
    here = (f"cluster={wanted.cluster}",) if found.shared else ()
    whole = [key.name for key in going if key.kind == "user"]
    if not found.shared:
        for names in _chunks(whole):
            changes = tuple(_gone(f"user {name}") for name in names)
            yield Step(("delete", "user", "where", f"name={','.join(names)}"), changes)
    groups: dict[str, list[str]] = {}
    for key in going:
        if key.kind == "association" and (found.shared or key.name not in whole):
            groups.setdefault(key.account, []).append(key.name)
    for account, group in sorted(groups.items()):
        for names in _chunks(group):
            argv = ("delete", "user", "where", f"name={','.join(names)}", f"account={account}")
            changes = tuple(_gone(f"user {name} in {account}") for name in names)
            yield Step((*argv, f"cluster={wanted.cluster}"), changes)
    for names in _chunks(key.name for key in going if key.kind == "account"):
        changes = tuple(_gone(f"account {name}") for name in names)
        yield Step(("delete", "account", "where", f"name={','.join(names)}", *here), changes)
    if not found.shared:
        for names in _chunks(key.name for key in going if key.kind == "qos"):
            changes = tuple(_gone(f"qos {name}") for name in names)
            yield Step(("delete", "qos", "where", f"name={','.join(names)}"), changes)


def _new(what: str) -> Change:
    return Change(what, "absent", "present")


def _gone(what: str) -> Change:
    return Change(what, "present", "absent")


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Cut into lists that fit on a command line."""
    everything = list(items)
    for start in range(0, len(everything), MAX_NAMES):
        yield everything[start : start + MAX_NAMES]


class Database:
    """The accounting database as ``sacctmgr`` shows and changes it."""

    def __init__(
        self, run: Run, pause: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.run = run
        self.pause = pause
        self.clock = clock
        self.complaint = ""

    def release(self) -> tuple[int, int] | None:
        """Return the release of Slurm on this host, None if there is none."""
        code, out, _err = self.run(["sacctmgr", "--version"], None)
        match = re.search(r"([0-9]+)\.([0-9]+)", out)
        return (int(match[1]), int(match[2])) if code == 0 and match else None

    def answers(self, seconds: float) -> bool:
        """Wait until slurmdbd answers, ``seconds`` at most."""
        deadline = self.clock() + seconds
        while True:
            code, _out, self.complaint = self.run([*READ, "cluster", "format=Cluster"], None)
            if code == 0:
                return True
            if self.clock() >= deadline:
                return False
            self.pause(0.5)  # poll interval

    def _rows(self, what: str, fields: list[str], *conditions: str) -> list[list[str]]:
        code, out, err = self.run([*READ, what, *conditions, f"format={','.join(fields)}"], None)
        if code:
            raise _failure(["show", what], out, err)
        # The last field may be a description, which may have a "|" in it where it was made by hand.
        return [line.split("|", len(fields) - 1) for line in out.splitlines() if line]

    def read(self, cluster: str, release: tuple[int, int] | None) -> Accounting:
        """Return what is in the database, as far as it concerns ``cluster``."""
        known = [name for name in QOS_LIMITS if not release or release >= SINCE.get(name, release)]
        qos_fields = [name for name in known if name != "Description"] + ["Description"]
        items: dict[Key, dict[str, str]] = {}
        for name, *row in self._rows("qos", ["Name", *qos_fields]):
            items[Key("qos", name)] = _read(QOS_LIMITS, qos_fields, row)
        clusters = {name for [name] in self._rows("cluster", ["Cluster"])}
        tres = {kind if not name else f"{kind}/{name}" for kind, name in self._rows("tres", ["Type", "Name"])}
        if cluster in clusters:
            self._read_associations(cluster, items)
        return Accounting(items, cluster in clusters, bool(clusters - {cluster}), frozenset(tres))

    def _read_associations(self, cluster: str, items: dict[Key, dict[str, str]]) -> None:
        here = ("where", f"cluster={cluster}")
        texts = {name: row for name, *row in self._rows("account", ["Account", "Organization", "Description"])}
        users = {name: row for name, *row in self._rows("user", ["User", *USER], *here)}
        names = ["User", "Account", "Partition", "ParentName", *ASSOCIATION_LIMITS]
        # Without the limits that an association only inherits.
        for user, account, partition, parent, *row in self._rows(
            "association", names, *here, "WOPLimits", "WithRawQOSLevel"
        ):
            limits = _read(ASSOCIATION_LIMITS, ASSOCIATION_LIMITS, row)
            if not user:
                organization, description = texts.get(account, ("", ""))
                own = {"Parent": parent, "Description": description, "Organization": organization}
                items[Key("account", account)] = {**own, **limits}
            elif not partition:
                items[Key("association", user, account)] = limits
                items[Key("user", user)] = _read(USER, USER, users.get(user, ["", "None"]))

    def silence(self, release: tuple[int, int] | None, seconds: float) -> HpcError:
        """Return the error that slurmdbd can't be asked."""
        if release is None:
            return HpcError("There is no sacctmgr on this host.", "install Slurm's clients (slurm-client) first.")
        return HpcError(
            f"slurmdbd does not answer after {seconds:g} s: {self.complaint.strip()[-500:]}",
            "look at `journalctl -u slurmdbd` and at AccountingStorageHost in slurm.conf, then run again.",
        )

    def apply(self, steps: list[Step], wanted: Wanted, release: tuple[int, int] | None) -> None:
        """Do it, and see that it is done: Slurm 22.05 says so of some changes that it refuses."""
        for step in steps:
            code, out, err = self.run(["sacctmgr", "--immediate", *step.argv], None)
            if code:
                raise _failure(list(step.argv), out, err)
        left = plan(wanted, self.read(wanted.cluster, release)) if steps else []
        if left:
            raise HpcError(
                "Slurm did not take: "
                + "; ".join(str(change) for step in left for change in step.changes)[:1000]
                + ".",
                "see what is in their way, for example a DefaultQOS that is not in QOS, and run again.",
            )


READ = ["sacctmgr", "--noheader", "--parsable2", "show"]


def _read(kinds: dict[str, Kind], fields: Iterable[str], row: list[str]) -> dict[str, str]:
    """Return the fields of a row that have a value."""
    values = {name: kinds[name].read(text) for name, text in zip(fields, row)}
    return {name: text for name, text in values.items() if text != kinds[name].default}


def _failure(argv: list[str], out: str, err: str) -> HpcError:
    """Return an error with what sacctmgr said."""
    said = " / ".join(line.strip() for line in (err + "\n" + out).splitlines() if line.strip())
    what = f"sacctmgr {' '.join(argv)[:300]} failed: {said[:1000]}."
    return HpcError(what, "put right what it names, then run again.")
