"""`ecs-discovery run`: programs that know nothing of discovery find services by their short names."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import platform
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ecs_discovery.integrations import install
from ecs_discovery.testing.lab import Lab, LabService
from tests.integrations.grpc.fleet import Task
from tests.servers import free_port
from tests.support import eventually

ROOT = Path(__file__).parents[3]
PROGRAM = str(Path(__file__).with_name("program.py"))
EVERY = ("requests", "urllib3", "httpx", "httpx2", "httpx_in_tasks", "aiohttp")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


@pytest.fixture
def service(lab: Lab) -> LabService:
    return lab.service("orders", tasks=3)


def launcher(lab: Lab, *options: str) -> list[str]:
    given = ["--namespace", "prod.local", "--nameserver", lab.nameserver, *options]
    return [sys.executable, "-m", "ecs_discovery", "run", *given, "--"]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ECS_DISCOVERY_")}
    kept.pop("PYTHONPATH", None)
    return {**kept, "NO_PROXY": "", **more}


def ran(command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment(**more), check=False
    )


def even(result: subprocess.CompletedProcess[str]) -> dict[str, list[int]]:
    assert result.returncode == 0, result.stderr
    found: dict[str, list[int]] = json.loads(result.stdout.splitlines()[-1])
    return found


def reached(found: dict[str, list[int]], *libraries: str) -> bool:
    """Did all three tasks answer some of the six requests of each library? A late answer costs a task one or two."""
    return set(found) == set(libraries) and all(sum(each) == 6 and len(each) == 3 for each in found.values())


def url_of(service: LabService) -> str:
    return f"http://orders:{service.port}/"


@pytest.mark.parametrize("library", EVERY)
def test_a_library_reaches_a_service_by_its_short_name(lab: Lab, service: LabService, library: str):
    result = ran([*launcher(lab), sys.executable, PROGRAM, url_of(service), library])
    assert reached(even(result), library)
    assert result.stderr == ""


def test_all_libraries_in_one_process_share_what_is_known_and_pass_over_a_dead_task(lab: Lab, service: LabService):
    service.kill(service.tasks[0])  # DNS still names it
    before = lab.dns.total
    found = even(ran([*launcher(lab), sys.executable, PROGRAM, url_of(service), *EVERY]))
    assert set(found) == set(EVERY)
    assert all(sum(counts) == 6 for counts in found.values())
    assert all(len(counts) <= 2 for counts in found.values())
    assert lab.dns.total - before <= 6  # three questions, and at most once more for the dead task


@pytest.mark.parametrize("how", [[PROGRAM], ["-m", "tests.integrations.install.program"]])
def test_scripts_and_modules_are_reached_alike(lab: Lab, service: LabService, how: list[str]):
    assert reached(even(ran([*launcher(lab), sys.executable, *how, url_of(service), "requests"])), "requests")


def test_children_of_the_program_are_reached_too(lab: Lab, service: LabService):
    code = f"import subprocess, sys; subprocess.run([sys.executable, {PROGRAM!r}, {url_of(service)!r}, 'requests'])"
    assert reached(even(ran([*launcher(lab), sys.executable, "-c", code])), "requests")


def test_nothing_heavy_is_imported_before_the_program_imports_it(lab: Lab):
    code = "import sys; print([each for each in ('ssl', 'socket', 'threading', 'asyncio') if each in sys.modules])"
    plain = ran([sys.executable, "-c", code])
    assert ran([*launcher(lab), sys.executable, "-c", code]).stdout == plain.stdout


def test_the_sitecustomize_that_was_there_runs_too(lab: Lab, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text("print('it ran')\n")
    result = ran([*launcher(lab), sys.executable, "-c", "import sitecustomize"], PYTHONPATH=str(tmp_path))
    assert result.stdout == "it ran\n" * 2, result.stderr  # in the launcher, and in the program


def test_hosts_that_are_not_ours_are_left_alone(lab: Lab, service: LabService):
    task = service.tasks[0]
    url = f"http://{task.address}:{task.port}/"
    found = even(ran([*launcher(lab), sys.executable, PROGRAM, url, *EVERY]))
    assert found == {library: [6] for library in EVERY}
    assert lab.dns.total == 0


def test_with_discovery_off_the_program_runs_as_it_is(lab: Lab):
    code = "import os; print(os.environ.get('PYTHONPATH'))"
    assert ran([*launcher(lab), sys.executable, "-c", code], ECS_DISCOVERY_DISABLED="1").stdout == "None\n"


def test_what_goes_wrong_with_us_is_told_once_and_the_program_goes_on(lab: Lab, service: LabService):
    task = service.tasks[0]
    command = [sys.executable, PROGRAM, f"http://{task.address}:{task.port}/", "requests", "httpx"]
    boot = str(Path(install.__file__).with_name("_boot"))
    result = ran(command, PYTHONPATH=boot, ECS_DISCOVERY_INSTALL="1", ECS_DISCOVERY_RETRY_ATTEMPTS="many")
    assert even(result) == {"requests": [6], "httpx": [6]}
    assert result.stderr.count("ECS_DISCOVERY_RETRY_ATTEMPTS") == 1


def test_names_alone_are_found_where_that_is_asked_for(lab: Lab, service: LabService):
    command = [sys.executable, PROGRAM, url_of(service), "name", "--times", "60"]
    result = ran([*launcher(lab, "--getaddrinfo"), *command])
    assert "nothing is retried" in result.stderr
    counts = even(result)["name"]
    assert len(counts) == 3  # each with a third of a chance: 60 draws miss a task once in 10 to the 10
    assert ran([*launcher(lab), *command]).returncode != 0


@pytest.mark.parametrize("inside", [True, False])
def test_the_launcher_of_opentelemetry_goes_before_or_after(lab: Lab, service: LabService, inside: bool):
    tool = Path(sys.executable).with_name("opentelemetry-instrument")
    if not tool.exists():
        pytest.skip("OpenTelemetry's launcher is not installed")
    theirs = [str(tool), "--traces_exporter", "none", "--metrics_exporter", "none", "--logs_exporter", "none"]
    ours = launcher(lab)
    command = [*ours, *theirs] if inside else [*theirs, *ours]
    found = even(ran([*command, sys.executable, PROGRAM, url_of(service), "requests", "httpx", "aiohttp"]))
    assert reached(found, "requests", "httpx", "aiohttp")


@pytest.mark.parametrize("library", ["grpc", "grpc_in_tasks"])
def test_channels_choose_a_task_for_each_rpc_and_pass_over_a_dead_task(lab: Lab, library: str):
    port = free_port()
    tasks = [Task(f"127.9.8.{number}", port) for number in (1, 2, 3)]
    try:
        lab.dns.add("shop.prod.local", "A", *(task.address for task in tasks))
        command = [*launcher(lab), sys.executable, PROGRAM, f"shop:{port}", library]
        assert reached(even(ran(command)), library)
        tasks[0].stop()
        counts = even(ran(command))[library]
        assert (sum(counts), len(counts)) == (6, 2)
    finally:
        for task in tasks:
            task.stop()


def test_one_process_reaches_services_through_every_library_and_survives_the_death_of_a_task(
    lab: Lab, service: LabService
):
    port = free_port()
    tasks = [Task(f"127.9.9.{number}", port) for number in (1, 2, 3)]
    libraries = (*EVERY, "grpc", "grpc_in_tasks")
    lab.dns.add("shop.prod.local", "A", *(task.address for task in tasks))
    command = [*launcher(lab), sys.executable, PROGRAM, url_of(service), *libraries, "--rounds", "2"]
    process = subprocess.Popen(
        [*command, "--target", f"shop:{port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        assert reached(json.loads(process.stdout.readline()), *libraries)
        service.kill(service.tasks[0])  # DNS still names both
        tasks[0].stop()
        out, err = process.communicate("go on\n", timeout=60)
        counts = json.loads(out)
        assert {library: sum(counts[library]) for library in libraries} == dict.fromkeys(libraries, 6)
        assert all(len(each) <= 2 for each in counts.values())
        assert process.returncode == 0
        assert all("is down" in line for line in err.splitlines()), err  # nothing else is told
    finally:
        process.kill()
        process.communicate()
        for task in tasks:
            task.stop()


# Servers

APPLICATION = """
import json
import requests

session = requests.Session()


def application(environ, start_response):
    try:
        tasks = [session.get({url!r}, timeout=10).json()["task"] for _ in range(6)]
        body = json.dumps(sorted(tasks.count(each) for each in set(tasks))).encode()
    except Exception as error:
        body = json.dumps(repr(error)).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""


def asked(process: subprocess.Popen[Any], port: int) -> Any:
    found: list[Any] = []

    def answers() -> bool:
        assert process.poll() is None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as response:
                found.append(json.load(response))
        except OSError:
            return False
        return True

    eventually(answers, within=30)
    return found[-1]


ASYNC_APPLICATION = """
import json
import aiohttp
import httpx


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            tasks = [(await client.get({url!r})).json()["task"] for _ in range(3)]
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                async with session.get({url!r}) as response:
                    tasks.append((await response.json())["task"])
        body = json.dumps(sorted(tasks.count(each) for each in set(tasks))).encode()
    except Exception as error:
        body = json.dumps(repr(error)).encode()
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}})
    await send({{"type": "http.response.body", "body": body}})
"""


SERVERS = {
    "uvicorn": ["uvicorn", "--port", "{port}", "asgi:application"],
    "uvicorn --workers": ["uvicorn", "--workers", "2", "--port", "{port}", "asgi:application"],
    "gunicorn -k uvicorn": [
        *("gunicorn", "-w", "2", "-k", "{worker}", "-b", "127.0.0.1:{port}", "asgi:application"),
    ],
    "gunicorn": ["gunicorn", "-w", "2", "-b", "127.0.0.1:{port}", "application:application"],
    "gunicorn --preload": ["gunicorn", "--preload", "-w", "2", "-b", "127.0.0.1:{port}", "application:application"],
    "uwsgi": [
        *("uwsgi", "--http-socket", "127.0.0.1:{port}", "--master", "--enable-threads", "--die-on-term"),
        *("--wsgi-file", "application.py"),
    ],
}


@pytest.mark.parametrize("name", SERVERS)
def test_an_application_in_a_server_that_forks_is_reached(lab: Lab, service: LabService, name: str, tmp_path: Path):
    program, *arguments = SERVERS[name]
    tool = Path(sys.executable).with_name(program)
    if not tool.exists():
        pytest.skip(f"{program} is not installed")
    worker = "uvicorn_worker.UvicornWorker" if find_spec("uvicorn_worker") else "uvicorn.workers.UvicornWorker"
    (tmp_path / "application.py").write_text(APPLICATION.format(url=url_of(service)))
    (tmp_path / "asgi.py").write_text(ASYNC_APPLICATION.format(url=url_of(service)))
    port = free_port()
    command = [*launcher(lab), str(tool), *(each.format(port=port, worker=worker) for each in arguments)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=log, stderr=log)
        try:
            assert reached({name: asked(process, port)}, name), (tmp_path / "log").read_text()
        finally:
            process.terminate()
            process.wait(20)


CELERY = """
import sys
import celery
import requests

app = celery.Celery("work", broker="filesystem://", backend="file://" + sys.path[0] + "/results")
app.conf.update(
    broker_transport_options={{
        "data_folder_in": sys.path[0] + "/queue", "data_folder_out": sys.path[0] + "/queue",
        "store_processed": False, "control_folder": sys.path[0] + "/control",
    }},
    broker_connection_retry_on_startup=True,
)
session = requests.Session()


@app.task
def ask():
    return [session.get({url!r}, timeout=10).json()["task"] for _ in range(6)]


if __name__ == "__main__":
    import json
    found = ask.delay().get(timeout=40)
    print(json.dumps({{"requests": sorted(found.count(each) for each in set(found))}}))
"""


def test_a_task_of_celery_in_its_pool_of_processes_is_reached(lab: Lab, service: LabService, tmp_path: Path):
    tool = Path(sys.executable).with_name("celery")
    if not tool.exists():
        pytest.skip("celery is not installed")
    for each in ("queue", "results", "control"):
        (tmp_path / each).mkdir()
    (tmp_path / "work.py").write_text(CELERY.format(url=url_of(service)))
    options = ["--pool", "prefork", "--concurrency", "2", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    command = [*launcher(lab), sys.executable, "-m", "celery", "-A", "work", "worker", *options]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(PYTHONPATH=str(tmp_path)), stdout=log, stderr=log
        )
        try:
            # The one who asks knows nothing of discovery: what is found is found in the pool.
            found = even(ran([sys.executable, str(tmp_path / "work.py")]))
            assert reached(found, "requests"), (tmp_path / "log").read_text()
        finally:
            process.terminate()
            process.wait(20)


# In front of the program


def started(command: list[str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process: subprocess.Popen[str]) -> None:
    """End the process and all processes below it."""
    found = [process.pid]
    for pid in found:
        found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    for pid in found[1:]:
        os.kill(pid, signal.SIGKILL)
    process.kill()
    process.communicate()


WAITS = """
import signal, sys, time

def say(number, frame):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(7)

for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(each, say)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


def test_sigterm_is_passed_on_later_and_other_signals_at_once(lab: Lab):
    process = started([*launcher(lab, "--term-delay", "1.5"), sys.executable, "-c", WAITS])
    assert process.stdout is not None
    process.send_signal(signal.SIGHUP)
    assert process.stdout.readline() == "SIGHUP\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "SIGUSR1\n"
    assert process.stdout.readline() == "SIGTERM\n"
    assert time.monotonic() - began >= 1.5
    assert process.wait(10) == 7
    process.communicate()


def test_a_second_sigterm_is_passed_on_at_once(lab: Lab):
    process = started([*launcher(lab, "--term-delay", "60"), sys.executable, "-c", WAITS])
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 7
    process.communicate()


RT_SIGQUEUEINFO = {"x86_64": 129, "aarch64": 138}  # numbers of the system call


def test_a_signal_from_outside_the_pid_namespace_is_passed_on(lab: Lab):
    number = RT_SIGQUEUEINFO.get(platform.machine())
    if number is None or sys.platform != "linux":
        pytest.skip("the number of the system call is known for Linux on x86_64 and aarch64")
    process = started([*launcher(lab, "--term-delay", "60"), sys.executable, "-c", WAITS])
    assert process.stdout is not None
    try:
        # A sender that the receiver cannot see has process id 0: signo, errno, code (SI_QUEUE), padding, pid, uid
        told = struct.pack("iiiiii104x", signal.SIGHUP, 0, -1, 0, 0, 0)
        assert ctypes.CDLL(None).syscall(number, process.pid, int(signal.SIGHUP), told) == 0
        process.send_signal(signal.SIGUSR1)
        told_of = {process.stdout.readline(), process.stdout.readline()}  # two that wait come in any order
        assert told_of == {"SIGHUP\n", "SIGUSR1\n"}
    finally:
        ended(process)


KEYS = """
import signal, time

def say(number, frame):
    print(signal.Signals(number).name, flush=True)

for each in (signal.SIGINT, signal.SIGHUP):
    signal.signal(each, say)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


def at_a_terminal(command: list[str]) -> tuple[subprocess.Popen[str], int]:
    """A program with a terminal of its own, and our end of the terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process, ours


JOB = """
import os, signal, sys
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGALRM, lambda *_: print("not stopped", flush=True))
signal.alarm(20)
_, status = os.waitpid(child, os.WUNTRACED)
print("stopped" if os.WIFSTOPPED(status) else "ended", flush=True)
os.killpg(child, signal.SIGCONT)
os.kill(child, signal.SIGHUP)
os.waitpid(child, 0)
"""


def test_ctrl_z_stops_the_whole_job_and_it_goes_on_later(lab: Lab):
    command = [*launcher(lab, "--term-delay", "60"), sys.executable, "-c", KEYS]
    process, terminal = at_a_terminal([sys.executable, "-c", JOB, *command])
    assert process.stdout is not None
    try:
        os.write(terminal, b"\x1a")
        assert process.stdout.readline() == "stopped\n"
        assert process.stdout.readline() == "SIGHUP\n"
    finally:
        ended(process)
        os.close(terminal)


def test_a_key_at_the_terminal_reaches_the_program_once(lab: Lab):
    process, terminal = at_a_terminal([*launcher(lab, "--term-delay", "60"), sys.executable, "-c", KEYS])
    assert process.stdout is not None
    try:
        os.write(terminal, b"\x03")
        assert process.stdout.readline() == "SIGINT\n"
        time.sleep(0.3)  # for a second SIGINT, which must not come
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "SIGHUP\n"
    finally:
        os.close(terminal)
        ended(process)


def test_orphans_are_reaped_and_the_exit_status_is_the_programs(lab: Lab):
    code = "import os, sys, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert ran([*launcher(lab, "--term-delay", "1"), sys.executable, "-c", code]).returncode == 128 + 9
    assert ran([*launcher(lab, "--term-delay", "1"), sys.executable, "-c", "raise SystemExit(3)"]).returncode == 3
    assert ran([*launcher(lab), sys.executable, "-c", "raise SystemExit(3)"]).returncode == 3


EVERY_SIGNAL = """
import os, signal, time

def say(number, frame):
    print(int(number), flush=True)

FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGSYS)
for each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTERM, *FAULTS}:
    signal.signal(each, say)
print("ready", flush=True)
parent = os.getppid()
while os.getppid() == parent:
    time.sleep(0.05)
"""
OTHERS = ("KILL", "STOP", "CHLD", "TERM", "SEGV", "BUS", "FPE", "ILL", "TRAP", "ABRT", "SYS")


def test_every_signal_that_can_be_is_passed_on(lab: Lab):
    process = started([*launcher(lab, "--term-delay", "60"), sys.executable, "-c", EVERY_SIGNAL])
    assert process.stdout is not None
    numbers = {int(each) for each in signal.valid_signals()} - {int(getattr(signal, f"SIG{each}")) for each in OTHERS}
    assert len(numbers) > 40  # the real-time signals are among them
    try:
        for number in sorted(numbers):
            process.send_signal(number)
            assert select.select([process.stdout], [], [], 20)[0], f"signal {number} was not passed on"
            assert process.stdout.readline() == f"{number}\n"
    finally:
        ended(process)


def test_an_alarm_that_was_set_before_ends_the_program(lab: Lab):
    sets = "import os, signal, sys; signal.alarm(1); os.execv(sys.argv[1], sys.argv[1:])"
    command = [*launcher(lab, "--term-delay", "60"), sys.executable, "-c", "import time; time.sleep(30)"]
    assert ran([sys.executable, "-c", sets, *command]).returncode == 128 + signal.SIGALRM


def test_the_program_has_the_signal_mask_that_was_there(lab: Lab):
    blocks = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    tells = "import signal; print([int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])])"
    command = [*launcher(lab, "--term-delay", "60"), sys.executable, "-c", tells]
    assert json.loads(ran([sys.executable, "-c", blocks, *command]).stdout) == [signal.SIGUSR1]


def test_where_standard_error_is_closed_the_program_lives_until_sigterm_is_passed_on(lab: Lab):
    process = started([*launcher(lab, "--term-delay", "1"), sys.executable, "-c", STAYS_ON_PIPE])
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        process.stderr.close()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"
    finally:
        process.stderr = None
        ended(process)


STAYS = """
import signal, time

def say(number, frame):
    print(signal.Signals(number).name, flush=True)

for each in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, say)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


STAYS_ON_PIPE = STAYS.replace('print("ready', 'signal.signal(signal.SIGPIPE, say)\nprint("ready')


def test_after_a_second_sigterm_the_first_is_not_passed_on_again(lab: Lab):
    process = started([*launcher(lab, "--term-delay", "2"), sys.executable, "-c", STAYS])
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        process.send_signal(signal.SIGTERM)
        assert "passed on in 2 s" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"
        time.sleep(2.5)  # longer than the delay
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "SIGHUP\n"
    finally:
        ended(process)


def test_the_end_of_the_program_is_noticed_where_sigchld_was_ignored(lab: Lab):
    ignores = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [*launcher(lab, "--term-delay", "1"), sys.executable, "-c", "raise SystemExit(3)"]
    process = subprocess.Popen([sys.executable, "-c", ignores, *command], cwd=ROOT, env=environment())
    try:
        assert process.wait(20) == 3
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "no command"),
        (["--"], 2, "no command"),
        (["--namespace", "a b", "--", "true"], 2, "namespace"),
        (["--term-delay", "-1", "--", "true"], 2, "seconds from 0 to 120"),
        (["--term-delay", "soon", "--", "true"], 2, "seconds from 0 to 120"),
        (["--namespce", "x", "--", "true"], 2, "namespce"),
        (["--", "true"], 2, "--namespace"),
        (["--namespace", "prod.local", "--", "no-such-command-here"], 127, "no such command"),
        (["--namespace", "prod.local", "--term-delay", "1", "--", "no-such-command-here"], 127, "no such command"),
        (["--namespace", "prod.local", "--", "python -c 'x'"], 127, "give the words separately"),
    ],
)
def test_what_makes_no_sense_is_told(arguments: list[str], status: int, said: str):
    result = ran([sys.executable, "-m", "ecs_discovery", "run", *arguments])
    assert result.returncode == status
    assert said in result.stderr
    assert "Traceback" not in result.stderr
