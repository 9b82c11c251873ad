"""Pictures made elsewhere: the verdict of the line over HTTP, kept only when asked, whoever sends whatever."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from giclee.bus.errors import Transient
from giclee.cli.__main__ import app as command_line
from giclee.intake import api, call
from giclee.intake.evaluation import FILE_MAX_BYTES
from giclee.schemas.parts import BlobRef
from giclee.scorer.gate import Gate
from giclee.scorer.handle import Scorer
from tests.integration.test_intake_api import problem
from tests.integration.test_scorer_images import NO_ANSWERS, Says, generated
from tests.kit.evaluating import GOOD, PROMPT, HeldUp, Line, answered, line, of_tenant
from tests.kit.pictures import file_of, hostile, odd_but_good, rendered
from tests.kit.service_process import free_port
from tests.kit.wait import until
from tests.unit.intake.desk import API_KEY

NOTHING = {"evaluations": 0, "idempotency": 0, "requests": 0, "outbox": 0}
PNG = file_of(rendered(), "PNG")


async def put(by: Scorer, key: str, body: bytes = GOOD, content_type: str = "image/webp") -> dict[str, Any]:
    """A blob's reference as a caller names it."""
    ref = await by.blobs.put(key, body, content_type, width=64, height=64)
    return ref.model_dump()


# ---- the verdict --------------------------------------------------------------------------------


async def test_a_file_is_judged_on_every_dimension_and_nothing_is_stored(database: str) -> None:
    """200 with the scores, the gate's version and what was judged; the database is as it was."""
    async with line(database) as made:
        answer = await made.post(GOOD, asset_type="poster")  # an operator's own: the rows for all
        body = answer.json()

        assert answer.status_code == 200, answer.text
        assert (body["verdict"], body["stored"], body["asset_type"]) == ("pass", False, "poster")
        assert (body["sha256"], body["size_bytes"]) == (hashlib.sha256(GOOD).hexdigest(), len(GOOD))
        assert (body["width"], body["height"], len(body["phash"])) == (64, 64, 192)
        assert body["gate_version"] == made.by.judge.gates.now().version
        assert set(body["scores"]) == made.by.judge.gates.now().required("poster", 64)
        told = body["scores"]["sharpness"]
        assert {"value", "threshold", "verdict", "evaluator", "evaluator_version", "reason"} <= told.keys()
        assert await made.kept() == NOTHING
        assert (await made.desk.http.get(f"/v1/evaluations/{body['evaluation_id']}")).status_code == 404
        assert not made.by.store.rows and not made.by.blobs.stored  # type: ignore[attr-defined]


async def test_both_doors_of_the_scorer_give_the_same_scores(database: str) -> None:
    """The same bytes with the same claims: by the event, as a file, and as a blob; good, odd, hostile."""
    some = dict(list(hostile().items())[::12])
    async with line(database) as made:
        for name, body in (odd_but_good() | some | {"good": GOOD}).items():
            event = await generated(made.by, body, "image/webp", prompt=PROMPT, asset_type="generic")
            (scored,) = await made.by.handle(event)
            expected = scored.model_dump(mode="json")
            ref = await put(made.by, f"candidates/default/{hashlib.sha256(body).hexdigest()}", body)
            by_blob = (await made.post(image=ref)).json()
            assert by_blob["scores"] == expected["scores"], name
            names = ("verdict", "phash", "gate_version")
            assert [by_blob[one] for one in names] == [expected[one] for one in names], name
            by_file = (await made.post(body, content_type="image/webp")).json()
            assert by_file["scores"] == expected["scores"], name


async def test_a_type_is_judged_where_one_is_claimed(database: str) -> None:
    """A PNG sent as image/webp fails on its format, as a reference that lies does; sent as bytes it is what it is."""
    async with line(database) as made:
        lied = (await made.post(PNG, content_type="image/webp")).json()
        plain = (await made.post(PNG)).json()

    assert (lied["verdict"], lied["scores"]["format"]["verdict"]) == ("fail", "fail")
    assert (plain["verdict"], plain["scores"]["format"]["value"]) == ("pass", 1.0)


async def test_no_hostile_file_is_a_failure_of_ours(database: str) -> None:
    """Over 150 of them through the door: each 200 with a verdict that is no pass, and the decoder of the line rests."""
    async with line(database) as made:
        for name, body in hostile().items():
            answer = await made.post(body)
            assert answer.status_code == 200, (name, answer.text)
            found = answer.json()
            assert found["verdict"] in ("fail", "unsure"), name
            assert found["scores"]["format"]["reason"].startswith("decoding"), name
            assert (found["phash"], found["width"]) == (None, None), name
        assert made.by.judge.decoder._child is None, "files of strangers have a decoder of their own"
        assert (await made.post(GOOD)).json()["verdict"] == "pass"


@pytest.mark.parametrize("value", NO_ANSWERS, ids=repr)
async def test_a_dimension_that_does_not_answer_is_unsure(database: str, value: Any) -> None:
    """None, NaN, infinity and failures travel as JSON and never pass."""
    async with line(database, alignment=Says(value)) as made:
        found = (await made.post(GOOD)).json()

    assert (found["verdict"], found["scores"]["alignment"]["verdict"]) == ("unsure", "unsure")
    assert found["scores"]["alignment"]["value"] is None


# ---- what cannot be asked -----------------------------------------------------------------------


def form(*parts: tuple[str, bytes], boundary: str = "b") -> bytes:
    """A form by hand: (headers, body) of each part."""
    framed = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + body + b"\r\n" for head, body in parts)
    return framed + f"--{boundary}--\r\n".encode()


def field(name: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"'


FILE = (field("file"), b"x")
SAID = (field("prompt"), b"a red square")
FORM = "multipart/form-data; boundary=b"
BROKEN = [
    (form(FILE), FORM, 422, "/prompt"),
    (form(SAID), FORM, 422, "/file"),
    (form(SAID, FILE, FILE), FORM, 422, "/file"),
    (form(SAID, FILE, (field("promt"), b"x")), FORM, 422, "/promt"),
    (form((field("prompt"), b""), FILE), FORM, 422, "/prompt"),
    (form((field("prompt"), b"x" * 4001), FILE), FORM, 422, "/prompt"),
    (form((field("prompt"), b"a\x00b"), FILE), FORM, 422, "/prompt"),
    (form(SAID, FILE, (field("asset_type"), b"\xff")), FORM, 400, "/asset_type"),
    (form(SAID, FILE, (field("asset_type"), b"Product Tile")), FORM, 422, "/asset_type"),
    (form(SAID, FILE, (field("store"), b"yes")), FORM, 422, "/store"),
    (form(SAID, FILE, (field("image"), b"{}")), FORM, 422, "/image"),
    (form(SAID, *((field(f"x{number}"), b"") for number in range(20))), FORM, 422, "/x15"),
    (form(SAID, (field("file") + "\r\nContent-Transfer-Encoding: base64", b"eA==")), FORM, 400, ""),
    (form(SAID, ("Content-Type: image/png", b"x")), FORM, 400, ""),
    (form(SAID, ("no colon", b"x")), FORM, 400, ""),
    (form(SAID, (field("file") + "\r\nx: " + "y" * 9000, b"x")), FORM, 400, ""),
    (form(SAID, FILE)[:-20], FORM, 400, ""),
    (form(SAID, FILE), "multipart/form-data; boundary=c", 400, ""),
    (form(SAID, FILE), "multipart/form-data", 400, ""),
    (b"", FORM, 400, ""),
    (b"--b", FORM, 400, ""),
    (b"{", "application/json", 400, ""),
    (b"[]", "application/json", 422, ""),
    (b'{"prompt": "x"}', "application/json", 422, "/image"),
    (b'{"prompt": "x", "image": {"url": "http://169.254.169.254/"}}', "application/json", 422, "/image/url"),
    (b'{"prompt": "x", "image": "http://169.254.169.254/"}', "application/json", 422, "/image"),
    (b'{"prompt": "x", "image": {"bucket": "b"}}', "application/json", 422, "/image/key"),
    (b"x", "image/png", 415, None),
    (b"x", "", 415, None),
]


@pytest.mark.parametrize(("body", "kind", "status", "pointer"), BROKEN, ids=range(len(BROKEN)))
async def test_what_cannot_be_asked_names_what_is_wrong(
    database: str, body: bytes, kind: str, status: int, pointer: str | None
) -> None:
    """A problem with the pointer, before the scorer is asked."""
    asked = HeldUp()
    async with line(database, judging=asked) as made:
        answer = await made.desk.http.post("/v1/evaluations", content=body, headers={"Content-Type": kind})
        said = problem(answer, status, answer.json()["code"])

    assert pointer is None or pointer in [one["pointer"] for one in said["errors"]], said
    assert asked.asked == []


async def test_a_file_over_the_limit_is_refused(database: str) -> None:
    """20 MiB pass the door; one byte more does not, by its declared length or as it is read; nobody is asked."""
    async with line(database) as made:
        largest = await made.post(bytes(FILE_MAX_BYTES))
        assert (largest.status_code, largest.json()["verdict"]) == (200, "fail")
        problem(await made.post(bytes(FILE_MAX_BYTES + 1)), 413, "too_large")
        declared = {"Content-Type": FORM, "Content-Length": str(2**40)}
        problem(await made.desk.http.post("/v1/evaluations", content=b"", headers=declared), 413, "too_large")

        async def endless() -> Any:
            while True:
                yield bytes(2**20)

        streamed = await made.desk.http.post("/v1/evaluations", content=endless(), headers={"Content-Type": FORM})
        problem(streamed, 413, "too_large")


async def test_a_body_that_does_not_arrive_is_given_up(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """408, and its place is free again."""
    monkeypatch.setattr(call, "READ_MAX_S", 0.05)
    async with line(database) as made:

        async def stuck() -> Any:
            yield b"--b"
            await asyncio.Event().wait()

        for _ in range(3):
            answer = await made.desk.http.post("/v1/evaluations", content=stuck(), headers={"Content-Type": FORM})
            problem(answer, 408, "too_slow")


async def test_without_the_key_nothing_is_read(database: str) -> None:
    """401 for both routes."""
    async with line(database) as made:
        made.desk.http.headers["Authorization"] = "Bearer wrong"
        problem(await made.post(GOOD), 401, "unauthenticated")
        problem(await made.desk.http.get("/v1/evaluations/x"), 401, "unauthenticated")


# ---- blobs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["candidates", "assets"])
async def test_an_own_blob_is_judged(database: str, folder: str) -> None:
    """By its reference, whatever the picture is kept as."""
    async with line(database) as made:
        answer = await made.post(image=await put(made.by, f"{folder}/default/r/c-0-1"))

    assert (answer.status_code, answer.json()["verdict"]) == (200, "pass")


@pytest.mark.parametrize(
    "key",
    [
        "candidates/acme/r/c", "assets/acme/r/c", "candidates/default/../acme/r/c", "candidates/default/./c",
        "candidates/defaulted/c", "candidates/default", "candidates/default//c", "other/default/c",
        "/candidates/default/c",
    ],
)  # fmt: skip
async def test_a_blob_of_another_tenant_cannot_be_named(database: str, key: str) -> None:
    """Refused by its name alone: the answer is the same whether there is such a blob or not, and nobody asks for it."""
    ref = BlobRef(bucket="memory", key=key, sha256="0" * 64, size_bytes=1, content_type="x", width=1, height=1)
    async with line(database) as made:
        made.by.blobs.stored[key] = GOOD  # type: ignore[attr-defined]
        there = problem(await made.post(image=ref.model_dump()), 422, "blob_unusable")
        made.by.blobs.stored.clear()  # type: ignore[attr-defined]
        gone = problem(await made.post(image=ref.model_dump()), 422, "blob_unusable")

    assert (there["errors"][0]["pointer"], there["detail"]) == ("/image/key", gone["detail"])


@pytest.mark.parametrize(
    "changes",
    [{"bucket": "other"}, {"key": "candidates/default/none"}, {"sha256": "0" * 64}, {"size_bytes": 7}],
    ids=repr,
)
async def test_a_reference_that_names_no_readable_blob_is_refused(database: str, changes: dict[str, Any]) -> None:
    """Another bucket, gone, other bytes: 422 that names the reference, no verdict."""
    async with line(database) as made:
        answer = await made.post(image=await put(made.by, "candidates/default/c") | changes)

    assert problem(answer, 422, "blob_unusable")["errors"][0]["pointer"] == "/image"


async def test_another_tenants_evaluations_are_not_there(database: str) -> None:
    """Neither read nor replayed: 404 for its id, and the same key is another key."""
    async with line(database) as made, of_tenant(made, "acme") as acme:
        mine = (await made.post(GOOD, key="k", store="true")).json()
        path = f"/v1/evaluations/{mine['evaluation_id']}"
        assert (await made.desk.http.get(path)).status_code == 200
        problem(await acme.get(path), 404, "not_found")
        files = {"file": ("picture", GOOD, "application/octet-stream")}
        asked = {"prompt": PROMPT, "store": "true"}
        theirs = await acme.post("/v1/evaluations", data=asked, files=files, headers={"Idempotency-Key": "k"})
        assert theirs.status_code == 200 and "idempotent-replayed" not in theirs.headers
        problem(await made.desk.http.get(f"/v1/evaluations/{theirs.json()['evaluation_id']}"), 404, "not_found")
        own = {"prompt": PROMPT, "image": await put(made.by, "candidates/default/c")}
        problem(await acme.post("/v1/evaluations", json=own), 422, "blob_unusable")


# ---- keys and keeping ---------------------------------------------------------------------------


async def test_the_same_key_and_body_replays_the_answer(database: str) -> None:
    """The scorer is asked once; the boundary of the form is no part of the body; nothing but the answer is kept."""
    alignment = Says()
    async with line(database, alignment=alignment) as made:
        first, again = await made.post(GOOD, key="k"), await made.post(GOOD, key="k")

        assert first.json() == again.json() and alignment.measured == 1
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        assert await made.kept() == NOTHING | {"idempotency": 1}
        kept = await made.desk.pool.fetchval("SELECT answer FROM intake.idempotency")
        assert "prompt" not in kept


@pytest.mark.parametrize(
    "other",
    [{"prompt": "x"}, {"asset_type": "email-hero"}, {"store": "true"}, {"content_type": "image/webp"}, {"body": PNG}],
    ids=repr,
)
async def test_the_same_key_with_another_body_is_refused(database: str, other: dict[str, Any]) -> None:
    """422, whichever part differs; the first answer stands."""
    async with line(database) as made:
        first = await made.post(GOOD, key="k")
        problem(await made.post(**{"body": GOOD, "key": "k"} | other), 422, "idempotency_mismatch")
        assert (await made.post(GOOD, key="k")).json() == first.json()


async def test_a_key_in_flight_is_409(database: str) -> None:
    """With Retry-After; the answer then replays, and the scorer was asked once."""
    held = HeldUp()
    async with line(database, judging=held) as made:
        first = asyncio.create_task(made.post(GOOD, key="k"))
        await until(lambda: held.asked)
        second = await made.post(GOOD, key="k")
        problem(second, 409, "idempotency_in_flight")
        assert second.headers["retry-after"]
        problem(await made.post(PNG, key="k"), 422, "idempotency_mismatch")
        held.go.set()
        assert (await first).status_code == 200
        assert (await made.post(GOOD, key="k")).json() == (await first).json()
        assert len(held.asked) == 1


async def test_a_key_without_an_answer_is_free_again(database: str) -> None:
    """What could not be answered may be asked again under the same key, also with another body."""
    calls: list[bytes | None] = []

    async def once_away(values: dict[str, Any], file: bytes | None) -> dict[str, Any]:
        calls.append(file)
        if len(calls) == 1:
            raise Transient("the bucket is away")
        return answered()

    async with line(database, judging=once_away) as made:
        problem(await made.post(GOOD, key="k"), 503, "scorer_unavailable")
        assert (await made.kept())["idempotency"] == 0
        assert (await made.post(PNG, key="k")).status_code == 200


async def test_a_key_whose_holder_died_is_free_after_a_while(database: str) -> None:
    """A claim that nobody answers runs out; until then it is in flight."""
    async with line(database) as made:
        assert (await made.post(GOOD, key="k")).status_code == 200
        await made.desk.pool.execute(
            "UPDATE intake.idempotency SET answer = NULL, claim = gen_random_uuid(), "
            "claimed_until = clock_timestamp() + interval '1 minute'"
        )
        problem(await made.post(GOOD, key="k"), 409, "idempotency_in_flight")
        await made.desk.pool.execute(
            "UPDATE intake.idempotency SET claimed_until = claimed_until - interval '2 minutes'"
        )
        assert "idempotent-replayed" not in (await made.post(GOOD, key="k")).headers
        assert "idempotent-replayed" in (await made.post(GOOD, key="k")).headers


async def test_who_lost_the_key_keeps_nothing(database: str) -> None:
    """A holder so slow that another took its key stores no second answer and no evaluation."""
    held = HeldUp()
    async with line(database, judging=held) as made:
        slow = asyncio.create_task(made.post(GOOD, key="k", store="true"))
        await until(lambda: held.asked)
        await made.desk.pool.execute("UPDATE intake.idempotency SET claim = gen_random_uuid()")
        held.go.set()
        problem(await slow, 409, "idempotency_in_flight")
        assert await made.kept() == NOTHING | {"idempotency": 1}


async def test_a_key_is_remembered_for_a_day(database: str) -> None:
    """Then it is free for another body, and the clock drops it."""
    async with line(database) as made:
        assert (await made.post(GOOD, key="k")).status_code == 200
        await made.desk.pool.execute("UPDATE intake.idempotency SET answered_at = answered_at - interval '25 hours'")
        assert (await made.post(PNG, key="k")).status_code == 200
        await made.desk.pool.execute("UPDATE intake.idempotency SET answered_at = answered_at - interval '25 hours'")
        await made.desk.store.forget()
        assert await made.kept() == NOTHING


async def test_an_evaluation_is_kept_when_asked(database: str) -> None:
    """GET shows the answer with its prompt and its time; the picture is nowhere; after 400 days it is forgotten."""
    async with line(database) as made:
        answer = (await made.post(GOOD, store="true")).json()
        ref = await put(made.by, "assets/default/a", PNG, "image/png")
        by_blob = (await made.post(image=ref, store=True)).json()
        for one in (answer, by_blob):
            found = (await made.desk.http.get(f"/v1/evaluations/{one['evaluation_id']}")).json()
            assert found.pop("prompt") == PROMPT and found.pop("evaluated_at") and found == one
            assert one["stored"] is True
        assert await made.kept() == NOTHING | {"evaluations": 2}
        await made.desk.pool.execute("UPDATE intake.evaluations SET evaluated_at = evaluated_at - interval '401 days'")
        await made.desk.store.forget()
        assert await made.kept() == NOTHING


@pytest.mark.parametrize("name", ["x", "0" * 300, "00000000-0000-4000-8000-000000000000"])
async def test_an_evaluation_nobody_kept_is_not_found(database: str, name: str) -> None:
    """Also an id that cannot be one."""
    async with line(database) as made:
        problem(await made.desk.http.get(f"/v1/evaluations/{name}"), 404, "not_found")


# ---- load and outages ---------------------------------------------------------------------------


async def test_no_more_are_taken_than_may_be_at_once(database: str) -> None:
    """The third of two is 429 with Retry-After before it is read; the line's own images are judged meanwhile."""
    held = HeldUp()
    async with line(database, judging=held) as made:
        first = [asyncio.create_task(made.post(GOOD)) for _ in range(2)]
        await until(lambda: len(held.asked) == 2)

        async def unread() -> Any:
            raise AssertionError("nobody reads this")
            yield b""

        busy = await made.desk.http.post("/v1/evaluations", content=unread(), headers={"Content-Type": FORM})
        problem(busy, 429, "busy")
        assert busy.headers["retry-after"]
        (scored,) = await made.by.handle(await generated(made.by, GOOD))
        assert scored.verdict == "pass"  # type: ignore[attr-defined]
        held.go.set()
        assert [(await one).status_code for one in first] == [200, 200]


async def test_files_that_hang_the_decoder_hold_up_no_image_of_the_line(database: str) -> None:
    """As many as may be at once hang for as long as they may; images pass meanwhile, and whoever asked hears 503."""
    async with line(database, decoder="tests.kit.bad_decoders", deadline_s=3) as made:
        hanging = [asyncio.create_task(made.post(b"hang")) for _ in range(2)]
        for _ in range(5):
            (scored,) = await made.by.handle(await generated(made.by, GOOD))
            assert scored.verdict == "pass"  # type: ignore[attr-defined]
        assert not any(one.done() for one in hanging)
        for one in hanging:
            problem(await one, 503, "scorer_unavailable")


async def test_a_file_that_kills_the_decoder_is_unsure(database: str) -> None:
    """200: it was not judged, which is no pass; the process lives."""
    async with line(database, decoder="tests.kit.bad_decoders") as made:
        found = (await made.post(b"crash")).json()

    assert (found["verdict"], found["scores"]["format"]["verdict"]) == ("unsure", "unsure")
    assert "gave up" in found["scores"]["format"]["reason"]


async def test_a_busy_scorer_is_429(database: str) -> None:
    """Another intake may have asked it."""
    held = HeldUp()
    async with line(database, judging=held, at_once=1) as made:
        first = asyncio.create_task(made.post(GOOD))
        await until(lambda: held.asked)
        busy = await made.post(GOOD)
        problem(busy, 429, "busy")
        assert busy.headers["retry-after"]
        held.go.set()
        assert (await first).status_code == 200


async def _away(values: dict[str, Any], file: bytes | None) -> dict[str, Any]:
    raise Transient("the bucket is away")


async def _senseless(values: dict[str, Any], file: bytes | None) -> dict[str, Any]:
    return {"verdict": "pass"}


async def _hanging(values: dict[str, Any], file: bytes | None) -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


@pytest.mark.parametrize("judging", [_away, _senseless, _hanging])
async def test_a_scorer_that_is_away_slow_or_senseless_is_503(database: str, judging: Any) -> None:
    """A verdict is never guessed, and callers are told to come again."""
    async with line(database, judging=judging, deadline_s=0.5) as made:
        began = time.monotonic()
        answer = await made.post(GOOD)

    problem(answer, 503, "scorer_unavailable")
    assert answer.headers["retry-after"] and time.monotonic() - began < 5


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9"])
async def test_nobody_to_ask_is_503(database: str, url: str | None) -> None:
    """Without an address, or with nobody there; a body that cannot be used is refused all the same."""
    async with line(database) as made:
        made.desk.evaluator._scorer._url = url
        problem(await made.post(GOOD), 503, "scorer_unavailable")
        problem(await made.post(GOOD, asset_type="?"), 422, "invalid_field")


async def test_with_the_database_away_an_evaluation_without_a_key_is_answered(database: str) -> None:
    """It needs nothing of it; one with a key is 503."""
    async with line(database) as made:
        made.desk.pool.terminate()
        assert (await made.post(GOOD)).status_code == 200
        problem(await made.post(GOOD, key="k"), 503, "unavailable")


async def test_openapi_says_what_to_send(database: str) -> None:
    """A form with a file, or JSON that names a blob; what comes back; which problems."""
    async with line(database) as made:
        post = (await made.desk.http.get("/openapi.json")).json()["paths"]["/v1/evaluations"]["post"]

    assert set(post["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert {"200", "408", "409", "413", "415", "422", "429", "503"} <= post["responses"].keys()


# ---- the command line ---------------------------------------------------------------------------


async def run(made: Line, monkeypatch: pytest.MonkeyPatch, state: Path, *words: str) -> Any:
    """`giclee score` against intake behind a real server."""
    port = free_port()
    monkeypatch.setenv("GICLEE_API_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("GICLEE_API_KEY", API_KEY)
    monkeypatch.setenv("GICLEE_STATE_DIR", str(state))
    serving = asyncio.create_task(api.serve(made.desk.app, "127.0.0.1", port))
    try:
        await until(lambda: _listens(port))
        return await asyncio.to_thread(CliRunner().invoke, command_line, ["score", *words])
    finally:
        serving.cancel()
        await asyncio.wait({serving})


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_the_command_line_shows_each_dimension_and_says_whether_all_pass(
    database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Exit 0 when all pass, 1 when one does not; the ending of a file's name is no claim."""
    good, bad = tmp_path / "good.jpeg", tmp_path / "bad.png"
    good.write_bytes(GOOD)
    bad.write_bytes(b"<html>")
    async with line(database) as made:
        passed = await run(made, monkeypatch, tmp_path, str(good), "--prompt", PROMPT)
        failed = await run(made, monkeypatch, tmp_path, str(good), str(bad), "--prompt", PROMPT, "--json")
        stored = await run(made, monkeypatch, tmp_path, str(good), "--prompt", PROMPT, "--store", "--json")
        assert await made.kept() == NOTHING | {"evaluations": 1}

    assert passed.exit_code == 0, passed.output
    assert "pass as generic" in passed.stderr
    row = Gate().row("alignment", "generic", 64)
    shown = f"{row.pass_at:g}" if row is not None else "no row"
    assert [line for line in passed.stdout.splitlines() if "alignment" in line and shown in line and "pass" in line]
    assert failed.exit_code == 1
    assert [one["verdict"] for one in json.loads(failed.stdout)] == ["pass", "fail"]
    assert stored.exit_code == 0 and json.loads(stored.stdout)[0]["stored"] is True


async def test_the_command_line_says_what_is_wrong(
    database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file that cannot be read is a usage error before anything is sent; trouble of the service is a sentence."""
    good = tmp_path / "good.webp"
    good.write_bytes(GOOD)
    (tmp_path / "heavy").write_bytes(bytes(FILE_MAX_BYTES + 1))
    asked = HeldUp()
    async with line(database, judging=asked) as made:
        for words in (
            (str(good), str(tmp_path / "none.png"), "--prompt", "x"),
            (str(good), str(tmp_path / "heavy"), "--prompt", "x"),
            (str(good),),
            ("--prompt", "x"),
        ):
            assert (await run(made, monkeypatch, tmp_path, *words)).exit_code == 2, words
        wrong = await run(made, monkeypatch, tmp_path, str(good), "--prompt", "x", "--asset-type", "?")
    assert asked.asked == []
    assert wrong.exit_code == 1 and "/asset_type" in wrong.stderr
