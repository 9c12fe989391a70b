"""Takes the pictures beside this file: `python docs/pictures/make.py`. It plays the demo for 30 seconds.

The terminal's pictures are drawn by rich, the report's by Chromium (Debian package `chromium`).
"""

from __future__ import annotations

import io
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from ecs_discovery.cli.demo import html
from ecs_discovery.cli.demo.command import Demo
from ecs_discovery.testing.lab import Lab

HERE = Path(__file__).parent
SECONDS, SEED, RATE = 30.0, 1, 60.0
SCREENS = ((80, 24), (120, 40))
AT = 0.52
"""When the live pictures are taken, as a share of the seconds: a task answers 503, and another has vanished."""
WIDTHS = (1280, 400)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)


def drawn(part: object, width: int, title: str) -> str:
    """A part of the demo as an SVG picture of a terminal, with the reader's own fonts."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, markup=False, highlight=False)
    console.print(part)
    svg = console.export_svg(title=title, theme=MONOKAI, unique_id=f"demo-{width}")
    return _COMMENT.sub("", _FONT.sub("", svg)).replace("Fira Code", "ui-monospace")


def photographed(page: Path, width: int, to: Path) -> None:
    """A page in a browser of this width, in full."""
    browser = shutil.which("chromium") or sys.exit("chromium is not installed (Debian package chromium)")
    with tempfile.TemporaryDirectory() as profile:
        # A window is at least 500 pixels wide: the page is put into a frame of the width.
        host = page.with_name(f"{width}.html")
        height = 2200 if width > 720 else 2500
        host.write_text(
            f'<body style="margin:0"><iframe src="{page.name}" style="border:0" width="{width}" height="{height}">'
        )
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        size = f"--window-size={max(500, width)},{height}"
        command += [f"--user-data-dir={profile}", size, f"--screenshot={to}", host.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


def main() -> None:
    logging.disable()
    pictures: dict[str, str] = {}
    with Lab(namespace="prod.local", seed=SEED) as lab, Demo(lab, seconds=SECONDS, rate=RATE, seed=SEED) as demo:
        began = time.monotonic()

        def frame() -> None:
            if not pictures and time.monotonic() - began >= AT * SECONDS:
                for width, height in SCREENS:
                    picture = demo.picture(height)
                    pictures[f"demo-{width}x{height}.svg"] = drawn(picture, width, "ecs-discovery demo")

        demo.run(frame)
        page = html.page(demo.history())
    for name, svg in pictures.items():
        (HERE / name).write_text(svg, encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        file.write_text(page, encoding="utf-8")
        for width in WIDTHS:
            photographed(file, width, HERE / f"report-{width}.png")


if __name__ == "__main__":
    main()
