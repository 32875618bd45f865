# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _nfs
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput

MOUNTINFO = """\
21 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/x
22 21 0:21 / /proc rw,nosuid - proc proc rw
23 21 8:1 /v /shared rw,relatime shared:1 - ext4 /dev/sda1 rw
24 21 0:40 / /srv/my\\040files rw - nfs4 head:/srv/my\\040files rw,vers=4.2
25 23 0:41 / /shared/scratch rw - xfs /dev/sdb rw
"""
SHARED = _nfs.MountSpec("/shared", "head", "/shared", ("vers=4.2", "hard"))
RETRY = "/etc/systemd/system/turnkey-mount-retry@.service"
UNIT = "/etc/systemd/system/shared.mount"


def unit_of(spec, enabled=True, made=True):
    return {spec.path: _nfs.parse_unit(_nfs.render_unit(spec, made), enabled)}


def plan(specs, units=None, foreign=(), mounts=(), directories=(), retry=None):
    steps = _nfs.plan_mounts(specs, units or {}, foreign, mounts, directories, retry)
    return [f"{step.verb} {step.target}" for step in steps]


def mounted(path="/shared", source="head:/shared", kind="nfs4"):
    return _nfs.Mount(path, kind, source)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/shared", "shared.mount"),
        ("/", "-.mount"),
        ("//srv//data/", "srv-data.mount"),
        ("/opt/my-soft", r"opt-my\x2dsoft.mount"),
        ("/.hidden/.x", r"\x2ehidden-.x.mount"),
        ("/a b", r"a\x20b.mount"),
        ("/ü", r"\xc3\xbc.mount"),
    ],
)
def test_a_unit_is_named_as_systemd_escapes_its_path(path, name):
    assert _nfs.systemd_unit_name(path) == name


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "overlay"),
        ("/srv/new", "overlay"),
        ("/shared", "ext4"),
        ("/sharedx", "overlay"),
        ("/shared/scratch/a", "xfs"),
        ("/srv/my files/x", "nfs4"),
    ],
)
def test_a_path_is_on_the_innermost_mount(path, kind):
    assert _nfs.filesystem_type(path, _nfs.parse_mountinfo(MOUNTINFO)) == kind


def test_a_later_mount_on_the_same_path_covers_the_earlier():
    mounts = [mounted(kind="autofs"), mounted(kind="nfs4")]
    assert _nfs.filesystem_type("/shared", mounts) == "nfs4"


def test_an_export_on_an_overlay_is_refused_with_a_remedy():
    problems = _nfs.unwanted_filesystems(["/shared", "/srv/x"], _nfs.parse_mountinfo(MOUNTINFO))
    assert len(problems) == 1
    assert "/srv/x" in problems[0]
    assert "overlay" in problems[0]
    assert "Remedy" in problems[0]


@pytest.mark.parametrize(
    ("filesystems", "loadable", "container", "expected"),
    [
        ("nodev\tproc\n\text4\n", set(), False, (False, False)),
        ("nodev\tnfs4\nnodev\tnfsd\n", set(), False, (True, True)),
        ("nodev\tproc\n", {"nfsv4", "nfsd"}, False, (True, True)),
        ("nodev\tproc\n", {"nfsv4", "nfsd"}, True, (False, False)),
        ("nodev\tnfs4\nnodev\tnfsd\n", set(), True, (True, False)),
    ],
)
def test_the_kernel_can_what_it_has_or_could_load(filesystems, loadable, container, expected):
    def run(argv, stdin=None):
        return (0 if argv[-1] in loadable else 1), "", ""

    support = _nfs.Support.probe(filesystems, container, run)
    assert (support.client, support.server) == expected


@pytest.mark.parametrize(
    ("environment", "marker", "expected"),
    [
        ("PATH=/bin\0container=docker\0", False, True),
        ("PATH=/bin\0", True, True),
        ("PATH=/bin\0xcontainer=1", False, False),
    ],
)
def test_a_container_is_known_by_its_marks(environment, marker, expected):
    assert _nfs.is_container(environment, marker) is expected


def test_an_export_is_completed_and_limited_to_the_network():
    assert _nfs.normalize_exports([{"path": "/shared"}], "10.0.0.0/24", "1777") == [
        {
            "id": 1,
            "path": "/shared",
            "clients": ["10.0.0.0/24"],
            "read_only": False,
            "root_squash": True,
            "options": [],
            "directory": {"path": "/shared", "mode": "1777", "owner": "root", "group": "root"},
        }
    ]


def test_all_that_is_wrong_with_exports_is_reported_at_once():
    exports = [{"path": "srv"}, {"path": "/a", "clients": ["x y"], "squash": 1}, {"path": "/a"}]
    with pytest.raises(InvalidInput) as caught:
        _nfs.normalize_exports(exports, "10.0.0.0/24", "1777")
    message = str(caught.value)
    assert "4 problems" in message
    for part in ("'srv'", "'x y'", "squash", "exported twice"):
        assert part in message


def test_all_that_is_wrong_with_mounts_is_reported_at_once():
    mounts = [
        {"path": "/", "server": "head"},
        {"path": "/a", "server": ""},
        {"path": "/a/", "server": "h", "options": ["a b"]},
    ]
    with pytest.raises(InvalidInput) as caught:
        _nfs.mount_specs(mounts, [])
    for part in ("path '/'", "server ''", "Two NFS mounts", "'a b'"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("server", "source"), [("head", "head:/x"), ("10.0.0.1", "10.0.0.1:/x"), ("fd00::1", "[fd00::1]:/x")]
)
def test_an_ipv6_server_is_put_in_brackets(server, source):
    assert _nfs.mount_specs([{"path": "/x", "server": server}], [])[0].source == source


def test_a_mount_unit_waits_for_the_network_and_nothing_waits_for_it():
    text = _nfs.render_unit(SHARED, made_directory=False)
    assert "After=network-online.target" in text
    assert "Options=vers=4.2,hard,retry=1,_netdev,nofail" in text
    assert "WantedBy=remote-fs.target" in text
    assert "OnFailure=turnkey-mount-retry@shared.service" in text


def test_own_retry_and_repeated_safety_options_are_not_doubled():
    spec = _nfs.MountSpec("/x", "h", "/x", ("retry=5", "nofail", "_netdev"))
    assert "Options=retry=5,_netdev,nofail\n" in _nfs.render_unit(spec, False)


def test_a_unit_of_others_is_not_ours():
    assert _nfs.parse_unit("[Mount]\nWhere=/shared\n", True) is None


@pytest.mark.parametrize("made", [True, False])
def test_a_unit_remembers_whether_it_made_its_directory(made):
    assert unit_of(SHARED, made=made)["/shared"].made_directory is made


def test_a_bare_host_gets_directory_unit_and_mount():
    assert plan([SHARED]) == [
        f"write {RETRY}",
        "mkdir /shared",
        f"write {UNIT}",
        "reload systemd",
        "enable shared.mount",
        "start shared.mount",
    ]


def done(spec=SHARED):
    text = next(step.text for step in _nfs.plan_mounts([spec], {}, [], [], [], None) if step.target == RETRY)
    return {"units": unit_of(spec), "mounts": [mounted()], "directories": ["/shared"], "retry": text}


def test_a_second_run_plans_nothing():
    assert plan([SHARED], **done()) == []


def test_an_unmounted_directory_is_mounted_again_and_nothing_else_happens():
    assert plan([SHARED], **{**done(), "mounts": []}) == ["start shared.mount"]


def test_a_changed_mount_is_stopped_before_its_unit_is_written():
    spec = _nfs.MountSpec("/shared", "head2", "/shared", ("hard",))
    assert plan([spec], **done()) == ["stop shared.mount", f"write {UNIT}", "reload systemd", "start shared.mount"]


def test_a_changed_mount_still_remembers_that_it_made_its_directory():
    spec = _nfs.MountSpec("/shared", "head2", "/shared", ("hard",))
    state = done()
    steps = _nfs.plan_mounts([spec], state["units"], [], state["mounts"], state["directories"], state["retry"])
    written = next(step for step in steps if step.target == UNIT)
    assert _nfs.parse_unit(written.text, True).made_directory


def test_a_reset_removes_all_that_was_made():
    assert plan([], **done()) == [
        "stop turnkey-mount-retry@shared.service",
        "stop shared.mount",
        "disable shared.mount",
        f"delete {UNIT}",
        "rmdir /shared",
        f"delete {RETRY}",
        "reload systemd",
    ]


def test_a_reset_leaves_a_mount_point_that_was_there_before():
    state = {**done(), "units": unit_of(SHARED, made=False)}
    assert "rmdir /shared" not in plan([], **state)


def test_a_reset_of_a_bare_host_plans_nothing():
    assert plan([]) == []


def test_all_mounts_stop_before_any_unit_is_touched():
    other = _nfs.MountSpec("/opt", "head", "/opt", ("hard",))
    state = done()
    state["units"].update(unit_of(other))
    steps = plan([], **state)
    assert max(i for i, s in enumerate(steps) if s.startswith("stop")) < min(
        i for i, s in enumerate(steps) if not s.startswith("stop")
    )


@pytest.mark.parametrize(
    ("foreign", "mounts", "part"),
    [
        ((), [mounted(source="/dev/sdb1", kind="ext4")], "already mounted from /dev/sdb1 (ext4)"),
        (["shared.mount"], [], "is not of this collection"),
    ],
)
def test_what_others_mounted_is_left_alone_with_a_remedy(foreign, mounts, part):
    with pytest.raises(HpcError, match="cluster_shared_dir_source=provided") as caught:
        plan([SHARED], foreign=foreign, mounts=mounts)
    assert part in str(caught.value)
