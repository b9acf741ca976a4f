"""From parsed options, and the secrets of the environment, to `Settings`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worker import settings
from worker.cli.options import PREFIX
from worker.errors import SettingError


def chosen_database(url: str | None) -> str:
    """Return the database URL that was given, else that of yoyo.ini; may raise SettingError."""
    chosen = url or settings.default_database()
    if chosen is None:
        raise SettingError(
            "--database", "expected a URL, since there is no yoyo.ini here that names a database"
        )
    return chosen


def build_settings(options: dict[str, Any], environment: Mapping[str, str]) -> settings.Settings:
    """Return the settings that parsed options and the secrets of the environment make.

    Raises SettingError, which never holds a secret.
    """
    urls = [url for group in options.pop("nats") for url in group]
    database = chosen_database(options.pop("database"))
    given = settings.Credentials(
        token=_secret("token", options.pop("token_file"), environment),
        user=options.pop("user"),
        password=_secret("password", options.pop("password_file"), environment),
        creds=_secret("creds", options.pop("creds_file"), environment, settings.parse_creds),
        nkey_seed=_secret(
            "nkey-seed", options.pop("nkey_seed_file"), environment, settings.parse_nkey_seed
        ),
    )
    files = {name: options.pop(f"tls_{name}") for name in ("ca_file", "cert_file", "key_file")}
    if files["key_file"] is not None and files["cert_file"] is None:
        raise SettingError("--tls-key-file", "expected together with --tls-cert-file")
    tls = settings.Tls(
        required=any(url.tls for url in urls) or any(file is not None for file in files.values()),
        **files,
    )
    tls.context()
    return settings.Settings(
        nats_urls=tuple(dict.fromkeys(url.url for url in urls)),
        database=database,
        credentials=settings.merge_credentials(given, urls),
        tls=tls,
        **options,
    )


def _secret(
    name: str,
    file: Path | None,
    environment: Mapping[str, str],
    parse: Callable[[str], str] = str,
) -> str | None:
    """Return a secret from a file or from its variable; raises SettingError without showing it."""
    option = f"--{name}-file"
    variable = PREFIX + name.replace("-", "_").upper()
    text = environment.get(variable) or None
    if file is not None and text is not None:
        raise SettingError(option, f"expected either the file or {variable}, not both")
    source = variable if file is None else f"{option} {str(file)!r}"
    if file is not None:
        try:
            text = file.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError(source, "expected a text file that can be read") from error
    if text is None:
        return None
    if not text:
        raise SettingError(source, "expected a secret, found nothing")
    try:
        return parse(text)
    except ValueError as error:
        raise SettingError(source, str(error)) from None
