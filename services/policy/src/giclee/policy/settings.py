"""What policy reads from its environment."""

from __future__ import annotations

from giclee.bus.settings import DatabaseSettings, KafkaSettings, ProcessSettings, Settings, setting


class PolicySettings(Settings):
    """Settings of `python -m giclee.policy`."""

    kafka: KafkaSettings
    database: DatabaseSettings
    process: ProcessSettings
    request_ttl_h: int = setting(env="GICLEE_REQUEST_TTL_H", ge=1, le=8760)
    config: str | None = setting(env="GICLEE_CONFIG")
    models_dir: str = setting(env="GICLEE_MODELS_DIR")
    concurrency: int = setting(64, ge=1, le=1000, says="Requests that are judged and stored at once.")
