# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that begin in memory: a template booted once waits for its seed, and each new machine is a copy of it.

The template has no interface, key, name or address. A copy reads who it is from its own seed, and only then gets its
interface. Whatever fails here is a warning, and the machine boots from its disk instead.
"""

from __future__ import annotations

import io
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace

from .._errors import HpcError
from .base import NotReady, retry, spec_hash
from .libvirt_api import Hypervisor, Pool
from .libvirt_image import VmImage
from .libvirt_state import HEAD_BYTES, Template, parse_state, templates_of
from .libvirt_xml import DomainRequest, domain_xml, nic_xml, resumed_xml

__all__ = ["SEED_BYTES", "STATE", "InstantMachines"]

STATE = ".state"
"""What the volume with a machine's copy of the memory ends with; it is there while the machine starts."""

SEED_BYTES = 1 << 20
"""The size of every seed: a machine in memory knows the size of its disks."""

DOMAIN_PREFIX = "turnkey-"
WAITING = r"^TURNKEY-WAITING\s*$"
CONSOLE_BYTES = 64 * 1024
BOOT_SECONDS = 600
IDENTITY_SECONDS = 120
POLL_SECONDS = 0.2


class InstantMachines:
    """Makes the templates of a cluster's hypervisors, and starts machines from them."""

    def __init__(
        self,
        uris: Iterable[str],
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the hypervisors' URIs, and what warnings are told to."""
        self._warn = warn
        self._clock, self._sleep = clock, sleep
        self._locks = {uri: threading.Lock() for uri in uris}
        self._known: dict[tuple[str, str], Template | None] = {}

    def template(
        self, hypervisor: Hypervisor, pool: Pool, image: VmImage, request: DomainRequest, base: str
    ) -> Template | None:
        """Return the template for machines like ``request``, made if there is none; None where it can't be.

        ``base`` is the volume of the image's disk.
        """
        disk_bytes = max(request.kind.disk_gb * 2**30, pool.capacity_bytes(base))
        # What the memory holds, or was made by.
        made_of = {"image": image.version, "type": request.domain_type, **request.kind.attributes()}
        key = spec_hash({**made_of, "disk": disk_bytes})[:12]
        with self._locks[hypervisor.uri]:  # one machine makes it, the others wait
            if (hypervisor.uri, key) not in self._known:
                self._known[hypervisor.uri, key] = self._found(pool, key) or self._made(
                    hypervisor, pool, image, request, Template(key, uuid.uuid4().hex[:8]), (base, disk_bytes)
                )
            return self._known[hypervisor.uri, key]

    def start(self, hypervisor: Hypervisor, pool: Pool, template: Template, request: DomainRequest) -> bool:
        """Start a machine, which is defined and whose volumes are there; return whether it is somebody now.

        Otherwise it is off.
        """
        domain = hypervisor.domain(request.name)
        if domain is None:
            return False
        state = f"{_volume(request.disk).partition('.')[0]}{STATE}"
        try:
            pool.copy(template.volume("state"), state)
            head = parse_state(pool.beginning(state, HEAD_BYTES))
            content = head.described(resumed_xml(head.xml, request)).packed()
            pool.upload(state, io.BytesIO(content), len(content))
            hypervisor.restore(f"{pool.path}/{state}")
            self._wait(pool, request, rf"^TURNKEY-IDENTITY {re.escape(request.uuid)}\s*$", IDENTITY_SECONDS)
            hypervisor.plug_in(domain, nic_xml(request.network, request.mac))
        except HpcError as error:
            self._warn(f"machine {request.name} boots from its disk, since it can't begin in memory: {error}")
            hypervisor.power_off(request.name)
            # Another one is made by the next run, and this run is held up by it no more.
            pool.remove(template.volume("complete"))
            with self._locks[hypervisor.uri]:
                self._known[hypervisor.uri, template.key] = None
            return False
        finally:
            pool.remove(state)
        return True

    def _found(self, pool: Pool, key: str) -> Template | None:
        pool.refresh()
        for template, volumes in sorted(templates_of(pool.names()).items()):
            if template.key == key and template.volume("complete") in volumes:
                return template
        return None

    def _made(
        self,
        hypervisor: Hypervisor,
        pool: Pool,
        image: VmImage,
        request: DomainRequest,
        template: Template,
        disk: tuple[str, int],
    ) -> Template | None:
        if not image.waiting:
            self._warn(f"machines of {image.disk} boot from their disk: this image can't wait in memory for its seed.")
            return None
        name, (base, disk_bytes) = f"{DOMAIN_PREFIX}{template.name}", disk
        waiting = replace(
            request,
            name=name,
            uuid=str(uuid.uuid4()),
            network="",
            disk=f"{pool.path}/{template.volume('disk.qcow2')}",
            seed=f"{pool.path}/{template.volume('seed.iso')}",
            console=f"{pool.path}/{template.volume('console')}",
            cmdline=f"{request.cmdline} {image.waiting}",
            mark={},
        )
        try:
            pool.create(template.volume("disk.qcow2"), disk_bytes, "qcow2", f"{pool.path}/{base}")
            pool.create(template.volume("seed.iso"), SEED_BYTES)
            pool.create(template.volume("console"), 0)
            hypervisor.run_to_end(domain_xml(waiting))
            self._wait(pool, waiting, WAITING, BOOT_SECONDS)
            hypervisor.save(name, f"{pool.path}/{template.volume('state')}")
            pool.create(template.volume("complete"), 512)
            pool.refresh()  # the state was written beside libvirt's storage
        except HpcError as error:
            self._warn(f"machines boot from their disk on {hypervisor.uri}, since their memory can't be kept: {error}")
            if hypervisor.domain(name):
                hypervisor.power_off(name)
            pool.refresh()
            for volume in templates_of(pool.names()).get(template, ()):
                pool.remove(volume)
            return None
        return template

    def _wait(self, pool: Pool, request: DomainRequest, line: str, seconds: float) -> None:
        console = _volume(request.console)

        def look() -> None:
            text = pool.download(console, CONSOLE_BYTES).decode("utf-8", "replace")
            if not re.search(line, text, re.MULTILINE):
                raise NotReady(f"{request.name} didn't say that it is ready within {seconds:g} s.")

        retry(
            look,
            on=NotReady,
            deadline_seconds=seconds,
            base_seconds=POLL_SECONDS,
            cap_seconds=POLL_SECONDS,
            clock=self._clock,
            sleep=self._sleep,
        )


def _volume(path: str) -> str:
    """Return the volume at a path of the hypervisor."""
    return path.rpartition("/")[2]
