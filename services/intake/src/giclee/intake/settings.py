"""Settings of intake."""

from __future__ import annotations

from pydantic import SecretStr

from giclee.bus.settings import DatabaseSettings, KafkaSettings, ProcessSettings, Settings, setting

_URL = r"^https?://[^/\s]+"


class IntakeSettings(Settings):
    """What `python -m giclee.intake` reads."""

    kafka: KafkaSettings
    database: DatabaseSettings
    process: ProcessSettings
    api_key: SecretStr = setting(env="GICLEE_API_KEY", min_length=16)
    request_ttl_h: int = setting(env="GICLEE_REQUEST_TTL_H", ge=1, le=8760)
    public_url: str | None = setting(env="GICLEE_PUBLIC_URL", pattern=_URL)
    pools: tuple[str, ...] = setting(env="GICLEE_POOLS")
    port: int = setting(8000, ge=0, le=65535, unit="port", says="Port of the requests API.")
    assets_url: str | None = setting(
        None, pattern=_URL, says="What callers see the publisher's assets API as; absent means GICLEE_PUBLIC_URL."
    )
    policy_url: str | None = setting(
        None, pattern=_URL, says="Policy's health port, asked for a dry run's verdict; absent: dry runs answer 503."
    )
    router_url: str | None = setting(
        None, pattern=_URL, says="The router's health port, asked for a dry run's quote; absent: as for policy."
    )
    quote_deadline_s: float = setting(
        3.0, gt=0, le=30, unit="s", says="Longest a dry run waits for policy and router together."
    )
    scorer_url: str | None = setting(
        None, pattern=_URL, says="The scorer's health port, asked for evaluations; absent: they answer 503."
    )
    evaluation_deadline_s: float = setting(
        40.0, gt=0, le=300, unit="s", says="Longest an evaluation waits for the scorer; a hostile file may take 20."
    )
    evaluations_max: int = setting(
        2, ge=1, le=64, says="Evaluations answered at once, each with its picture in memory; more are refused as busy."
    )

    def links_from(self) -> str:
        """What links in answers start with: the public address, else the address that is bound."""
        return (self.public_url or f"http://{self.process.bind_host}:{self.port}").rstrip("/")

    def assets_from(self) -> str:
        """What links to assets start with."""
        return (self.assets_url or self.links_from()).rstrip("/")
