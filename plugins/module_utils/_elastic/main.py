# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program node-power. What slurmctld calls loads nothing but the spool."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]

USAGE = """usage: node-power VERB
  resume NODES, suspend NODES, resume-fail NODES   slurmctld's requests: written down, carried out by node-power.service
  work              carry out the requests (node-power.service)
  reconcile         compare Slurm with the machines, and mend what differs (node-power-reconcile.timer)
  status [--json]   one line a node, and what went wrong last
  reset PARTITION   open a partition again that was closed after too many failures
  clear             remove all elastic machines
  serve             on a power host: carry out what a controller's key may ask for (a forced command)
  join              on a new machine: become a node of the cluster
"""


def main(argv: list[str]) -> int:
    """Run a verb; return the exit code."""
    verb = argv[1] if len(argv) > 1 else ""
    if verb in ("resume", "suspend", "resume-fail") and len(argv) == 3:
        from .spool import submit

        submit(verb, argv[2], os.environ)
        return 0
    from .._errors import HpcError
    from . import verbs

    known = {
        "work": (verbs.work, (0,)),
        "reconcile": (verbs.reconcile, (0,)),
        "status": (verbs.status, (0, 1)),
        "reset": (verbs.reset, (1,)),
        "clear": (verbs.clear, (0,)),
        "serve": (verbs.serve, (0,)),
        "join": (verbs.join, (0,)),
    }
    if verb not in known or len(argv) - 2 not in known[verb][1]:
        sys.stderr.write(USAGE)
        return 2
    try:
        return known[verb][0](argv[2:])
    except HpcError as error:
        sys.stderr.write(f"{error}\n")
    except OSError as error:
        sys.stderr.write(f"{error.filename or verb}: {error.strerror}\n")
    return 1
