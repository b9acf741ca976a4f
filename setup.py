"""The installable package: `pip install .` puts the command `projector` on the PATH."""

from setuptools import setup

setup(
    name="start-projector",
    version="0.1.0",
    description="Projects a JetStream stream of started runs into SQL, acked after commit.",
    license="MIT",
    python_requires=">=3.11",
    packages=[
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
            "*/migrations/*.*",
            "*/queries/*.sql",
            "*/*.sql",
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
            "mypy>=1.13",
            "import-linter>=2.1",
            "ruff>=0.9",
        ],
        "bench": [
            "faststream[nats]>=0.6",  # one of the programs that the worker is compared with
            "matplotlib>=3.9",
        ],
    },
    entry_points={"console_scripts": ["projector = worker.__main__:main"]},
)
