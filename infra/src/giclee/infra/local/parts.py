"""Which outside parts a stack has, and the variables by which clients and services find them."""

from __future__ import annotations

from giclee.infra.local.folder import Folder
from giclee.infra.local.kafka import Kafka
from giclee.infra.local.part import Part
from giclee.infra.local.ports import Ports
from giclee.infra.local.postgres import Postgres
from giclee.infra.local.registry import Registry
from giclee.infra.local.s3 import REGION, S3
from giclee.infra.local.services import Wanted


def kafka_of(folder: Folder, ports: Ports) -> Kafka:
    return Kafka(folder.root / "kafka", folder.log("kafka"), ports)


def postgres_of(folder: Folder, ports: Ports) -> Postgres:
    return Postgres(folder.root / "postgres", folder.log("postgres"), ports, folder.secrets().postgres_password)


def s3_of(folder: Folder, ports: Ports) -> S3:
    keys = folder.secrets()
    return S3(folder.root / "s3", folder.log("s3"), ports, keys.aws_access_key_id, keys.aws_secret_access_key)


def registry_of(folder: Folder, ports: Ports) -> Registry:
    return Registry(folder.root / "registry", folder.log("registry"), ports)


def parts_of(folder: Folder, ports: Ports, wanted: Wanted) -> list[Part]:
    """In the order of their start: the slowest first. They stop in reverse: Kafka last."""
    parts: list[Part] = []
    if wanted.has("kafka"):
        parts.append(kafka_of(folder, ports))
    if wanted.has("postgres"):
        parts.append(postgres_of(folder, ports))
    if wanted.has("s3"):
        parts.append(s3_of(folder, ports))
    if wanted.registry:
        parts.append(registry_of(folder, ports))
    return parts


def client_env(folder: Folder, ports: Ports, wanted: Wanted) -> dict[str, str]:
    """What a client needs, by the names of the contract: the content of `.giclee/env`."""
    s3 = s3_of(folder, ports)
    values = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_of(folder, ports).bootstrap_servers,
        "DATABASE_URL": postgres_of(folder, ports).url,
        "AWS_ENDPOINT_URL_S3": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.secret_access_key,
        "AWS_REGION": REGION,
        "GICLEE_BUCKET": s3.bucket,
        "GICLEE_API_URL": _url(ports, "intake"),
        "GICLEE_ASSETS_URL": _url(ports, "publisher"),
        "GICLEE_OPS_URL": _url(ports, "replay"),
        "GICLEE_API_KEY": folder.secrets().api_key,
    }
    if wanted.registry:
        values["SCHEMA_REGISTRY_URL"] = registry_of(folder, ports).url
    return values


def service_env(folder: Folder, ports: Ports, wanted: Wanted) -> dict[str, str]:
    """What a service process gets on top of the variables of whoever started the stack."""
    return {
        **client_env(folder, ports, wanted),
        "GICLEE_BIND_HOST": ports.host,
        "GICLEE_TOPIC_REPLICATION": "1",
        "MALLOC_ARENA_MAX": "2",  # threads of a small process do not each need an arena of 64 MB
    }


def _url(ports: Ports, name: str) -> str:
    return f"http://{ports.client_host}:{ports.of(name)}"
