# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user of the notebooks without a browser: logs in, starts a server, runs a cell, stops it.

On the hub's host ``verify.yml`` runs this file as an ordinary user, with the hub's Python; the tests import it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
import websocket

CELL = """
import getpass, os, socket
print(1 + 1, getpass.getuser(), socket.gethostname(), os.environ.get("SLURM_JOB_ID", "-"))
"""


class Refused(Exception):
    """The service answered otherwise than a user hopes."""


class Person:
    """Somebody with a browser, as far as the service can tell."""

    def __init__(self, url: str, authority: str | bool = True) -> None:
        """Begin a session at ``url``; ``authority`` is the file with the certificate of the one to trust."""
        self.url, self.authority, self.name = url.rstrip("/"), authority, ""
        self.session = requests.Session()
        self.session.verify = authority
        # Only the site's own certificate and no proxy of the caller's count.
        self.session.trust_env = False

    def cookie(self, name: str, path: str) -> str:
        """Return the cookie that a request to ``path`` would carry; the most special path wins."""
        found = [one for one in self.session.cookies if one.name == name and path.startswith(one.path)]
        return str(max(found, key=lambda one: len(one.path)).value) if found else ""

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        """Send a request as a page of the service would, with its token against forgery."""
        headers = {
            "X-XSRFToken": self.cookie("_xsrf", path),
            "Referer": f"{self.url}/hub/home",
            "Sec-Fetch-Mode": "cors",
        }
        headers["Sec-Fetch-Site"] = "same-origin"
        return self.session.request(method, self.url + path, headers=headers, timeout=60, **more)

    def log_in(self, name: str, password: str) -> int:
        """Send the login form; return the status of the answer, 302 if it let us in."""
        self.session.get(f"{self.url}/hub/login", timeout=60)
        form = {"username": name, "password": password, "_xsrf": self.cookie("_xsrf", "/hub/")}
        answer = self.session.post(f"{self.url}/hub/login?next=", data=form, allow_redirects=False, timeout=60)
        if answer.status_code == 302:
            self.name = name
            self.session.get(f"{self.url}/hub/home", timeout=60)
        return answer.status_code

    def start(self, server: str = "", **wish: Any) -> None:
        """Ask for a server."""
        path = f"/hub/api/users/{self.name}/servers/{server}" if server else f"/hub/api/users/{self.name}/server"
        answer = self.ask("POST", path, json=wish)
        if answer.status_code not in (201, 202):
            raise Refused(f"start: {answer.status_code} {answer.text[:300]}")

    def servers(self) -> dict[str, Any]:
        """Return what the hub says about the user's servers, by their names."""
        answer = self.ask("GET", f"/hub/api/users/{self.name}")
        if answer.status_code != 200:
            raise Refused(f"state: {answer.status_code} {answer.text[:300]}")
        return dict(answer.json().get("servers") or {})

    def server(self, server: str = "") -> dict[str, Any]:
        """Return what the hub says about a server; nothing if there is none."""
        return dict(self.servers().get(server) or {})

    def messages(self) -> Iterator[str]:
        """Follow the start to its end: what the pending page shows, one after the other."""
        path = f"/hub/api/users/{self.name}/server/progress"
        with self.session.get(
            self.url + path, stream=True, timeout=120, headers={"Referer": f"{self.url}/hub/home"}
        ) as stream:
            for line in stream.iter_lines(decode_unicode=True):
                if line.startswith("data:"):
                    event = json.loads(line[5:])
                    yield event.get("message", "")
                    if event.get("ready") or event.get("failed"):
                        break

    def wait_until_ready(self, seconds: float = 120, server: str = "") -> None:
        """Wait for the server."""
        end = time.monotonic() + seconds
        while not self.server(server).get("ready"):
            if time.monotonic() > end:
                raise Refused(f"the server is not ready within {seconds:g} s: {self.server(server)}")
            time.sleep(0.5)  # poll interval

    def base(self, server: str = "") -> str:
        """Return the path of the server."""
        return f"/user/{self.name}/{server}/" if server else f"/user/{self.name}/"

    def open_lab(self, server: str = "") -> int:
        """Open JupyterLab, which gives this session its cookies for the server."""
        return self.session.get(f"{self.url}{self.base(server)}lab", timeout=60).status_code

    def run(self, code: str = CELL, seconds: float = 120, server: str = "") -> str:
        """Run a cell in a new kernel and return what it printed."""
        base = self.base(server)
        status = self.open_lab(server)
        if status != 200:
            raise Refused(f"JupyterLab: {status}")
        answer = self.ask("POST", f"{base}api/kernels", json={"name": "python3"})
        if answer.status_code != 201:
            raise Refused(f"kernel: {answer.status_code} {answer.text[:300]}")
        kernel = answer.json()["id"]
        try:
            return self.execute(base, kernel, code, seconds)
        finally:
            self.ask("DELETE", f"{base}api/kernels/{kernel}")

    def execute(self, base: str, kernel: str, code: str, seconds: float) -> str:
        """Run a cell in a kernel through a websocket."""
        path, session = f"{base}api/kernels/{kernel}/channels", uuid.uuid4().hex
        cookies = "; ".join(f"{one.name}={one.value}" for one in self.session.cookies if path.startswith(one.path))
        trust = {"ca_certs": self.authority} if isinstance(self.authority, str) else {}
        socket = websocket.create_connection(
            f"{self.url.replace('https', 'wss', 1)}{path}?session_id={session}",
            cookie=cookies,
            sslopt=trust,
            header=[f"X-XSRFToken: {self.cookie('_xsrf', path)}"],
            origin=self.url,
            timeout=seconds,
        )
        header = {
            "msg_id": uuid.uuid4().hex,
            "username": self.name,
            "session": session,
            "msg_type": "execute_request",
            "version": "5.3",
        }
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "shell",
            "buffers": [],
        }
        printed, done, end = "", {"idle", "reply"}, time.monotonic() + seconds
        try:
            socket.send(json.dumps(message))
            while done:
                if time.monotonic() > end:
                    raise Refused(f"the cell did not end within {seconds:g} s; it printed {printed!r}")
                answer = json.loads(socket.recv())
                if answer.get("parent_header", {}).get("msg_id") != header["msg_id"]:
                    continue
                kind, content = answer["msg_type"], answer["content"]
                if kind == "stream" and content["name"] == "stdout":
                    printed += content["text"]
                elif kind == "display_data":
                    # So come the words of processes on other nodes.
                    printed += content["data"].get("text/plain", "")
                elif kind == "error" or (kind == "execute_reply" and content["status"] == "error"):
                    raise Refused(f"the cell failed: {content['ename']}: {content['evalue']}")
                elif kind == "execute_reply":
                    done.discard("reply")
                elif kind == "status" and content["execution_state"] == "idle":
                    done.discard("idle")
        finally:
            socket.close()
        return printed

    def stop(self, server: str = "", seconds: float = 60) -> None:
        """Stop the server and wait until it is gone."""
        path = f"/hub/api/users/{self.name}/servers/{server}" if server else f"/hub/api/users/{self.name}/server"
        end, stopping = time.monotonic() + seconds, False
        while self.server(server):
            if not stopping:
                # A hub that was just started looks at its servers first, and refuses so long.
                answer = self.ask("DELETE", path)
                stopping = answer.status_code in (202, 204)
            if time.monotonic() > end:
                raise Refused(
                    f"the server does not stop within {seconds:g} s: {answer.status_code} {answer.text[:300]}"
                )
            time.sleep(0.5)  # poll interval


def main() -> int:
    """Prove that notebooks work; print what was seen as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--authority", default="")
    parser.add_argument("--user", required=True)
    parser.add_argument("--seconds", type=float, default=120)
    arguments = parser.parse_args()
    authority: str | bool = arguments.authority if Path(arguments.authority or "/nonexistent").exists() else True
    seen: dict[str, Any] = {"url": arguments.url, "failures": []}
    try:
        password = subprocess.run(["jupyterhub-password"], capture_output=True, text=True, check=True).stdout.strip()
        person = Person(arguments.url, authority)
        status = person.log_in(arguments.user, password)
        if status != 302:
            raise Refused(f"login as {arguments.user}: {status}")
        running = bool(person.server())
        begin = time.monotonic()
        if not running:
            person.start()
        person.wait_until_ready(arguments.seconds)
        seen["start_seconds"] = round(time.monotonic() - begin, 1)
        seen["output"] = person.run(seconds=arguments.seconds).strip()
        if seen["output"].split()[:2] != ["2", arguments.user]:
            seen["failures"].append(f"the cell printed {seen['output']!r}")
        # A server that its user had already is left alone.
        if not running:
            person.stop()
    except (Refused, OSError, subprocess.CalledProcessError, websocket.WebSocketException, ValueError) as error:
        seen["failures"].append(f"{type(error).__name__}: {error}")
    print(json.dumps(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
