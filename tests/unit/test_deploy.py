"""What is installed beside the program speaks of what there is: metrics, options, exit codes."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from repo.sqlite.database import Database
from repo.sqlite.schema import known_migrations, pending_migrations
from tests.support.commands import others_environment
from worker import errors
from worker.cli import main as command_line
from worker.observability.exporter import Outside
from worker.observability.metrics import Metrics
from worker.projections.manifests import ManifestCache
from worker.settings import Settings
from worker.status.counters import Counters
from worker.status.health import STATES
from worker.status.readiness import Readiness

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "scripts" / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
README = (ROOT / "scripts" / "README.md").read_text("utf-8")
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = DEPLOY / "grafana" / "projector.json"

_NAME = re.compile(r"\bprojector_\w+")


def registered() -> Metrics:
    settings = Settings(("nats://127.0.0.1",), "sqlite:///nowhere.db")
    counters, readiness = Counters(), Readiness()
    outside = Outside(settings, counters, readiness, lambda _: None)
    return Metrics(
        outside.measures,
        counters=counters,
        progress=outside.progress,
        readiness=readiness,
        manifests=ManifestCache(),
        database=Database(settings.database),
        versions={"worker": "1", "nats-py": "2"},
    )


@pytest.fixture(scope="module")
def families() -> dict[str, str]:
    """The metrics that there are, by the name that documents use, each with its kind."""
    text = generate_latest(registered().registry).decode()
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in text_string_to_metric_families(text)
    }


@pytest.fixture(scope="module")
def series(families: dict[str, str]) -> set[str]:
    """The names that an expression may use."""
    parts = ("_bucket", "_count", "_sum")
    return {
        name + part
        for name, kind in families.items()
        for part in (parts if kind == "histogram" else ("",))
    }


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_two_workers_of_one_process_have_registries_of_their_own() -> None:
    first, second = (
        generate_latest(measures.registry) for measures in (registered(), registered())
    )
    # Without the values: what is free on the disk changes all the time.
    names = [[line.split()[0] for line in text.splitlines()] for text in (first, second)]
    assert names[0] == names[1]


def test_every_metric_is_documented_and_every_documented_metric_is_there(
    families: dict[str, str],
) -> None:
    section = README.partition("## Seen from outside")[2]
    assert set(_NAME.findall(section)) == set(families)


def test_every_state_is_documented() -> None:
    documented = re.findall(r"^\| `(\w+)` \|.*\| (?:200|503)", README, re.MULTILINE)
    assert sorted(documented) == sorted(STATES)


def test_dashboard_and_alerts_use_metrics_that_are_there(series: set[str]) -> None:
    rules = "\n".join(re.findall(r"expr: (.*)", RULES.read_text("utf-8")))
    for text in (rules, *expressions()):
        names = set(_NAME.findall(text))
        assert names
        assert names <= series


def test_the_dashboard_shows_every_metric(families: dict[str, str]) -> None:
    shown = set(_NAME.findall(" ".join(expressions())))
    assert {re.sub("_bucket$", "", name) for name in shown} == set(families)


def test_the_panels_of_the_dashboard_are_told_apart_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_alerts_say_what_they_mean() -> None:
    rules = RULES.read_text("utf-8")
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert len(alerts) == len(set(alerts)) >= 5
    for needed in ("expr:", "severity:", "summary:", "description:"):
        assert rules.count(needed) == len(alerts)


@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")],
    ids=" ".join,
)
def test_promtool_takes_the_alerts_and_their_proof(arguments: tuple[str, ...]) -> None:
    promtool = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool: it is in Debian's package prometheus; PROMTOOL names another")
    done = subprocess.run(
        [promtool, *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- systemd ---


@pytest.fixture
def installed(tmp_path: Path) -> list[Path]:
    """The units with the programs of this checkout in the place of those of /opt."""
    for unit in UNITS:
        text = unit.read_text("utf-8").replace(
            "/opt/projector/bin", str(Path(sys.executable).parent)
        )
        (tmp_path / unit.name).write_text(text)
    return sorted(tmp_path.glob("*.service"))


def systemd_analyze(*arguments: object) -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze: it is in Debian's package systemd")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_finds_nothing_wrong_with_the_units(installed: list[Path]) -> None:
    assert len(installed) == 3
    for unit in installed:
        assert systemd_analyze("verify", "--man=no", unit) == ""


def test_systemd_finds_the_units_hardened(installed: list[Path]) -> None:
    for unit in installed:
        # Tenths, from 0 to 100. It exits with 1 above the threshold.
        report = systemd_analyze("security", "--no-pager", "--offline=true", "--threshold=20", unit)
        assert "Overall exposure level" in report


def test_the_template_differs_from_the_unit_in_its_settings_alone() -> None:
    plain, template = (
        (DEPLOY / "systemd" / name).read_text("utf-8").splitlines()
        for name in ("projector.service", "projector@.service")
    )
    assert len(plain) == len(template)
    differing = [(a, b) for a, b in zip(plain[1:], template[1:], strict=True) if a != b]
    assert [b for _, b in differing] == [
        "Description=Projector of started runs (%i)",
        "EnvironmentFile=/etc/projector/%i.env",
    ]


def test_the_unit_that_migrates_does(installed: list[Path], tmp_path: Path) -> None:
    (unit,) = [unit for unit in installed if unit.name == "projector-migrate@.service"]
    (line,) = re.findall(r"^ExecStart=(.*)", unit.read_text("utf-8"), re.MULTILINE)
    url = f"sqlite:///{tmp_path}/projector.db"
    done = subprocess.run(
        shlex.split(line),
        env={**others_environment(), "PROJECTOR_DATABASE": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == known_migrations()
    assert pending_migrations(Database(url)) == []


def test_no_restart_follows_an_exit_that_no_restart_mends() -> None:
    unit = (DEPLOY / "systemd" / "projector.service").read_text("utf-8")
    (prevented,) = re.findall(r"^RestartPreventExitStatus=(.*)", unit, re.MULTILINE)
    assert list(map(int, prevented.split())) == [
        errors.EXIT_USAGE,
        errors.EXIT_DATA,
        errors.EXIT_CONFIGURATION,
    ]
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)", unit, re.MULTILINE)
    assert int(stop) >= Settings((), "").drain_timeout + 5


def test_the_example_of_variables_names_options_that_there_are() -> None:
    example = (DEPLOY / "systemd" / "projector.env.example").read_text("utf-8")
    named = set(re.findall(r"^#?(PROJECTOR_\w+)=", example, re.MULTILINE))
    known = {parameter.envvar for parameter in command_line.run.params}
    assert named
    assert named <= known | {"PROJECTOR_TOKEN"}


def test_the_example_of_a_scrape_fits_the_example_of_variables() -> None:
    example = (DEPLOY / "systemd" / "projector.env.example").read_text("utf-8")
    (port,) = re.findall(r"^PROJECTOR_METRICS_PORT=(\d+)", example, re.MULTILINE)
    assert f"127.0.0.1:{port}" in (DEPLOY / "prometheus" / "scrape.yml").read_text("utf-8")
