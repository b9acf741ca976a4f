"""Options, variables and secrets, through the command itself with a service that does nothing."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.credentials import User
from worker import settings as settings_module
from worker.cli import context as opening
from worker.cli import run as command_line
from worker.cli.main import main
from worker.errors import ConfigurationError
from worker.settings import Credentials, Settings, Since, Tls, parse_seconds, parse_since

WriteFile = Callable[[str], str]
ROOT = Path(__file__).parents[2]
SECRET = "s3cret"
SEED = User(1).seed
CREDS = User(1).creds("the.jwt.s3cret")
SWITCHES = ["--create-stream", "--migrate", "--until-idle"]
FLAGS = [*SWITCHES, "--tls-first"]
SECRET_FILES = {
    "--token-file": SECRET,
    "--password-file": SECRET,
    "--creds-file": CREDS,
    "--nkey-seed-file": SEED,
}
FILES = [*SECRET_FILES, "--tls-ca-file", "--tls-cert-file", "--tls-key-file"]
DURATIONS = ["--ack-wait", "--busy-timeout", "--retry-for", "--drain-timeout", "--stalled-after"]
DURATIONS.append("--upkeep-every")
OPTIONS = [
    *("--nats", "--database", "--stream", "--consumer", "--bucket", *FLAGS, *DURATIONS, *FILES),
    *(
        "--batch",
        "--threads",
        "--max-outstanding",
        "--max-ack-pending",
        "--metrics-port",
        "--metrics-host",
        "--user",
        "--projection",
        "--results-stream",
        "--results-consumer",
        "--output-bucket",
        "--retention",
    ),
    *("--js-domain", "--inbox-prefix"),
    *("--log-level", "--log-format"),
]
VARIABLES = {one: f"PROJECTOR_{one[2:].replace('-', '_').upper()}" for one in OPTIONS}
VARIABLES["--nats"] = "PROJECTOR_NATS_URL"


@dataclass
class Outcome:
    """The result of a command; `settings` is None if no service was started."""

    code: int
    output: str
    settings: Settings | None = None
    logging: tuple[str, str] | None = None


class Command:
    """Runs `projector` with arguments and variables, and a service that does nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        self._outcome = Outcome(0, "")
        for name in [name for name in os.environ if name.startswith("PROJECTOR_")]:
            monkeypatch.delenv(name)
        monkeypatch.setattr(opening, "set_up_logging", self._log)
        monkeypatch.setattr(command_line, "Service", self._serve)

    def _log(self, level: str, form: str) -> None:
        self._outcome.logging = (level, form)

    def _serve(self, chosen: Settings) -> SimpleNamespace:
        self._outcome.settings = chosen
        return SimpleNamespace(run=lambda: 0)

    def __call__(self, *arguments: str, **variables: str) -> Outcome:
        self._outcome = outcome = Outcome(0, "")
        with self._monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            outcome.code = main(list(arguments))
        outcome.output = "".join(self._capsys.readouterr())
        return outcome

    def chosen(self, *arguments: str, **variables: str) -> Settings:
        outcome = self("run", *arguments, **variables)
        assert outcome.settings is not None, outcome.output
        assert outcome.code == 0
        assert_hidden(outcome)
        return outcome.settings

    def refused(self, *arguments: str, **variables: str) -> str:
        outcome = self("run", *arguments, **variables)
        assert (outcome.code, outcome.settings) == (64, None), outcome.output
        assert "Traceback" not in outcome.output
        assert_hidden(outcome)
        return outcome.output


def assert_hidden(outcome: Outcome) -> None:
    shown = [outcome.output]
    if (chosen := outcome.settings) is not None:
        shown += [repr(chosen), str(chosen), repr(chosen.public()), repr(chosen.credentials)]
    for text in shown:
        for secret in (SECRET, SEED, "p@ss", "p%40ss"):
            assert secret not in text


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def file(tmp_path: Path) -> WriteFile:
    def write(text: str) -> str:
        path = tmp_path / f"file-{len(list(tmp_path.iterdir()))}"
        path.write_bytes(text.encode("latin-1"))
        return str(path)

    return write


def both_ways(option: str, value: str) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Yield a value as an option, unless that is a flag, and as a variable."""
    if option not in FLAGS:
        yield [option, value], {}
    yield [], {VARIABLES[option]: value}


# --- names and values ---


def test_every_option_has_a_variable_and_both_are_in_the_help(command: Command) -> None:
    assert {one.opts[0]: one.envvar for one in command_line.run.params} == VARIABLES
    outcome = command("run", "--help")
    assert outcome.code == 0
    words = set(outcome.output.replace(";", " ").replace("]", " ").split())
    assert words >= {*VARIABLES, *VARIABLES.values()}


def test_without_options_the_settings_have_their_defaults(command: Command) -> None:
    chosen = command.chosen("--database", "sqlite:///x.db")
    assert chosen == Settings(nats_urls=("nats://127.0.0.1:4222",), database="sqlite:///x.db")
    assert (chosen.stream, chosen.consumer) == ("EVENTS", "backend_events_projector")
    assert (chosen.bucket, chosen.batch, chosen.ack_wait) == ("jobs", 2000, 30.0)
    assert not any(getattr(chosen, flag[2:].replace("-", "_")) for flag in SWITCHES)
    assert not chosen.tls.required
    assert command.chosen("--nats", "broker").nats_urls == ("nats://broker:4222",)
    assert command.chosen(**dict.fromkeys(VARIABLES.values(), "")) == command.chosen()
    assert command("run").logging == ("info", "json")


SERVERS = ("nats://a:4222", "tls://b:1", "nats://[::1]:4222")
VALUES = {
    "--nats": "nats://a, tls://b:1 ,nats://[::1]", "--database": "sqlite:////var/lib/x.db",
    "--stream": "OTHER-1_x", "--consumer": "other", "--bucket": "jobs_2", "--batch": "10000",
    "--threads": "64", "--max-outstanding": "1", "--max-ack-pending": "100", "--ack-wait": "1m 30s",
    "--retry-for": "2.5", "--projection": "starts", "--results-stream": "R", "--retention": "31d",
    "--results-consumer": "r", "--output-bucket": "o", "--upkeep-every": "5s",
    "--busy-timeout": "500ms", "--drain-timeout": "7", "--stalled-after": "5m",
    "--metrics-port": "9464", "--metrics-host": "::1", "--js-domain": "hub-1",
    "--inbox-prefix": "_INBOX_a.b",
}  # fmt: skip
CHOSEN = Settings(
    SERVERS, "sqlite:////var/lib/x.db", "OTHER-1_x", "other", ("starts",), "R", "r", "jobs_2", "o",
    upkeep_every=5.0, retention=31 * 86_400.0,
    batch=10_000, threads=64, max_outstanding=1, max_ack_pending=100, ack_wait=90.0,
    retry_for=2.5, busy_timeout=0.5, drain_timeout=7.0, stalled_after=300.0, metrics_port=9464,
    metrics_host="::1", js_domain="hub-1", inbox_prefix="_INBOX_a.b", tls=Tls(required=True),
)  # fmt: skip


def test_an_option_and_its_variable_set_the_same_setting(command: Command) -> None:
    arguments = [part for pair in VALUES.items() for part in pair]
    assert command.chosen(*arguments) == CHOSEN
    assert command.chosen(**{VARIABLES[one]: value for one, value in VALUES.items()}) == CHOSEN
    # Each option overrides the variable, and a repeated --nats adds servers.
    others = {VARIABLES[one]: value for one, value in VALUES.items()} | {"PROJECTOR_BATCH": "8"}
    assert command.chosen("--batch", "7", **others).batch == 7
    repeated = ("--nats", "nats://a", "--nats", "tls://b:1,nats://[::1]", "--nats", "a")
    assert command.chosen(*repeated, PROJECTOR_NATS_URL="nats://other").nats_urls == SERVERS


@pytest.mark.parametrize("flag", SWITCHES)
def test_a_flag_is_set_by_its_option_or_by_a_boolean_variable(command: Command, flag: str) -> None:
    name = flag.removeprefix("--").replace("-", "_")
    assert getattr(command.chosen(flag), name) is True
    for text, expected in {"1": True, "true": True, "yes": True, "0": False, "no": False}.items():
        assert getattr(command.chosen(**{VARIABLES[flag]: text}), name) is expected


@pytest.mark.parametrize("level", ["debug", "INFO", "warning", "Error", "critical"])
def test_the_log_level_and_format_are_case_insensitive(command: Command, level: str) -> None:
    for arguments, variables in both_ways("--log-level", level):
        outcome = command("run", *arguments, PROJECTOR_LOG_FORMAT="TEXT", **variables)
        assert outcome.logging == (level.lower(), "text")


# --- invalid values ---

NAMES = ["--stream", "--consumer", "--results-stream", "--results-consumer"]
_SERVERS = (
    "http://broker nats:// nats://broker/path nats://[::1 nats://good,ftp://bad nats://broker:0"
    " nats://broker:65536 nats://broker:port nats://broker?query=1"
)
_DATABASES = (
    "mysql://host/name /var/lib/x.db sqlite://x.db sqlite:/// sqlite:///x.db?mode=ro"
    " sqlite:///x#y.db"
)
_DURATIONS = "soon 0 0s -1 1e3 2d 90000 nan 1."
INVALID: list[tuple[Sequence[str], list[str], str]] = [
    (["--nats"], [*_SERVERS.split(), "nats://bro ker"], "nats://HOST"),
    (["--database"], _DATABASES.split(), "sqlite:///"),
    (NAMES, ["a b", "a.b", "a\nb", "a*", "a>", "a/b"], "name without spaces"),
    (["--bucket", "--output-bucket"], ["a b", "a.b", "\u00fc"], "letters, digits"),
    (["--js-domain"], ["a b", "a.b", "hub.", "*", ">", "\u00fc"], "one ASCII word without dots"),
    (
        ["--inbox-prefix"],
        ["_INBOX.>", "_INBOX.*", "_INBOX.", ".a", "a..b", "a b", "a\t", "\u00fc"],
        "ASCII words separated by single dots",
    ),
    (FLAGS, ["maybe", "2"], "boolean"),
    (["--batch"], ["0", "10001", "many", "1.5", "1_0x"], "1<=x<=10000"),
    (["--threads"], ["0", "65", "many"], "1<=x<=64"),
    (["--max-outstanding"], ["-1", "100001", "many"], "1<=x<=100000"),
    (["--max-ack-pending"], ["0", "1000001", "many"], "1<=x<=1000000"),
    (["--projection"], ["ends", "starts,results"], "'starts', 'results'"),
    (["--retention"], ["29d", "0", "never", "-1d"], "at least 30 days"),
    (["--metrics-port"], ["65536", "http"], "0<=x<=65535"),
    (["--metrics-host"], ["a host"], "host name"),
    (DURATIONS, [*_DURATIONS.split(), "9" * 400], "30s"),
    (FILES, ["/nowhere/at/all"], "exist"),
    (FILES, ["/"], "directory"),
    (["--log-level"], ["loud"], "'debug', 'info', 'warning', 'error', 'critical'"),
    (["--log-format"], ["xml"], "'json', 'text'"),
]


def test_every_option_that_can_be_invalid_is_tried() -> None:
    assert {option for options, _, _ in INVALID for option in options} == {*OPTIONS} - {"--user"}


@pytest.mark.parametrize(
    ("option", "values", "expected"),
    [(option, values, expected) for options, values, expected in INVALID for option in options],
)
def test_an_invalid_value_is_refused_with_the_option_the_value_and_the_expected_form(
    command: Command, option: str, values: list[str], expected: str
) -> None:
    for value in values:
        for arguments, variables in both_ways(option, value):
            output = command.refused(*arguments, **variables)
            shown = value.rpartition(",")[2] if variables and option == "--nats" else value
            assert shown in output or repr(shown) in output
            for part in (option, VARIABLES[option], expected):
                assert part in output


def test_results_are_not_projected_without_starts(command: Command) -> None:
    output = command.refused("--projection", "results")
    assert "--projection: expected starts as well as results" in output


def test_unknown_arguments_and_missing_values_are_refused(command: Command) -> None:
    for option in {*OPTIONS} - {*FLAGS}:
        assert option in command.refused(option)
    for arguments in (["--no-such-option"], ["argument"], ["--migrate=yes"], ["--nats", ""]):
        assert command.refused(*arguments)
    outcome = command("walk")
    assert (outcome.code, outcome.settings) == (64, None)
    assert "walk" in outcome.output


def test_a_time_is_an_instant_or_so_long_before_now_and_never_later_than_now() -> None:
    hour = 3_600_000_000_000
    assert parse_since("1970-01-01T02:00:00Z") == Since(instant=2 * hour)
    assert parse_since("2h") == Since(ago=2 * hour)
    assert [Since(ago=2 * hour).before(now) for now in (hour, 5 * hour)] == [0, 3 * hour]
    assert [Since(instant=2 * hour).before(now) for now in (hour, None)] == [hour, 2 * hour]
    assert Since(instant=2**63).before(None) == 2**63 - 1
    with pytest.raises(ConfigurationError, match="does not report its time"):
        Since(ago=hour).before(None)


def test_seconds_are_a_number_or_a_duration() -> None:
    texts = {"30": 30.0, "0.5": 0.5, "30s": 30.0, "1m 30s": 90.0, "1d": 86_400.0, "1ms": 0.001}
    assert {text: parse_seconds(text) for text in texts} == texts


@given(st.text(max_size=20) | st.text("0123456789.smhd ", max_size=12))
def test_any_text_is_either_seconds_within_a_day_or_a_value_error(text: str) -> None:
    try:
        seconds = parse_seconds(text)
    except ValueError:
        return
    assert 0 < seconds <= 86_400


# --- secrets ---

ALL_SECRETS = {
    "PROJECTOR_NATS_URL": f"nats://user:{SECRET}@broker",
    "PROJECTOR_TOKEN": SECRET,
    "PROJECTOR_USER": "user",
    "PROJECTOR_PASSWORD": SECRET,
    "PROJECTOR_CREDS": CREDS,
    "PROJECTOR_NKEY_SEED": SEED,
}


def only(*names: str) -> dict[str, str]:
    return {f"PROJECTOR_{name}": ALL_SECRETS[f"PROJECTOR_{name}"] for name in names}


def field_of(option: str) -> str:
    return option.removeprefix("--").removesuffix("-file").replace("-", "_")


@pytest.mark.parametrize(
    ("urls", "field", "value"),
    [
        (f"nats://user:{SECRET}@broker", "password", SECRET),
        (f"nats://{SECRET}@broker", "token", SECRET),
        (f"{SECRET}@broker", "token", SECRET),
        ("nats://user:p%40ss@broker", "password", "p@ss"),
        (f"nats://u:{SECRET}@a,tls://u:{SECRET}@b", "password", SECRET),
    ],
)
def test_a_secret_in_a_url_is_used_and_never_shown(
    command: Command, urls: str, field: str, value: str
) -> None:
    chosen = command.chosen(PROJECTOR_NATS_URL=urls)
    assert getattr(chosen.credentials, field) == value
    assert field in chosen.public()["credentials"]
    assert all("@" not in url for url in chosen.nats_urls)


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        *((option, f"{text}\n", text.rstrip("\n")) for option, text in SECRET_FILES.items()),
        ("--token-file", f"{SECRET}\r\n", SECRET),
        ("--token-file", f" {SECRET} x", f" {SECRET} x"),
    ],
)
def test_a_secret_in_a_variable_or_a_file_is_used_without_its_line_end_and_never_shown(
    command: Command, file: WriteFile, option: str, text: str, value: str
) -> None:
    user = ["--user", "user"] if option == "--password-file" else []
    itself = {f"PROJECTOR_{field_of(option).upper()}": value}
    for arguments, variables in [*both_ways(option, file(text)), ([], itself)]:
        chosen = command.chosen(*arguments, *user, **variables)
        assert getattr(chosen.credentials, field_of(option)) == value
        assert field_of(option) in chosen.public()["credentials"]


@pytest.mark.parametrize(
    "url",
    [
        *(f"http://user:{SECRET}@broker", f"nats://user:{SECRET}@broker:port"),
        *(f"nats://user:{SECRET}@broker:99999", f"nats://user:{SECRET}@"),
        *(f"nats://{SECRET}@broker/path", f"nats://user:p@ss{SECRET}@bro ker"),
        *(f"nats://user:{SECRET}@broker?x=1", f"nats://user:x/{SECRET}@broker"),
        *(f"nats://user:x?{SECRET}@broker", f"nats://[{SECRET}@broker"),
        f"nats://user:{SECRET}@good,nats://user:{SECRET}@bad:port",
        *(f"{SECRET}@broker:99999", f"user:{SECRET}@broker:99999", f"nats:/user:{SECRET}@broker"),
        *(f"nats://user:{SECRET},x@broker", f"nats://user:x,{SECRET}@broker:port"),
        *(f"nats://{SECRET}#x@broker", f"nats://user:1234#{SECRET}@broker"),
    ],
)
def test_an_invalid_url_is_refused_without_showing_its_secret(command: Command, url: str) -> None:
    for arguments, variables in both_ways("--nats", url):
        output = command.refused(*arguments, **variables)
        assert "--nats" in output
        assert "nats://HOST" in output


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0,#"), max_size=12))
def test_no_password_in_a_url_is_ever_shown(command: Command, more: str) -> None:
    for arguments, variables in both_ways("--nats", f"nats://user:{more}{SECRET}@broker"):
        assert_hidden(command("run", *arguments, **variables))


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--creds-file", SECRET),
        ("--creds-file", CREDS.partition("-----BEGIN USER")[0]),
        ("--creds-file", CREDS.replace(SEED, SECRET)),
        ("--creds-file", CREDS.partition(SEED)[0].rstrip("\n")),
        ("--nkey-seed-file", SECRET),
        ("--nkey-seed-file", SEED[:-1]),
        ("--nkey-seed-file", f"{SEED}\n{SECRET}"),
        ("--nkey-seed-file", f"\u00fc{SECRET}"),
    ],
)
def test_an_invalid_secret_is_refused_with_its_source_and_not_shown(
    command: Command, file: WriteFile, option: str, text: str
) -> None:
    variable = f"PROJECTOR_{field_of(option).upper()}"
    for source, output in {
        option: command.refused(option, file(text)),
        variable: command.refused(**{variable: text}),
    }.items():
        assert source in output
        assert "expected" in output
        assert SEED[:-1] not in output


@pytest.mark.parametrize("option", SECRET_FILES)
def test_a_secret_has_one_source_and_is_not_empty(
    command: Command, file: WriteFile, option: str
) -> None:
    variable, secret = f"PROJECTOR_{field_of(option).upper()}", SECRET_FILES[option]
    for arguments, variables in both_ways(option, file(secret)):
        output = command.refused(*arguments, **{variable: secret}, **variables)
        assert option in output
        assert variable in output
    assert option in command.refused(option, file("\n"))
    assert command.chosen(**{variable: ""}).credentials == Credentials()
    # An option with the secret itself would show it in the list of processes.
    assert command.refused(option.removesuffix("-file"), SECRET)
    assert command.refused(f"{option.removesuffix('-file')}={SECRET}")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--token-file", f"\xff\xfe{SECRET}"),
        *((option, "\n") for option in ("--creds-file", "--nkey-seed-file", "--tls-ca-file")),
    ],
)
def test_a_file_with_unusable_content_is_refused_with_its_path(
    command: Command, file: WriteFile, option: str, text: str
) -> None:
    path = file(text)
    output = command.refused(option, path)
    assert option in output
    assert path in output


def test_help_version_and_errors_show_no_secret_even_if_all_are_set(command: Command) -> None:
    for arguments in ("--help", "-h", "run --help", "run -h", "--version", "run --batch x"):
        outcome = command(*arguments.split(), **ALL_SECRETS)
        assert (outcome.code, outcome.settings) == (64 if "--batch" in arguments else 0, None)
        assert outcome.output
        assert_hidden(outcome)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        (only("USER"), "--user"),
        (only("PASSWORD"), "--user"),
        (only("TOKEN", "NKEY_SEED"), "--token-file"),
        (only("CREDS", "NKEY_SEED"), "--creds-file"),
        (only("TOKEN", "USER", "PASSWORD"), "--user"),
        (only("TOKEN", "NATS_URL"), "--nats"),
        ({"PROJECTOR_NATS_URL": f"nats://u:{SECRET}@a,nats://u:{SECRET}x@b"}, "--nats"),
        (ALL_SECRETS, "--nats"),
    ],
)
def test_incomplete_or_several_kinds_of_credentials_are_refused(
    command: Command, variables: dict[str, str], named: str
) -> None:
    assert named in command.refused(**variables)


# --- TLS and yoyo.ini ---


def test_a_key_file_requires_a_certificate_file(command: Command, file: WriteFile) -> None:
    for arguments, variables in both_ways("--tls-key-file", file("a key")):
        output = command.refused(*arguments, **variables)
        assert "--tls-key-file" in output
        assert "--tls-cert-file" in output


def test_a_handshake_at_the_start_requires_tls_whatever_the_url_says(command: Command) -> None:
    for chosen in (command.chosen("--tls-first"), command.chosen(PROJECTOR_TLS_FIRST="1")):
        assert chosen.tls == Tls(required=True, first=True)
    assert command.chosen(PROJECTOR_TLS_FIRST="0").tls == Tls()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate an installed package, and return an empty current folder."""
    monkeypatch.setattr(settings_module, "__file__", str(tmp_path / "site" / "worker" / "s.py"))
    folder = tmp_path / "current"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_checkout_uses_its_own_yoyo_ini_from_any_folder(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.chosen().database == f"sqlite:///{ROOT}/projector.db"


def test_an_installed_package_uses_yoyo_ini_of_its_folder(
    command: Command, installed: Path
) -> None:
    (installed / "yoyo.ini").write_text("[DEFAULT]\ndatabase = sqlite:///%(here)s/100%%.db\n")
    assert command.chosen().database == f"sqlite:///{installed}/100%.db"
    assert command.chosen("--database", "sqlite:///x.db").database == "sqlite:///x.db"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "[DEFAULT]\nsources = sql\n",
        "[DEFAULT]\ndatabase = mysql://user@host/name\n",
        "[DEFAULT]\ndatabase =\n",
        "[DEFAULT]\ndatabase = sqlite:///%(here/x.db\n",
        "database = sqlite:///x.db\n",
        "[DEFAULT]\ndatabase = sqlite:///x.db\ndatabase = sqlite:///y.db\n",
    ],
)
def test_a_missing_or_unusable_database_in_yoyo_ini_is_refused(
    command: Command, installed: Path, text: str | None
) -> None:
    if text is not None:
        (installed / "yoyo.ini").write_text(text)
    output = command.refused()
    assert "--database" in output
    assert "yoyo.ini" in output
