"""The page for the browser from plain values, and the values behind it on a clock of the test."""

import re
import threading
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from repo.errors import SchemaError
from repo.overview import JobCount, ReasonCount
from repo.queries import Counted
from repo.statements import ENGINES, Statement, texts
from tests.support.page import MOMENT, NOW, ago, facts, tables, verdict
from tests.support.waiting import eventually
from worker.errors import BROKER_UNREACHABLE
from worker.observability.chart import chart, scale
from worker.observability.database_view import MOST_EVENTS, DatabaseView, Tables, View
from worker.observability.markup import element, foreign, joined
from worker.observability.overview import Facts
from worker.observability.page import page
from worker.status.health import STALLED
from worker.status.history import EVERY, SPAN, History, Sample
from worker.status.peers import Worker, merged
from worker.status.worker_status import WorkerStatus

HOSTILE = (
    "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(1)>\u202e\u0000\ud800\n"
    + "x" * 40
)
VISIBLE = HOSTILE.replace("\u202e", r"\u202e").replace("\u0000", r"\x00")
VISIBLE = VISIBLE.replace("\ud800", r"\ud800").replace("\n", r"\n")


class Parsed(HTMLParser):
    """What a browser sees: tags with attributes, and the text outside style and script."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(html.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("style", "script"):
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    def titles(self) -> list[str]:
        return [str(given["title"]) for _, given in self.tags if "title" in given]


def parsed(**changes: object) -> Parsed:
    return Parsed(page(facts(**changes)))


def everywhere(text: str) -> Facts:
    """Return facts in which everything that others may write is this text."""
    worker = Worker(text, 1, text, text, text, text)
    return facts(
        this=worker,
        others=(worker,),
        verdict=verdict(reason=text),
        database=View(
            tables(jobs=(JobCount(text, 1, 1, 1, text),), reasons=(ReasonCount(text, 1, text),))
        ),
    )


# --- escaping -------------------------------------------------------------------------------------


def test_a_hostile_text_is_shown_as_it_is_and_adds_no_element_and_no_attribute() -> None:
    hostile, plain = Parsed(page(everywhere(HOSTILE))), Parsed(page(everywhere("x" * len(HOSTILE))))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert [given.keys() for _, given in hostile.tags] == [given.keys() for _, given in plain.tags]
    assert VISIBLE[:70] in hostile.text
    assert VISIBLE in hostile.titles()
    assert hostile.count("script") == 1


def test_a_problem_with_the_database_is_escaped_as_well() -> None:
    shown = parsed(database=View(None, HOSTILE))
    assert shown.count("script") == 1
    assert shown.count("img") == 0
    assert VISIBLE[:70] in shown.text


def test_only_markup_is_not_escaped_wherever_it_stands() -> None:
    inner = element("b", "<>")
    assert inner == "<b>&lt;&gt;</b>"
    assert joined("<", inner) == "&lt;<b>&lt;&gt;</b>"
    assert (
        element("i", title=inner + '"')
        == '<i title="&lt;b&gt;&amp;lt;&amp;gt;&lt;/b&gt;&quot;"></i>'
    )
    assert element("td", class_="x", aria_label="y") == '<td class="x" aria-label="y"></td>'


def test_a_long_text_is_cut_with_the_whole_of_it_as_the_title() -> None:
    assert foreign("x" * 80) == f"<bdi>{'x' * 80}</bdi>"
    assert foreign("x" * 81) == f'<bdi title="{"x" * 81}">{"x" * 79}…</bdi>'


def test_a_text_that_is_written_from_right_to_left_stays_within_its_own_element() -> None:
    assert foreign("שלום <b>") == "<bdi>שלום &lt;b&gt;</bdi>"


# --- what is shown --------------------------------------------------------------------------------


def test_what_is_unknown_is_shown_as_unknown() -> None:
    unknown = dict.fromkeys(("lag", "pending", "ack_pending", "projected_up_to_age", "others"))
    shown = parsed(**unknown, last_commit=None, samples=(), verdict=verdict(BROKER_UNREACHABLE))
    figures = shown.text.partition("broker unreachable")[2].partition("Last hour")[0]
    assert figures.count("unknown") == 4
    assert "none yet" in figures
    assert "Whether there are other workers is unknown." in shown.text
    assert shown.text.partition("Last hour")[2].partition("Workers")[0].count("unknown") == 3
    assert "Whether there are other workers" not in parsed(others=()).text


def test_the_state_says_whether_the_worker_is_ready_and_live_and_whether_a_restart_helps() -> None:
    assert "workingReady.lag" in parsed().text
    text = parsed(
        verdict=verdict(STALLED, is_live=False, is_ready=False, restart_helps=True, reason="stuck")
    ).text
    assert "Not ready. Not live. A restart helps.stuck" in text


def test_the_rest_is_shown_while_the_database_cannot_be_read() -> None:
    text = parsed(database=View(None, "no answer for 7 s")).text
    assert text.count("The database cannot be read: no answer for 7 s") == 2
    for other in ("working", "vm-2, pid 977", "highest 190 s"):
        assert other in text


@pytest.mark.parametrize(
    ("by_broker", "clock"),
    [(True, "the broker's clock"), (False, "the clock of this machine")],
)
def test_overdue_runs_are_shown_with_the_clock_that_they_are_overdue_by(
    *, by_broker: bool, clock: str
) -> None:
    text = parsed(database=View(tables(by_broker=by_broker))).text
    assert f"1,774 in flight, 3 overdue by {clock}, 37 without a deadline." in text


def test_what_is_beyond_the_bounds_is_mentioned() -> None:
    many = tables(
        counted=Counted(20_001, 0, 0, 10_001),
        jobs=tuple(JobCount(f"job {n}", 1, 0, 0, ago(1)) for n in range(51)),
        reasons=tuple(ReasonCount(f"reason {n}", 1, ago(1)) for n in range(21)),
    )
    text = parsed(database=View(many)).text
    for note in (
        "the 20,000 runs that were started first are counted",
        "More jobs than these 50",
        "more than 10,000 rejected; of the newest 10,000:",
        "more reasons than these 20",
    ):
        assert note in text
    for last, more in (("job 49", "job 50"), ("reason 19", "reason 20")):
        assert last in text
        assert more not in text
    usual = parsed().text
    assert "15 rejected." in usual
    assert "started first" not in usual
    assert "than these" not in usual


@pytest.mark.parametrize("engine", ENGINES)
def test_the_page_says_how_many_rejected_events_the_statement_counts(engine: str) -> None:
    statement = texts(engine)[Statement("rejected_events_by_reason")]
    assert f"LIMIT {MOST_EVENTS}\n" in statement


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s ago"), (0.25, "0.25 s ago"), (119, "119 s ago"), (120, "2 min ago")),
        *((7200, "2 h ago"), (86_400 * 3, "3 d ago"), (-1, "0 s ago"), (-600, "in 10 min")),
    ],
)
def test_a_time_is_shown_as_an_age_with_the_whole_time_as_the_title(
    seconds: float, text: str
) -> None:
    shown = parsed(database=View(tables(reasons=(ReasonCount("r", 1, ago(seconds)),))))
    assert shown.text.partition("newest")[2].strip().startswith(f"r1{text}")
    assert f"{ago(seconds)} (UTC)" in shown.titles()


def test_a_text_that_is_no_time_is_shown_as_it_is_and_a_job_without_a_name_is_unknown() -> None:
    job = JobCount(None, 7, 0, 0, "yesterday")
    text = parsed(database=View(tables(jobs=(job,)))).text
    assert "unknown700yesterday" in text


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    html = page(facts()).decode()
    assert re.findall(r"(?:src|href|url)\W+(https?:|//)", html) == []
    assert "http" not in html.replace("http-equiv", "")


# --- the charts -----------------------------------------------------------------------------------


def path(*points: tuple[float, float | None], now: float = SPAN) -> str:
    (found,) = re.findall(r'd="([^"]*)" class="line"', chart(points, now, "label"))
    return str(found)


def test_a_line_is_interrupted_where_a_value_is_unknown_or_samples_are_missing() -> None:
    assert path((3570, 1), (3580, 0), (3590, None), (3600, 0.5)) == (
        "M357.0 0.0h0 L358.0 60.0 M360.0 30.0h0"
    )
    assert path((3500, 0), (3525, 0), (3551, 0)) == "M350.0 60.0h0 L352.5 60.0 M355.1 60.0h0"
    assert path((3600, None)) == path() == ""


def test_a_line_ends_at_the_right_edge_and_stays_within_its_scale() -> None:
    assert path((0, 150), (SPAN, 200)) == "M0.0 15.0h0 M360.0 0.0h0"


@pytest.mark.parametrize(
    ("most", "top"),
    [(0, 1), (0.3, 1), (1, 1), (1.1, 2), (4, 5), (7, 10), (10, 10), (11, 20), (501, 1000)],
)
def test_the_scale_ends_at_the_next_round_number(most: float, top: float) -> None:
    assert scale([0, most]) == top
    assert scale([]) == 1


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_sample_is_taken_every_ten_seconds_with_the_rate_since_the_last_one() -> None:
    clock = Clock()
    history = History(clock)
    for seconds, lag, messages in ((0, None, 5), (9, 1.0, 6), (1, 2.0, 25), (20, 0.0, 25)):
        clock.now += seconds
        history.record(lag, messages)
    assert history.samples == (
        Sample(100.0, None, None),
        Sample(110.0, 2.0, 2.0),
        Sample(130.0, 0.0, 0.0),
    )


def test_samples_of_more_than_an_hour_ago_are_forgotten() -> None:
    clock = Clock()
    history = History(clock)
    for _ in range(1000):
        clock.now += EVERY
        history.record(0.0, 0)
    assert len(history.samples) == SPAN / EVERY
    assert history.samples[0].at > clock.now - SPAN


def test_a_worker_that_announces_itself_for_both_streams_is_one_worker_with_both_states() -> None:
    one = Worker("vm", 1, "0.1.0", ago(0), "idle", "sqlite:///p.db")
    other = one._replace(pid=2)
    assert merged([other, one, one._replace(state="catching_up"), one]) == (
        one._replace(state="catching_up, idle"),
        other,
    )


def test_other_workers_are_known_only_while_the_broker_answers() -> None:
    names = ["starts", "results"]
    status = WorkerStatus(names, stalled_after=60.0, busy_timeout=1.0, is_observed=True)
    one = Worker("vm", 1, "0.1.0", ago(0), "idle", "sqlite:///p.db")
    status.health.broker_heard()
    for projection in status.projections.values():
        projection.health.record_consumer(0, 0)
        assert status.other_workers is None
        projection.record_other_workers((one,))
    assert status.other_workers == (one,)
    status.health.broker_lost()
    assert status.other_workers is None


# --- reading the database for the page ------------------------------------------------------------


def view_of(read: Callable[[], Tables], clock: Clock, wait: float = 10.0) -> DatabaseView:
    return DatabaseView(read, wait=wait, clock=clock)


def test_what_was_read_is_kept_for_ten_seconds() -> None:
    clock, found = Clock(), [tables(now=NOW), tables(now=NOW + 1)]
    view = view_of(iter(found).__next__, clock)
    assert view.latest().tables == found[0]
    clock.now += 10
    assert view.latest().tables == found[0]
    clock.now += 0.1
    assert view.latest().tables == found[1]


def test_one_reader_reads_at_a_time_and_a_slow_one_is_reported_without_waiting_for_it() -> None:
    clock, answer, began = Clock(), threading.Event(), []

    def read() -> Tables:
        began.append(clock.now)
        answer.wait(20)
        return tables()

    view = view_of(read, clock, wait=0.01)
    assert view.latest() == View(None, "no answer for 0 s")
    clock.now += 60
    assert view.latest() == View(None, "no answer for 60 s")
    assert len(began) == 1
    answer.set()
    eventually(lambda: view.latest().tables == tables(), 10)


def test_an_error_is_shown_until_the_next_read_works() -> None:
    clock, problems = Clock(), [SchemaError("no such table: x"), RuntimeError("a bug")]

    def read() -> Tables:
        if problems:
            raise problems.pop(0)
        return tables()

    view = view_of(read, clock)
    assert view.latest().problem == "the tables do not match this version: no such table: x"
    clock.now += 11
    assert view.latest().problem == "RuntimeError: a bug"
    clock.now += 11
    assert view.latest() == View(tables())


def test_the_last_hour_ends_when_the_page_was_made() -> None:
    assert facts().samples[-1].at == MOMENT
