"""The page for the browser: of a real worker, and in a real browser."""

import html
import re
import socket
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import MakeServer, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.browser import Browser, Tab, browser
from tests.support.endpoints import OBSERVED, Port
from tests.support.rows import Rows
from tests.support.waiting import eventually

OpenTab = Callable[..., Tab]

HOSTILE = "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(1)>\u202e"
LONG = "long-" * 200


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of this file."""
    with browser() as running:
        yield running


@pytest.fixture
def open_tab(chromium: Browser) -> Iterator[OpenTab]:
    """Return a function that opens a URL in a tab of a size, in light or dark colours."""
    opened: list[Tab] = []

    def open_url(url: str, *, width: int = 1000, height: int = 800, dark: bool = False) -> Tab:
        opened.append(Tab(chromium, width=width, height=height, dark=dark))
        opened[-1].open(url)
        return opened[-1]

    yield open_url
    for tab in opened:
        tab.close()


def answer(port: Port, path: str = "/") -> tuple[int, dict[str, str], str]:
    with urllib.request.urlopen(port.url + path, timeout=10) as got:
        return got.status, dict(got.headers), got.read().decode()


def text_of(port: Port) -> str:
    """Return the text of the page, without its tags, on one line."""
    main = answer(port)[2].partition("<main>")[2].partition("</main>")[0]
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", main)).split())


def shows(port: Port, *texts: str) -> None:
    """Wait until the page has all texts."""
    eventually(lambda: all(text in text_of(port) for text in texts), 20, lambda: text_of(port))


# --- what it shows --------------------------------------------------------------------------------


@pytest.mark.every_engine
def test_the_page_shows_runs_by_job_and_rejected_events_by_reason(
    deployment: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    deployment.publish_starts(
        [*(events.start() for _ in range(3)), events.start(manifest_id="unknown-job")]
    )
    for _ in range(2):
        deployment.publish(b"no JSON")
    past = "2026-05-20T12:00:00+00:00"
    late = {"result_id": "late", "request_id": "q", "pc_id": "p", "job_id": "late-job"}
    rows.insert("execution_results", [late | dict.fromkeys(TIMES, past)])
    worker = start_worker(rows, *OBSERVED)
    port = Port(worker)
    eventually(lambda: rows.count() == 5 and rows.count("rejected_events") == 2, 10)
    shows(
        port,
        "5 in flight, 1 overdue by the broker's clock, 1 without a deadline.",
        "late-job 1 1 0",
        "job-1 3 0 0",
        "unknown-job 1 0 1",
        "2 rejected.",
    )
    shows(port, "idle Ready.", "lag 0 s", "pending 0", f"pid {worker.process.pid}")
    assert worker.stop() == 0


TIMES = ("started_at", "recorded_at", "expires_at")


def test_the_page_lists_the_workers_that_share_the_consumer(
    deployment: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    deployment.make_results_stream()
    one, other = (start_worker(rows, *OBSERVED, pulling=True, results=True) for _ in range(2))
    port = Port(one)
    host = socket.gethostname()
    shows(port, f"{host} , pid {one.process.pid} (this one)", f"{host} , pid {other.process.pid} ")
    assert text_of(port).count(f"pid {other.process.pid}") == 1


def test_other_workers_and_the_lag_are_unknown_without_a_broker(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream()
    port = Port(start_worker(rows, *OBSERVED, nats=server.url, pulling=True))
    unknown = "Whether there are other workers is unknown"
    eventually(lambda: unknown not in text_of(port), 15, lambda: text_of(port))
    assert "lag 0 s" in text_of(port)
    server.stop()
    shows(port, "broker unreachable Not ready.", "lag unknown", "pending unknown")
    shows(port, unknown)
    assert "overdue by the clock of this machine" in text_of(port)


def test_other_workers_are_unknown_while_the_worker_waits_for_the_database(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    impatient = ("--busy-timeout", "100ms", "--retry-for", "200ms")
    port = Port(start_worker(rows, *OBSERVED, *impatient))
    unknown = "Whether there are other workers is unknown"
    eventually(lambda: unknown not in text_of(port), 15, lambda: text_of(port))
    with rows.locked():
        stream.publish()
        shows(port, "database blocked Not ready.", unknown, "0 in flight")


@pytest.mark.every_engine
def test_a_database_that_cannot_be_read_is_named_and_the_rest_is_shown(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    rows.write("ALTER TABLE rejected_events RENAME TO hidden")
    port = Port(start_worker(rows, *OBSERVED, pulling=True))
    problem = "The database cannot be read: the tables do not match this version:"
    shows(port, problem, "idle Ready.", "lag 0 s")
    assert text_of(port).count(problem) == 2
    assert "rejected_events" in text_of(port)


def test_the_page_is_served_while_the_start_waits_for_a_locked_database(
    stream: Broker, tmp_path: Path, start_worker: StartWorker
) -> None:
    rows = Rows(tmp_path / "locked.db")
    with closing(sqlite3.connect(rows.path, isolation_level=None)) as other:
        other.execute("CREATE TABLE of_another_program (x)")
        other.execute("BEGIN IMMEDIATE")
        port = Port(start_worker(rows, *OBSERVED, "--migrate"))
        shows(port, "database blocked Not ready.", "The database cannot be read")


def test_the_charts_show_lag_and_rate_as_the_worker_goes_on(
    deployment: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    port = Port(start_worker(rows, *OBSERVED, fault=("fast-history", 0.2)))
    shows(port, "Lag highest 0 s")
    deployment.publish_starts(events.start() for _ in range(100))
    eventually(lambda: re.search(r"worker highest [1-9]\d+ messages/s", text_of(port)), 15)


def test_runs_are_overdue_by_the_brokers_clock_where_the_machines_is_wrong(
    deployment: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    deployment.publish()
    port = Port(start_worker(rows, *OBSERVED, fault=("wrong-clock", 7200)))
    eventually(lambda: rows.count() == 1, 10)
    shows(port, "1 in flight, 0 overdue by the broker's clock")


def test_a_database_that_does_not_answer_delays_the_page_shortly_and_no_other_page(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    port = Port(start_worker(rows, *OBSERVED, fault=("hang", "page reads the database")))
    shows(port, "The database cannot be read: no answer for ", "idle Ready.")
    assert port.readyz().status == 200
    assert port.metrics()["projector_live"] == 1


def test_a_bug_where_the_page_reads_the_database_is_logged_and_shown(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, *OBSERVED, fault=("bug", "page reads the database"))
    shows(Port(worker), "The database cannot be read: ZeroDivisionError: the injected bug")
    assert "the injected bug" in worker.wait_for("page.failed", level="error")["error"]
    assert worker.stop() == 0


def test_a_bug_where_the_history_is_sampled_ends_the_worker(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, *OBSERVED, fault=("bug", "history is sampled"))
    assert worker.exit_code() == 70
    assert "the injected bug" in worker.lines[-1]["error"]


# --- how it is served -----------------------------------------------------------------------------


def test_the_page_is_served_with_a_strict_policy_to_get_and_head_and_without_cors(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    port = Port(start_worker(rows, *OBSERVED))
    status, headers, body = answer(port, "/?some=query")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not any(name.lower().startswith("access-control") for name in headers)
    assert body.startswith("<!DOCTYPE html>")
    place = port.url.removeprefix("http://").split(":")
    with socket.create_connection((place[0], int(place[1])), timeout=10) as connection:
        connection.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
        of_head = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
    assert of_head.startswith("HTTP/1.0 200 OK\r\n")
    assert of_head.endswith("\r\n\r\n")
    assert f"Content-Security-Policy: {policy}" in of_head
    assert port.get("/other") == (404, "/, /livez, /readyz or /metrics\n")


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture
def hostile(deployment: Broker, rows: Rows, start_worker: StartWorker) -> Port:
    """The port of a worker that has received texts which attack the page."""
    deployment.publish_starts(
        events.start(manifest_id=name, pc_id="p") for name in (HOSTILE, LONG, "שלום")
    )
    rows.insert("rejected_events", [rejected(HOSTILE, 1), rejected(LONG, 2)])
    port = Port(start_worker(rows, *OBSERVED))
    eventually(lambda: rows.count() == 3, 10)
    shows(port, "3 in flight", "2 rejected.")
    return port


def rejected(reason: str, sequence: int) -> dict[str, Any]:
    at = "2026-05-20T12:00:00+00:00"
    return {"stream": "S", "stream_sequence": sequence, "recorded_at": at, "subject": "s"} | {
        "reason": reason,
        "rejected_at": at,
        "payload": b"",
    }


def test_hostile_texts_are_only_texts_and_nothing_violates_the_policy(
    hostile: Port, open_tab: OpenTab
) -> None:
    tab = open_tab(hostile.url)
    tab.wait_for("document.querySelector('#age').textContent.includes('s ago')")
    visible = HOSTILE.replace("\u202e", r"\u202e")
    cells = tab.ask("[...document.querySelectorAll('tbody bdi')].map(one => one.textContent)")
    assert cells.count(visible) == 2
    assert tab.ask("document.querySelectorAll('main script, main img').length") == 0
    titles = tab.ask("[...document.querySelectorAll('bdi[title^=long]')].map(one => one.title)")
    assert titles == [LONG[:500]] * 2
    assert tab.complaints == []
    assert set(tab.requested) <= {f"{hostile.url}/", "data:,"}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_a_phone_and_is_readable_in_light_and_dark_colours(
    hostile: Port, open_tab: OpenTab, *, dark: bool
) -> None:
    tab = open_tab(hostile.url, width=360, height=640, dark=dark)
    assert tab.ask("document.documentElement.scrollWidth") == 360
    assert tab.ask(WIDER_THAN_ITS_CARD) == []
    names = "[...document.querySelectorAll('tbody th')]"
    assert tab.ask(f"Math.min(...{names}.map(one => one.offsetWidth))") > 200
    assert (tab.ask(LIGHT_OF_THE_BACKGROUND) < 0.1) is dark
    unreadable = [one for one in tab.ask(CONTRASTS) if one[0] < 4.5]
    assert unreadable == []


def test_the_page_refreshes_itself_keeps_its_place_and_says_when_the_worker_is_gone(
    stream: Broker, rows: Rows, start_worker: StartWorker, open_tab: OpenTab
) -> None:
    worker = start_worker(rows, *OBSERVED, pulling=True)
    port = Port(worker)
    shows(port, "0 in flight")
    tab = open_tab(port.url, width=360, height=400)
    tab.ask("window.first = document.querySelector('main'); scrollTo(0, 300)")
    assert tab.ask("scrollY") == 300
    tab.wait_for("document.querySelector('main') !== window.first")
    assert tab.ask("scrollY") == 300
    assert tab.ask("document.querySelector('#stale').hidden") is True
    assert tab.complaints == []
    worker.kill()
    tab.ask("refresh()")  # earlier than by itself
    tab.wait_for("!document.querySelector('#stale').hidden")
    assert "The worker does not answer." in tab.ask("document.body.innerText")
    place = port.url.rpartition(":")[2]
    Port(start_worker(rows, "--metrics-port", place))
    tab.ask("refresh()")
    tab.wait_for("document.querySelector('#stale').hidden")


def test_without_scripts_the_browser_reloads_the_page(
    stream: Broker, rows: Rows, start_worker: StartWorker, open_tab: OpenTab
) -> None:
    port = Port(start_worker(rows, *OBSERVED))
    tab = open_tab("about:blank#")
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    tab.call("Page.navigate", url=port.url)
    page = f"{port.url}/"
    eventually(lambda: (tab.ask("1"), tab.requested.count(page) >= 2)[1], 20)


WIDER_THAN_ITS_CARD = """
(() => {
    const right = element => element.getBoundingClientRect().right;
    return [...document.querySelectorAll('section *')]
        .filter(one => right(one) > right(one.closest('section')) + 1)
        .map(one => one.outerHTML);
})()
"""

# https://www.w3.org/TR/WCAG21/#dfn-relative-luminance
_LUMINANCE = """
function luminance(colour) {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => {
        const share = part / 255;
        return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
}
"""

LIGHT_OF_THE_BACKGROUND = f"""
(() => {{ {_LUMINANCE} return luminance(getComputedStyle(document.body).backgroundColor); }})()
"""

CONTRASTS = f"""
(() => {{
    {_LUMINANCE}
    const back = element => {{
        const colour = getComputedStyle(element).backgroundColor;
        return colour === 'rgba(0, 0, 0, 0)' ? back(element.parentElement) : colour;
    }};
    const isText = node => node.nodeType === 3 && node.data.trim();
    const all = [...document.querySelectorAll('body *:not(script):not(noscript)')];
    const shown = all.filter(element => [...element.childNodes].some(isText));
    return shown.map(element => {{
        const both = [luminance(getComputedStyle(element).color), luminance(back(element))];
        return [(Math.max(...both) + 0.05) / (Math.min(...both) + 0.05), element.outerHTML];
    }});
}})()
"""
