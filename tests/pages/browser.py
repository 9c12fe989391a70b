"""A real browser, without a window: what a page measures there."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.servers import required

__all__ = ["measured"]

_MEASURE = """
const look = width => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style.cssText = `border:0;width:${width}px;height:1000px`;
  frame.onload = () => {
    const page = frame.contentDocument, root = page.documentElement;
    const seen = [...page.querySelectorAll("*")].filter(each => each.getClientRects().length);
    const text = seen.filter(each => [...each.childNodes].some(node => node.nodeType == 3 && node.data.trim()));
    const size = each => parseFloat(frame.contentWindow.getComputedStyle(each).fontSize);
    const scale = each => {
      const svg = each.closest("svg");
      return svg ? svg.getBoundingClientRect().width / svg.width.baseVal.value : 1;
    };
    done({
      width, overflow: root.scrollWidth - root.clientWidth,
      smallest: Math.min(...text.map(each => size(each) * scale(each))),
      charts: seen.filter(each => each.tagName == "svg").length,
      words: root.innerText.split(/\\s+/).length,
    });
  };
  frame.srcdoc = PAGE;
  document.body.append(frame);
});
(async () => {
  const found = [];
  for (const width of WIDTHS) found.push(await look(width));
  const told = document.createElement("pre");
  told.id = "told";
  told.textContent = JSON.stringify(found);
  document.body.append(told);
})();
"""


def measured(page: str, widths: tuple[int, ...], folder: Path) -> list[dict[str, Any]]:
    """For each width: pixels of overflow, the smallest text in pixels, and how many charts and words are seen."""
    script = _MEASURE.replace("PAGE", json.dumps(page).replace("</", "<\\/")).replace("WIDTHS", json.dumps(widths))
    host = folder / "host.html"
    host.write_text(f"<!doctype html><meta charset=utf-8><body><script>{script}</script></body>", encoding="utf-8")
    browser = required("chromium", "chromium")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=10000", "--window-size=1400,1200", "--dump-dom", host.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    answer: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
    return answer
