# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ties the hub to this cluster: who may log in, notebooks as jobs of Slurm. The logic is in the modules beside it."""

from __future__ import annotations

import asyncio
import pwd
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import logins
import notebook_jobs as jobs
import notebook_options as options
from jupyterhub.auth import PAMAuthenticator
from jupyterhub.utils import maybe_future
from tornado import web
from traitlets import Any as AnyTrait
from traitlets import Integer, Unicode

HSTS = "max-age=31536000"
# The same on every host; a link to the release in use.
ENVIRONMENT = "/opt/turnkey/jupyterhub/current"


class ClusterAuthenticator(PAMAuthenticator):
    """Passwords of the system, and one-time passwords of people who have none; both with a limit on failures."""

    limiter = AnyTrait(logins.Limiter())

    async def authenticate(self, handler: web.RequestHandler, data: dict[str, str]) -> Any:
        """Return the user if the password is right."""
        name, address = data["username"], handler.request.remote_ip
        keys = [f"name {name}", f"address {address}"]
        wait = self.limiter.wait(keys, time.monotonic())
        if wait:
            self.log.warning("Too many failed logins as %r from %s: refused for %d s", name, address, wait)
            raise web.HTTPError(429, f"Too many failed logins. Try again in {wait:.0f} seconds.")
        try:
            uid = pwd.getpwnam(name).pw_uid
        except KeyError:
            uid = -1
        if uid > 0 and logins.take(Path(logins.LETTER_BOX), uid, data["password"]):
            self.log.info("%s logged in with a one-time password from %s", name, address)
            result: Any = {"name": name}
        else:
            # The password of root is nobody's business here, and PAM takes its time with each try.
            result = await super().authenticate(handler, data) if uid > 0 else None
        self.limiter.note(keys, bool(result), time.monotonic())
        return result


def slurm_spawner() -> type:
    """Return the class of notebooks that are jobs. batchspawner adds to the hub's API, so only here it is imported."""
    import batchspawner
    import batchspawner.batchspawner

    class SlurmNotebook(batchspawner.SlurmSpawner):
        """A notebook that is a job of its user."""

        limits = AnyTrait(options.Limits(), config=True)
        work_dir = Unicode(config=True)
        queue_seconds = Integer(600, config=True)
        _waiting: jobs.Waiting | None = None

        async def partitions(self) -> list[options.Partition]:
            """Return what Slurm has now."""
            code, out, _err = await self.ask(options.SINFO)
            return options.parse_partitions(out if code == 0 else "")

        async def options_form(self, _spawner: Any) -> str:
            """Return the form, for what Slurm has now."""
            return options.form(await self.partitions(), self.limits)

        async def options_from_form(self, formdata: dict[str, list[str]]) -> dict[str, Any]:
            """Read the form, and tell its user what is wrong with it."""
            wish = options.from_form(formdata)
            options.check(wish, await self.partitions(), self.limits)
            return wish

        async def run_pre_spawn_hook(self) -> None:
            """Allow the start the time that it may take with what Slurm has now."""
            _code, out, _err = await self.ask(["scontrol", "show", "config"])
            self.start_timeout = jobs.start_timeout(out, self.queue_seconds)
            await maybe_future(super().run_pre_spawn_hook())

        async def start(self) -> tuple[str, int]:
            """Start the job, and notice if it ends before its server has called: batchspawner would wait."""
            starting = asyncio.ensure_future(super().start())
            try:
                while not (await asyncio.wait({starting}, timeout=3))[0]:
                    job = jobs.parse_job(self.job_status)
                    if job and job.state == "RUNNING" and await self.poll() is not None:
                        failed = RuntimeError(f"The job on {job.host} of {self.user.name} ended early")
                        failed.jupyterhub_message = (
                            f"The job ended on {job.host} before the notebook server was there. "
                            "Its last words are in .jupyter/server.log in your directory."
                        )
                        raise failed
            finally:
                starting.cancel()
            return starting.result()

        async def _get_batch_script(self, **subvars: Any) -> str:
            """Return the job's script. The wish is checked here again: it may have come through the API."""
            try:
                wish = options.check(self.user_options, await self.partitions(), self.limits)
            except ValueError as error:
                raise web.HTTPError(400, str(error)) from error
            command = ["batchspawner-singleuser", *self.cmd, *self.get_args()]
            variables = subvars["keepvars"].split(",")
            name = f"notebook-{self.name or 'default'}"
            return options.job_script(wish, command, name, self.work_dir, ENVIRONMENT, variables)

        async def submit_batch_script(self) -> str:
            """Submit, and note the job at once: a hub that is killed now finds it again."""
            try:
                job = await super().submit_batch_script()
            except RuntimeError as error:
                # sbatch's own words, such as a limit of the user's account.
                failed = web.HTTPError(400, f"Slurm refused the job: {error}")
                failed.jupyterhub_message = f"Slurm refused the job: {error}"
                raise failed from error
            self.orm_spawner.state = self.get_state()
            self.db.commit()
            self._waiting = jobs.Waiting(job)
            return job

        async def ask(self, argv: list[str]) -> tuple[int, str, str]:
            """Run a command of Slurm without holding up the hub."""
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            try:
                out, err = await asyncio.wait_for(process.communicate(), 30)
            except asyncio.TimeoutError:
                process.kill()
                return 124, "", "no answer"
            return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")

        async def query_job_status(self) -> Any:
            """Ask Slurm. Whatever is not a clear answer leaves the notebook alone."""
            if not self.job_id:
                self.job_status = ""
                return batchspawner.batchspawner.JobStatus.NOTFOUND
            code, out, err = await self.ask(jobs.squeue_argv(self.job_id))
            state = jobs.state_of(code, out, err)
            if state != "unknown":
                self.job_status = out.strip()
            else:
                self.log.warning("Slurm says nothing about job %s of %s: %s", self.job_id, self.user.name, err.strip())
            return {
                "running": batchspawner.batchspawner.JobStatus.RUNNING,
                "pending": batchspawner.batchspawner.JobStatus.PENDING,
                "unknown": batchspawner.batchspawner.JobStatus.UNKNOWN,
            }.get(state, batchspawner.batchspawner.JobStatus.NOTFOUND)

        def state_gethost(self) -> str:
            """Return the node that the server runs on."""
            job = jobs.parse_job(self.job_status)
            return job.host if job else ""

        async def progress(self) -> AsyncIterator[dict[str, Any]]:
            """Say what the job waits for, whenever that changes."""
            last = ""
            while True:
                if self.job_id:
                    waiting = self._waiting = self._waiting or jobs.Waiting(self.job_id)
                    _code, out, _err = await self.ask(jobs.squeue_argv(self.job_id))
                    job, place, nodes = jobs.parse_job(out), "", ""
                    if job and job.state == "PENDING":
                        _code, place, _err = await self.ask(jobs.place_argv(job.partition))
                    if job and job.state == "CONFIGURING":
                        _code, nodes, _err = await self.ask(jobs.nodes_argv(job.nodes))
                    percent, text = waiting.message(job, place, nodes, time.monotonic())
                    if text != last:
                        last = text
                        yield {"progress": percent, "message": text}
                await asyncio.sleep(2)

    return SlurmNotebook


def configure(c: Any, settings: dict[str, Any]) -> None:
    """Set what the role decides. The site's own file comes after it."""
    hub = c.JupyterHub
    hub.bind_url = f"https://:{settings['https_port']}"
    hub.hub_bind_url = hub.hub_connect_url = f"http://{settings['address']}:{settings['hub_port']}"
    hub.db_url = "sqlite:////var/lib/jupyterhub/jupyterhub.sqlite"
    hub.cookie_secret_file = "/var/lib/jupyterhub/cookie_secret"
    # Servers and sessions outlive the hub. The proxy is a unit of its own.
    hub.cleanup_servers = hub.cleanup_proxy = False
    # How soon a proxy that was started anew knows the running servers again.
    hub.last_activity_interval = 30
    hub.tornado_settings = {
        "headers": {"Strict-Transport-Security": HSTS},
        "cookie_options": {"secure": True, "samesite": "Lax"},
        "slow_spawn_timeout": 5,
    }
    hub.concurrent_spawn_limit = settings["concurrent_starts"]
    hub.active_server_limit = settings["max_servers"]
    hub.allow_named_servers = settings["servers_per_user"] > 1
    # The one without a name does not count.
    hub.named_server_limit_per_user = max(settings["servers_per_user"] - 1, 0)
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:8001"

    hub.authenticator_class = ClusterAuthenticator
    c.PAMAuthenticator.service = "jupyterhub"
    c.PAMAuthenticator.open_sessions = False
    c.LocalAuthenticator.allowed_groups = set(settings["allowed_groups"])
    c.Authenticator.allowed_users = set(settings["allowed_users"])
    # Who has left the lists is out, also if the hub's database knows them.
    c.Authenticator.allow_existing_users = False
    c.Authenticator.admin_users = set(settings["admin_users"])

    # Only names in it reach the notebooks, which run on other hosts.
    c.Spawner.env_keep = ["LANG", "LC_ALL", "TZ"]
    c.Spawner.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    c.Spawner.default_url = "/lab"
    c.Spawner.poll_interval = 30
    c.Spawner.http_timeout = 120
    if settings["mode"] == "slurm":
        hub.spawner_class = slurm_spawner()
        c.Spawner.cmd = ["jupyterhub-singleuser"]
        c.SlurmNotebook.exec_prefix = "sudo -n -E -u {username}"
        c.SlurmNotebook.limits = options.Limits(**{**settings["limits"], "partitions": tuple(settings["partitions"])})
        c.SlurmNotebook.work_dir = settings["work_dir"]
        # The wish is not for the spawner's settings, but for the job's script.
        c.SlurmNotebook.apply_user_options = lambda _spawner, _options: None
        c.SlurmNotebook.queue_seconds = settings["queue_seconds"]
        c.SlurmNotebook.startup_poll_interval = 1.0
    else:
        hub.spawner_class = "systemdspawner.SystemdSpawner"
        # The spawner has its own word for the user.
        work_dir = settings["work_dir"].replace("{username}", "{USERNAME}")
        c.Spawner.cmd = ["/bin/bash", f"{ENVIRONMENT}/{options.START}", work_dir, "jupyterhub-singleuser"]
        c.SystemdSpawner.dynamic_users = False
        c.SystemdSpawner.isolate_tmp = True
        c.SystemdSpawner.disable_user_sudo = True
        c.SystemdSpawner.cpu_limit = settings["limits"].get("max_cores") or None
        memory = settings["limits"].get("max_memory_mb")
        c.SystemdSpawner.mem_limit = f"{memory}M" if memory else None

    if settings["idle_minutes"]:
        seconds = round(settings["idle_minutes"] * 60)
        culler = [
            sys.executable,
            "-m",
            "jupyterhub_idle_culler",
            f"--timeout={seconds}",
            f"--cull-every={min(300, max(seconds // 4, 5))}",
        ]
        hub.services = [{"name": "idle-culler", "command": culler}]
        scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
        hub.load_roles = [{"name": "idle-culler", "services": ["idle-culler"], "scopes": scopes}]
