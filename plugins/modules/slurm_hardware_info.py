#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_hardware_info
short_description: The CPUs and memory of a host as Slurm counts them
version_added: "0.1.0"
description:
  - Reads from the kernel what C(slurmd -C) would print, on a host that need not have Slurm yet.
  - M(turnkey.hpc.slurm_config) runs it on nodes that are new.
author: The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Changes nothing anyway.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
options: {}
"""

EXAMPLES = r"""
- name: See what Slurm would make of this host
  turnkey.hpc.slurm_hardware_info:
  register: measured
"""

RETURN = r"""
hardware:
  description:
    - Number of C(cpus), and C(memory_mb) in MiB. If all cores are alike also C(sockets), C(cores_per_socket) and
      C(threads_per_core).
  returned: success
  type: dict
  sample: {cpus: 64, sockets: 2, cores_per_socket: 16, threads_per_core: 2, memory_mb: 515630}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.hardware import measure


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        hardware = measure(Path("/sys/devices/system/cpu"), memory)
    except OSError as error:
        module.fail_json(msg=f"The CPUs can't be counted: {error}. Remedy: declare cpus and memory_mb for this node.")
    module.exit_json(changed=False, hardware=hardware)


if __name__ == "__main__":
    main()
