"""What a worker of a hosted pool reads: keys by the provider's name, addresses, deadlines; all errors at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from giclee.bus import redaction, settings
from giclee.gpu_worker.settings import GpuWorkerSettings, key_name, keys_of

NEEDED = {
    "KAFKA_BOOTSTRAP_SERVERS": "localhost:9092",
    "DATABASE_URL": "postgresql://u:p@localhost/db",
    "GICLEE_BUCKET": "bucket",
}


def test_a_key_is_named_after_its_provider_and_may_lie_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """<NAME>_API_KEY or <NAME>_API_KEY_FILE; one that is not there is not there; none is ever shown."""
    secret = tmp_path / "key"
    secret.write_text("from-a-file-1234\n")
    monkeypatch.setenv("FAL_API_KEY", "from-the-environment")
    monkeypatch.setenv("OPENAI_IMAGES_API_KEY_FILE", str(secret))
    keys = keys_of(["fal", "openai-images", "comfyui"])
    assert {name: key.get_secret_value() for name, key in keys.items()} == {
        "fal": "from-the-environment",
        "openai-images": "from-a-file-1234",
    }
    assert "environment" not in f"{keys} {redaction.redact('sent from-the-environment')}".replace("the environment", "")
    assert key_name("openai-images") == "OPENAI_IMAGES_API_KEY"


def test_every_key_that_cannot_be_read_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two variables for one key, and a file that is not there."""
    monkeypatch.setenv("FAL_API_KEY", "one")
    monkeypatch.setenv("FAL_API_KEY_FILE", str(tmp_path / "other"))
    monkeypatch.setenv("REPLICATE_API_KEY_FILE", str(tmp_path / "gone"))
    with pytest.raises(settings.BadSettings) as said:
        keys_of(["fal", "replicate"])
    assert [line.split()[0].partition("=")[0] for line in said.value.errors] == [
        "FAL_API_KEY",
        "REPLICATE_API_KEY_FILE",
    ]


def test_addresses_of_providers_come_as_pairs() -> None:
    found = settings.read(
        GpuWorkerSettings,
        {**NEEDED, "GICLEE_GPU_WORKER_BASE_URLS": "comfyui=http://10.0.0.7:8188, fal=https://queue.example/a=b"},
    )
    assert found.urls() == {"comfyui": "http://10.0.0.7:8188", "fal": "https://queue.example/a=b"}


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        (None, {"local": 1}),
        ("hosted", {"hosted": 1}),
        ("local-now:4,local", {"local-now": 4, "local": 1}),
        ("a:100,b:1,c:20", {"a": 100, "b": 1, "c": 20}),
    ],
)
def test_a_worker_serves_one_pool_or_several_with_weights(text: str | None, weights: dict[str, int]) -> None:
    """A name alone weighs 1; the order is kept."""
    said = {} if text is None else {"GICLEE_GPU_WORKER_POOL": text}
    assert list(settings.read(GpuWorkerSettings, {**NEEDED, **said}).weights().items()) == list(weights.items())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("POOL", "Local"),
        ("POOL", "local:0"),
        ("POOL", "local:101"),
        ("POOL", "local,"),
        ("POOL", "local:2,hosted,local"),
        ("BASE_URLS", "comfyui"),
        ("BASE_URLS", "comfyui=ftp://x"),
        ("BASE_URLS", "=http://x"),
        ("CALL_DEADLINE_S", "0"),
        ("PRICE_DIFFERENCE_MAX", "-0.1"),
        ("SPEND_CAP", "1"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_by_name(name: str, text: str) -> None:
    """A misspelt one too: caps are rows of the operator's file."""
    with pytest.raises(settings.BadSettings) as said:
        settings.read(GpuWorkerSettings, {**NEEDED, f"GICLEE_GPU_WORKER_{name}": text})
    assert [f"GICLEE_GPU_WORKER_{name}" in line for line in said.value.errors] == [True]
