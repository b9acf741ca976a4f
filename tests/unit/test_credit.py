from hypothesis import given, settings
from hypothesis import strategies as st

from worker.jetstream.pull_requests import Credit


def asked(*requests: tuple[str, int, float]) -> Credit:
    credit = Credit()
    for name, messages, ends in requests:
        credit.ask(name, messages, ends)
    return credit


def test_without_a_request_there_is_no_credit() -> None:
    assert Credit().outstanding(0.0) == 0


def test_each_message_takes_one_of_the_credit_of_overlapping_requests() -> None:
    credit = asked(("a", 10, 10.0), ("b", 5, 12.0))
    assert credit.outstanding(0.0) == 15
    for _ in range(12):
        credit.arrive(1)
    assert credit.outstanding(0.0) == 3


def test_an_ended_request_gives_up_what_the_server_says_it_did_not_deliver() -> None:
    credit = asked(("a", 10, 10.0), ("b", 5, 12.0))
    for _ in range(4):
        credit.arrive(1)
    credit.end("a", 6)
    assert credit.outstanding(0.0) == 5


def test_an_ended_request_is_forfeit_whole_where_the_server_does_not_say() -> None:
    credit = asked(("a", 10, 10.0), ("b", 5, 12.0))
    credit.end("a", None)
    assert credit.outstanding(0.0) == 5


def test_a_request_ends_once_and_an_unknown_one_changes_nothing() -> None:
    credit = asked(("a", 10, 10.0), ("b", 5, 12.0))
    credit.end("a", 10)
    credit.end("a", 10)
    credit.end("other", 3)
    assert credit.outstanding(0.0) == 5


def test_a_request_that_the_server_ends_in_silence_expires_by_itself() -> None:
    credit = asked(("a", 10, 10.0), ("b", 5, 12.0))
    assert credit.outstanding(9.9) == 15
    assert credit.outstanding(10.0) == 5
    assert credit.outstanding(12.0) == 0


def test_an_expired_request_that_ends_late_is_not_counted_twice() -> None:
    credit = asked(("a", 10, 10.0), ("b", 5, 12.0))
    assert credit.outstanding(10.0) == 5
    credit.end("a", 10)
    assert credit.outstanding(10.0) == 5


def test_messages_beyond_the_credit_do_not_make_a_debt() -> None:
    credit = asked(("a", 2, 10.0))
    for _ in range(5):
        credit.arrive(1)
    assert credit.outstanding(0.0) == 0
    credit.ask("b", 3, 10.0)
    assert credit.outstanding(0.0) == 3


def test_fresh_credit_is_not_cut_by_requests_that_were_used_up() -> None:
    credit = asked(("a", 2, 10.0))
    credit.arrive(1)
    credit.arrive(1)
    assert credit.outstanding(0.0) == 0
    credit.ask("b", 4, 20.0)
    credit.end("a", None)
    assert credit.outstanding(0.0) == 4


steps = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, 500), st.floats(0.1, 20)),
    st.tuples(st.just("arrive"), st.integers(1, 600), st.just(0.0)),
    st.tuples(st.just("end"), st.integers(0, 20), st.none() | st.integers(0, 600)),
    st.tuples(st.just("wait"), st.just(0), st.floats(0, 15)),
)


@settings(deadline=None)
@given(st.lists(steps, max_size=30))
def test_whatever_happens_credit_is_never_negative_nor_more_than_was_asked_and_leaks_end(
    happened: list[tuple[str, int, float | None]],
) -> None:
    credit = Credit()
    now = 0.0
    open_requests: dict[str, tuple[int, float]] = {}
    for what, number, value in happened:
        if what == "ask":
            name = f"r{len(open_requests)}"
            ends = now + (value or 0.0)
            open_requests[name] = (number, ends)
            credit.ask(name, number, ends)
        elif what == "arrive":
            for _ in range(number):
                credit.arrive(1)
        elif what == "end":
            credit.end(f"r{number}", None if value is None else int(value))
        else:
            now += value or 0.0
        most = sum(messages for messages, ends in open_requests.values() if ends > now)
        assert 0 <= credit.outstanding(now) <= most
    assert credit.outstanding(now + 21.0) == 0
