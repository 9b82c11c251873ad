"""Settings of the publisher."""

from __future__ import annotations

from pydantic import SecretStr

from giclee.bus.settings import BlobSettings, DatabaseSettings, KafkaSettings, ProcessSettings, Settings, setting
from giclee.publisher.standing import Pace


class PublisherSettings(Settings):
    """What `python -m giclee.publisher` reads."""

    kafka: KafkaSettings
    database: DatabaseSettings
    blobs: BlobSettings
    process: ProcessSettings
    api_key: SecretStr = setting(env="GICLEE_API_KEY", min_length=16)
    public_url: str | None = setting(env="GICLEE_PUBLIC_URL", pattern=r"^https?://[^/\s]+")
    port: int = setting(8082, ge=0, le=65535, says="Port of the assets API.")
    concurrency: int = setting(256, ge=1, le=2000, says="Events handled at once; they share transactions.")
    late_after_s: int = setting(
        300, ge=1, le=86_400, unit="s", says="A candidate silent for so long is late and its wave is repeated."
    )
    surplus_share: float = setting(
        0.05, ge=0, le=1, says="Passers that a later wave may bring beyond what is missing, as a share of that."
    )
    review_due_s: int = setting(
        14_400, ge=1, le=2_592_000, unit="s", says="A person should have looked at an image within this time."
    )
    review_doubts: bool = setting(
        True, says="Whether an order that would end short waits for people to look at the gate's doubts."
    )
    sweep_interval_s: float = setting(
        1.0, ge=0.05, le=60, unit="s", says="Pause between two looks at orders whose time has come."
    )
    download_link_s: int = setting(
        120, ge=1, le=300, unit="s", says="How long the link that a download redirects to is good for."
    )

    def links_from(self) -> str:
        """What links in approvals start with: the public address, else the address that is bound."""
        return self.public_url or f"http://{self.process.bind_host}:{self.port}"

    def pace(self) -> Pace:
        """How patient the publisher is."""
        return Pace(
            late_after_s=self.late_after_s,
            surplus_share=self.surplus_share,
            review_due_s=self.review_due_s,
            people=self.review_doubts,
        )
