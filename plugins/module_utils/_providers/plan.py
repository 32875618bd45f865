# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what should be and what is to what is to be done: pure planning, and the engine that carries a plan out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from .._errors import HpcError, InvalidInput, join_problems
from .base import Desired, Resource, State, natural_key

__all__ = [
    "Action",
    "ApplyError",
    "ReplacementRefused",
    "diff",
    "execute",
    "execute_batches",
    "existing",
    "plan",
    "plan_absent",
    "surplus",
    "wanted",
]

REMOVAL_ORDER = (
    "elastic",
    "machine",
    "nat",
    "address",
    "routes",
    "subnet",
    "gateway",
    "security_group",
    "placement",
    "key_pair",
    "pool",
    "network",
    "volume",
)
"""What must be gone before the next kind can go."""

DATA_KINDS = frozenset({"volume"})
"""Kinds that hold data: never removed because a specification no longer lists them."""

KEPT_KINDS = DATA_KINDS | {"elastic"}
"""Kinds that stay although no specification lists them: data, and elastic nodes, which come and go by themselves."""


class ReplacementRefused(InvalidInput):
    """The specification can only be reached by destroying machines, which wasn't allowed."""


class ApplyError(HpcError):
    """Some actions failed. ``done`` says which ones had been carried out."""

    def __init__(self, what: str, remedy: str, done: list[Action]) -> None:
        """Remember what was done."""
        super().__init__(what, remedy)
        self.done = done


@dataclass(frozen=True)
class Action:
    """One step. ``depends`` holds the ids of actions of the same plan that must be done before it."""

    verb: str  # create, start, update, delete
    kind: str
    key: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    depends: tuple[str, ...] = ()
    desired: Desired | None = None
    resource: Resource | None = None
    reason: str = ""

    @property
    def id(self) -> str:
        """Name within the plan."""
        return f"{self.verb} {self.kind}/{self.key}"

    def __str__(self) -> str:
        return f"{self.verb} {self.kind} {self.key}" + (f" ({self.reason})" if self.reason else "")


def wanted(action: Action) -> Desired:
    """Return what an action is to make."""
    if action.desired is None:
        raise AssertionError(action)
    return action.desired


def existing(action: Action) -> Resource:
    """Return what an action is about."""
    if action.resource is None:
        raise AssertionError(action)
    return action.resource


def plan(desired: Sequence[Desired], state: State, *, allow_replace: bool = False) -> list[Action]:
    """Return the actions that lead from ``state`` to ``desired``.

    What the state has and ``desired`` hasn't is deleted, except data. A replacement is a deletion and a creation;
    without ``allow_replace`` it is refused, naming what would be lost.
    """
    have = {resource.ref: resource for resource in state.resources}
    wanted = {item.ref for item in desired}
    replaced = _replacements(desired, have)
    kept = sorted((ref for ref in replaced if have[ref].kind in DATA_KINDS), key=natural_key)
    if kept:
        listed = "; ".join(f"{_title(ref)} ({replaced[ref]})" for ref in kept)
        raise ReplacementRefused(
            f"This can only be changed by making volumes anew, which is never done because of their data: {listed}.",
            "Undo the change, or give the volume another name: the old one stays until the cluster is removed.",
        )
    if replaced and not allow_replace:
        listed = "; ".join(f"{_title(ref)} ({why})" for ref, why in sorted(replaced.items(), key=_by_ref))
        raise ReplacementRefused(
            f"This can only be changed by replacement: {listed}. "
            "What is on the own disks of these machines would be lost; volumes would stay.",
            "Undo the change, or save what is needed and allow the replacement (allow_replace: true).",
        )
    doomed = {ref: f"to replace it: {why}" for ref, why in replaced.items()}
    doomed.update({ref: "" for ref, resource in have.items() if ref not in wanted and resource.kind not in KEPT_KINDS})
    actions = _deletions([(have[ref], why) for ref, why in doomed.items()])
    deletions: dict[str, tuple[str, ...]] = {}
    for action in actions:
        deletions[action.kind] = (*deletions.get(action.kind, ()), action.id)
    created = {item.ref for item in desired if item.ref not in have or item.ref in replaced}
    changing = {item.ref: _changes(item, have[item.ref], ()) for item in desired if item.ref not in created}
    for item in desired:
        # A deletion of the same kind may free the address, the port or the name that this one takes.
        before = {f"create {ref}" for ref in item.depends if ref in created}
        before |= {action.id for ref in item.depends for action in changing.get(ref, ())}
        after_these = (*sorted(before), *deletions.get(item.kind, ()))
        if item.ref in created:
            actions.append(
                Action("create", item.kind, item.key, None, _shown(item, item.settings), after_these, desired=item)
            )
        else:
            actions.extend(_changes(item, have[item.ref], after_these))
    return actions


def plan_absent(state: State) -> list[Action]:
    """Return the actions that remove everything of the state, data too."""
    return _deletions([(resource, "") for resource in state.resources])


def diff(actions: Iterable[Action]) -> dict[str, str]:
    """Return the plan as the two texts of Ansible's diff mode, sorted by kind and name."""
    before: dict[tuple[str, str], Mapping[str, Any]] = {}
    after: dict[tuple[str, str], Mapping[str, Any]] = {}
    for action in actions:
        if action.before is not None:
            before[action.kind, action.key] = action.before
        if action.after is not None:
            after[action.kind, action.key] = action.after
    return {"before": _render(before), "after": _render(after)}


def surplus(desired: Sequence[Desired], state: State) -> list[str]:
    """Return what existing resources hold that was not asked for and that stays, one line each."""
    wanted = {item.ref: item for item in desired}
    return [
        f"{resource.kind} {resource.key}: {value}"
        for resource in sorted(state.resources, key=lambda resource: natural_key(resource.ref))
        if (item := wanted.get(resource.ref))
        for name in sorted(item.settings)
        if name not in item.exact
        for value in sorted(resource.settings.get(name, frozenset()) - item.settings[name])
    ]


def execute(
    actions: Sequence[Action],
    perform: Callable[[Action], None],
    progress: Callable[[Action], None] | None = None,
    workers: int = 4,
) -> list[Action]:
    """Carry actions out in dependency order, independent ones in parallel; see :func:`execute_batches`."""

    def perform_one(batch: Sequence[Action], done: Callable[[Action], None]) -> None:
        perform(batch[0])
        done(batch[0])

    return execute_batches(actions, perform_one, lambda _action: ("", 1), progress, workers)


def execute_batches(
    actions: Sequence[Action],
    perform: Callable[[Sequence[Action], Callable[[Action], None]], None],
    batch_of: Callable[[Action], tuple[str, int]],
    progress: Callable[[Action], None] | None = None,
    workers: int = 4,
) -> list[Action]:
    """Carry actions out in dependency order, independent ones in parallel, equal ones in one call.

    ``batch_of`` gives an action's batch and how many actions it may hold. ``perform`` gets a batch, and a function to
    call for each action of it that is done. The first error stops new actions; running ones are waited for. Raises
    :class:`ApplyError` that tells what failed, what was done and what wasn't begun.
    """
    missing = {action.id: len(set(action.depends)) for action in actions}
    followers: dict[str, list[Action]] = {}
    for action in actions:
        for dependency in set(action.depends):
            followers.setdefault(dependency, []).append(action)
    unknown = followers.keys() - missing.keys()  # what isn't in the plan is done already
    for dependency in unknown:
        for action in followers[dependency]:
            missing[action.id] -= 1
    ready = [action for action in actions if not missing[action.id]]
    lock = threading.Lock()
    done: list[Action] = []
    failures: list[str] = []
    begun: set[str] = set()
    running: set[Future[None]] = set()

    def finish(action: Action) -> None:
        with lock:
            done.append(action)
            for follower in followers.get(action.id, ()):
                missing[follower.id] -= 1
                if not missing[follower.id]:
                    ready.append(follower)
            if progress:
                progress(action)

    def carry_out(batch: Sequence[Action]) -> None:
        try:
            perform(batch, finish)
        except HpcError as error:
            with lock:
                finished = {action.id for action in done}
                left = [str(action) for action in batch if action.id not in finished]
                failures.append(f"could not {', '.join(left) or batch[0]}: {error}")

    with ThreadPoolExecutor(max_workers=workers) as pool:
        while True:
            with lock:
                taken, ready[:] = (list(ready), []) if not failures else ([], ready)
            for batch in _batches(taken, batch_of):
                begun.update(action.id for action in batch)
                running.add(pool.submit(carry_out, batch))
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
    waiting = [action for action in actions if action.id not in begun]
    if failures or waiting:
        what = join_problems(failures or ["the plan's actions wait for each other"])
        what += f"\nDone before that: {_listed(done)}. Not begun: {_listed(waiting)}."
        raise ApplyError(what, "Run it again when the cause is gone: it goes on from here.", done)
    return done


def _batches(actions: Sequence[Action], batch_of: Callable[[Action], tuple[str, int]]) -> Iterable[Sequence[Action]]:
    """Return the actions in batches, in their order."""
    groups: dict[str, list[Action]] = {}
    sizes: dict[str, int] = {}
    for action in actions:
        name, size = batch_of(action)
        key = name or action.id
        groups.setdefault(key, []).append(action)
        sizes[key] = size
    for key, members in groups.items():
        for start in range(0, len(members), sizes[key]):
            yield members[start : start + sizes[key]]


def _replacements(desired: Sequence[Desired], have: Mapping[str, Resource]) -> dict[str, str]:
    """Return why which existing resources must be replaced: their own change, or that of one they depend on."""
    replaced: dict[str, str] = {}
    for item in desired:
        resource = have.get(item.ref)
        if resource and resource.spec_hash != item.spec_hash:
            replaced[item.ref] = _difference(resource.attributes, item.attributes)
    for item in desired:
        causes = [ref for ref in item.depends if ref in replaced]
        if item.ref in have and causes and item.ref not in replaced:
            replaced[item.ref] = f"{_title(causes[0])} is replaced"
    return replaced


def _deletions(doomed: Iterable[tuple[Resource, str]]) -> list[Action]:
    order = {kind: rank for rank, kind in enumerate(REMOVAL_ORDER)}
    items = sorted(doomed, key=lambda pair: (order[pair[0].kind], natural_key(pair[0].key)))
    return [
        Action(
            "delete",
            resource.kind,
            resource.key,
            before=_shown(resource, resource.settings),
            depends=tuple(f"delete {o.ref}" for o, _why in items if order[o.kind] < order[resource.kind]),
            resource=resource,
            reason=why,
        )
        for resource, why in items
    ]


def _changes(item: Desired, resource: Resource, after_these: tuple[str, ...]) -> list[Action]:
    """Return what brings an existing resource in line without replacing it."""
    common: dict[str, Any] = {
        "kind": item.kind,
        "key": item.key,
        "depends": after_these,
        "desired": item,
        "resource": resource,
    }
    states = {"state": resource.attributes.get("state")}, {"state": item.attributes.get("state")}
    if states[0] != states[1]:  # starting includes the settings
        return [Action("start", before=states[0], after=states[1], **common)]
    have = {name: resource.settings.get(name, frozenset()) for name in item.settings}
    target = {name: values if name in item.exact else have[name] | values for name, values in item.settings.items()}
    names = sorted(name for name in target if target[name] != have[name])
    if not names:
        return []
    before = {name: sorted(have[name]) for name in names}
    after = {name: sorted(target[name]) for name in names}
    return [Action("update", before=before, after=after, reason=", ".join(names), **common)]


def _shown(item: Desired | Resource, settings: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    return {**item.attributes, **{name: sorted(values) for name, values in settings.items()}}


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    names = sorted(name for name in after if name != "state" and before.get(name) != after[name])
    changed = [f"{name}: {_text(before.get(name))} -> {_text(after.get(name))}" for name in names]
    return ", ".join(changed) or "it was made by another version of the collection"


def _by_ref(item: tuple[str, str]) -> tuple[tuple[int, int, str], ...]:
    return natural_key(item[0])


def _title(ref: str) -> str:
    return ref.replace("/", " ", 1)


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "none"
    return "none" if value in (None, "") else str(value)


def _render(resources: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    lines = []
    for kind, key in sorted(resources, key=lambda ref: (ref[0], natural_key(ref[1]))):
        lines.append(f"{kind} {key}")
        lines.extend(f"  {name}: {_text(value)}" for name, value in sorted(resources[kind, key].items()))
    return "".join(f"{line}\n" for line in lines)


def _listed(actions: Iterable[Action]) -> str:
    return "; ".join(str(action) for action in actions) or "nothing"
