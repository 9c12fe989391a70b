"""Finding sockets and asking them: what is not the user's own is passed over, and whatever is said is checked."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ecs_discovery.cli.watch.ask import Socket, ask, directories, sockets
from ecs_discovery.cli.watch.document import read

ME = os.getuid()


@contextmanager
def listening(home: Path, serve: Callable[[socket.socket], object], pid: int = 7) -> Iterator[Path]:
    """A socket at which `serve` says what it likes to whoever connects."""
    path = home / f"{pid}-abc{pid}.sock"
    kept: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(8)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                kept.append(connection)
                try:
                    serve(connection)
                except OSError:
                    connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for connection in kept:
                connection.close()


def saying(text: bytes) -> Callable[[socket.socket], object]:
    def serve(connection: socket.socket) -> None:
        connection.recv(512)
        connection.sendall(text)
        connection.close()

    return serve


# Where


def test_a_users_own_directories_are_looked_at():
    found = directories("", {"XDG_RUNTIME_DIR": "/run/mine"}, 42)
    assert found == (("/run/mine/ecs_discovery", 42), ("/tmp/ecs_discovery-42", 42), ("/run/user/42/ecs_discovery", 42))
    assert directories("/srv/sockets", {}, 42) == (("/srv/sockets", 42),)


def test_root_looks_at_those_of_all_users(home: Path):
    for name in ("ecs_discovery-1000", "ecs_discovery-x", "ecs_discovery-", "other-5", "ecs_discovery-99999999999"):
        (home / name).mkdir()
    (home / "user").mkdir()
    (home / "user" / "1001").mkdir()
    found = directories("", {}, 0, temporary=str(home), run=str(home / "user"))
    assert found[2:] == ((f"{home}/ecs_discovery-1000", 1000), (f"{home}/user/1001/ecs_discovery", 1001))


@pytest.mark.parametrize("spoilt", ["open to others", "a symbolic link", "of another user"])
def test_a_directory_that_cannot_be_trusted_is_refused(home: Path, spoilt: str):
    path = home / "sockets"
    with listening(home, saying(b"{}")):
        if spoilt == "a symbolic link":
            path.symlink_to(home)
        elif spoilt == "open to others":
            path = home
            path.chmod(0o750)
        else:
            path = home
        found, refused = sockets([(str(path), ME + 1 if spoilt == "of another user" else ME)])
        path.chmod(0o700)
    assert found == ()
    assert len(refused) == 1


def test_a_directory_that_is_not_there_is_no_news(home: Path):
    assert sockets([(str(home / "nothing"), ME)]) == ((), ())


def test_links_files_and_other_names_are_passed_over(home: Path):
    with listening(home, saying(b"{}")) as path:
        (home / "8-abc.sock").symlink_to(path)
        (home / "9-abc.sock").touch()
        (home / "notes.txt").touch()
        found, refused = sockets([(str(home), ME)])
    assert (found, refused) == ((Socket(str(path), 7),), ())


@pytest.mark.skipif(ME != 0, reason="only root can give a file away")
def test_a_socket_of_another_user_is_passed_over(home: Path):
    with listening(home, saying(b"{}")) as path:
        os.chown(path, 12345, -1)
        assert sockets([(str(home), ME)]) == ((), ())


def test_no_more_sockets_are_asked_than_a_machine_has_programs(home: Path):
    for number in range(300):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(str(home / f"{number}-a.sock"))
    found, _ = sockets([(str(home), ME)])
    assert len(found) == 256


def test_sockets_of_dead_processes_are_passed_over_and_left_where_they_are(home: Path):
    path = home / "7-abc.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
    assert ask([Socket(str(path), 7)], "orders", 1.0) == ((), ())
    assert ask([Socket(str(home / "gone.sock"), 7)], "orders", 1.0) == ((), ())
    assert path.exists()


# Servers that mean harm


def test_all_are_asked_at_once_and_who_is_silent_is_named(home: Path):
    with (
        listening(home, lambda connection: None, 5) as silent,
        listening(home, lambda connection: connection.sendall(b"{"), 6) as slow,
        listening(home, lambda connection: connection.close(), 8) as rude,
        listening(home, saying(b"{}"), 7) as good,
    ):
        found = [Socket(str(path), pid) for path, pid in ((silent, 5), (slow, 6), (rude, 8), (good, 7))]
        began = time.monotonic()
        asked = ask(found, "orders", 0.5)
    assert time.monotonic() - began < 5
    assert asked == (((7, b"{}"),), (5, 6, 8))


def test_what_has_no_end_is_cut_short(home: Path):
    def endless(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"x" * 65536)

    with listening(home, endless) as path:
        assert ask([Socket(str(path), 7)], "orders", 3600.0) == ((), (7,))


def test_a_name_with_a_line_end_is_one_request(home: Path):
    heard: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        heard.append(connection.recv(512))
        connection.close()

    with listening(home, serve) as path:
        ask([Socket(str(path), 7)], "orders\nusers", 5.0)
    assert heard == [b"orders users\n"]


def said(**changed: Any) -> bytes:
    service = {
        "target": "orders",
        "total": 1,
        "endpoints": [{"endpoint": "10.0.0.1:80", "state": "healthy"}],
        **changed.pop("service", {}),
    }
    return json.dumps(
        {"version": 1, "pid": 7, "program": "app", "group": "g", "services": [service], **changed}
    ).encode()


def test_a_plain_document_is_read():
    found = read(said(), 7)
    assert found.services[0].endpoints[0].endpoint == "10.0.0.1:80"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no JSON",
        b"\xff\xfe",
        b"[1]",
        b"{}",
        b"[" * 100_000,
        said(pid=8),
        said(version=2),
        said(version="1"),
        said(program=5),
        said(services={}),
        said(services=[{}] * 17),
        said(names=["x"] * 101),
        said(service={"total": 1.5}),
        said(service={"total": True}),
        said(service={"total": 10**30}),
        said(service={"uses": "many"}),
        said(service={"panic": 1}),
        said(service={"endpoints": [{"endpoint": "a", "state": "happy"}]}),
        said(service={"endpoints": [{"endpoint": "a", "state": "healthy"}] * 501}),
        said(service={"states": [{"state": "\x1b[2J", "number": 1}]}),
        said().replace(b'"total": 1', b'"ttl": NaN'),
        said().replace(b'"total": 1', b'"ttl": 1e999'),
        said().replace(b'"total": 1', b'"total": ' + b"9" * 5000),
    ],
    ids=lambda text: repr(text[:60]),
)
def test_a_document_that_does_not_fit_is_refused_as_a_whole(text: bytes):
    with pytest.raises(ValueError, match=r"."):
        read(text, 7)


def test_a_newer_program_is_told_apart():
    with pytest.raises(ValueError, match="newer version"):
        read(said(version=2), 7)


def test_texts_are_made_printable_and_cut():
    found = read(said(program="\x1b[2Jevil\n", service={"error": "x" * 5000}), 7)
    assert found.program == "\\x1b[2Jevil\\n"
    assert len(found.services[0].error) == 320


def test_what_a_newer_version_may_add_is_left_out():
    assert read(said(more="x", service={"more": {"a": 1}}), 7).pid == 7
