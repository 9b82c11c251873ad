"""Settings: every error at once, every name known, secrets never shown."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from giclee.bus.setting_names import ELSEWHERE, PREFIXES, REFUSED, SHARED
from giclee.bus.settings import (
    BadSettings,
    BlobSettings,
    DatabaseSettings,
    KafkaSettings,
    ProcessSettings,
    Settings,
    describe,
    read,
    setting,
)

GOOD = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092, other:9093",
    "DATABASE_URL": "postgresql://giclee:hunter2@127.0.0.1:5432/giclee",
    "GICLEE_BUCKET": "giclee",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "hunter3",
    "GICLEE_API_KEY": "0123456789abcdef",
}


class PolicySettings(Settings):
    kafka: KafkaSettings
    database: DatabaseSettings
    blobs: BlobSettings
    process: ProcessSettings
    api_key: SecretStr = setting(env="GICLEE_API_KEY", min_length=16)
    pools: tuple[str, ...] = setting(env="GICLEE_POOLS")
    request_ttl_h: int = setting(env="GICLEE_REQUEST_TTL_H", ge=1, le=8760)
    words_max: int = setting(500, ge=1, says="Longest prompt.", unit="words")
    spend_usd: Decimal = setting(Decimal("1.5"), says="Daily spending.")


class RouterHealthSettings(Settings):
    kafka: KafkaSettings
    window_s: int = setting(60, ge=1, says="Length of a window.")


def errors_of(environment: dict[str, str], cls: type[Settings] = PolicySettings) -> tuple[str, ...]:
    with pytest.raises(BadSettings) as caught:
        read(cls, environment)
    return caught.value.errors


def test_a_good_environment_is_read_whole() -> None:
    """Values are typed, defaults fill in, lists are split, an empty variable counts as unset."""
    found = read(PolicySettings, {**GOOD, "GICLEE_POOLS": "local, big-gpu", "GICLEE_LOG_LEVEL": "", "HOME": "/root"})
    assert found.kafka.bootstrap_servers == GOOD["KAFKA_BOOTSTRAP_SERVERS"]
    assert found.pools == ("local", "big-gpu")
    assert (found.request_ttl_h, found.words_max, found.spend_usd) == (72, 500, Decimal("1.5"))
    assert found.process.log_level == "info"
    assert found.blobs.endpoint_url is None


def test_all_errors_come_at_once() -> None:
    """Whoever starts a process mends its environment in one go."""
    errors = errors_of(
        {
            "KAFKA_BOOTSTRAP_SERVERS": "nowhere",
            "GICLEE_REQUEST_TTL_H": "soon",
            "GICLEE_POLICY_WORDS_MAX": "0",
            "GICLEE_API_KEY": "short",
            "GICLEE_LOG_LEVEL": "loud",
            "AWS_SECRET_ACCESS_KEY": "x",
            "GICLEE_REQEST_TTL_H": "3",
            "GICLEE_BUCKET": "x",
        }
    )
    for name in (
        "KAFKA_BOOTSTRAP_SERVERS='nowhere'",
        "GICLEE_REQUEST_TTL_H='soon'",
        "GICLEE_POLICY_WORDS_MAX='0'",
        "GICLEE_API_KEY:",
        "GICLEE_LOG_LEVEL='loud'",
        "GICLEE_REQEST_TTL_H is no setting; did you mean GICLEE_REQUEST_TTL_H?",
        "GICLEE_BUCKET='x'",
        "DATABASE_URL is not set",
    ):
        assert sum(name in error for error in errors) == 1, name
    assert len(errors) == 8


def test_half_a_key_pair_is_an_error() -> None:
    """An access key without its secret would fail only at the first request."""
    errors = errors_of({name: text for name, text in GOOD.items() if name != "AWS_SECRET_ACCESS_KEY"})
    assert len(errors) == 1 and "AWS_SECRET_ACCESS_KEY" in errors[0]


@pytest.mark.parametrize("name", [*REFUSED, "KAFKA_SASL_PASSWORD_FILE"])
def test_what_this_release_cannot_do_is_refused_by_name(name: str) -> None:
    """Ignoring SASL, an external part or a failpoint would be worse than not starting."""
    (error,) = errors_of({**GOOD, name: "something"})
    assert name.removesuffix("_FILE") in error and "not supported by this release" in error


@pytest.mark.parametrize("protocol", ["", "PLAINTEXT", "plaintext"])
def test_plaintext_is_what_this_release_speaks(protocol: str) -> None:
    """The one protocol there is may be named."""
    read(PolicySettings, {**GOOD, "KAFKA_SECURITY_PROTOCOL": protocol})
    (error,) = errors_of({**GOOD, "KAFKA_SECURITY_PROTOCOL": "SASL_SSL"})
    assert "SASL_SSL" in error


def test_names_of_others_are_left_alone() -> None:
    """One environment file serves every process of the stack."""
    others = {name: "x" for name in ELSEWHERE if not name.endswith("_FILE")}
    others |= {f"{prefix}ANYTHING": "x" for prefix in PREFIXES if "POLICY" not in prefix}
    read(PolicySettings, {**GOOD, **others})
    read(RouterHealthSettings, {**GOOD, "GICLEE_ROUTER_STICKY": "x", "GICLEE_POLICY_TYPO": "x"})


def test_an_unknown_name_of_our_own_is_an_error() -> None:
    """A process checks the spelling of its own settings, and of names that nobody has."""
    (error,) = errors_of({**GOOD, "GICLEE_POLICY_WORD_MAX": "3"})
    assert "GICLEE_POLICY_WORDS_MAX" in error
    (error,) = errors_of({**GOOD, "GICLEE_ROUTER_HEALTH_WINDOWS": "3"}, RouterHealthSettings)
    assert "GICLEE_ROUTER_HEALTH_WINDOW_S" in error
    (error,) = errors_of({**GOOD, "GICLEE_BUCKET_FILE": "3"})
    assert error.startswith("GICLEE_BUCKET_FILE")


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    """The file's text without its last line end; the file and the variable together are an error."""
    file = tmp_path / "secret"
    file.write_text("from-the-file-16\n")
    without = {name: text for name, text in GOOD.items() if name != "GICLEE_API_KEY"}
    found = read(PolicySettings, {**without, "GICLEE_API_KEY_FILE": str(file)})
    assert found.api_key.get_secret_value() == "from-the-file-16"
    (error,) = errors_of({**GOOD, "GICLEE_API_KEY_FILE": str(file)})
    assert "both" in error
    (error,) = errors_of({**without, "GICLEE_API_KEY_FILE": str(tmp_path / "nowhere")})
    assert "GICLEE_API_KEY_FILE" in error


def test_secrets_are_never_shown() -> None:
    """Neither an error nor the settings' own text contains a secret."""
    bad = {**GOOD, "DATABASE_URL": "mysql://hunter2", "GICLEE_API_KEY": "hunter4", "GICLEE_REQUEST_TTL_H": "0"}
    assert "hunter" not in "\n".join(errors_of(bad))
    assert "hunter" not in repr(read(PolicySettings, GOOD))


def test_every_setting_is_described() -> None:
    """The docs are made of this: name, type, default, unit, a sentence, and whether it is a secret."""
    found = {one.env: one for one in describe(PolicySettings)}
    assert (found["GICLEE_POLICY_WORDS_MAX"].default, found["GICLEE_POLICY_WORDS_MAX"].unit) == ("500", "words")
    assert (found["GICLEE_POOLS"].type, found["GICLEE_POOLS"].default) == ("list of text", "local,hosted")
    assert (found["DATABASE_URL"].default, found["DATABASE_URL"].secret) == (None, True)
    assert found["GICLEE_REQUEST_TTL_H"].says == SHARED["GICLEE_REQUEST_TTL_H"].says
    assert all(one.says.endswith(".") and one.type for one in found.values())


def test_a_name_that_others_would_refuse_cannot_be_made() -> None:
    """A new shared name needs its row in the table, or every other process would call it unknown."""

    class ScorerSettings(Settings):
        odd: int = setting(1, env="GICLEE_ODD", says="Odd.")

    class UnheardSettings(Settings):
        odd: int = setting(1, says="Odd.")

    for cls in (ScorerSettings, UnheardSettings):
        with pytest.raises(TypeError):
            read(cls, {})
    with pytest.raises(TypeError):
        setting(1)
