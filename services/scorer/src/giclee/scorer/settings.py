"""Settings of the scorer: GICLEE_SCORER_* and the names it shares."""

from __future__ import annotations

from giclee.bus.settings import BlobSettings, DatabaseSettings, KafkaSettings, ProcessSettings, Settings, setting


class ScorerSettings(Settings):
    """What one scorer process reads."""

    kafka: KafkaSettings
    database: DatabaseSettings
    blobs: BlobSettings
    process: ProcessSettings
    config: str | None = setting(env="GICLEE_CONFIG")
    models_dir: str = setting(env="GICLEE_MODELS_DIR")
    clip_dir: str | None = setting(None, says="Folder of the open_clip model; else shapes-clip of the models folder.")
    second_vote: str = setting(
        "skin", says="Who votes on safety beside NudeNet: skin, clip (alignment's model), clip:FOLDER, onnx:FOLDER."
    )
    stock_dir: str | None = setting(
        None, says="Folder of PNG, JPEG and WebP frames that providers send instead of a picture; they fail."
    )
    threads: int = setting(1, ge=1, le=256, says="Threads that each dimension's model computes with.")
    batch_max: int = setting(8, ge=1, le=64, says="Pictures that a dimension measures at once.")
    concurrency: int = setting(16, ge=1, le=256, says="Images scored at once.")
    evaluations_max: int = setting(
        2, ge=1, le=64, says="Pictures made elsewhere that are judged at once beside the line's; the next is refused."
    )
    dimension_timeout_s: float = setting(
        30.0, ge=1, le=600, unit="s", says="Longest one batch may take in one dimension; then the process restarts."
    )
    unseen_hold: int = setting(
        200,
        ge=0,
        le=1_000_000,
        says="Requests whose images of a model revision that the calibration never saw are unsure; 0: none.",
    )
