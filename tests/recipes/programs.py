"""Real Redis and PostgreSQL servers on loopback, run as children of the test."""

from __future__ import annotations

import atexit
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from tests.servers import required

__all__ = ["Postgres", "Program", "Redis"]

_STARTING = 20.0


class Program:
    """A server in the foreground at `address` and `port`, ended by its process id."""

    def __init__(self, address: str, port: int, command: list[str], directory: Path, **options: Any) -> None:
        self.address, self.port, self.directory = address, port, directory
        self._command, self._options = command, options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._options
            )
        until = time.monotonic() + _STARTING
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self._command[0]} did not start:\n{(self.directory / 'log').read_text()}")
            time.sleep(0.02)

    def is_ready(self) -> bool:
        """Does it accept connections?"""
        try:
            socket.create_connection((self.address, self.port), 0.2).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End it, and forget what it wrote."""
        self._end(signal.SIGINT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Redis(Program):
    """Redis on its usual port. With `tls` (files `ca`, `cert`, `key`) it speaks nothing else."""

    def __init__(self, address: str, *, tls: Any = None) -> None:
        port = 6379
        program = required("redis-server", "redis-server")
        directory = Path(tempfile.mkdtemp(prefix="redis-"))
        command = [program, "--bind", address, "--save", "", "--dir", str(directory), "--protected-mode", "no"]
        if tls is None:
            command += ["--port", str(port)]
        else:
            command += ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
            command += ["--tls-cert-file", tls.cert, "--tls-key-file", tls.key, "--tls-ca-cert-file", tls.ca]
        super().__init__(address, port, command, directory)


class Postgres(Program):
    """PostgreSQL on its usual port, with a role and a database `shop`: a primary, or the standby `of` one."""

    def __init__(self, address: str, *, of: Postgres | None = None, tls: Any = None) -> None:
        port = 5432
        directory = _directory()
        data = directory / "data"
        if of is None:
            _run("cp", "-a", str(_template()), str(data))
        else:
            where = ["-h", of.address, "-p", str(of.port), "-U", "shop"]
            _run("pg_basebackup", "-D", str(data), "-R", "-X", "stream", "-c", "fast", "--no-sync", *where)
        settings = {"max_wal_senders": "4", "max_connections": "40"}
        if tls is not None:
            for name in ("cert", "key"):
                copy = directory / f"{name}.pem"
                shutil.copy(getattr(tls, name), copy)
                copy.chmod(0o600)
                _give(copy)
                settings[f"ssl_{name}_file"] = str(copy)
            settings["ssl"] = "on"
        command = [_program("postgres"), "-D", str(data), "-h", address, "-p", str(port), "-k", str(directory), "-F"]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self._data = data
        super().__init__(address, port, command, directory, **_account())

    def is_ready(self) -> bool:
        where = ["-h", self.address, "-p", str(self.port), "-U", "shop"]
        found = subprocess.run([_program("pg_isready"), "-q", *where], stdin=subprocess.DEVNULL, timeout=5)
        return found.returncode == 0

    def promote(self) -> None:
        """From now on it is a primary."""
        _run("pg_ctl", "promote", "-w", "-D", str(self._data))


@cache
def _template() -> Path:
    """The files of a new database, which each server gets a copy of: to make them takes seconds."""
    directory = _directory()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    data = directory / "data"
    _run("initdb", "-D", str(data), "-U", "shop", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8")
    allowed = ("local all all", "host all all 127.0.0.0/8", "host replication all 127.0.0.0/8")
    (data / "pg_hba.conf").write_text("".join(f"{each} trust\n" for each in allowed))
    _run("postgres", "--single", "-F", "-D", str(data), "postgres", said="CREATE DATABASE shop;\n")
    return data


def _directory() -> Path:
    made = Path(tempfile.mkdtemp(prefix="postgres-"))
    _give(made)
    return made


@cache
def _account() -> dict[str, Any]:
    """Whom the programs run as: PostgreSQL refuses to run as root."""
    if os.geteuid():
        return {}
    known = {each.pw_name: each for each in pwd.getpwall()}
    account = known.get("postgres") or known["nobody"]
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _give(path: Path) -> None:
    account = _account()
    if account:
        os.chown(path, account["user"], account["group"])


def _run(program: str, *arguments: str, said: str = "") -> None:
    command = [_program(program), *arguments]
    done = subprocess.run(command, input=said, capture_output=True, text=True, timeout=60, cwd="/", **_account())
    if done.returncode:
        raise RuntimeError(f"{program}: {done.stdout}\n{done.stderr}")


def _program(name: str) -> str:
    """Debian keeps the programs of each version of PostgreSQL in a directory of its own."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return found[-1] if found else required(name, "postgresql")
