# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import struct

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt_state import (
    Template,
    parse_state,
    templates_of,
    unused_templates,
)

OLD, NEW = "a1517ca9-447a-4639-aa50-fb4d674ba9c2", "0b0e6bd2-6a43-4bcf-9b6d-0d4dbb0a3d11"
XML = f"<domain><name>turnkey-template</name><uuid>{OLD}</uuid></domain>"
COOKIE = f"<cookie><uuid>{OLD}</uuid></cookie>".encode()
MEMORY = b"the memory"


def state(xml=XML, cookie=COOKIE, room=1024, magic=b"LibvirtQemudSave", version=2):
    """Return a file as libvirt 9.0 writes it: head, description, notes, zeros, memory."""
    content = xml.encode() + b"\0"
    at = len(content) if cookie else 0
    content += cookie + b"\0" if cookie else b""
    head = magic + struct.pack("<5I", version, room, 1, 0, at) + bytes(56)
    return head + content.ljust(room, b"\0") + MEMORY


@pytest.mark.parametrize("cookie", [COOKIE, b""])
def test_a_state_that_is_read_and_written_is_the_same(cookie):
    data = state(cookie=cookie)
    assert parse_state(data).packed() + MEMORY == data


def test_a_state_with_another_description_is_another_machine_with_the_same_memory_at_the_same_place():
    longer = XML.replace("turnkey-template", "a-name-that-is-longer").replace(OLD, NEW)
    head = parse_state(state()).described(longer).packed()
    assert len(head) == len(state()) - len(MEMORY)
    found = parse_state(head)
    assert found.xml == longer
    assert found.cookie == COOKIE.replace(OLD.encode(), NEW.encode()) + b"\0"
    assert OLD.encode() not in head


def test_a_description_that_has_no_room_is_refused():
    with pytest.raises(HpcError, match="room for 1024 bytes of description, and needs 2134"):
        parse_state(state()).described(f"<domain><uuid>{NEW}</uuid>{' ' * 2000}</domain>").packed()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has 0 bytes"),
        (state(magic=b"LibvirtQemudPart"), "begins with b'LibvirtQemudPart', version 2"),
        (state(version=3), "version 3: this libvirt writes another format"),
        (state()[:500], "has 408 of 1024 bytes of its description"),
    ],
)
def test_what_is_no_whole_state_is_refused(data, message):
    with pytest.raises(HpcError, match=message):
        parse_state(data)


def test_templates_are_found_by_their_volumes_and_go_when_no_machine_was_made_from_them():
    one, two = Template("k1", "b1"), Template("k1", "b2")
    volumes = [one.volume("state"), one.volume("disk.qcow2"), two.volume("state")]
    others = ["template.disk.qcow2", "template-1.console", "image-0123456789abcdef.qcow2", "template.k.b.notes"]
    assert templates_of([*volumes, *others]) == {one: set(volumes[:2]), two: {volumes[2]}}
    assert unused_templates([*volumes, *others], [one.name]) == [volumes[2]]
