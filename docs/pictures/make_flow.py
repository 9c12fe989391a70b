"""Draws docs/pictures/data-flow.svg: `python docs/pictures/make_flow.py`."""

from __future__ import annotations

from pathlib import Path

STEPS = [
    ("name", "orders:8080, http://orders/"),
    ("resolver", "hosts file, DNS, Cloud Map, static, your own"),
    ("joined answers", "partial answers of DNS, joined over time"),
    ("cache", "fresh, stale, expired, missing, negative"),
    ("membership", "the endpoints believed to exist"),
    ("balancer", "the healthy endpoints, by tiers and weights"),
    ("connection", "a pool per endpoint and TLS name"),
    ("attempt", "one try; its failure decides about the next"),
    ("outcome", "success, failure, failed connect, nothing to tell"),
    ("health", "healthy, ejected, probing, down"),
]
WIDTH, BOX, STEP, LEFT, WIDE = 760, 44, 62, 20, 520


def picture() -> str:
    """The drawing."""
    height = 20 + STEP * len(STEPS)
    right = LEFT + WIDE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="15">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
        'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="#334155"/></marker></defs>',
    ]
    for number, (name, text) in enumerate(STEPS):
        top = 14 + STEP * number
        parts.append(
            f'<rect x="{LEFT}" y="{top}" width="{WIDE}" height="{BOX}" rx="6" fill="#eff6ff" stroke="#1d4ed8"/>'
            f'<text x="{LEFT + 14}" y="{top + 27}" font-weight="bold" fill="#0f172a">{name}</text>'
            f'<text x="{LEFT + 150}" y="{top + 27}" fill="#334155">{text}</text>'
        )
        if number + 1 < len(STEPS):
            middle = LEFT + WIDE // 2
            parts.append(_arrow(f"M{middle} {top + BOX}V{top + STEP}"))
    health = 14 + STEP * 9 + BOX // 2
    balancer, resolver = 14 + STEP * 5 + BOX // 2, 14 + STEP + BOX // 2
    parts.append(_arrow(f"M{right} {health - 8}H{right + 40}V{balancer}H{right}"))
    parts.append(_arrow(f"M{right} {health + 8}H{right + 110}V{resolver}H{right}"))
    parts.append(f'<text x="{right + 46}" y="{(health + balancer) // 2}" fill="#334155">who</text>')
    parts.append(f'<text x="{right + 46}" y="{(health + balancer) // 2 + 19}" fill="#334155">is fit</text>')
    parts.append(f'<text x="{right + 118}" y="{balancer - 40}" fill="#334155">after a failed</text>')
    parts.append(f'<text x="{right + 118}" y="{balancer - 21}" fill="#334155">connect: an</text>')
    parts.append(f'<text x="{right + 118}" y="{balancer - 2}" fill="#334155">early lookup</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _arrow(path: str) -> str:
    return f'<path d="{path}" fill="none" stroke="#334155" stroke-width="1.5" marker-end="url(#tip)"/>'


if __name__ == "__main__":
    (Path(__file__).parent / "data-flow.svg").write_text(picture(), encoding="utf-8")
