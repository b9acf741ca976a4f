"""Options, variables and secrets, through the command itself. No service is started."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker import settings as settings_module
from worker.cli import main as command_line
from worker.cli.main import main
from worker.cli.options import build_settings
from worker.settings import Credentials, Settings, parse_seconds

ROOT = Path(__file__).parents[2]
SECRET = "s3cret"
SEED = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER).decode()
CREDS = (
    "-----BEGIN NATS USER JWT-----\nthe.jwt.s3cret\n------END NATS USER JWT------\n\n"
    f"-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
)
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUIR2bWluUkjnZXCpVfaNxak+cEqswCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjMxMDQzMDRaGA8yMTI2MTAzMDEwNDMw
NFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABPc2
yMdUtVTwnoZLo1uHbhey36n1Cyv0/9yYyTweYcMKUKYi6qmTzm8VCbp58qgGH/00
CbjnwFOceflakMaOyPyjUzBRMB0GA1UdDgQWBBR80826MzrwFrDD1LJmdbAcQh/H
JjAfBgNVHSMEGDAWgBR80826MzrwFrDD1LJmdbAcQh/HJjAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQCJW4nELDhcWdxZxG8bIFBXPjhiz0wRDIFN
OrDyOxSUdAIhAPHduzpJ0ghz2slSDPgw2eFitAkYNOrmMrXqCK5RgKI+
-----END CERTIFICATE-----
"""

# Written by hand from the rule PROJECTOR_<OPTION>, with the one name that the fleet knows.
VARIABLES = {
    "--nats": "PROJECTOR_NATS_URL",
    "--database": "PROJECTOR_DATABASE",
    "--stream": "PROJECTOR_STREAM",
    "--consumer": "PROJECTOR_CONSUMER",
    "--bucket": "PROJECTOR_BUCKET",
    "--create-stream": "PROJECTOR_CREATE_STREAM",
    "--migrate": "PROJECTOR_MIGRATE",
    "--until-idle": "PROJECTOR_UNTIL_IDLE",
    "--no-replay": "PROJECTOR_NO_REPLAY",
    "--batch": "PROJECTOR_BATCH",
    "--threads": "PROJECTOR_THREADS",
    "--max-outstanding": "PROJECTOR_MAX_OUTSTANDING",
    "--ack-wait": "PROJECTOR_ACK_WAIT",
    "--busy-timeout": "PROJECTOR_BUSY_TIMEOUT",
    "--retry-for": "PROJECTOR_RETRY_FOR",
    "--drain-timeout": "PROJECTOR_DRAIN_TIMEOUT",
    "--metrics-port": "PROJECTOR_METRICS_PORT",
    "--metrics-host": "PROJECTOR_METRICS_HOST",
    "--stalled-after": "PROJECTOR_STALLED_AFTER",
    "--token-file": "PROJECTOR_TOKEN_FILE",
    "--user": "PROJECTOR_USER",
    "--password-file": "PROJECTOR_PASSWORD_FILE",
    "--creds-file": "PROJECTOR_CREDS_FILE",
    "--nkey-seed-file": "PROJECTOR_NKEY_SEED_FILE",
    "--tls-ca-file": "PROJECTOR_TLS_CA_FILE",
    "--tls-cert-file": "PROJECTOR_TLS_CERT_FILE",
    "--tls-key-file": "PROJECTOR_TLS_KEY_FILE",
    "--log-level": "PROJECTOR_LOG_LEVEL",
    "--log-format": "PROJECTOR_LOG_FORMAT",
}
FLAGS = ("--create-stream", "--migrate", "--until-idle", "--no-replay")
FILES = [option for option in VARIABLES if option.endswith("-file")]


@dataclass
class Outcome:
    """What a run of the command came to; `settings` is None where no service was made."""

    code: int
    settings: Settings | None
    logging: tuple[str, str] | None
    output: str


class Command:
    """Runs the command with arguments and variables, and a service that does nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str, **variables: str) -> Outcome:
        seen: list[Settings] = []
        logging: list[tuple[str, str]] = []

        class Service:
            def __init__(self, chosen: Settings) -> None:
                seen.append(chosen)

            def run(self) -> int:
                return 0

        with self._monkeypatch.context() as patch:
            patch.setattr(command_line, "Service", Service)
            patch.setattr(
                command_line, "set_up_logging", lambda level, form: logging.append((level, form))
            )
            for name in [name for name in os.environ if name.startswith("PROJECTOR_")]:
                patch.delenv(name)
            for name, value in variables.items():
                patch.setenv(name, value)
            self._capsys.readouterr()
            code = main(list(arguments))
            captured = self._capsys.readouterr()
        return Outcome(
            code,
            seen[0] if seen else None,
            logging[0] if logging else None,
            captured.out + captured.err,
        )

    def chosen(self, *arguments: str, **variables: str) -> Settings:
        outcome = self("run", *arguments, **variables)
        assert outcome.settings is not None, outcome.output
        assert outcome.code == 0
        return outcome.settings

    def refused(self, *arguments: str, **variables: str) -> str:
        outcome = self("run", *arguments, **variables)
        assert outcome.code == 64, outcome.output
        assert outcome.settings is None
        assert "Traceback" not in outcome.output
        return outcome.output


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / f"file-{len(list(tmp_path.iterdir()))}"
        path.write_text(text)
        return str(path)

    return write


def both_ways(option: str, value: str) -> list[tuple[list[str], dict[str, str]]]:
    """Return how a value is given by the option, unless that is a flag, and by its variable."""
    by_variable: tuple[list[str], dict[str, str]] = ([], {VARIABLES[option]: value})
    return [by_variable] if option in FLAGS else [([option, value], {}), by_variable]


# --- names and defaults ---


def test_every_option_has_the_variable_of_its_name() -> None:
    options = {parameter.opts[0]: parameter.envvar for parameter in command_line.run.params}
    assert options == VARIABLES


def test_help_shows_every_option_with_its_variable(command: Command) -> None:
    outcome = command("run", "--help")
    assert outcome.code == 0
    words = outcome.output.replace(";", " ").replace("]", " ").split()
    assert set(VARIABLES) <= set(words)
    assert set(VARIABLES.values()) <= set(words)


def test_defaults_are_those_of_the_contract(command: Command) -> None:
    chosen = command.chosen("--database", "sqlite:///x.db")
    assert chosen == Settings(nats_urls=("nats://127.0.0.1:4222",), database="sqlite:///x.db")
    assert (chosen.stream, chosen.consumer) == ("EVENTS", "backend_events_projector")
    assert chosen.bucket == "jobs"
    assert (chosen.create_stream, chosen.migrate, chosen.until_idle) == (False, False, False)
    assert not chosen.tls.required


@pytest.mark.parametrize(
    ("option", "value", "setting", "expected"),
    [
        ("--nats", "nats://broker", "nats_urls", ("nats://broker:4222",)),
        ("--database", "sqlite:////var/lib/x.db", "database", "sqlite:////var/lib/x.db"),
        ("--stream", "OTHER-1_x", "stream", "OTHER-1_x"),
        ("--consumer", "other", "consumer", "other"),
        ("--bucket", "jobs_2", "bucket", "jobs_2"),
        ("--create-stream", "1", "create_stream", True),
        ("--migrate", "true", "migrate", True),
        ("--no-replay", "yes", "no_replay", True),
        ("--until-idle", "yes", "until_idle", True),
        ("--until-idle", "0", "until_idle", False),
        ("--batch", "10000", "batch", 10_000),
        ("--threads", "64", "threads", 64),
        ("--max-outstanding", "1", "max_outstanding", 1),
        ("--ack-wait", "1m 30s", "ack_wait", 90.0),
        ("--busy-timeout", "500ms", "busy_timeout", 0.5),
        ("--retry-for", "2.5", "retry_for", 2.5),
        ("--drain-timeout", "7", "drain_timeout", 7.0),
        ("--metrics-port", "9464", "metrics_port", 9464),
        ("--metrics-host", "::1", "metrics_host", "::1"),
        ("--stalled-after", "5m", "stalled_after", 300.0),
    ],
)
def test_an_option_and_its_variable_set_the_same(
    command: Command, option: str, value: str, setting: str, expected: object
) -> None:
    for arguments, variables in both_ways(option, value):
        assert getattr(command.chosen(*arguments, **variables), setting) == expected


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_is_set_by_its_option(command: Command, flag: str) -> None:
    assert getattr(command.chosen(flag), flag.removeprefix("--").replace("-", "_")) is True


def test_an_option_counts_more_than_its_variable(command: Command) -> None:
    chosen = command.chosen(
        *("--batch", "7", "--nats", "nats://given"),
        PROJECTOR_BATCH="8",
        PROJECTOR_NATS_URL="nats://other",
    )
    assert (chosen.batch, chosen.nats_urls) == (7, ("nats://given:4222",))


def test_an_empty_variable_is_as_good_as_none(command: Command) -> None:
    assert command.chosen(**dict.fromkeys(VARIABLES.values(), "")) == command.chosen()


@pytest.mark.parametrize("level", ["debug", "INFO", "warning", "Error", "critical"])
def test_log_level_and_format_are_handed_on(command: Command, level: str) -> None:
    for arguments, variables in both_ways("--log-level", level):
        outcome = command("run", *arguments, PROJECTOR_LOG_FORMAT="TEXT", **variables)
        assert outcome.logging == (level.lower(), "text")


def test_logs_are_json_where_nobody_sits_at_a_terminal(command: Command) -> None:
    assert command("run").logging == ("info", "json")


# --- servers ---


def test_servers_are_separated_by_commas_or_repeated(command: Command) -> None:
    expected = ("nats://a:4222", "tls://b:1", "nats://[::1]:4222")
    given = "nats://a, tls://b:1 ,nats://[::1]"
    assert command.chosen(PROJECTOR_NATS_URL=given).nats_urls == expected
    assert command.chosen("--nats", given).nats_urls == expected
    repeated = ("--nats", "nats://a", "--nats", "tls://b:1,nats://[::1]", "--nats", "nats://a")
    assert command.chosen(*repeated).nats_urls == expected


def test_a_server_without_scheme_and_port_has_the_usual_ones(command: Command) -> None:
    assert command.chosen("--nats", "broker").nats_urls == ("nats://broker:4222",)


def test_a_tls_url_asks_for_tls(command: Command) -> None:
    assert command.chosen("--nats", "nats://a,tls://b").tls.required
    assert not command.chosen("--nats", "nats://a").tls.required


# --- wrong values ---

WRONG = [
    ("--nats", "http://broker", "nats://HOST"),
    ("--nats", "nats://", "nats://HOST"),
    ("--nats", "nats://broker:0", "1 to 65535"),
    ("--nats", "nats://broker:65536", "1 to 65535"),
    ("--nats", "nats://broker:port", "1 to 65535"),
    ("--nats", "nats://bro ker", "no spaces"),
    ("--nats", "nats://broker/path", "nats://HOST"),
    ("--nats", "nats://broker?query=1", "nats://HOST"),
    ("--nats", "nats://[::1", "nats://HOST"),
    ("--nats", "nats://good,ftp://bad", "nats://HOST"),
    ("--database", "postgresql://host/name", "sqlite:///"),
    ("--database", "/var/lib/x.db", "sqlite:///"),
    ("--database", "sqlite://x.db", "sqlite:///"),
    ("--database", "sqlite:///", "sqlite:///"),
    ("--database", "sqlite:///x.db?mode=ro", "no ?"),
    ("--database", "sqlite:///x#y.db", "#"),
    ("--stream", "a b", "name"),
    ("--stream", "a.b", "name"),
    ("--stream", "a\nb", "name"),
    ("--consumer", "a*", "name"),
    ("--consumer", "a>", "name"),
    ("--consumer", "a/b", "name"),
    ("--bucket", "a b", "name"),
    ("--create-stream", "maybe", "boolean"),
    ("--migrate", "maybe", "boolean"),
    ("--until-idle", "2", "boolean"),
    ("--no-replay", "2", "boolean"),
    ("--batch", "0", "1<=x<=10000"),
    ("--batch", "10001", "1<=x<=10000"),
    ("--threads", "0", "1<=x<=64"),
    ("--threads", "65", "1<=x<=64"),
    ("--max-outstanding", "-1", "1<=x<=100000"),
    ("--max-outstanding", "100001", "1<=x<=100000"),
    ("--metrics-port", "65536", "0<=x<=65535"),
    ("--metrics-port", "http", "0<=x<=65535"),
    ("--metrics-host", "a host", "host name"),
    *(
        (option, value, "30s")
        for option in (
            *("--ack-wait", "--busy-timeout", "--retry-for", "--drain-timeout"),
            "--stalled-after",
        )
        for value in ("soon", "0", "0s", "-1", "1e3", "2d", "90000", "nan", "1.", "9" * 400)
    ),
    *((option, "/nowhere/at/all", "exist") for option in FILES),
    *((option, "/", "directory") for option in FILES),
    ("--log-level", "loud", "'debug', 'info', 'warning', 'error', 'critical'"),
    ("--log-format", "xml", "'json', 'text'"),
]


def test_every_option_that_can_be_wrong_is_tried() -> None:
    assert {option for option, *_ in WRONG} == set(VARIABLES) - {"--user"}


@pytest.mark.parametrize(
    ("option", "value", "expectation"),
    [
        *WRONG,
        pytest.param("--bucket", "a.b", "letters"),
        pytest.param("--bucket", "\u00fc", "letters"),
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_a_wrong_value_is_exit_64_with_option_value_and_expectation(
    command: Command, option: str, value: str, expectation: str
) -> None:
    for arguments, variables in both_ways(option, value):
        output = command.refused(*arguments, **variables)
        assert option in output
        assert VARIABLES[option] in output
        shown = value.rpartition(",")[2] if variables and option == "--nats" else value
        assert shown in output or repr(shown) in output
        assert expectation in output


@pytest.mark.parametrize("option", ["--batch", "--threads", "--max-outstanding"])
@pytest.mark.parametrize("value", ["many", "1.5", "1_0x"])
def test_a_number_that_is_none_is_refused_with_the_range(
    command: Command, option: str, value: str
) -> None:
    for arguments, variables in both_ways(option, value):
        output = command.refused(*arguments, **variables)
        assert value in output
        assert "1<=x<=" in output


@pytest.mark.parametrize("option", sorted(set(VARIABLES) - set(FLAGS)))
def test_an_option_without_its_value_is_exit_64_with_its_name(
    command: Command, option: str
) -> None:
    assert option in command.refused(option)


@pytest.mark.parametrize(
    "arguments", [["--no-such-option"], ["argument"], ["--migrate=yes"], ["--nats", ""]]
)
def test_arguments_that_make_no_sense_are_exit_64(command: Command, arguments: list[str]) -> None:
    assert command.refused(*arguments)


def test_an_unknown_command_is_exit_64_with_its_name(command: Command) -> None:
    outcome = command("walk")
    assert (outcome.code, outcome.settings) == (64, None)
    assert "walk" in outcome.output


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["run", "-h"], ["--version"]])
def test_help_and_version_are_exit_0(command: Command, arguments: list[str]) -> None:
    outcome = command(*arguments)
    assert (outcome.code, outcome.settings) == (0, None)
    assert outcome.output


# --- secrets ---

ALL_SECRETS = {
    "PROJECTOR_NATS_URL": f"nats://user:{SECRET}@broker",
    "PROJECTOR_TOKEN": SECRET,
    "PROJECTOR_USER": "user",
    "PROJECTOR_PASSWORD": SECRET,
    "PROJECTOR_CREDS": CREDS,
    "PROJECTOR_NKEY_SEED": SEED,
}


def assert_hidden(outcome: Outcome) -> None:
    shown = [outcome.output]
    if outcome.settings is not None:
        chosen = outcome.settings
        shown += [repr(chosen), str(chosen), repr(chosen.public()), f"{chosen.credentials!r}"]
    for text in shown:
        for secret in (SECRET, SEED, "p@ss", "p%40ss"):
            assert secret not in text


@pytest.mark.parametrize(
    ("variables", "field", "value"),
    [
        ({"PROJECTOR_TOKEN": SECRET}, "token", SECRET),
        ({"PROJECTOR_USER": "user", "PROJECTOR_PASSWORD": SECRET}, "password", SECRET),
        ({"PROJECTOR_CREDS": CREDS}, "creds", CREDS),
        ({"PROJECTOR_NKEY_SEED": SEED}, "nkey_seed", SEED),
        ({"PROJECTOR_NATS_URL": f"nats://{SECRET}@broker"}, "token", SECRET),
        ({"PROJECTOR_NATS_URL": f"nats://user:{SECRET}@broker"}, "password", SECRET),
        ({"PROJECTOR_NATS_URL": "nats://user:p%40ss@broker"}, "password", "p@ss"),
        ({"PROJECTOR_NATS_URL": f"{SECRET}@broker"}, "token", SECRET),
        (
            {"PROJECTOR_NATS_URL": f"nats://u:{SECRET}@one,tls://u:{SECRET}@two"},
            "password",
            SECRET,
        ),
    ],
)
def test_a_secret_is_taken_and_shown_nowhere(
    command: Command, variables: dict[str, str], field: str, value: str
) -> None:
    outcome = command("run", **variables)
    assert outcome.settings is not None, outcome.output
    assert getattr(outcome.settings.credentials, field) == value
    assert field in outcome.settings.public()["credentials"]
    assert all("@" not in url for url in outcome.settings.nats_urls)
    assert_hidden(outcome)


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("--token-file", f"{SECRET}\n", SECRET),
        ("--token-file", f"{SECRET}\r\n", SECRET),
        ("--token-file", f" {SECRET} x", f" {SECRET} x"),
        ("--password-file", f"{SECRET}\n", SECRET),
        ("--creds-file", CREDS, CREDS.rstrip("\n")),
        ("--nkey-seed-file", f"{SEED}\n", SEED),
    ],
)
def test_a_secret_is_read_from_its_file_without_the_end_of_its_line(
    command: Command, file: Callable[[str], str], option: str, text: str, value: str
) -> None:
    path = file(text)
    field = option.removeprefix("--").removesuffix("-file").replace("-", "_")
    user = ["--user", "user"] if field == "password" else []
    for arguments, variables in both_ways(option, path):
        outcome = command("run", *arguments, *user, **variables)
        assert outcome.settings is not None, outcome.output
        assert getattr(outcome.settings.credentials, field) == value
        assert_hidden(outcome)


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@broker",
        f"nats://user:{SECRET}@broker:port",
        f"nats://user:{SECRET}@broker:99999",
        f"nats://user:{SECRET}@",
        f"nats://{SECRET}@broker/path",
        f"nats://user:p@ss{SECRET}@bro ker",
        f"nats://user:{SECRET}@broker?x=1",
        f"nats://user:x/{SECRET}@broker",
        f"nats://user:x?{SECRET}@broker",
        f"nats://[{SECRET}@broker",
        f"nats://user:{SECRET}@good,nats://user:{SECRET}@bad:port",
        f"{SECRET}@broker:99999",
        f"user:{SECRET}@broker:99999",
        f"nats:/user:{SECRET}@broker",
        f"nats://user:{SECRET},x@broker",
        f"nats://user:x,{SECRET}@broker:port",
        f"nats://{SECRET}#x@broker",
        f"nats://user:1234#{SECRET}@broker",
    ],
)
def test_a_malformed_url_is_refused_without_its_secret(command: Command, url: str) -> None:
    for arguments, variables in both_ways("--nats", url):
        outcome = command("run", *arguments, **variables)
        assert_hidden(outcome)
        assert (outcome.code, outcome.settings) == (64, None)
        assert "--nats" in outcome.output
        assert "nats://HOST" in outcome.output


@pytest.mark.parametrize(
    ("option", "variable", "text"),
    [
        ("--creds-file", "PROJECTOR_CREDS", SECRET),
        ("--creds-file", "PROJECTOR_CREDS", CREDS.partition("-----BEGIN USER")[0]),
        ("--creds-file", "PROJECTOR_CREDS", CREDS.replace(SEED, SECRET)),
        ("--creds-file", "PROJECTOR_CREDS", CREDS.partition(SEED)[0].rstrip("\n")),
        ("--nkey-seed-file", "PROJECTOR_NKEY_SEED", SECRET),
        ("--nkey-seed-file", "PROJECTOR_NKEY_SEED", SEED[:-1]),
        ("--nkey-seed-file", "PROJECTOR_NKEY_SEED", f"{SEED}\n{SECRET}"),
        ("--nkey-seed-file", "PROJECTOR_NKEY_SEED", f"\u00fc{SECRET}"),
    ],
)
def test_a_malformed_secret_is_refused_by_its_source_and_never_shown(
    command: Command, file: Callable[[str], str], option: str, variable: str, text: str
) -> None:
    outcomes = {
        option: command("run", option, file(text)),
        variable: command("run", **{variable: text}),
    }
    for source, outcome in outcomes.items():
        assert_hidden(outcome)
        assert SEED[:-1] not in outcome.output
        assert (outcome.code, outcome.settings) == (64, None)
        assert source in outcome.output
        assert "expected" in outcome.output


@pytest.mark.parametrize(
    ("option", "variable"),
    [
        ("--token-file", "PROJECTOR_TOKEN"),
        ("--password-file", "PROJECTOR_PASSWORD"),
        ("--creds-file", "PROJECTOR_CREDS"),
        ("--nkey-seed-file", "PROJECTOR_NKEY_SEED"),
    ],
)
def test_an_empty_file_of_a_secret_is_refused_and_an_empty_variable_counts_as_unset(
    command: Command, file: Callable[[str], str], option: str, variable: str
) -> None:
    assert option in command.refused(option, file("\n"))
    assert command.chosen(**{variable: ""}).credentials == Credentials()


def test_a_file_that_is_no_text_is_refused_by_option_and_path(
    command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\xff\xfe" + SECRET.encode())
    output = command.refused("--token-file", str(path))
    assert "--token-file" in output
    assert str(path) in output
    assert SECRET not in output


@pytest.mark.parametrize(
    "option", ["--token-file", "--creds-file", "--nkey-seed-file", "--tls-ca-file"]
)
def test_a_file_with_unusable_content_is_refused_with_its_path(
    command: Command, file: Callable[[str], str], option: str
) -> None:
    path = file("\n")
    output = command.refused(option, path)
    assert option in output
    assert path in output


@pytest.mark.parametrize("option", ["--token", "--password", "--creds", "--nkey-seed"])
def test_there_is_no_option_that_holds_a_secret(command: Command, option: str) -> None:
    assert SECRET not in command.refused(option, SECRET)
    assert SECRET not in command.refused(f"{option}={SECRET}")


def test_help_shows_no_secret_even_if_all_variables_are_set(command: Command) -> None:
    for arguments in (["--help"], ["run", "--help"], ["run", "--batch", "x"], ["--version"]):
        assert_hidden(command(*arguments, **ALL_SECRETS))


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0,#"), max_size=12))
def test_no_password_in_a_url_with_a_scheme_is_ever_shown(command: Command, more: str) -> None:
    url = f"nats://user:{more}{SECRET}@broker"
    for arguments, variables in both_ways("--nats", url):
        assert_hidden(command("run", *arguments, **variables))


# --- combinations ---


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"PROJECTOR_USER": "user"}, "--user"),
        ({"PROJECTOR_PASSWORD": SECRET}, "--user"),
        ({"PROJECTOR_TOKEN": SECRET, "PROJECTOR_NKEY_SEED": SEED}, "--token-file"),
        ({"PROJECTOR_CREDS": CREDS, "PROJECTOR_NKEY_SEED": SEED}, "--creds-file"),
        (
            {"PROJECTOR_TOKEN": SECRET, "PROJECTOR_USER": "u", "PROJECTOR_PASSWORD": SECRET},
            "--user",
        ),
        ({"PROJECTOR_TOKEN": SECRET, "PROJECTOR_NATS_URL": f"nats://{SECRET}@b"}, "--nats"),
        ({"PROJECTOR_NATS_URL": f"nats://u:{SECRET}@a,nats://u:{SECRET}x@b"}, "--nats"),
        (ALL_SECRETS, "--nats"),
    ],
)
def test_more_or_less_than_one_way_to_log_in_is_refused(
    command: Command, variables: dict[str, str], named: str
) -> None:
    outcome = command("run", **variables)
    assert (outcome.code, outcome.settings) == (64, None)
    assert named in outcome.output
    assert_hidden(outcome)


@pytest.mark.parametrize(
    ("option", "variable", "secret"),
    [
        ("--token-file", "PROJECTOR_TOKEN", SECRET),
        ("--password-file", "PROJECTOR_PASSWORD", SECRET),
        ("--creds-file", "PROJECTOR_CREDS", CREDS),
        ("--nkey-seed-file", "PROJECTOR_NKEY_SEED", SEED),
    ],
)
def test_a_secret_from_its_file_and_its_variable_at_once_is_refused(
    command: Command, file: Callable[[str], str], option: str, variable: str, secret: str
) -> None:
    path = file(secret)
    for arguments, variables in both_ways(option, path):
        outcome = command("run", *arguments, **{variable: secret}, **variables)
        assert (outcome.code, outcome.settings) == (64, None)
        assert option in outcome.output
        assert variable in outcome.output
        assert_hidden(outcome)


def test_a_key_without_its_certificate_is_refused(
    command: Command, file: Callable[[str], str]
) -> None:
    output = command.refused("--tls-key-file", file("x"))
    assert "--tls-key-file" in output
    assert "--tls-cert-file" in output


def test_a_file_to_trust_asks_for_tls(command: Command, file: Callable[[str], str]) -> None:
    path = file(CERTIFICATE)
    for arguments, variables in both_ways("--tls-ca-file", path):
        chosen = command.chosen(*arguments, **variables)
        assert chosen.tls.required
        assert chosen.tls.ca_file == Path(path)
        assert chosen.public()["tls"] is True


def test_a_certificate_without_its_key_is_refused(
    command: Command, file: Callable[[str], str]
) -> None:
    for arguments, variables in both_ways("--tls-cert-file", file(CERTIFICATE)):
        output = command.refused(*arguments, **variables)
        assert "--tls-cert-file" in output
        assert "key" in output


# --- yoyo.ini ---


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as if it lay elsewhere, and an empty current folder."""
    monkeypatch.setattr(settings_module, "__file__", str(tmp_path / "site" / "worker" / "s.py"))
    folder = tmp_path / "current"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_database_of_the_checkouts_yoyo_ini_is_the_default_from_any_folder(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.chosen().database == f"sqlite:///{ROOT}/projector.db"


def test_an_installed_package_takes_the_yoyo_ini_of_the_current_folder(
    command: Command, installed: Path
) -> None:
    (installed / "yoyo.ini").write_text("[DEFAULT]\ndatabase = sqlite:///%(here)s/100%%.db\n")
    assert command.chosen().database == f"sqlite:///{installed}/100%.db"
    assert command.chosen("--database", "sqlite:///x.db").database == "sqlite:///x.db"


@pytest.mark.parametrize("text", [None, "[DEFAULT]\nsources = sql\n"])
def test_no_database_anywhere_is_refused(
    command: Command, installed: Path, text: str | None
) -> None:
    if text is not None:
        (installed / "yoyo.ini").write_text(text)
    output = command.refused()
    assert "--database" in output
    assert "yoyo.ini" in output


@pytest.mark.parametrize(
    "text",
    [
        "[DEFAULT]\ndatabase = postgresql://user@host/name\n",
        "[DEFAULT]\ndatabase =\n",
        "[DEFAULT]\ndatabase = sqlite:///%(here/x.db\n",
        "database = sqlite:///x.db\n",
        "[DEFAULT]\ndatabase = sqlite:///x.db\ndatabase = sqlite:///y.db\n",
    ],
)
def test_a_yoyo_ini_that_names_no_usable_database_is_refused(
    command: Command, installed: Path, text: str
) -> None:
    (installed / "yoyo.ini").write_text(text)
    output = command.refused()
    assert "--database" in output
    assert "yoyo.ini" in output


# --- seconds ---


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30.0), ("0.5", 0.5), ("30s", 30.0), ("1m 30s", 90.0), ("1d", 86_400.0), ("1ms", 0.001)],
)
def test_seconds_are_a_number_or_a_duration(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@settings(deadline=None)
@given(st.text(max_size=20) | st.text("0123456789.smhd ", max_size=12))
def test_any_text_is_seconds_within_a_day_or_a_value_error(text: str) -> None:
    try:
        seconds = parse_seconds(text)
    except ValueError:
        return
    assert 0 < seconds <= 86_400


def test_build_settings_takes_secrets_from_the_environment_it_is_given() -> None:
    options: dict[str, Any] = {
        "nats": [[settings_module.parse_nats_url("nats://broker")]],
        "database": "sqlite:///x.db",
        "user": None,
        **{option.removeprefix("--").replace("-", "_"): None for option in FILES},
    }
    environment: Mapping[str, str] = {"PROJECTOR_TOKEN": SECRET, "PROJECTOR_BATCH": "7"}
    chosen = build_settings(options, environment)
    assert chosen.credentials.token == SECRET
    assert chosen.batch == 1000
