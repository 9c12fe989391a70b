"""Counts the instructions of the hot paths and compares them with a committed budget.

    python -m tests.instructions.run            compare; exit status 1 when a path costs over 3 % more than its budget
    python -m tests.instructions.run --write    write what was counted as the budget of this interpreter

A budget holds for one build of the interpreter and one set of library versions: other builds compile to other
instructions. With any other the figures are a report. Needs valgrind.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

from tests.instructions.programs import PROGRAMS

BUDGET = Path(__file__).with_name("budget.json")
MARGIN = 0.03
USES = 200
PINNED = ("requests", "urllib3", "tenacity")
RATIOS = {
    "a wrapped GET, of a plain one": ("get", "plain-get"),
    "the same with trust_env off": ("get-without-environment", "plain-get-without-environment"),
    "a GET of urllib3's manager, of a plain one": ("urllib3-get", "plain-urllib3-get"),
    "a GET of aiohttp's session, of a plain one": ("aiohttp-get", "plain-aiohttp-get"),
}


def build() -> str:
    """This interpreter and these libraries, in one line."""
    python = blake2b(Path(sys.executable).resolve().read_bytes(), digest_size=6)
    library = Path(sysconfig.get_config_var("LIBDIR") or "") / (sysconfig.get_config_var("LDLIBRARY") or "")
    if library.suffix == ".so" and library.exists():
        python.update(library.read_bytes())
    return " ".join((sys.version.split()[0], python.hexdigest(), *(f"{name}={version(name)}" for name in PINNED)))


PROGRAM = Path(__file__).with_name("programs.py")
ALONE = ("env", "-i", "PYTHONHASHSEED=0", f"PYTHONPATH={Path.cwd()}", "PATH=/usr/bin:/bin")
VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")


def instructions(name: str, count: int) -> int:
    """Of a whole run of that many uses."""
    done = subprocess.run(
        [*ALONE, *VALGRIND, sys.executable, str(PROGRAM), name, f"{count:06}"],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"{name} failed under valgrind:\n{done.stderr[-2000:]}")
    return int(found[1].replace(",", ""))


def counted(name: str) -> int:
    """Instructions of one use."""
    # Once without being counted: the first run compiles the modules that have no compiled form yet.
    subprocess.run([*ALONE, sys.executable, str(PROGRAM), name, "000000"], check=True, timeout=1200)
    return round((instructions(name, USES) - instructions(name, 0)) / USES)


def main() -> int:
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is missing")
    # What plain libraries cost changes with their pinned versions alone: it is counted when the budget is written.
    # So is what depends on a library that the budget is not kept for (aiohttp).
    usual = [name for name in PROGRAMS if "--write" in sys.argv or not name.startswith(("plain-", "aiohttp-"))]
    names = [name for name in sys.argv[1:] if not name.startswith("-")] or usual
    with ThreadPoolExecutor(2) as threads:
        found = dict(zip(names, threads.map(counted, names), strict=True))
    budgets: dict[str, dict[str, int]] = json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
    for name, allowed in budgets.get(build(), {}).items():
        # Files that come and go beside the interpreter cost it instructions: what it does not need a second time is not
        # the program's.
        if name in found and found[name] > allowed * (1 + MARGIN):
            found[name] = min(found[name], counted(name))
    if "--write" in sys.argv:
        budgets[build()] = {**budgets.get(build(), {}), **found}
        BUDGET.write_text(json.dumps(budgets, indent=2, sort_keys=True) + "\n")
    budget = budgets.get(build(), {})
    over = False
    for name, count in found.items():
        allowed = budget.get(name)
        line = f"{name:32}{count:12,}"
        if allowed:
            change = count / allowed - 1
            over |= change > MARGIN
            word = "TOO MANY" if change > MARGIN else "lower the budget" if change < -MARGIN else "ok"
            line += f"  {change:+7.2%} of {allowed:,}: {word}"
        print(line)
    for words, (mine, plain) in RATIOS.items():
        if mine in found and (of := found.get(plain) or budget.get(plain)):
            print(f"{words}: {found[mine] / of:.3f}")
    if not budget:
        print(f"No budget for {build()}: a report only.")
    return over


if __name__ == "__main__":
    sys.exit(main())
