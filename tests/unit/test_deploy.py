"""The files in scripts/deploy name metrics, options, exit codes and units that exist."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from repo import check_url, open_database
from repo.migrations import known_migrations
from tests.support.commands import others_environment
from tests.support.nats_server import free_address
from worker import errors
from worker.cli import run as command_line
from worker.observability.metrics import Metrics
from worker.projections.manifests import ManifestCache
from worker.settings import Settings
from worker.status.health import STATES
from worker.status.worker_status import WorkerStatus

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "scripts" / "deploy"
UNIT = (DEPLOY / "systemd" / "projector.service").read_text("utf-8")
EXAMPLE = (DEPLOY / "systemd" / "projector.env.example").read_text("utf-8")
RUNBOOK = (ROOT / "scripts" / "README.md").read_text("utf-8")
PROMETHEUS = DEPLOY / "prometheus"
RULES = PROMETHEUS / "rules.yml"
ALERTMANAGER = PROMETHEUS / "alertmanager.yml"
EXAMPLE_MAIL = yaml.safe_load(ALERTMANAGER.read_text("utf-8"))
MAIL_PAGE = (PROMETHEUS / "README.md").read_text("utf-8")
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text("utf-8"))
PANELS = json.loads((DEPLOY / "grafana" / "projector.json").read_text("utf-8"))["panels"]
SHOWN = " ".join(target["expr"] for panel in PANELS for target in panel.get("targets", []))
ALERTED = " ".join(re.findall(r"expr: (.*)", RULES.read_text("utf-8")))


def metrics(url: str = "sqlite:///nowhere.db") -> Metrics:
    status = WorkerStatus(["starts"], stalled_after=60.0, busy_timeout=1.0, is_observed=True)
    database = open_database(url)
    return Metrics(status, ManifestCache(), database, {"worker": "1", "nats-py": "2"})


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """The names of all metrics of any engine, as documents and expressions use them."""
    nowhere = "postgresql://127.0.0.1:1/nowhere"
    texts = [generate_latest(one.registry).decode() for one in (metrics(), metrics(nowhere))]
    return {
        family.name + ("_total" if family.type == "counter" else "")
        for text in texts
        for family in text_string_to_metric_families(text)
    }


def names(text: str) -> set[str]:
    return {name.removesuffix("_bucket") for name in re.findall(r"\bprojector_\w+", text)}


def test_two_workers_in_one_process_have_separate_registries() -> None:
    first, second = metrics(), metrics()
    assert generate_latest(first.registry)
    assert generate_latest(second.registry)


def test_runbook_and_dashboard_name_every_metric_and_alerts_no_other(exported: set[str]) -> None:
    section = RUNBOOK.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    assert names(section) == exported
    assert names(SHOWN) == exported
    assert names(ALERTED) <= exported


def test_the_runbook_lists_exactly_the_states_of_the_worker() -> None:
    listed = re.findall(r"^\| `(\w+)` \|.*\| (?:200|503)", RUNBOOK, re.MULTILINE)
    assert sorted(listed) == sorted(STATES)


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    cells: list[tuple[int, int]] = []
    for panel in PANELS:
        x, y, width, height = (panel["gridPos"][key] for key in "xywh")
        assert x + width <= 24
        cells += [(x + i, y + j) for i in range(width) for j in range(height)]
    assert len(set(cells)) == len(cells)
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_every_alert_has_a_severity_a_text_and_a_line_in_the_runbook() -> None:
    rules = RULES.read_text("utf-8")
    for key in ("expr:", "severity:", "summary:", "description:"):
        assert rules.count(key) == len(set(ALERTS)) == len(ALERTS)
    section = RUNBOOK.partition("\n### An alert fires\n")[2].partition("\n### ")[0]
    assert re.findall(r"\bProjector\w+", section) == ALERTS


def output(*command: object, **options: Any) -> str:
    arguments = [*map(str, command)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return f"{done.stdout}{done.stderr}"


def tool(name: str, package: str) -> str:
    """Return the path of a program, or skip the test."""
    found = os.environ.get(name.upper()) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing; install Debian's package {package}")
    return found


def promtool() -> str:
    return tool("promtool", "prometheus")


def amtool() -> str:
    return tool("amtool", "prometheus-alertmanager")


def test_promtool_accepts_the_alerts_and_their_tests_and_the_whole_configuration() -> None:
    output(promtool(), "check", "config", PROMETHEUS / "scrape.yml")
    output(promtool(), "test", "rules", PROMETHEUS / "rules_test.yml")


def test_the_texts_of_every_alert_can_be_rendered(tmp_path: Path) -> None:
    # As texts: to YAML, 0x60 is a number.
    tests = yaml.load((PROMETHEUS / "rules_test.yml").read_text("utf-8"), yaml.BaseLoader)
    tests["rule_files"] = [str(RULES)]
    for one in tests["tests"]:
        expected = one.pop("promql_expr_test", []) + one.pop("alert_rule_test", [])
        at = {test["eval_time"] for test in expected}
        # None is expected, so that promtool prints those that fire, as they are rendered.
        one["alert_rule_test"] = [
            {"eval_time": time, "alertname": alert} for time in at for alert in ALERTS
        ]
    (tmp_path / "none.yml").write_text(yaml.safe_dump(tests))
    command = [promtool(), "test", "rules", str(tmp_path / "none.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    fired = done.stdout + done.stderr
    assert set(re.findall(r'alertname="(\w+)"', fired)) == set(ALERTS)
    assert not re.search(r"error executing template|<no value>|%!", fired), fired


def test_amtool_accepts_the_example_and_every_alert_is_mailed() -> None:
    checked = output(amtool(), "check-config", ALERTMANAGER)
    assert "1 templates" in checked
    for severity in ("warning", "critical"):
        test = ("config", "routes", "test", f"--config.file={ALERTMANAGER}")
        output(amtool(), *test, "--verify.receivers=operators", f"severity={severity}")


def rendered(tmp_path: Path, text: str, *alerts: dict[str, Any]) -> str:
    """Return what a part of the mail is for some alerts."""
    data = {
        "Status": alerts[0]["Status"],
        "Alerts": alerts,
        "CommonLabels": {"alertname": alerts[0]["Labels"]["alertname"]},
    }
    (tmp_path / "data.json").write_text(json.dumps(data))
    given = [
        f"--template.glob={PROMETHEUS / 'projector.tmpl'}",
        f"--template.data={tmp_path / 'data.json'}",
    ]
    return output(amtool(), "template", "render", *given, f"--template.text={text}").strip()


def test_the_mail_says_what_fires_since_when_and_what_to_do_as_the_page_shows(
    tmp_path: Path,
) -> None:
    (rule,) = [
        rule
        for rule in yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"]
        if rule["alert"] == "ProjectorDown"
    ]
    instance = "127.0.0.1:9464"
    firing = {
        "Status": "firing",
        "Labels": {"alertname": rule["alert"], **rule["labels"], "instance": instance},
        "Annotations": {
            name: text.replace("{{ $labels.instance }}", instance)
            for name, text in rule["annotations"].items()
        },
        "StartsAt": "2026-11-27T10:42:41Z",
        "EndsAt": "0001-01-01T00:00:00Z",
    }
    (mail,) = EXAMPLE_MAIL["receivers"][0]["email_configs"]
    subject, text = mail["headers"]["Subject"], mail["text"]
    shown = f"{rendered(tmp_path, subject, firing)}\n\n{rendered(tmp_path, text, firing)}\n"
    assert f"Subject: {shown}" in MAIL_PAGE
    resolved = {**firing, "Status": "resolved", "EndsAt": "2026-11-27T10:50:00Z"}
    assert rendered(tmp_path, subject, resolved, firing) == "[resolved] ProjectorDown"
    both = rendered(tmp_path, text, resolved, firing)
    assert both.startswith("Resolved at 2026-11-27 10:50:00 UTC, firing since")
    assert "\nFiring since 2026-11-27 10:42:41 UTC (critical):" in both


def test_the_page_about_mails_names_the_files_beside_it_and_alerts_that_exist() -> None:
    files = {path.name for path in PROMETHEUS.iterdir()} - {"README.md"}
    assert set(re.findall(r"^\| `([\w.]+)` \|", MAIL_PAGE, re.MULTILINE)) == files
    copied = " ".join(re.findall(r"^install -m 644 (.*?) /etc", MAIL_PAGE, re.MULTILINE))
    assert set(copied.split()) == files - {"rules_test.yml"}
    assert set(re.findall(r"\bProjector[A-Z]\w+", MAIL_PAGE)) <= {*ALERTS, "ProjectorTest"}
    for rule in EXAMPLE_MAIL["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            prefix, _, several = re.findall(r"Projector\w*(?:\([\w|]+\))?", matcher)[0].partition(
                "("
            )
            ends = several.rstrip(")").split("|")
            assert {f"{prefix}{end}" for end in ends} <= set(ALERTS)


@pytest.fixture
def installed(tmp_path: Path) -> list[Path]:
    """The units, with the programs of this checkout instead of those in /opt."""
    programs = str(Path(sys.executable).parent)
    for unit in (DEPLOY / "systemd").glob("*.service"):
        text = unit.read_text("utf-8").replace("/opt/projector/bin", programs)
        (tmp_path / unit.name).write_text(text)
    return sorted(tmp_path.glob("*.service"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_units_and_rates_them_as_hardened(installed: list[Path]) -> None:
    assert len(installed) == 3
    for unit in installed:
        assert output("systemd-analyze", "verify", "--man=no", unit) == ""
        # The threshold counts tenths; above it the command exits with 1.
        output("systemd-analyze", "security", "--offline=true", "--threshold=20", unit)


def test_the_template_unit_differs_from_the_plain_unit_only_in_description_and_settings() -> None:
    template = (DEPLOY / "systemd" / "projector@.service").read_text("utf-8")
    lines = zip(UNIT.splitlines()[1:], template.splitlines()[1:], strict=True)
    assert [other for plain, other in lines if plain != other] == [
        "Description=Start projector (%i)",
        "EnvironmentFile=/etc/projector/%i.env",
    ]


def test_the_migration_unit_migrates_the_database(installed: list[Path], tmp_path: Path) -> None:
    (unit,) = (unit for unit in installed if unit.name == "projector-migrate@.service")
    (line,) = re.findall(r"^ExecStart=(.*)", unit.read_text("utf-8"), re.MULTILINE)
    url = f"sqlite:///{tmp_path}/projector.db"
    shown = output(*shlex.split(line), env={**others_environment(), "PROJECTOR_DATABASE": url})
    assert shown.splitlines()[: len(known_migrations("sqlite"))] == known_migrations("sqlite")
    assert open_database(url).pending_migrations() == []


def test_systemd_does_not_restart_after_an_exit_code_that_a_restart_does_not_fix() -> None:
    (prevented,) = re.findall(r"^RestartPreventExitStatus=(.*)", UNIT, re.MULTILINE)
    codes = errors.EXIT_USAGE, errors.EXIT_DATA, errors.EXIT_CONFIGURATION
    assert tuple(map(int, prevented.split())) == codes
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)", UNIT, re.MULTILINE)
    assert int(stop) >= Settings((), "").drain_timeout + 5


def test_the_example_of_variables_names_options_that_exist_and_the_scraped_port() -> None:
    named = dict(re.findall(r"^#?(PROJECTOR_\w+)=(.*)", EXAMPLE, re.MULTILINE))
    options = {option.envvar for option in command_line.run.params}
    assert named.keys() - {"PROJECTOR_TOKEN"} <= options
    scrape = (DEPLOY / "prometheus" / "scrape.yml").read_text("utf-8")
    assert f"127.0.0.1:{named['PROJECTOR_METRICS_PORT']}" in scrape


# --- containers -----------------------------------------------------------------------------------

DOCKERFILE = (DEPLOY / "container" / "Dockerfile").read_text("utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text("utf-8"))
OBJECTS = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "projector.yaml").read_text("utf-8")))
VARIABLES = {option.envvar for option in command_line.run.params} | {"PGPASSWORD"}
PORT = 9464


def test_the_image_runs_as_an_ordinary_user_and_copies_what_the_package_needs() -> None:
    assert re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE) == ["10001"]
    copied = re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, re.MULTILINE)
    kept = re.findall(r"^!(.*)", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    assert {name for line in copied for name in line.split()[:-1]} == set(kept)
    assert all((ROOT / name).exists() for name in kept)
    named = set(re.findall(r"\b(PROJECTOR_\w+)=", DOCKERFILE))
    assert named <= VARIABLES
    assert f"PROJECTOR_METRICS_PORT={PORT}" in DOCKERFILE
    assert f"EXPOSE {PORT}" in DOCKERFILE


def test_the_health_check_of_the_image_is_a_program_that_works(tmp_path: Path) -> None:
    (text,) = re.findall(r"CMD (\[\"python\".*\])$", DOCKERFILE, re.MULTILINE)
    program = [sys.executable, *json.loads(text)[1:]]
    # A worker of this machine may have the port.
    program[-1] = program[-1].replace(f"127.0.0.1:{PORT}", free_address())
    refused = subprocess.run(program, capture_output=True, check=False, cwd=tmp_path)
    assert refused.returncode != 0
    code = re.sub(r"http://[^']+", (tmp_path / "live").as_uri(), program[-1])
    (tmp_path / "live").write_text("live")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_services_are_three_brokers_postgresql_and_two_workers_after_the_migrations() -> None:
    services = COMPOSE["services"]
    brokers = [name for name in services if name.startswith("nats")]
    workers = [name for name in services if name.startswith("worker")]
    assert (len(brokers), len(workers), "postgresql" in services) == (3, 2, True)
    for name in workers:
        settings = services[name]["environment"]
        assert settings.keys() <= VARIABLES
        assert [url.partition("://")[2] for url in settings["PROJECTOR_NATS_URL"].split(",")] == [
            f"{broker}:4222" for broker in brokers
        ]
        assert services[name]["depends_on"]["migrate"] == {
            "condition": "service_completed_successfully"
        }
        assert check_url(settings["PROJECTOR_DATABASE"])
    assert services["migrate"]["command"] == ["migrate"]
    for broker in brokers:
        routes = services[broker]["command"][-1]
        assert sorted(re.findall(r"nats-\d", routes)) == sorted({*brokers} - {broker})


def test_the_pods_are_probed_on_the_pages_of_the_worker_and_have_no_rights() -> None:
    kinds = [one["kind"] for one in OBJECTS]
    assert kinds == ["ConfigMap", "Job", "Deployment", "PodDisruptionBudget"]
    settings, job, deployment, budget = OBJECTS
    assert settings["data"].keys() <= VARIABLES
    assert check_url(settings["data"]["PROJECTOR_DATABASE"])
    for one in (job, deployment):
        pod = one["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert {variable["name"] for variable in container["env"]} <= VARIABLES
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [PORT]
    pages = {name: container[name]["httpGet"]["path"] for name in container if "Probe" in name}
    assert pages == {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= Settings((), "").drain_timeout + 5
    assert budget["spec"]["minAvailable"] < deployment["spec"]["replicas"]
