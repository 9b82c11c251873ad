"""Every name of the environment that more than one service knows, in literal tables; settings.py reads them.

A name that only one service reads is a field of that service's settings class, GICLEE_<SERVICE>_<FIELD>.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic_core import PydanticUndefined

from giclee.schemas import topics

REQUIRED: Any = PydanticUndefined


class Shared(NamedTuple):
    """A name that more than one service reads: its default, its unit ("" for none) and one sentence."""

    default: Any
    unit: str
    says: str


# fmt: off
SHARED: dict[str, Shared] = {
    "KAFKA_BOOTSTRAP_SERVERS": Shared(REQUIRED, "", "Brokers to start from, as host:port, separated by commas."),
    "GICLEE_TOPIC_PREFIX": Shared("", "", "Put before every topic, consumer group and transactional id."),
    "SCHEMA_REGISTRY_URL": Shared(None, "", "Confluent-compatible registry; set, public events may travel as Avro."),
    "DATABASE_URL": Shared(REQUIRED, "", "Postgres, as postgresql://user:password@host:port/database."),
    "GICLEE_DATABASE_POOL_MAX": Shared(6, "connections", "Most connections one process opens to Postgres."),
    "GICLEE_DATABASE_STATEMENT_TIMEOUT_S": Shared(15, "s", "Longest a single statement may run in Postgres."),
    "AWS_ENDPOINT_URL_S3": Shared(None, "", "Object store; absent means AWS itself."),
    "AWS_ACCESS_KEY_ID": Shared(None, "", "Absent means the default credential chain."),
    "AWS_SECRET_ACCESS_KEY": Shared(None, "", "The secret of AWS_ACCESS_KEY_ID."),
    "AWS_REGION": Shared("us-east-1", "", "Region of the bucket."),
    "GICLEE_BUCKET": Shared(REQUIRED, "", "Bucket of candidates and assets."),
    "GICLEE_HEALTH_PORT": Shared(8080, "port", "Where /livez, /readyz and /metrics are served; 0 takes any free port."),
    "GICLEE_BIND_HOST": Shared("127.0.0.1", "", "Address that every listener of the process binds."),
    "GICLEE_LOG_LEVEL": Shared("info", "", "The least severe line that is logged; debug may log prompts."),
    "GICLEE_ALLOW_FAILPOINTS": Shared(False, "", "Whether GICLEE_FAILPOINT may be set; never where people wait."),
    "GICLEE_FAILPOINT": Shared((), "", "Where to fail, as <stage>.<point>:<mode>[:nth=N], separated by commas."),
    "GICLEE_PUBLIC_URL": Shared(None, "", "What callers see this service as; links in answers start with it."),
    "GICLEE_API_KEY": Shared(REQUIRED, "", "Bearer key of the HTTP API, at least 16 characters."),
    "GICLEE_CONFIG": Shared(None, "", "The operator's TOML file over the built-in tables."),
    "GICLEE_MODELS_DIR": Shared("models", "", "Folder of the demo models, from the working directory."),
    "GICLEE_POOLS": Shared(topics.POOLS, "", "Worker pools that exist, separated by commas."),
    "GICLEE_REQUEST_TTL_H": Shared(72, "h", "Hours after which an unanswered request expires."),
}

PREFIXES = (
    "GICLEE_INTAKE_", "GICLEE_POLICY_", "GICLEE_ROUTER_", "GICLEE_ROUTER_HEALTH_", "GICLEE_GPU_WORKER_",
    "GICLEE_SCORER_", "GICLEE_PUBLISHER_", "GICLEE_REPLAY_", "GICLEE_CONSOLE_",
)
"""Every service's own names; a process checks the spelling of its own and leaves the others' alone."""

ELSEWHERE = frozenset({
    "GICLEE_PORT_BASE", "GICLEE_STATE_DIR", "GICLEE_CACHE_DIR", "GICLEE_API_URL", "GICLEE_ASSETS_URL",
    "GICLEE_OPS_URL", "GICLEE_ACTOR", "GICLEE_SCHEMA_REGISTRY", "GICLEE_TOPIC_REPLICATION", "GICLEE_STACK_MARK",
    "GICLEE_API_KEY_FILE",
})
"""Names of the local stack and the command line: known, and not ours to read."""

LATER = "not supported by this release"
REFUSED: dict[str, str] = {
    "GICLEE_EXTERNAL": LATER,
    "GICLEE_EXTERNAL_DISPOSABLE": LATER,
    "KAFKA_SASL_MECHANISM": LATER,
    "KAFKA_SASL_USERNAME": LATER,
    "KAFKA_SASL_PASSWORD": LATER,
    "KAFKA_SSL_CA_LOCATION": LATER,
    "KAFKA_SSL_CERTIFICATE_LOCATION": LATER,
    "KAFKA_SSL_KEY_LOCATION": LATER,
}
"""Names of the contract that a later release brings: an error when set, because ignoring them would be unsafe."""
# fmt: on
