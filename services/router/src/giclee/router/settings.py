"""What the router's two processes read from their environment."""

from __future__ import annotations

from giclee.bus.settings import DatabaseSettings, KafkaSettings, ProcessSettings, Settings, setting


class RouterSettings(Settings):
    """Settings of `python -m giclee.router`."""

    kafka: KafkaSettings
    database: DatabaseSettings
    process: ProcessSettings
    config: str | None = setting(env="GICLEE_CONFIG")
    models_dir: str = setting(env="GICLEE_MODELS_DIR")
    pools: tuple[str, ...] = setting(env="GICLEE_POOLS")
    concurrency: int = setting(64, ge=1, le=1000, says="Waves that are chosen for and stored at once.")


class RouterHealthSettings(Settings):
    """Settings of `python -m giclee.router.health`."""

    kafka: KafkaSettings
    process: ProcessSettings
    publish_every_s: float = setting(5.0, ge=0.2, le=60, unit="s", says="How often provider health is published.")
