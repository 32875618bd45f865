# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import threading

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import Desired, Resource, State
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import (
    Action,
    ApplyError,
    ReplacementRefused,
    diff,
    execute,
    execute_batches,
    plan,
    plan_absent,
    surplus,
)

KEY = {"keys": frozenset({"k"})}


def net(digest="n"):
    return Desired("network", "main", digest, {"subnet": digest})


def volume(name="v"):
    return Desired("volume", name, "v", {})


def machine(name, digest="m", image="i"):
    return Desired("machine", name, digest, {"image": image, "state": "running"}, KEY, ("network/main", "volume/v"))


def found(item, state="running", settings=None, digest=None):
    attributes = {**item.attributes, "state": state} if item.kind == "machine" else item.attributes
    held = settings or KEY if item.kind == "machine" else {}
    return Resource(item.kind, item.key, f"id-{item.key}", digest or item.spec_hash, attributes, held)


WANTED = [net(), volume(), machine("a"), machine("b")]


def names(actions):
    return [action.id for action in actions]


def test_elastic_nodes_stay_when_the_fixed_ones_are_provisioned_and_go_first_when_everything_goes():
    burst = Resource("elastic", "burst1", "id-burst1", "", {"state": "running"})
    state = State((*(found(item) for item in WANTED), burst))
    assert plan(WANTED, state) == []
    assert names(plan_absent(state))[0] == "delete elastic/burst1"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([], ["create network/main", "create volume/v", "create machine/a", "create machine/b"]),
        ([found(item) for item in WANTED], []),
        ([found(net()), found(volume()), found(machine("a"))], ["create machine/b"]),
        ([found(net()), found(volume()), found(machine("a")), found(machine("b"), "exited")], ["start machine/b"]),
        ([found(i, settings={"keys": frozenset({"other"})}) for i in WANTED], ["update machine/a", "update machine/b"]),
        ([found(i, settings={"keys": frozenset({"k", "more"})}) for i in WANTED], []),
        ([found(i) for i in [*WANTED, machine("c"), volume("old")]], ["delete machine/c"]),
    ],
    ids=["nothing", "all", "one missing", "one stopped", "key missing", "more keys", "one too many, and an old volume"],
)
def test_the_plan_leads_from_what_is_to_what_should_be(resources, expected):
    assert names(plan(WANTED, State(tuple(resources)))) == expected


def test_machines_wait_for_what_they_need_and_for_what_frees_names_and_ports():
    state = State((found(net()), found(machine("c"))))
    actions = {action.id: set(action.depends) for action in plan(WANTED, state)}
    assert actions["create machine/a"] == {"create volume/v", "delete machine/c"}


def test_machines_start_after_the_network_that_is_started():
    network = Desired("network", "main", "n", {"subnet": "n", "state": "running"})
    stopped = Resource("network", "main", "id", "n", {"subnet": "n", "state": "stopped"})
    state = State((stopped, found(volume()), found(machine("a"), "exited")))
    actions = {action.id: set(action.depends) for action in plan([network, volume(), machine("a")], state)}
    assert actions == {"start network/main": set(), "start machine/a": {"start network/main"}}


def test_elastic_nodes_stay_until_the_cluster_goes():
    state = State((found(net()), Resource("elastic", "e1", "id-e1", "")))
    assert names(plan([net()], state)) == []
    assert names(plan_absent(state)) == ["delete elastic/e1", "delete network/main"]


def test_a_replacement_is_refused_naming_machine_and_change():
    state = State((found(net()), found(volume()), found(machine("a", "old", "j")), found(machine("b"))))
    with pytest.raises(ReplacementRefused, match=r"machine a \(image: j -> i\).*would be lost; volumes would stay"):
        plan(WANTED, state)


def test_an_allowed_replacement_deletes_before_it_creates():
    state = State((found(net()), found(volume()), found(machine("a", "old")), found(machine("b"))))
    actions = plan(WANTED, state, allow_replace=True)
    assert names(actions) == ["delete machine/a", "create machine/a"]
    assert "delete machine/a" in actions[1].depends


def test_a_replaced_network_takes_its_machines_along_in_the_only_possible_order():
    state = State(tuple(found(item) for item in [net("old"), volume(), machine("a"), machine("b")]))
    with pytest.raises(ReplacementRefused, match=r"machine a \(network main is replaced\)"):
        plan(WANTED, state)
    order = []
    execute(plan(WANTED, state, allow_replace=True), lambda action: order.append(action.id), workers=1)
    assert order[:2] == ["delete machine/a", "delete machine/b"]
    assert order[2:4] == ["delete network/main", "create network/main"]
    assert sorted(order[4:]) == ["create machine/a", "create machine/b"]


def test_removal_takes_machines_then_networks_then_volumes():
    actions = plan_absent(State(tuple(found(item) for item in [volume(), net(), machine("b"), machine("a")])))
    assert names(actions) == ["delete machine/a", "delete machine/b", "delete network/main", "delete volume/v"]
    assert set(actions[2].depends) == {"delete machine/a", "delete machine/b"}
    assert "delete network/main" in actions[3].depends


def test_the_diff_is_sorted_and_shows_both_sides_of_a_replacement():
    state = State((found(net()), found(volume()), found(machine("a", "old", "j")), found(machine("b"))))
    shown = diff(plan(WANTED, state, allow_replace=True))
    assert shown["before"] == "machine a\n  image: j\n  keys: k\n  state: running\n"
    assert shown["after"] == "machine a\n  image: i\n  keys: k\n  state: running\n"
    every = diff(plan([machine("n10"), machine("n2"), net()], State()))["after"]
    assert [line for line in every.splitlines() if not line.startswith(" ")] == [
        "machine n2",
        "machine n10",
        "network main",
    ]


def test_nothing_to_do_has_an_empty_diff():
    assert diff([]) == {"before": "", "after": ""}


def test_independent_actions_run_at_the_same_time():
    together = threading.Barrier(3, timeout=10)
    actions = [Action("create", "machine", name) for name in "abc"]
    assert len(execute(actions, lambda _action: together.wait() and None)) == 3


def test_no_more_than_the_given_number_runs_at_the_same_time():
    lock, running, most = threading.Lock(), [], []

    def perform(action):
        with lock:
            running.append(action)
            most.append(len(running))
        threading.Event().wait(0.01)
        with lock:
            running.remove(action)

    execute([Action("create", "machine", str(n)) for n in range(8)], perform, workers=2)
    assert max(most) == 2


def test_the_first_error_stops_new_actions_and_tells_what_was_done():
    actions = [
        Action("create", "network", "main"),
        Action("create", "machine", "a", depends=("create network/main",)),
        Action("start", "machine", "b", depends=("create machine/a",)),
    ]

    def perform(action):
        if action.key == "a":
            raise HpcError("no luck.")

    seen = []
    with pytest.raises(ApplyError) as caught:
        execute(actions, perform, seen.append)
    text = str(caught.value)
    assert "could not create machine a: no luck." in text
    assert "Done before that: create network main. Not begun: start machine b." in text
    assert caught.value.done == seen == actions[:1]


def rules(values, exact=()):
    return Desired("group", "g", "g", {}, {"rules": frozenset(values)}, exact=frozenset(exact))


def test_what_others_have_added_is_told_and_stays_unless_the_setting_is_exact():
    state = State((Resource("group", "g", "id", "g", {}, {"rules": frozenset("ab")}),))
    assert plan([rules("a")], state) == []
    assert surplus([rules("a")], state) == ["group g: b"]
    (action,) = plan([rules("a", ["rules"])], state)
    assert (action.id, action.before, action.after) == ("update group/g", {"rules": ["a", "b"]}, {"rules": ["a"]})
    assert surplus([rules("a", ["rules"])], state) == []


def test_a_volume_is_never_replaced_even_where_machines_may_be():
    state = State((found(net()), Resource("volume", "v", "id", "old", {}), found(machine("a"))))
    with pytest.raises(ReplacementRefused, match=r"never done because of their data: volume v"):
        plan([net(), volume(), machine("a")], state, allow_replace=True)


def test_equal_actions_that_are_ready_go_together_and_no_more_than_fit():
    batches = []

    def perform(batch, done):
        batches.append([action.key for action in batch])
        for action in batch:
            done(action)

    actions = [Action("create", "network", "main")]
    actions += [Action("create", "machine", str(n), depends=("create network/main",)) for n in range(5)]
    done = execute_batches(actions, perform, lambda action: ("m", 3) if action.kind == "machine" else ("", 1))
    assert sorted(batches, key=len) == [["main"], ["3", "4"], ["0", "1", "2"]]
    assert len(done) == 6


def test_of_a_batch_that_fails_in_part_the_rest_is_named():
    def perform(batch, done):
        done(batch[0])
        raise HpcError("no room.")

    with pytest.raises(ApplyError, match=r"could not create machine b, create machine c: no room") as caught:
        execute_batches([Action("create", "machine", n) for n in "abc"], perform, lambda _action: ("m", 9))
    assert [action.key for action in caught.value.done] == ["a"]
