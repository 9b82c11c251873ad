"""Settings of a worker: GICLEE_GPU_WORKER_*, the names it shares, and <PROVIDER>_API_KEY of providers that bill."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from pydantic import SecretStr, field_validator

from giclee.bus import settings
from giclee.bus.settings import BlobSettings, DatabaseSettings, KafkaSettings, ProcessSettings, Settings, setting

_POOL = r"[a-z0-9-]{1,24}(:([1-9][0-9]?|100))?"


class GpuWorkerSettings(Settings):
    """What one worker process reads."""

    kafka: KafkaSettings
    database: DatabaseSettings
    blobs: BlobSettings
    process: ProcessSettings
    config: str | None = setting(env="GICLEE_CONFIG")
    models_dir: str = setting(env="GICLEE_MODELS_DIR")
    pool: str = setting(
        "local",
        pattern=rf"^{_POOL}(,{_POOL})*$",
        says="Pool whose routed candidates this worker makes, or several with their weights (1 to 100), as a:4,b:1.",
    )
    device: str = setting("auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$", says="Device that models run on.")
    threads: int = setting(1, ge=1, le=256, says="Threads that torch computes with.")
    resident_max: int = setting(2, ge=1, le=16, says="Models kept in memory; the one longest unused makes room.")
    download: bool = setting(False, says="Whether a repository that is not in the local cache may be downloaded.")
    concurrency: int = setting(
        16, ge=1, le=256, says="Candidates of a pool claimed at once; at least twice the largest batch."
    )
    batch_wait_ms: float = setting(10.0, ge=0, le=1000, unit="ms", says="Wait of an idle device for others of a shape.")
    deadline_s: float = setting(300.0, ge=5, le=3600, unit="s", says="Longest that one try at a candidate may take.")
    call_deadline_s: float = setting(
        120.0, ge=1, le=3600, unit="s", says="Longest that one call of a hosted provider may take, its image included."
    )
    base_urls: tuple[str, ...] = setting(
        (), says="Where hosted providers are asked instead of where they say, as name=url, separated by commas."
    )
    allow_private: bool = setting(
        False, says="Whether hosted providers, and the images they name, may have addresses of our own network."
    )
    price_difference_max: Decimal = setting(
        Decimal("0.1"), ge=0, le=10, says="Part of the expected cost by which a call may differ before it is an alert."
    )

    @field_validator("pool")
    @classmethod
    def _names_each_pool_once(cls, text: str) -> str:
        names = [pair.partition(":")[0] for pair in text.split(",")]
        if len(names) != len(set(names)):
            raise ValueError(f"{text!r} names a pool twice")
        return text

    @field_validator("base_urls")
    @classmethod
    def _are_urls(cls, pairs: tuple[str, ...]) -> tuple[str, ...]:
        for pair in pairs:
            name, _, url = pair.partition("=")
            if not name or not url.startswith(("https://", "http://")):
                raise ValueError(f"{pair!r} is not name=url with http or https")
        return pairs

    def weights(self) -> dict[str, int]:
        """The weight of each pool that this worker serves; a name alone weighs 1."""
        pairs = (pair.partition(":") for pair in self.pool.split(","))
        return {name: int(weight or 1) for name, _, weight in pairs}

    def urls(self) -> dict[str, str]:
        """Base address by provider."""
        return {name: url for name, _, url in (pair.partition("=") for pair in self.base_urls)}


def key_name(provider: str) -> str:
    """The variable of a provider's key: FAL_API_KEY, OPENAI_IMAGES_API_KEY; also as <NAME>_FILE."""
    return f"{provider.upper().replace('-', '_')}_API_KEY"


def keys_of(providers: Iterable[str]) -> dict[str, SecretStr]:
    """The keys that there are, by provider; one without may need none. Errors: BadSettings with all that is wrong."""
    found, errors = {}, []
    for provider in sorted(providers):
        try:
            text = settings.secret(key_name(provider))
        except ValueError as error:
            errors.append(str(error))
            continue
        if text is not None:
            found[provider] = SecretStr(text)
    if errors:
        raise settings.BadSettings(errors)
    return found
