"""Settings of a worker: GICLEE_GPU_WORKER_* and the names it shares."""

from __future__ import annotations

from giclee.bus.settings import BlobSettings, DatabaseSettings, KafkaSettings, ProcessSettings, Settings, setting


class GpuWorkerSettings(Settings):
    """What one worker process reads."""

    kafka: KafkaSettings
    database: DatabaseSettings
    blobs: BlobSettings
    process: ProcessSettings
    config: str | None = setting(env="GICLEE_CONFIG")
    models_dir: str = setting(env="GICLEE_MODELS_DIR")
    pool: str = setting("local", pattern=r"^[a-z0-9-]{1,24}$", says="Pool whose routed candidates this worker makes.")
    device: str = setting("auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$", says="Device that models run on.")
    threads: int = setting(1, ge=1, le=256, says="Threads that torch computes with.")
    resident_max: int = setting(2, ge=1, le=16, says="Models kept in memory; the one longest unused makes room.")
    download: bool = setting(False, says="Whether a repository that is not in the local cache may be downloaded.")
    concurrency: int = setting(16, ge=1, le=256, says="Candidates claimed at once; at least twice the largest batch.")
    batch_wait_ms: float = setting(10.0, ge=0, le=1000, unit="ms", says="Wait of an idle device for others of a shape.")
    deadline_s: float = setting(300.0, ge=5, le=3600, unit="s", says="Longest that one try at a candidate may take.")
