"""The command: its output, its exit status, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ecs_discovery.cli.doctor.checks import CODES, Severity
from ecs_discovery.cli.doctor.checks.program import OLDEST
from ecs_discovery.cli.doctor.command import doctor
from ecs_discovery.cli.doctor.facts import Facts, as_plain
from ecs_discovery.cli.doctor.gather import MOST_TARGETS, Order
from tests.doctor.support import HEALTHY, Change, connects, target

ROOT = Path(__file__).resolve().parents[2]
SICK: dict[str, Change] = {
    "healthy": lambda facts: facts,
    "note": lambda facts: replace(facts, stop_timeout=12.0),
    "warning": connects("accepts", "refuses"),
    "error": connects("silent", "silent"),
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command on facts in place of a look; the last order is kept on it."""

    def run(*arguments: str, facts: Facts = HEALTHY) -> tuple[int, str, str]:
        def look(order: Order) -> Facts:
            orders.append(order)
            return facts

        with pytest.raises(SystemExit) as ended:
            doctor(arguments, look=look)
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    orders: list[Order] = []
    run.orders = orders  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize(
    ("state", "status", "strict"), [("healthy", 0, 0), ("note", 0, 0), ("warning", 0, 1), ("error", 1, 1)]
)
def test_the_exit_status_says_whether_there_is_an_error(run, state: str, status: int, strict: int):
    facts = SICK[state](HEALTHY)
    assert run("orders", facts=facts)[0] == status
    assert run("orders", "--strict", facts=facts)[0] == strict


def test_a_healthy_task_gets_a_mark_for_each_step_and_no_finding(run):
    status, out, err = run("orders")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "ecs-discovery doctor 0.1.0: a task in cluster blue (eu-west-1a)"
    assert [line[:2] for line in lines[2:-3]] == ["√ "] * 8
    assert lines[-2:] == ["Nothing was found.", "Nothing was changed."]


def test_a_finding_stands_below_its_step_with_what_to_do(run):
    _, out, _ = run("orders", facts=SICK["error"](HEALTHY))
    found = out[out.index("× name") :]  # noqa: RUF001
    assert re.match(r"× name .*\n    × D209 no task answers a connect\n      seen    10\.0\.1\.0:8080", found)  # noqa: RUF001
    for word in ("means   ", "do      let this", "run     aws ec2 authorize-", "more    docs/doctor.md#d209"):
        assert word in found
    assert found.endswith("1 error.\nNothing was changed.\n")


def test_a_pipe_gets_no_colours_and_a_plain_terminal_plain_letters():
    facts = json.dumps(as_plain(SICK["error"](HEALTHY)))
    command = [sys.executable, "-m", "ecs_discovery", "doctor", "--facts", "-"]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, input=facts, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environ)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout
    assert "\nx name" in done.stdout


def test_a_terminal_gets_colours_unless_it_says_no(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32m√\x1b[0m" in run("orders")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("orders")[1]


def test_json_has_findings_and_facts(run):
    status, out, _ = run("orders", "--json", facts=SICK["warning"](HEALTHY))
    told = json.loads(out)
    assert (status, told["errors"], told["warnings"]) == (0, 0, 1)
    (finding,) = told["findings"]
    assert finding.keys() == {"code", "severity", "step", "title", "seen", "means", "do", "run", "docs"}
    assert (finding["code"], finding["severity"], finding["step"]) == ("D210", "warning", "name orders")
    assert told["facts"]["format"] == 1


def test_the_output_of_json_is_judged_alike_from_a_file_and_as_ecs_exec_prints_it(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, out, _ = run("orders", "--json", facts=SICK["error"](HEALTHY))
    file = tmp_path / "facts.json"
    file.write_text(out)
    assert run("--facts", str(file), "--json") == (1, out, "")
    session = "\nThe Session Manager plugin was installed.\n\nStarting session with SessionId: x\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(session + out.replace("\n", "\r\n") + "\n\nExiting session x.\n"))
    assert run("--facts", "-", "--json") == (1, out, "")
    assert len(run.orders) == 1  # nothing was looked at again


def test_options_reach_the_look(run):
    run("orders", "users:80", "--namespace", "x.y", "--nameserver", "10.0.0.2", "--pid", "7", "--path", "/health")
    assert run.orders == [Order(("orders", "users:80"), "x.y", ("10.0.0.2",), 7, "/health", None)]
    run("--stop-timeout", "60")
    assert run.orders[-1] == Order(stop_timeout=60.0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--facts", "/nonexistent"), "a file that can be read"),
        (("--facts", "/dev/null"), "a file that can be read"),
        (("--facts", __file__), "a file of JSON"),
        (("--facts", "x", "orders"), "no names"),
        (("--facts", "x", "--namespace", "y"), "no names"),
        (("--pid", "0"), "a process id"),
        (("--pid", "x"), "invalid int"),
        (("--stop-timeout", "-1"), "seconds"),
        (("--stop-timeout", "nan"), "seconds"),
        (("--path", "health"), "a path such as"),
        (("--path", "/a\r\nHost: b"), "a path such as"),
        (tuple(map(str, range(MOST_TARGETS + 1))), "at most 16"),
        (("--what",), "unrecognized"),
    ],
)
def test_what_makes_no_sense_is_exit_status_2_and_one_reason(run, arguments: tuple[str, ...], told: str):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert told in err
    assert "Traceback" not in err


def test_a_name_that_makes_no_sense_is_told_before_anything_is_asked():
    done = subprocess.run(
        [sys.executable, "-m", "ecs_discovery", "doctor", "http://orders/"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "ecs-discovery doctor: target is 'http://orders/'; allowed: a name, not a URL: for example 'orders:8080'\n"
    )


def test_it_works_without_the_packages_of_the_command_line():
    code = (
        "import sys\n"
        "for name in ('click', 'rich', 'dns', 'boto3', 'botocore', 'requests'): sys.modules[name] = None\n"
        "from ecs_discovery.cli import main\n"
        "main(['doctor', '--nameserver', '127.0.0.1:1', 'orders.prod.local', '--json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, "")
    assert "D113" in {each["code"] for each in json.loads(done.stdout)["findings"]}


def test_every_code_is_explained_on_the_page_and_the_page_has_no_other():
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (.+)$", page, re.MULTILINE) == list(CODES)
    words = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
    for code, entry in CODES.items():
        section = page.split(f"\n### {code}\n", 1)[1].split("\n### ", 1)[0]
        assert f"**{entry.title[0].upper()}{entry.title[1:]}** (*{words[entry.severity]}*). {entry.means}\n" in section


def test_the_oldest_versions_are_those_of_the_package():
    text = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    for name, version in OLDEST.items():
        assert re.search(rf"^\s+{name}(\[.+\])?>={re.escape(version)}$", text, re.MULTILINE), name
        assert version in re.findall(rf"^    {name}>=(\S+)$", text, re.MULTILINE), name


def test_a_long_answer_of_a_name_fits_its_line(run):
    facts = target(asked="x" * 60, source="y" * 200)(HEALTHY)
    _, out, _ = run("orders", facts=facts)
    assert max(map(len, out.splitlines())) <= 250
