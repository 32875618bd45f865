# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds the variables of an inventory against the roles' argument specs, and against where the roles run."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.turnkey.hpc.plugins.module_utils._entry import Entry, Problem, sort_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import fold, natural_key
from ansible_collections.turnkey.hpc.plugins.module_utils._old_layout import OLD_VARIABLES

__all__ = [
    "Entry",
    "Problem",
    "Setting",
    "Specs",
    "check_settings",
    "check_variables",
    "fold_hosts",
    "is_free",
    "is_template",
    "load_roles_by_group",
    "load_specs",
    "match_hosts",
    "misfits",
    "nearest",
    "roles_by_group",
    "sort_problems",
]

# Every role reads the variables of this one.
SHARED_ROLE = "cluster"
# A site's own variables; and those that Molecule writes into the inventory that it makes.
FREE_PREFIXES = ("site_", "molecule_")
EXTRA = "cluster_extra_variables"
# Ansible reads these, or sets them itself.
_MAGIC = """
    environment group_names groups hostvars inventory_dir inventory_file inventory_hostname inventory_hostname_short
    module_setup omit play_hosts playbook_dir role_name role_names role_path vars"""
MAGIC = frozenset(_MAGIC.split())
_CONNECTION = """
    ansible_become ansible_become_exe ansible_become_flags ansible_become_method ansible_become_pass
    ansible_become_password ansible_become_user ansible_connection ansible_connection_user ansible_control_path
    ansible_control_path_dir ansible_host ansible_host_key_checking ansible_password ansible_pipelining ansible_port
    ansible_private_key_file ansible_python_interpreter ansible_remote_tmp ansible_shell_executable ansible_shell_type
    ansible_ssh_args ansible_ssh_common_args ansible_ssh_executable ansible_ssh_extra_args ansible_ssh_host
    ansible_ssh_host_key_checking ansible_ssh_known_hosts_file ansible_ssh_pass ansible_ssh_password
    ansible_ssh_password_mechanism ansible_ssh_pipelining ansible_ssh_pkcs11_provider ansible_ssh_port
    ansible_ssh_private_key ansible_ssh_private_key_file ansible_ssh_private_key_passphrase ansible_ssh_retries
    ansible_ssh_timeout ansible_ssh_transfer_method ansible_ssh_use_tty ansible_ssh_user ansible_ssh_verbosity
    ansible_sudo_chdir ansible_sudo_exe ansible_sudo_flags ansible_sudo_pass ansible_sudo_user ansible_timeout
    ansible_user"""
CONNECTION = frozenset(_CONNECTION.split())
# Variables of other plugins that look like misspelt ones of those above.
_RARE_CONNECTION = """
    ansible_dzdo_exe ansible_dzdo_flags ansible_dzdo_pass ansible_dzdo_user ansible_ksu_pass ansible_ksu_user
    ansible_scp_executable ansible_scp_extra_args ansible_sesu_pass ansible_sesu_user ansible_su_exe ansible_su_flags
    ansible_su_pass ansible_su_user"""
RARE_CONNECTION = frozenset(_RARE_CONNECTION.split())
OWN_NAME = f"a variable of your own is called site_..., or listed in {EXTRA}"
TRUE_AND_FALSE = frozenset(["0", "1", "f", "false", "n", "no", "off", "on", "t", "true", "y", "yes"])
KINDS = {
    "bool": "bool, as in true or false",
    "dict": "dict, with keys and values",
    "float": "float, which is a number",
    "int": "int, which is a whole number",
    "path": "path",
    "str": "str, which is a text",
}
MODULES_OF_ROLES = frozenset({"import_role", "include_role"})
BLOCKS = ("block", "rescue", "always")
TASKS = ("pre_tasks", "tasks", "post_tasks", "handlers")
COLLECTION = "turnkey.hpc."
NAMED_PLACES = 3

Options = Mapping[str, Mapping[str, Any]]


class Setting(NamedTuple):
    """A value of a variable and the hosts that have it. ``where`` says that in words; it is empty for all hosts.

    ``error`` says why the value's template gives none.
    """

    name: str
    value: object
    hosts: Collection[str]
    origin: str = ""
    where: str = ""
    error: str = ""


@dataclass(frozen=True)
class Specs:
    """What the roles' argument specs say: every variable, who reads it, and what each role can't do without."""

    options: Options
    readers: Mapping[str, frozenset[str]]
    required: Mapping[str, tuple[str, ...]]
    prefixes: tuple[str, ...]

    @classmethod
    def from_documents(cls, documents: Mapping[str, Any]) -> Specs:
        """Read the content of each role's ``meta/argument_specs.yml``, given by the role's name."""
        options: dict[str, Mapping[str, Any]] = {}
        readers: dict[str, set[str]] = {}
        required: dict[str, dict[str, None]] = {}
        for role, document in documents.items():
            for spec in ((document or {}).get("argument_specs") or {}).values():
                for name, option in ((spec or {}).get("options") or {}).items():
                    options.setdefault(name, option or {})
                    readers.setdefault(name, set()).add(role)
                    if (option or {}).get("required"):
                        required.setdefault(role, {})[name] = None
        return cls(
            options,
            {name: frozenset(roles) for name, roles in readers.items()},
            {role: tuple(names) for role, names in required.items()},
            tuple(sorted(f"{role}_" for role in documents)),
        )

    def option(self, name: str) -> Mapping[str, Any] | None:
        """Return the option of a variable that some role reads."""
        return self.options.get(name)

    def names(self) -> list[str]:
        """Return all names that may have been meant, old ones included."""
        return [*self.options, *(variable.old for variable in OLD_VARIABLES)]


Parse = Callable[[bytes], Any]


@functools.lru_cache(maxsize=4)
def load_specs(roles_dir: Path, parse: Parse) -> Specs:
    """Read the argument specs of all roles below ``roles_dir``, once a process. ``parse`` reads YAML."""
    paths = sorted(roles_dir.glob("*/meta/argument_specs.yml"))
    return Specs.from_documents({path.parts[-3]: parse(path.read_bytes()) for path in paths})


@functools.lru_cache(maxsize=4)
def load_roles_by_group(playbooks_dir: Path, parse: Parse) -> dict[str, tuple[str, ...]]:
    """Read from the playbooks of a directory which roles run on which hosts, once a process. ``parse`` reads YAML."""
    return roles_by_group(parse(path.read_bytes()) for path in sorted(playbooks_dir.glob("*.yml")))


def roles_by_group(playbooks: Iterable[Any]) -> dict[str, tuple[str, ...]]:
    """Return the roles that playbooks run on each pattern of hosts (``controller:compute``)."""
    found: dict[str, dict[str, None]] = {}
    for play in (play for playbook in playbooks for play in playbook or [] if isinstance(play, dict)):
        hosts = play.get("hosts")
        if not hosts:
            continue
        pattern = ":".join(map(str, hosts)) if isinstance(hosts, list) else str(hosts)
        names = found.setdefault(pattern, {})
        for role in play.get("roles") or []:
            name = (role.get("role") or role.get("name")) if isinstance(role, dict) else role
            names[str(name).removeprefix(COLLECTION)] = None
        for key in TASKS:
            for name in _roles_of_tasks(play.get(key)):
                names[name.removeprefix(COLLECTION)] = None
    return {pattern: tuple(roles) for pattern, roles in found.items() if roles}


def _roles_of_tasks(tasks: Any) -> Iterator[str]:
    for task in tasks or []:
        if not isinstance(task, dict):
            continue
        for key, value in task.items():
            if str(key).rpartition(".")[2] in MODULES_OF_ROLES and isinstance(value, dict):
                name = str(value.get("name") or value.get("role"))
                # A template names roles that other plays run by their own names.
                if "{{" not in name:
                    yield name
        for key in BLOCKS:
            yield from _roles_of_tasks(task.get(key))


def match_hosts(pattern: str, groups: Mapping[str, Collection[str]]) -> list[str]:
    """Return the hosts of a play's pattern, as in ``a:b``, ``all``, ``a[0]``, ``web*``, ``a:!b`` or ``a:&b``."""
    terms = _terms(pattern)
    plain = [term for term in terms if term[0] not in "!&"]
    result: dict[str, None] = {}
    for term in plain or ["all"]:
        result.update(dict.fromkeys(_match_term(term, groups)))
    for term in terms:
        if term[0] in "!&":
            other = set(_match_term(term[1:], groups))
            result = {host: None for host in result if (host in other) == (term[0] == "&")}
    return list(result)


def _terms(pattern: str) -> list[str]:
    """Return the parts of a pattern. What a template gives is known at run time: it may be any host."""
    plain = re.sub(r"\{\{.*?\}\}", "all", pattern).replace(" ", "")
    return [term for term in re.split(r"[,:](?![^\[]*\])", plain) if term]


def _match_term(term: str, groups: Mapping[str, Collection[str]]) -> list[str]:
    name, subscript = term, ""
    if term not in groups:
        found = re.fullmatch(r"([^~].*)\[(-?\d+|\d*[:-]\d*)\]", term)
        if found:
            name, subscript = found.group(1), found.group(2)
    everything = _all_hosts(groups)
    if name in ("all", "*"):
        hosts = everything
    elif name in groups:
        hosts = list(groups[name])
    else:
        matches = re.compile(name[1:]).match if name[:1] == "~" else re.compile(fnmatch.translate(name)).match
        members = [host for group, hosts in groups.items() if group != "all" and matches(group) for host in hosts]
        hosts = list(dict.fromkeys([*members, *(host for host in everything if matches(host))]))
    if not subscript:
        return hosts
    if re.fullmatch(r"-?\d+", subscript):
        position = int(subscript)
        return hosts[position:][:1] if -len(hosts) <= position < len(hosts) else []
    first, last = re.split(r"[:-]", subscript)
    return hosts[int(first or 0) : int(last) + 1 if last else None]


def _all_hosts(groups: Mapping[str, Collection[str]]) -> list[str]:
    members = [groups["all"]] if "all" in groups else groups.values()
    return list(dict.fromkeys(host for hosts in members for host in hosts))


def fold_hosts(hosts: Iterable[str]) -> str:
    """Return the hosts in short, as in ``node[1-3],head``, also where a name is odd."""
    plain: list[str] = []
    odd: list[str] = []
    for host in hosts:
        (plain if re.fullmatch(r"[A-Za-z0-9-]+", host) else odd).append(host)
    return ",".join(([fold(plain)] if plain else []) + sorted(odd, key=natural_key))


def nearest(word: str, words: Iterable[str]) -> str:
    """Return the name that was probably meant, or nothing."""
    known = list(words)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    if near:
        return near[0]
    # Without the role's name before it.
    longer = [name for name in known if len(word) > 2 and name.endswith(f"_{word}")]
    return longer[0] if len(longer) == 1 else ""


def is_free(name: str, extra: Collection[str] = ()) -> bool:
    """Return whether a name needs no role that knows it: the site's own, and those of Ansible."""
    return (
        name in CONNECTION
        or name in extra
        or name in MAGIC
        or name.startswith(FREE_PREFIXES)
        or (name.startswith("ansible_") and not _nearest_of_ansible(name))
    )


@functools.lru_cache(maxsize=1024)
def _nearest_of_ansible(name: str) -> str:
    """Return the variable of a connection that ``name`` is a misspelling of, or nothing."""
    if name in RARE_CONNECTION:
        return ""
    near = [(distance, known) for known in sorted(CONNECTION) if (distance := _distance(name, known)) <= 2]
    return min(near)[1] if near else ""


def _distance(one: str, other: str, limit: int = 2) -> int:
    """Return how many letters must be changed, added, left out or swapped, or more than ``limit``."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        line = [row]
        for column, wanted in enumerate(other, start=1):
            best = min(last[column] + 1, line[-1] + 1, last[column - 1] + (letter != wanted))
            if row > 1 and column > 1 and letter == other[column - 2] and wanted == one[row - 2]:
                best = min(best, before[column - 2] + 1)
            line.append(best)
        if min(line) > limit:
            return limit + 1
        before, last = last, line
    return last[-1]


def check_variables(
    entries: Iterable[Entry],
    groups: Mapping[str, Iterable[str]],
    specs: Specs,
    roles_by_group: Mapping[str, Collection[str]],
    extra: Collection[str] = (),
) -> list[Problem]:
    """Return everything that is wrong with the variables of an inventory, sorted.

    ``groups`` has the hosts of each group, those of its children included; ``roles_by_group`` the roles of each
    pattern of hosts, as ``load_roles_by_group`` returns them. ``extra`` are names that the site allows, besides those
    in ``cluster_extra_variables`` among the entries.
    """
    members = {name: list(hosts) for name, hosts in groups.items()}
    if "all" not in members:
        members["all"] = _all_hosts(members)
    return check_settings(_settings(entries, members), members, specs, roles_by_group, extra)


def _settings(entries: Iterable[Entry], groups: Mapping[str, Collection[str]]) -> Iterator[Setting]:
    places: dict[str, tuple[Collection[str], str]] = {"all": (groups["all"], ""), "group:all": (groups["all"], "")}
    for scope, name, value, origin in entries:
        # Most variables are Ansible's.
        if name in CONNECTION:
            continue
        place = places.get(scope)
        if place is None:
            kind, _colon, word = scope.partition(":")
            place = ([word] if kind == "host" else groups.get(word, ()), f"{kind} {word}")
            places[scope] = place
        yield Setting(name, value, place[0], origin, place[1])


def check_settings(
    settings: Iterable[Setting],
    groups: Mapping[str, Collection[str]],
    specs: Specs,
    roles_by_group: Mapping[str, Collection[str]],
    extra: Collection[str] = (),
) -> list[Problem]:
    """Return everything that is wrong with variables, sorted. The same check for those who know hosts, not scopes."""
    all_settings = list(settings)
    allowed = set(extra)
    for setting in all_settings:
        if setting.name == EXTRA and isinstance(setting.value, (list, tuple)):
            allowed.update(map(str, setting.value))
    places = _Places(groups, specs, roles_by_group)
    problems = _Collected()
    names = specs.names()
    unknown: dict[str, tuple[str, str] | None] = {}
    for setting in all_settings:
        name = setting.name
        option = specs.option(name)
        if option is None or name in allowed:
            if name not in unknown:
                unknown[name] = None if is_free(name, allowed) else _judge_unknown(name, names)
            said = unknown[name]
            if said:
                problems.add(setting, *said)
            continue
        for text, remedy in _judge_value(setting, option):
            problems.add(setting, text, remedy)
        misplaced = places.misplaced(setting)
        if misplaced:
            problems.add(setting, *misplaced)
    found = problems.all()
    found += _missing(all_settings, places, specs)
    return sort_problems(found)


class _Collected:
    """Problems, with equal ones of several places told once: a misspelling may be on every line."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str, str], list[Setting]] = {}

    def add(self, setting: Setting, text: str, remedy: str) -> None:
        self._places.setdefault((setting.name, text, remedy), []).append(setting)

    def all(self) -> list[Problem]:
        return [
            Problem(settings[0].origin, f"{text}{self._where(settings)}", remedy, name)
            for (name, text, remedy), settings in self._places.items()
        ]

    @staticmethod
    def _where(settings: Sequence[Setting]) -> str:
        if settings[0].origin:
            others = list(dict.fromkeys(setting.origin for setting in settings[1:]))
            others = [origin for origin in others if origin and origin != settings[0].origin]
            if not others:
                return ""
            more = f" and {len(others) - NAMED_PLACES} more" if len(others) > NAMED_PLACES else ""
            return f" (also {', '.join(others[:NAMED_PLACES])}{more})"
        if not all(setting.where for setting in settings):
            return ""
        if len(settings) == 1:
            return f" (on {settings[0].where})"
        return f" (on {fold_hosts({host for setting in settings for host in setting.hosts})})"


def _judge_unknown(name: str, names: Sequence[str]) -> tuple[str, str]:
    if name.startswith("ansible_"):
        return (
            f"`{name}` is not a variable of Ansible that is known",
            f"did you mean `{_nearest_of_ansible(name)}`? Else list it in {EXTRA}",
        )
    for variable in OLD_VARIABLES:
        if variable.old == name:
            return (
                f"`{name}` is the old name of `{variable.new}`",
                f"write `{variable.new}`; files that turnkey.hpc.static reads may keep the old one",
            )
    near = nearest(name, names)
    remedy = f"did you mean `{near}`? Else {OWN_NAME}" if near else OWN_NAME
    return f"`{name}` is not a variable of any role", remedy


def _judge_value(setting: Setting, option: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if setting.error:
        yield (
            f"the template of `{setting.name}` fails: {setting.error}",
            "correct the expression, or set what it uses",
        )
        return
    # A plain text is most of what there is.
    if isinstance(setting.value, str) and option.get("type", "str") == "str" and not option.get("choices"):
        return
    yield from misfits(setting.name, setting.value, option)


def misfits(name: str, value: object, option: Mapping[str, Any], hide: bool = False) -> list[tuple[str, str]]:
    """Return what is wrong with a value, and what would fit. Templates are let pass at any depth."""
    if is_template(value):
        return []
    hide = hide or bool(option.get("no_log"))
    shown = "a value (hidden)" if hide else _shorten(value)
    kind = str(option.get("type", "str"))
    if value is None:
        return [] if kind == "raw" else [(f"`{name}` has no value", f"give it a value of type {kind}, or leave it out")]
    if not _fits(value, kind):
        article = KINDS.get(kind, kind)
        if kind == "list":
            article = f"list{' of ' + str(option['elements']) if option.get('elements') else ''}, as in [a, b]"
        return [(f"`{name}` is {shown}, which is no {kind}", f"give it a value of type {article}")]
    found = []
    options = option.get("options") or {}
    if kind == "list" and isinstance(value, (list, tuple)):
        element = {"type": option.get("elements", "raw"), "choices": option.get("choices"), "options": options}
        for number, part in enumerate(value, start=1):
            found += misfits(f"{name}[{number}]", part, element, hide)
        return found
    choices = option.get("choices")
    if choices and not _chosen(value, kind, choices):
        listed = ", ".join(_plain(choice) for choice in choices)
        near = nearest(str(value), map(str, choices))
        remedy = f"choose one of {listed}{f'; did you mean `{near}`?' if near else ''}"
        found.append((f"`{name}` is {shown}, which is none of its choices", remedy))
    if kind == "dict" and options and isinstance(value, Mapping):
        found += _misfits_of_keys(name, value, options, hide)
    return found


def _misfits_of_keys(name: str, value: Mapping[Any, object], options: Options, hide: bool) -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        if is_template(key):
            continue
        inner_option = options.get(key)
        if inner_option is None and key not in options:
            near = nearest(str(key), options)
            remedy = f"did you mean `{near}`?" if near else f"the keys are {', '.join(options)}"
            yield f"`{name}` has the unknown key `{key}`", remedy
        elif inner is not None or (inner_option or {}).get("required"):
            yield from misfits(f"{name}.{key}", inner, inner_option or {}, hide)
    for key, inner_option in options.items():
        if (inner_option or {}).get("required") and key not in value:
            yield f"`{name}` has no `{key}`", f"give it a `{key}` of type {inner_option.get('type', 'str')}"


def is_template(value: object) -> bool:
    """Return whether a value is known only when Ansible has filled in its template."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def _fits(value: object, kind: str) -> bool:
    """Return whether a value is of a type, or is the text of one, as from INI files: ``true``, ``5``."""
    if kind in ("str", "path", "bytes", "bits"):
        return isinstance(value, (str, int, float))
    if kind == "bool":
        return str(value).lower() in TRUE_AND_FALSE if isinstance(value, (str, int)) else value in (0.0, 1.0)
    if kind in ("int", "float"):
        return not isinstance(value, bool) and _is_number(value, whole=kind == "int")
    if kind == "list":
        return isinstance(value, (list, tuple))
    if kind == "dict":
        return isinstance(value, Mapping)
    return True


def _is_number(value: object, whole: bool) -> bool:
    if not isinstance(value, (str, int, float)):
        return False
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return isinstance(value, int)
    if not math.isfinite(number):
        return False
    return number.is_integer() if whole else True


def _chosen(value: object, kind: str, choices: Collection[Any]) -> bool:
    if value in choices:
        return True
    if kind == "bool":
        return True
    return str(value) in {str(choice) for choice in choices}


def _plain(choice: object) -> str:
    return str(choice).lower() if isinstance(choice, bool) else str(choice)


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Places:
    """Where roles run, and which variables they read there."""

    def __init__(
        self,
        groups: Mapping[str, Collection[str]],
        specs: Specs,
        roles_by_group: Mapping[str, Collection[str]],
    ) -> None:
        self.everything = set(groups["all"]) if "all" in groups else set(_all_hosts(groups))
        self._readers = specs.readers
        self.patterns: dict[str, list[str]] = {}
        self.hosts: dict[str, set[str]] = {SHARED_ROLE: self.everything}
        for pattern, roles in roles_by_group.items():
            matched = match_hosts(pattern, groups)
            for role in roles:
                self.patterns.setdefault(role, []).append(pattern)
                if role != SHARED_ROLE:
                    self.hosts.setdefault(role, set()).update(matched)
        self._of_variable: dict[str, set[str] | None] = {}

    def _reading(self, name: str) -> set[str] | None:
        """Return the hosts on which a role reads the variable, or ``None`` if it may be anywhere."""
        if name not in self._of_variable:
            readers = self._readers.get(name, frozenset())
            known = bool(readers) and SHARED_ROLE not in readers and all(role in self.hosts for role in readers)
            self._of_variable[name] = {host for role in readers for host in self.hosts[role]} if known else None
        return self._of_variable[name]

    def misplaced(self, setting: Setting) -> tuple[str, str] | None:
        """Return what is wrong if none of the setting's hosts reads it. For all hosts it may always be set."""
        if not setting.where or not setting.hosts:
            return None
        reading = self._reading(setting.name)
        if reading is None or not reading.isdisjoint(setting.hosts):
            return None
        roles = sorted(self._readers[setting.name])
        noun = "the role" if len(roles) == 1 else "the roles"
        patterns = list(dict.fromkeys(pattern for role in roles for pattern in self.patterns[role]))
        terms = list(dict.fromkeys(term for pattern in patterns for term in _terms(pattern) if term[0] not in "!&"))
        return (
            f"`{setting.name}` is set for {setting.where}, where {noun} {' and '.join(roles)} "
            f"{'does' if len(roles) == 1 else 'do'} not run",
            f"move it to all, or to where {'it is' if len(roles) == 1 else 'they are'} run: {', '.join(terms)}",
        )


def _missing(settings: Sequence[Setting], places: _Places, specs: Specs) -> list[Problem]:
    """Find what roles that will run on some host can't do without."""
    problems = []
    wanted = {
        name: (role, places.hosts[role])
        for role, names in specs.required.items()
        for name in names
        if places.hosts.get(role)
    }
    having: dict[str, set[str]] = {}
    for setting in settings:
        if setting.name in wanted:
            having.setdefault(setting.name, set()).update(setting.hosts if setting.where else places.everything)
    names = sorted({setting.name for setting in settings if specs.option(setting.name) is None})
    for name, (role, hosts) in wanted.items():
        without = hosts - having.get(name, set())
        if not without:
            continue
        where = "" if without == places.everything else f" for {fold_hosts(without)}"
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
        meant = f"; did you mean it by `{near[0]}`?" if near else ""
        group = "all" if hosts == places.everything else f"all or {', '.join(places.patterns[role])}"
        problems.append(
            Problem("", f"`{name}` is not set{where}, and the role {role} needs it", f"set it for {group}{meant}", name)
        )
    return problems
