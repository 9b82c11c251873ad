"""Settings of the replay service."""

from __future__ import annotations

from pydantic import SecretStr

from giclee.bus.settings import BlobSettings, DatabaseSettings, KafkaSettings, ProcessSettings, Settings, setting

_URL = r"^https?://[^/\s]+"


class ReplaySettings(Settings):
    """What `python -m giclee.replay` reads."""

    kafka: KafkaSettings
    database: DatabaseSettings
    blobs: BlobSettings
    process: ProcessSettings
    api_key: SecretStr = setting(env="GICLEE_API_KEY", min_length=16)
    port: int = setting(8084, ge=0, le=65535, says="Port of the operators' API.")
    pools: str = setting("local,hosted", says="Pools whose routed topics have dead letters, separated by commas.")
    publisher_url: str | None = setting(
        None, pattern=_URL, says="The publisher's health port, asked for orders and images; absent: they are unknown."
    )
    worker_urls: str = setting(
        "", says="Health port of a worker of each pool, as `pool=url`, separated by commas; asked for claims and calls."
    )
    reconcile_interval_s: int = setting(
        60, ge=1, le=86_400, unit="s", says="Seconds between two rounds of the reconciler."
    )
    orphan_grace_h: int = setting(
        192, ge=1, le=8760, unit="h", says="Hours before an object that nothing speaks of counts as an orphan."
    )

    def workers(self) -> dict[str, str]:
        """Address by pool."""
        pairs = (one.partition("=") for one in self.worker_urls.split(",") if one)
        return {pool.strip(): url.strip() for pool, _, url in pairs}
