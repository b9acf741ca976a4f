"""The built wheel, installed where there is no checkout, alone and beside other distributions."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.commands import Done, run_projector
from tests.support.worker_process import clean_environment

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("worker", "repo", "sql")


def call(*command: object, cwd: Path, warnings: str = "error") -> str:
    """Run a command that must succeed, and return its output."""
    environment = clean_environment(
        PYTHONPATH="", PYTHONWARNINGS=warnings, PYTHONDONTWRITEBYTECODE=""
    )
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, target: Path) -> Path:
    """Build a wheel or an sdist with the setuptools that is installed, without downloading one."""
    target.mkdir(exist_ok=True)
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})"
    call(sys.executable, "-c", code, cwd=source)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of a copy of the tracked files, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in call("git", "ls-files", "-z", cwd=ROOT).split("\0"):
        if name and (ROOT / name).exists():
            (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "copy" / name)
    with tarfile.open(build("sdist", folder / "copy", folder / "dist")) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """The wheel that the sdist builds, where an earlier version has left a migration."""
    left = sdist / "build" / "lib" / "sql" / "sqlite" / "migrations"
    left.mkdir(parents=True)
    (left / "20260101_01_removed.sql").write_text("DROP TABLE executions;")
    return build("wheel", sdist, sdist.parent / "wheel")


class Environment:
    """A virtual environment that sees the other packages of the one that runs the tests."""

    def __init__(self, folder: Path) -> None:
        call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
        self._python = folder / "bin" / "python"
        self.projector = folder / "bin" / "projector"
        (self.packages,) = folder.glob("lib/python3*/site-packages")
        (self.packages / "others.pth").write_text(sysconfig.get_path("purelib"))

    def install(self, wheel: Path, *options: object) -> None:
        self._pip("install", "--no-index", "--no-deps", *options, wheel)

    def uninstall(self, name: str) -> None:
        self._pip("uninstall", "--yes", name)

    def run(self, *arguments: str, cwd: Path, **environment: str) -> Done:
        given = {"PYTHONPATH": "", **environment}
        return run_projector(*arguments, cwd=cwd, command=(str(self.projector),), **given)

    def _pip(self, *arguments: object) -> None:
        # With Python 3.11 comes a pip that warns of itself.
        pip = (sys.executable, "-m", "pip", "--python", self._python)
        call(*pip, *arguments, cwd=self.packages, warnings="")


@pytest.fixture
def installed(tmp_path: Path, wheel: Path) -> Environment:
    """A virtual environment with the wheel."""
    environment = Environment(tmp_path / "venv")
    environment.install(wheel)
    return environment


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


# --- what is built --------------------------------------------------------------------------------


def test_the_wheel_has_every_source_and_statement_of_the_checkout_and_no_other_file(
    wheel: Path,
) -> None:
    tracked = call("git", "ls-files", *PACKAGES, cwd=ROOT).split()
    documents = {name for name in tracked if name.endswith(".md")}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    present = {name for name in tracked if (ROOT / name).exists()}
    assert packed == present - documents | {"start_projector/__init__.py"}
    assert {"worker/py.typed", "repo/py.typed", "sql/postgresql/roles.sql"} <= packed


def test_the_sdist_has_what_builds_the_wheel_and_no_tests(sdist: Path) -> None:
    names = {path.name for path in sdist.iterdir()}
    assert {"README.md", "LICENSE", "setup.py", "pyproject.toml"} <= names
    assert not names & {"tests", ".ci"}
    assert [path.name for path in (sdist / "scripts").iterdir()] == ["start_projector"]


def test_the_description_has_no_link_that_leads_nowhere_outside_a_checkout(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = archive.read(name).decode()
    assert "\nDescription-Content-Type: text/markdown\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    assert "\n# start-projector\n" in metadata
    assert re.findall(r"\]\((?!https?:)", metadata) == []


# --- what is installed ----------------------------------------------------------------------------


def test_the_installed_wheel_migrates_and_projects_in_an_empty_folder(
    installed: Environment, empty: Path, deployment: Broker
) -> None:
    deployment.make_results_stream()
    deployment.publish(result_id="run-1", pc_id="lyon-04")
    places = {
        "PROJECTOR_NATS_URL": deployment.url,
        "PROJECTOR_DATABASE": "sqlite:///projector.db",
        "USER": "tester",
    }
    assert installed.run("--version", cwd=empty).output.startswith("projector, version ")
    for arguments in (["migrate"], ["run", "--until-idle"]):
        done = installed.run(*arguments, cwd=empty, **places)
        assert done.code == 0, done.errors
    assert "lyon-04" in installed.run("runs", cwd=empty, **places).output
    assert (empty / "projector.db").exists()


# --- beside another distribution ------------------------------------------------------------------


def other_wheel(folder: Path, package: str) -> Path:
    """Return the wheel of another distribution with a package of the same name."""
    wheel = folder / "other-2.0-py3-none-any.whl"
    info = "other-2.0.dist-info"
    files = {
        f"{package}/__init__.py": "raise SystemExit('the other package was imported')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: other\nVersion: 2.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return wheel


def refusal(done: Done) -> str:
    """Return the one line of a command that refused to start."""
    assert (done.code, done.output) == (78, "")
    (line,) = done.errors.splitlines()
    assert line.endswith(
        "install start-projector into a virtual environment of its own, such as with pipx"
    )
    return line


def test_a_package_that_another_distribution_overwrote_is_named_at_the_start(
    installed: Environment, tmp_path: Path, empty: Path
) -> None:
    installed.install(other_wheel(tmp_path, "worker"))
    file = installed.packages / "worker" / "__init__.py"
    line = refusal(installed.run("--version", cwd=empty))
    assert f"`worker` was overwritten: {file} of the distribution other 2.0;" in line
    installed.uninstall("other")  # and with it the file, which both distributions had
    line = refusal(installed.run("--version", cwd=empty))
    assert f"the package `worker` is missing, expected {file};" in line


def test_a_package_of_another_distribution_on_the_path_is_named_at_the_start(
    installed: Environment, tmp_path: Path, empty: Path
) -> None:
    for package in PACKAGES:
        place = tmp_path / f"with-{package}"
        installed.install(other_wheel(tmp_path, package), "--target", place)
        line = refusal(installed.run("--version", cwd=empty, PYTHONPATH=str(place)))
        found, expected = (f / package / "__init__.py" for f in (place, installed.packages))
        assert f"`{package}` comes from {found} of the distribution other 2.0, expected" in line
        assert f"expected {expected}; unset PYTHONPATH, or install" in line


def test_a_folder_of_the_same_name_where_the_command_runs_is_not_imported(
    installed: Environment, empty: Path
) -> None:
    (empty / "repo").mkdir()
    (empty / "repo" / "__init__.py").write_text("raise SystemExit('the folder was imported')\n")
    assert installed.run("--version", cwd=empty).code == 0
