"""A real nats-server on a free port of 127.0.0.1 with its own store, for tests and the demo."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from tests.support.waiting import eventually

_RELOADED = "Reloaded server configuration"
_STOP_TIMEOUT = 10.0


def server_version() -> tuple[int, ...]:
    """Return the version of the server that the tests run."""
    shown = subprocess.run([find_nats_server(), "--version"], capture_output=True, check=True)
    return tuple(map(int, re.findall(rb"\d+", shown.stdout)[:3]))


def free_address() -> str:
    """Return an address to listen on, for what chooses no free port by itself."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def find_nats_server() -> str:
    """Return the path in NATS_SERVER or the server on the PATH; raise FileNotFoundError."""
    binary = os.environ.get("NATS_SERVER") or shutil.which(
        "nats-server", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
    )
    if binary is None:
        raise FileNotFoundError("no nats-server on the PATH: scripts/setup installs it")
    return binary


class NatsServer:
    """One server process. `start` after `stop` or `kill` uses the same port and store."""

    def __init__(
        self, folder: Path, *, config: str = "", jetstream: bool = True, domain: str = ""
    ) -> None:
        """Prepare a server with all its files in `folder`; `config` extends its configuration."""
        self._folder = folder
        self._config = config
        self._jetstream = jetstream
        self._domain = f", domain: {domain}" if domain else ""
        self._process: subprocess.Popen[bytes] | None = None
        self._listen = ""
        self.port: int | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def store(self) -> Path:
        """The folder of JetStream's files."""
        return self._folder / "store"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def login(self, user: str, password: str = "x") -> str:
        return f"nats://{user}:{password}@127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self._folder / "server.log").read_text(errors="replace")

    def start(self) -> "NatsServer":
        """Start the process and return when it accepts connections."""
        assert self._process is None
        self._folder.mkdir(parents=True, exist_ok=True)
        for ports in self._folder.glob("*.ports"):
            ports.unlink()
        self._listen = f"127.0.0.1:{self.port or -1}"
        config = self._write_config()
        self._process = subprocess.Popen(
            [find_nats_server(), "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(self._is_listening, 15, lambda: self.log)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Stop the process as an operator would, if it runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once, as a power cut would, if it runs."""
        self._end(signal.SIGKILL)

    def configure(self, config: str, *, jetstream: bool = True) -> None:
        """Replace `config`, and reload it if the process runs.

        JetStream itself is enabled or disabled at the next start only.
        """
        self._config = config
        self._jetstream = jetstream
        if self._process is not None:
            self._write_config()
            reloads = self.log.count(_RELOADED)
            self.send(signal.SIGHUP)
            eventually(lambda: self.log.count(_RELOADED) > reloads, 15, lambda: self.log)

    def _write_config(self) -> Path:
        config = self._folder / "server.conf"
        store = f'store_dir: "{self._folder}/store"{self._domain}'
        store = f"jetstream {{ {store} }}" if self._jetstream else ""
        config.write_text(
            f"listen: {self._listen}\n"
            f'ports_file_dir: "{self._folder}"\n'
            f'logfile: "{self._folder}/server.log"\n'
            f"{store}\n{self._config}\n"
        )
        return config

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def ended(self) -> bool:
        """Return whether the process has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _is_listening(self) -> bool:
        """Return whether the server has written its port, which it does once it is ready."""
        if self.ended():
            raise RuntimeError(f"nats-server has ended:\n{self.log}")
        for ports in self._folder.glob("*.ports"):
            with contextlib.suppress(ValueError, KeyError, IndexError):  # still being written
                self.port = int(json.loads(ports.read_text())["nats"][0].rpartition(":")[2])
                return True
        return False
