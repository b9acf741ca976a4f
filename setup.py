"""The installable package: `pip install .` puts the command `projector` on the PATH."""

import re
import shutil
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
# An earlier build leaves its files there, and a migration that no longer exists would be installed.
shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
# Outside a checkout a relative link leads nowhere, so only its text stays.
README = re.sub(r"!?\[([^]]*)]\((?!https?:)[^)]*\)", r"\1", (ROOT / "README.md").read_text("utf-8"))

setup(
    name="start-projector",
    version="0.1.0",
    description="Projects JetStream events of a fleet's script runs into SQLite or PostgreSQL.",
    long_description=README,
    long_description_content_type="text/markdown",
    keywords=["nats", "jetstream", "sqlite", "postgresql", "projection"],
    license_expression="MIT",
    classifiers=[
        "Environment :: Console",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Database",
        "Topic :: System :: Monitoring",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    package_dir={"start_projector": "scripts/start_projector"},
    packages=[
        "start_projector",
        "worker",
        "worker.cli",
        "worker.codec",
        "worker.inspection",
        "worker.jetstream",
        "worker.observability",
        "worker.processing",
        "worker.projections",
        "worker.status",
        "repo",
        "repo.postgresql",
        "repo.sqlite",
        "sql",
    ],
    package_data={
        "sql": [
            "*/*.sql",
            "*/migrations/*.*",
            "*/queries/*.sql",
            "sqlite/schema/*.sql",
        ],
        "worker": ["py.typed"],
        "worker.observability": ["page.*"],
        "repo": ["py.typed"],
    },
    install_requires=[
        "nats-py[nkeys]>=2.16,<3",
        "yoyo-migrations>=9.0",
        "tenacity>=9.0",
        "python-json-logger>=3.2",
        "prometheus-client>=0.21",  # metrics and their text form
        "click>=8.4",  # commands, options, their variables and their help
        "click-man>=0.5",  # manual pages from the help of the commands
        "rich>=13.7",  # the progress bar and the tables that people read
    ],
    extras_require={
        "postgresql": ["psycopg[binary]>=3.2"],  # the database of workers on several machines
        "datasette": ["datasette>=0.65,<1"],  # scripts/deploy/datasette
        "test": [
            "psycopg[binary]>=3.2",
            "pyyaml>=6.0",
            "types-PyYAML",
            "pytest>=8.3",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "setuptools>=77",  # builds the wheel that the tests install
            "mypy>=1.13",
            "import-linter>=2.1",
            "ruff>=0.9",
        ],
        "bench": [
            "faststream[nats]>=0.6",  # one of the programs that the worker is compared with
            "matplotlib>=3.9",
        ],
    },
    entry_points={"console_scripts": ["projector = start_projector:main"]},
)
