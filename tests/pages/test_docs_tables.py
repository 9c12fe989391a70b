"""The built documentation in a real browser: its tables are as wide as the page at most."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import required

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTHS = (400, 1280)

_MEASURE = """
const look = (page, width) => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style.cssText = `border:0;width:${width}px;height:800px`;
  frame.onload = () => {
    const root = frame.contentDocument.documentElement;
    const tables = [...frame.contentDocument.querySelectorAll("article table")];
    const beyond = table => {
      const frame = table.parentElement.getBoundingClientRect();
      return Math.round(Math.max(table.getBoundingClientRect().right - frame.right, 0));
    };
    const cells = tables.flatMap(table => [...table.querySelectorAll("td")]);
    const cut = cells.filter(cell => cell.scrollWidth > cell.clientWidth + 1);
    const narrow = cells.filter(cell => cell.innerText.length > 20 && cell.clientWidth < 40);
    done({
      width, tables: tables.length, overflow: Math.round(root.scrollWidth - root.clientWidth),
      beyond: Math.max(0, ...tables.map(beyond)), cut: cut.length, narrow: narrow.length,
    });
    frame.remove();
  };
  frame.srcdoc = page;
  document.body.append(frame);
});
(async () => {
  const found = {};
  for (const [name, page] of Object.entries(PAGES)) {
    found[name] = [];
    for (const width of WIDTHS) found[name].push(await look(page, width));
  }
  const told = document.createElement("pre");
  told.id = "told";
  told.textContent = JSON.stringify(found);
  document.body.append(told);
})();
"""


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """For each page with a table and each width: pixels of overflow, and cells that are cut or too narrow."""
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module)
    browser = required("chromium", "chromium")
    folder = tmp_path_factory.mktemp("docs")
    built = folder / "html"
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(ROOT / "docs"), str(built)],
        check=True,
        timeout=240,
        cwd=ROOT,
    )
    pages = {}
    for page in sorted(built.glob("*.html")):
        text = page.read_text(encoding="utf-8")
        if "<table" in text and page.name not in ("genindex.html", "search.html"):
            text = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
            pages[page.name] = text.replace("<head>", f'<head><base href="{built.as_uri()}/">', 1)
    script = _MEASURE.replace("WIDTHS", json.dumps(WIDTHS)).replace("PAGES", json.dumps(pages).replace("</", "<\\/"))
    host = built / "host.html"
    host.write_text(f"<!doctype html><meta charset=utf-8><body><script>{script}</script></body>", encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=60000", "--window-size=1400,1000", "--dump-dom", host.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    answer: dict[str, list[dict[str, Any]]] = json.loads(html.unescape(found[1]))
    assert len(answer) > 20
    return answer


@pytest.mark.timeout(400)
@pytest.mark.parametrize("index", range(len(WIDTHS)), ids=map(str, WIDTHS))
def test_the_tables_of_the_documentation_fit(looks: dict[str, list[dict[str, Any]]], index: int):
    bad = {
        name: seen[index]
        for name, seen in looks.items()
        if any(seen[index][what] for what in ("overflow", "beyond", "cut", "narrow"))
    }
    assert not bad
