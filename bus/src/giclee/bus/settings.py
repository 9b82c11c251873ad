"""Settings from the environment: one frozen class a process, all errors at once, every name known.

The only reader of the environment (OpenTelemetry's own variables aside). A service writes a subclass of
Settings whose fields are groups (KafkaSettings, ...) or `setting(...)`; names that several services share
are the table in setting_names.py; its own are GICLEE_<SERVICE>_<FIELD>. Any secret may come as <NAME>_FILE instead.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from giclee.bus import failpoints, redaction
from giclee.bus.setting_names import ELSEWHERE, LATER, PREFIXES, REFUSED, REQUIRED, SHARED

BAD_SETTINGS_EXIT_CODE = 2
SECRET_FILE_MAX_BYTES = 64 * 1024


def setting(
    default: Any = REQUIRED, *, env: str | None = None, says: str | None = None, unit: str = "", **limits: Any
) -> Any:
    """A field of a Settings class.

    `env` names the variable (else GICLEE_<SERVICE>_<FIELD>); default, unit and sentence of a shared name come
    from SHARED unless given. `limits` are pydantic's own (ge, le, pattern, ...).
    """
    shared = SHARED.get(env or "")
    if shared is not None:
        default = shared.default if default is REQUIRED else default
        says, unit = says or shared.says, unit or shared.unit
    if not says:
        raise TypeError(f"setting {env or ''} needs a sentence: says=...")
    return Field(default=default, description=says, json_schema_extra={"env": env, "unit": unit}, **limits)


class Group(BaseModel):
    """Settings that belong together and that several services share."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class KafkaSettings(Group):
    """The broker."""

    bootstrap_servers: str = setting(
        env="KAFKA_BOOTSTRAP_SERVERS", pattern=r"^[^\s,:]+:[0-9]{1,5}(\s*,\s*[^\s,:]+:[0-9]{1,5})*$"
    )
    topic_prefix: str = setting(env="GICLEE_TOPIC_PREFIX", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    schema_registry_url: str | None = setting(env="SCHEMA_REGISTRY_URL", pattern=r"^https?://[^/\s]+")


class DatabaseSettings(Group):
    """Postgres."""

    url: SecretStr = setting(env="DATABASE_URL")
    pool_max: int = setting(env="GICLEE_DATABASE_POOL_MAX", ge=1, le=50)
    statement_timeout_s: int = setting(env="GICLEE_DATABASE_STATEMENT_TIMEOUT_S", ge=1, le=300)

    @field_validator("url")
    @classmethod
    def _is_postgres(cls, url: SecretStr) -> SecretStr:
        if not re.match(r"postgres(ql)?://[^/\s]+", url.get_secret_value()):
            raise ValueError("must look like postgresql://user:password@host:port/database")
        return url


class BlobSettings(Group):
    """The object store."""

    endpoint_url: str | None = setting(env="AWS_ENDPOINT_URL_S3", pattern=r"^https?://[^/\s]+")
    access_key_id: SecretStr | None = setting(env="AWS_ACCESS_KEY_ID")
    secret_access_key: SecretStr | None = setting(env="AWS_SECRET_ACCESS_KEY")
    region: str = setting(env="AWS_REGION", pattern=r"^[a-z0-9-]{1,32}$")
    bucket: str = setting(env="GICLEE_BUCKET", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")

    @model_validator(mode="after")
    def _both_keys(self) -> BlobSettings:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY together, or neither")
        return self


class ProcessSettings(Group):
    """Probes, logs and places to fail."""

    health_port: int = setting(env="GICLEE_HEALTH_PORT", ge=0, le=65535)
    bind_host: str = setting(env="GICLEE_BIND_HOST", pattern=r"^[A-Za-z0-9.:_-]{1,253}$")
    log_level: Literal["debug", "info", "warning", "error"] = setting(env="GICLEE_LOG_LEVEL")
    allow_failpoints: bool = setting(env="GICLEE_ALLOW_FAILPOINTS")
    failpoint: tuple[str, ...] = setting(env="GICLEE_FAILPOINT")

    @field_validator("failpoint")
    @classmethod
    def _are_allowed_points(cls, specs: tuple[str, ...], others: ValidationInfo) -> tuple[str, ...]:
        wrong = [why for spec in specs if (why := failpoints.trouble(spec)) is not None]
        if specs and not others.data.get("allow_failpoints"):
            wrong.append("refused without GICLEE_ALLOW_FAILPOINTS=1")
        if wrong:
            raise ValueError("; ".join(wrong))
        return specs

    def armed(self) -> tuple[failpoints.Failpoint, ...]:
        """The failpoints that the environment names."""
        return tuple(map(failpoints.parse, self.failpoint))


class Settings(BaseModel):
    """Everything one service reads. Its class name says whose: PolicySettings owns GICLEE_POLICY_*."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


AnySettings = TypeVar("AnySettings", bound=Settings)


class BadSettings(Exception):
    """The environment cannot be used; `errors` has a sentence for everything that is wrong with it."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


def load(cls: type[AnySettings]) -> AnySettings:
    """The settings of this process. Ends it with exit code 2 and every error on stderr when one is bad."""
    try:
        found = read(cls, os.environ)
    except BadSettings as error:
        lines = "".join(f"  {line}\n" for line in error.errors)
        sys.stderr.write(f"{cls.__name__}: the environment has {len(error.errors)} bad setting(s):\n{lines}")
        raise SystemExit(BAD_SETTINGS_EXIT_CODE) from None
    redaction.hide_secrets_of(found)
    process = getattr(found, "process", None)
    if isinstance(process, ProcessSettings):
        failpoints.arm(process.armed(), _process_name(cls))
    return found


def read(cls: type[AnySettings], environment: Mapping[str, str]) -> AnySettings:
    """The settings of `cls` in `environment`. Errors: BadSettings with all that is wrong."""
    fields = {field.path: field for field in _fields(cls)}
    errors = _refusals(environment) + _unknown(cls, environment)
    values: dict[str, Any] = {name: {} for name in cls.model_fields if _group(cls.model_fields[name]) is not None}
    failed: set[tuple[str, ...]] = set()
    for path, field in fields.items():
        try:
            text = _text(field, environment)
        except ValueError as error:
            errors.append(str(error))
            failed.add(path)
            continue
        if text is not None:
            _nest(values, path, _parsed(text, field.field.annotation))
    try:
        found = cls.model_validate(values)
    except ValidationError as error:
        errors += [line for row in error.errors() for line in _complaint(row, fields, environment, failed)]
    if errors:
        raise BadSettings(errors)
    return found


# ---- one setting --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable that a class reads, as the docs list it. `path` is where it lands in the class."""

    env: str
    path: tuple[str, ...]
    field: FieldInfo

    @property
    def unit(self) -> str:
        extra = self.field.json_schema_extra
        return str(extra["unit"]) if isinstance(extra, dict) else ""

    @property
    def says(self) -> str:
        return self.field.description or ""

    @property
    def secret(self) -> bool:
        return SecretStr in (self.field.annotation, *get_args(self.field.annotation))

    @property
    def default(self) -> str | None:
        """As it would stand in the environment; "" for nothing, None for a setting that is required."""
        if self.field.is_required():
            return None
        default = self.field.default
        return ",".join(map(str, default)) if isinstance(default, tuple) else str("" if default is None else default)

    @property
    def type(self) -> str:
        return _type_name(self.field.annotation)


def describe(cls: type[Settings]) -> list[Setting]:
    """Every setting of a class, in the order of its fields."""
    return list(_fields(cls))


def secret(name: str) -> str | None:
    """A secret whose name an operator's table gives, by NAME or NAME_FILE; hidden from then on. Errors: ValueError."""
    return redaction.hidden(_text(Setting(name, (name,), FieldInfo(annotation=SecretStr)), os.environ))


def _type_name(annotation: Any) -> str:
    arguments = [one for one in get_args(annotation) if one not in (type(None), Ellipsis)]
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, arguments))
    if arguments:
        return f"{'list of ' if get_origin(annotation) is tuple else ''}{_type_name(arguments[0])}"
    names: dict[Any, str] = {str: "text", SecretStr: "secret", int: "integer", float: "number", bool: "yes or no"}
    return names.get(annotation) or str(annotation.__name__)


def own_prefix(cls: type[Settings]) -> str:
    """GICLEE_<SERVICE>_ of a settings class. Errors: TypeError for a service that PREFIXES does not name."""
    words = re.findall(r"[A-Z][a-z0-9]*", cls.__name__.removesuffix("Settings"))
    prefix = f"GICLEE_{'_'.join(words).upper()}_"
    if prefix not in PREFIXES:
        raise TypeError(f"{cls.__name__}: add {prefix} to PREFIXES in bus/setting_names.py")
    return prefix


def _process_name(cls: type[Settings]) -> str:
    """The process of a settings class as stages name it: gpu-worker, router.health."""
    name = own_prefix(cls).removeprefix("GICLEE_").removesuffix("_").lower()
    return "gpu-worker" if name == "gpu_worker" else name.replace("_", ".")


def _group(info: FieldInfo) -> type[Group] | None:
    annotation = info.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Group) else None


def _fields(cls: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """All settings of a class and its groups. Errors: TypeError for a name that others would call unknown."""
    for name, info in cls.model_fields.items():
        group = _group(info)
        if group is not None:
            yield from _fields(group, (*path, name))
            continue
        extra = info.json_schema_extra
        env = extra.get("env") if isinstance(extra, dict) else None
        if env is None and issubclass(cls, Settings):
            env = f"{own_prefix(cls)}{name.upper()}"
        elif env not in SHARED and not (issubclass(cls, Settings) and str(env).startswith(own_prefix(cls))):
            raise TypeError(f"{cls.__name__}.{name}: add {env} to SHARED in bus/setting_names.py")
        yield Setting(str(env), (*path, name), info)


def _text(field: Setting, environment: Mapping[str, str]) -> str | None:
    """The variable's text, or that of its file; None when neither is set. An empty variable counts as unset."""
    text = environment.get(field.env) or None
    file = environment.get(f"{field.env}_FILE") if field.secret else None
    if not file:
        return text
    if text is not None:
        raise ValueError(f"{field.env} and {field.env}_FILE are both set; keep one")
    try:
        with Path(file).open("rb") as opened:
            secret = opened.read(SECRET_FILE_MAX_BYTES + 1).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{field.env}_FILE={file}: {error}") from error
    if not secret or len(secret) > SECRET_FILE_MAX_BYTES:
        raise ValueError(f"{field.env}_FILE={file}: must hold 1 to {SECRET_FILE_MAX_BYTES} bytes")
    return secret


def _parsed(text: str, annotation: Any) -> Any:
    """The text, or its comma-separated parts where the field is a tuple."""
    if get_origin(annotation) is not tuple:
        return text
    return [part.strip() for part in text.split(",") if part.strip()]


def _nest(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = value


# ---- what is wrong ------------------------------------------------------------------------------


def _complaint(
    row: Any, fields: dict[tuple[str, ...], Setting], environment: Mapping[str, str], failed: set[tuple[str, ...]]
) -> list[str]:
    """The sentence for one error of pydantic's; none where the value could not even be read."""
    path = tuple(str(part) for part in row["loc"])
    field = next((fields[path[:size]] for size in range(len(path), 0, -1) if path[:size] in fields), None)
    says = row["msg"].removeprefix("Value error, ")
    if field is None:
        return [] if any(one[: len(path)] == path for one in failed) else [says]
    if field.path in failed:
        return []
    if row["type"] == "missing":
        return [f"{field.env} is not set. {field.says}"]
    shown = "" if field.secret else f"={environment.get(field.env, '')!r}"
    return [f"{field.env}{shown}: {says}. {field.says}"]


def _refusals(environment: Mapping[str, str]) -> list[str]:
    found = [f"{name} is {why}; unset it" for name, why in REFUSED.items() if _is_set(name, environment)]
    protocol = environment.get("KAFKA_SECURITY_PROTOCOL") or "PLAINTEXT"
    if protocol.upper() != "PLAINTEXT":
        found.append(f"KAFKA_SECURITY_PROTOCOL={protocol!r} is {LATER}; only PLAINTEXT is")
    return found


def _is_set(name: str, environment: Mapping[str, str]) -> bool:
    return bool(environment.get(name) or environment.get(f"{name}_FILE"))


def _unknown(cls: type[Settings], environment: Mapping[str, str]) -> list[str]:
    own = own_prefix(cls)
    known = {field.env for field in _fields(cls)} | SHARED.keys() | ELSEWHERE | REFUSED.keys()
    known |= {f"{field.env}_FILE" for field in _fields(cls) if field.secret}
    lines: list[str] = []
    for name in sorted(environment):
        whose = max((prefix for prefix in PREFIXES if name.startswith(prefix)), key=len, default=None)
        if not name.startswith("GICLEE_") or name in known or (whose is not None and whose != own):
            continue
        near = get_close_matches(name, [one for one in known if not one.endswith("_FILE")], n=1, cutoff=0.6)
        lines.append(f"{name} is no setting{f'; did you mean {near[0]}?' if near else ''}")
    return lines
