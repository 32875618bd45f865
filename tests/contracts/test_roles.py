# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role has the same shape, and its inputs are written down once."""

from __future__ import annotations

import re
import subprocess
import sys

from house import (
    CHANGE_NO_NODE,
    MAGIC,
    TOP,
    defaults,
    files,
    grep,
    interface,
    name_of,
    plain,
    report,
    roles,
    specs,
    tasks,
    text,
)

ENTRY_POINTS = ("install", "configure", "reset")


def test_every_role_has_the_whole_skeleton() -> None:
    problems = []
    for role in roles():
        wanted = ["README.md", "defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml"]
        if role.name != "cluster":
            wanted.append("tasks/main.yml")
        if role.name not in CHANGE_NO_NODE:
            wanted += [f"tasks/{entry}.yml" for entry in ENTRY_POINTS]
        problems += [f"{name_of(role / name)}: missing" for name in wanted if not (role / name).is_file()]
    report(problems)


def test_nothing_in_a_role_is_empty() -> None:
    problems = [f"{name_of(path)}:1: empty" for path in files("roles/") if not path.stat().st_size]
    problems += [f"{name_of(path)}:1: holds no data" for path in files("roles/", suffixes=(".yml",)) if not plain(path)]
    problems += [
        f"{name_of(path)}: empty directory"
        for role in roles()
        for path in role.rglob("*")
        if path.is_dir() and not any(path.iterdir())
    ]
    report(problems)


def test_every_entry_point_has_a_spec_and_every_spec_an_entry_point() -> None:
    problems = []
    for role in roles():
        where = f"{name_of(role)}/meta/argument_specs.yml:1"
        written = {entry for entry in ("main", *ENTRY_POINTS) if (role / f"tasks/{entry}.yml").is_file()}
        specified = set(specs(role))
        problems += [f"{where}: no spec for tasks/{entry}.yml" for entry in sorted(written - specified)]
        extra = {entry for entry in specified if not (role / f"tasks/{entry}.yml").is_file()}
        if not (role / "tasks").is_dir():
            extra = set()  # its spec describes variables only
        problems += [f"{where}: a spec for {entry}, but no tasks/{entry}.yml" for entry in sorted(extra)]
    report(problems)


def test_defaults_equal_the_argument_specs_in_names_and_values() -> None:
    problems = []
    for role in roles():
        where = f"{name_of(role)}/defaults/main.yml"
        options = interface(role)
        values = defaults(role)
        for name, value in values.items():
            if name not in options:
                problems.append(f"{where}: {name} is not in the argument spec")
            elif "default" not in options[name]:
                problems.append(f"{where}: {name} has a default here, and none in the argument spec")
            elif options[name]["default"] != value or isinstance(value, bool) != isinstance(
                options[name]["default"], bool
            ):
                problems.append(
                    f"{where}: {name} is {value!r} here and {options[name]['default']!r} in the argument spec"
                )
        problems += [
            f"{where}: {name} of the argument spec has a default that is not here"
            for name, option in options.items()
            if "default" in option and name not in values
        ]
    report(problems)


def test_variables_without_a_default_stand_in_the_defaults_as_comments() -> None:
    problems = []
    for role in roles():
        content = text(role / "defaults/main.yml") if (role / "defaults/main.yml").is_file() else ""
        commented = set(re.findall(r"^# ([a-z]\w*):(?: |$)", content, re.MULTILINE))
        bare = {name for name, option in interface(role).items() if "default" not in option}
        where = f"{name_of(role)}/defaults/main.yml"
        problems += [f"{where}: no line '# {name}: ...'" for name in sorted(bare - commented)]
        problems += [
            f"{where}: '# {name}:' is not in the argument spec"
            for name in sorted(commented - bare)
            if name.startswith(role.name)
        ]
    report(problems)


def test_the_options_of_other_entry_points_agree_with_those_of_main() -> None:
    problems = []
    for role in roles():
        main = interface(role)
        for entry, spec in specs(role).items():
            for name, option in (spec.get("options") or {}).items():
                where = f"{name_of(role)}/meta/argument_specs.yml: {name} of {entry}"
                if name in main and option != main[name]:
                    problems.append(f"{where} differs from that of main")
                elif name not in main and entry != "reset":
                    problems.append(f"{where} is not an option of main")
    report(problems)


def test_every_default_has_a_comment_above_it() -> None:
    problems = []
    for role in roles():
        path = role / "defaults/main.yml"
        lines = text(path).splitlines() if path.is_file() else []
        problems += [
            f"{name_of(path)}:{number}: {line.split(':')[0]} has no comment above it"
            for number, (above, line) in enumerate(zip(["", *lines], lines, strict=False), start=1)
            if re.match(r"[a-z_]\w*:", line) and not above.startswith("#")
        ]
    report(problems)


def test_public_variables_begin_with_the_name_of_their_role() -> None:
    problems = []
    for role in roles():
        names = set(defaults(role)) | {name for spec in specs(role).values() for name in spec.get("options") or {}}
        problems += [
            f"{name_of(role)}/defaults/main.yml: {name}"
            for name in sorted(names)
            if not name.startswith(f"{role.name}_")
        ]
    report(problems)


def test_internal_variables_begin_with_two_underscores_and_the_name_of_their_role() -> None:
    problems = []
    for path in files("roles/", suffixes=(".yml",)):
        role, kind = path.relative_to(TOP / "roles").parts[:2]
        if kind == "vars":
            problems += [f"{name_of(path)}: {name}" for name in plain(path) or {} if not name.startswith(f"__{role}_")]
    for task in (*tasks(), *tasks("handlers")):
        names = [task.body["register"]] if "register" in task.body else []
        for module in ("set_fact", "ansible.builtin.set_fact"):
            names += [name for name in task.body.get(module) or {} if name not in ("__line__", "cacheable")]
        calls_role = next(
            (task.body[call] for call in task.body if call.endswith(("include_role", "import_role"))), None
        )
        if not calls_role:
            names += [name for name in task.body.get("vars") or {} if name != "__line__" and not MAGIC.fullmatch(name)]
        problems += [f"{task.where}: {name}" for name in names if not str(name).startswith(f"__{task.role}_")]
    report(problems)


def test_no_role_name_is_a_prefix_of_another() -> None:
    names = [role.name for role in roles()]
    report([f"roles/{one} and roles/{two}" for one in names for two in names if one != two and two.startswith(one)])


def test_every_role_depends_on_the_role_cluster_and_on_nothing_else() -> None:
    problems = []
    for role in roles():
        path = role / "meta/main.yml"
        found = (plain(path) or {}).get("dependencies") if path.is_file() else None
        names = [item.get("role", item.get("name")) if isinstance(item, dict) else item for item in found or []]
        wanted = [] if role.name == "cluster" else ["turnkey.hpc.cluster"]
        if names != wanted:
            problems.append(f"{name_of(path)}: dependencies are {names}, not {wanted}")
    report(problems)


def test_a_bundle_has_the_packages_of_every_role_that_installs_some() -> None:
    asked = text(TOP / "playbooks/vars/bundle.yml")
    # The mirror's own are in the bundle by its own tasks; an image is made where there is internet.
    others = {"mirror", "base_image"}
    report(
        [
            f"playbooks/vars/bundle.yml: {role.name} installs packages, and is not asked for them"
            for role in roles()
            if role.name not in others
            and any("turnkey.hpc.packages:" in text(path) for path in (role / "tasks").glob("*.yml"))
            and f"'{role.name}'" not in asked
        ]
    )


def test_roles_name_no_inventory_group() -> None:
    paths = [path for path in files("roles/") if path.suffix != ".md" and path.relative_to(TOP).parts[2] != "meta"]
    group = r"controller|compute|login|k3s_server|k3s_agent|registry|hypervisor"
    report(grep(paths, rf"(?<![\w.'\"])groups\s*(\[|\.[a-z])|\bgroup_names\b|\{{[{{%][^}}]*['\"]({group})['\"]"))


def test_defaults_hold_no_facts_and_no_lookups() -> None:
    paths = [path for path in files("roles/") if path.relative_to(TOP).parts[2] == "defaults"]
    report(grep(paths, r"ansible_facts|\b(lookup|query|q)\(|\bhostvars\b"))


def test_the_table_of_contents_of_a_role_has_at_most_40_lines() -> None:
    paths = [path for path in files("roles/") if name_of(path).endswith("tasks/main.yml")]
    report([f"{name_of(path)}: {n} lines" for path in paths if (n := len(text(path).splitlines())) > 40])


def test_the_inputs_in_the_readmes_are_those_of_the_argument_specs() -> None:
    checked = subprocess.run(
        [sys.executable, TOP / "tools/role-docs", "--check"], check=False, capture_output=True, text=True
    )
    report(checked.stderr.splitlines())
    assert checked.returncode == 0


def test_every_readme_has_an_example_play_and_says_what_is_changed_and_how_it_is_undone() -> None:
    problems = []
    for role in roles():
        content = text(role / "README.md") if (role / "README.md").is_file() else ""
        for part in ("```yaml", "## Inputs", "## Files changed", "## Reset"):
            if part not in content:
                problems.append(f"{name_of(role)}/README.md: no '{part}'")
    report(problems)


def test_every_role_is_used_in_a_playbook_or_a_molecule_scenario() -> None:
    used = "\n".join(text(path) for path in files("playbooks/", "molecule/", suffixes=(".yml",)))
    used += "\n".join(text(path) for path in files("roles/") if name_of(path).endswith("meta/main.yml"))
    report(
        [f"{name_of(role)}: used nowhere" for role in roles() if not re.search(rf"turnkey\.hpc\.{role.name}\b", used)]
    )
