"""Images by ComfyUI on a host of the user's own: a workflow with placeholders is queued under an id of ours.

https://docs.comfy.org/development/comfyui-server/comms_routes (POST /prompt, /history/{id}, /queue, /view)
https://github.com/comfyanonymous/ComfyUI/blob/master/script_examples/basic_api_example.py (a workflow, as "Save (API)"
writes it) and …/server.py (`prompt_id` in the body, since July 2025; older servers choose their own, and say it)

The id is made of the call's key and noted before anything is queued, and looked for before anything is queued again:
the same key is made once for as long as the server remembers it.
"""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlencode

from giclee.gpu_worker import template
from giclee.gpu_worker.attempt import BY_STATUS, Access, Attempt, Failed, Pace, Ruling, Rulings, ruled
from giclee.gpu_worker.http import Caller, Reply
from giclee.gpu_worker.provider import Ask, Capabilities, Made, ModelUnusable
from giclee.gpu_worker.template import Template
from giclee.schemas.models import Model

BASE_URL = "http://127.0.0.1:8188"
QUEUE_MAX_BYTES = 32 * 1024 * 1024
"""The queue is told with every workflow in it."""
NAMESPACE = uuid.UUID("7a0d5be8-6f4d-5d0c-9f6e-2c1b7c0c1a11")

RULINGS: Rulings = {
    **BY_STATUS,
    # by the type of an error, and by what ended a run
    "prompt_outputs_failed_validation": Ruling("invalid", billed=False),
    "invalid_prompt": Ruling("invalid", billed=False),
    "OutOfMemoryError": Ruling("invalid"),
    "execution_error": Ruling("transient"),
    "execution_interrupted": Ruling("transient"),
}


class Comfyui:
    """ComfyUI. A row's `location` is a workflow as "Save (API)" writes it, its values replaced by placeholders:
    `"text": "{prompt}"`, `"seed": "{seed}"`, `"width": "{width}"`, … A key, if any, is for a proxy in front of it."""

    name, needs_key = "comfyui", False
    capabilities = Capabilities(
        seed=True,
        negative_prompt=True,
        steps=True,
        guidance=True,
        reference_image=False,
        concurrency=4,  # one runs, the others keep it from waiting
        idempotency_key=True,
        lookup=True,
        data_terms="Nothing leaves the user's own host, which keeps what it made until somebody deletes it.",
    )

    def __init__(self, access: Access) -> None:
        headers = {"authorization": f"Bearer {access.key}"} if access.key else {}
        self.caller = Caller(BASE_URL, access, headers=headers)

    def where(self, model: Model) -> str:
        _workflow(model)
        return f"at {self.caller.base_url}"

    async def one(self, attempt: Attempt) -> Made:
        workflow = _workflow(attempt.model)
        template.tell_dropped(attempt, workflow.takes, f"the workflow of {attempt.model.name}")
        entry = await self._found(attempt)
        if entry is None:
            await self._queued(attempt, workflow)
            entry = await self._done(attempt)
        body = await self.caller.image(
            f"{self.caller.base_url}/view?{urlencode(_image(entry))}", left_s=lambda: attempt.left_s
        )
        picture = await attempt.received(body)
        return attempt.made(picture, how=f"comfyui {attempt.model.location}")

    async def _found(self, attempt: Attempt) -> dict[str, Any] | None:
        """What an earlier try at this ask came to, waited for; None where there is none to be had."""
        if attempt.earlier is None:
            call = attempt.ask.call
            if call is None or await self._asked(_id_of(call.key)) is None:
                return None
            await attempt.note(_id_of(call.key))
        try:
            return await self._done(attempt)
        except _Unknown:
            attempt.lost(billed=True)
        except _Ended as error:
            if not error.passing:
                raise
            attempt.lost(billed=error.billed is not False)
        return None

    async def _queued(self, attempt: Attempt, workflow: Template) -> None:
        call = attempt.ask.call
        # a second run needs an id of its own: the first one's is taken, if only in the history
        mine = str(uuid.uuid4()) if call is None or attempt.again else _id_of(call.key)
        attempt.pays()
        await attempt.note(mine)
        body = {"prompt": workflow.filled(attempt.ask, negative_prompt=_negative(attempt.ask)), "prompt_id": mine}
        reply = await self.caller.ask("POST", "prompt", body=body, paying=True)
        if not reply.good:
            raise _refusal(reply)
        theirs = reply.text("prompt_id")
        if theirs is None:
            raise Failed("transient", f"no prompt_id in the answer: {reply.said}")
        if theirs != mine:
            await attempt.note(theirs)

    async def _done(self, attempt: Attempt) -> dict[str, Any]:
        """The history's entry of a run that succeeded. Errors: Failed, among them _Unknown and _Ended."""
        pace = Pace()
        while True:
            entry = await self._asked_patiently(attempt.job or "")
            if entry is None:
                raise _Unknown("transient", "ComfyUI does not know the run (any more)")
            if entry:
                _refuse_failed(entry)
                return entry
            await pace.wait()

    async def _asked_patiently(self, job: str) -> dict[str, Any] | None:
        """As _asked, and empty as well where the server has no answer for now: what runs there is worth waiting for."""
        try:
            return await self._asked(job)
        except Failed as error:
            if not error.passing:
                raise
            return {}

    async def _asked(self, job: str) -> dict[str, Any] | None:
        """The history's entry of a run; empty while it waits or runs; None: nobody knows it. Errors: Failed."""
        # history, queue, history: a run that ends between the first two is in neither
        for path in (f"history/{job}", "queue", f"history/{job}"):
            reply = await self.caller.ask("GET", path, answer_max_bytes=QUEUE_MAX_BYTES)
            if not reply.good:
                failure = _refusal(reply)
                raise Failed(failure.outcome, str(failure))  # the question failed; that says nothing of the run
            if not isinstance(reply.data, dict):
                raise Failed("transient", f"an answer that is no JSON object: {reply.said}")
            entry = reply.told(job)
            if isinstance(entry, dict) and entry:
                return entry
            if path == "queue" and _is_queued(reply, job):
                return {}
        return None

    async def give_up(self, attempt: Attempt) -> bool:
        # out of the queue if it still waits there. A run that began goes on: /interrupt of older servers ends whatever
        # runs, and that may be somebody else's
        await self.caller.ask("POST", "queue", body={"delete": [attempt.job]})
        return await self._asked(attempt.job or "") is not None


class _Unknown(Failed):
    """ComfyUI cannot tell what became of a run: its history is lost with the process."""


class _Ended(Failed):
    """The run is over, without an image."""


def _workflow(model: Model) -> Template:
    """Errors: ModelUnusable."""
    told = template.in_file(model)
    found = template.of(told)
    if told is None or "prompt" not in found.takes:
        raise ModelUnusable(f"model {model.name}: location must be a workflow's .json file with {{prompt}} in it")
    return found


def _id_of(key: str) -> str:
    return str(uuid.uuid5(NAMESPACE, key))


def _negative(ask: Ask) -> str:
    """A workflow's node wants a text, also where there is none."""
    return (ask.negative_prompt or "") if ask.shape.negative else ""


def _is_queued(reply: Reply, job: str) -> bool:
    """Whether a run waits or runs: the queue's rows are [number, id, workflow, …]."""
    rows = [*(reply.told("queue_running") or ()), *(reply.told("queue_pending") or ())]
    return any(isinstance(row, list) and len(row) > 1 and row[1] == job for row in rows)


def _refuse_failed(entry: dict[str, Any]) -> None:
    """Errors: _Ended for a run that did not succeed."""
    status = entry.get("status")
    if not isinstance(status, dict) or status.get("status_str") != "error":
        return
    messages = [row for row in status.get("messages") or () if isinstance(row, list) and len(row) > 1]
    name, about = next((row for row in messages if row[0] in RULINGS), ("execution_error", {}))[:2]
    about = about if isinstance(about, dict) else {}
    kind = str(about.get("exception_type", "")).rpartition(".")[2]
    said = f"{name}: {kind} {about.get('exception_message', '')}".strip()
    failure = ruled(RULINGS, 200, [kind, str(name)], said)
    raise _Ended(failure.outcome, said, billed=failure.billed)


def _image(entry: dict[str, Any]) -> dict[str, str]:
    """The query of /view for the first picture that was saved. Errors: Failed for a run without one."""
    reply = Reply(200, {}, b"", entry)
    outputs = reply.told("outputs")
    for node in outputs if isinstance(outputs, dict) else ():
        found = reply.told("outputs", node, "images", 0)
        name = reply.text("outputs", node, "images", 0, "filename")
        if name is not None and found.get("type", "output") == "output":
            return {"filename": name, "subfolder": str(found.get("subfolder", "")), "type": "output"}
    raise Failed("unusable", "a run without an image")


def _refusal(reply: Reply) -> Failed:
    """An answer of /prompt that queues nothing: `{"error": {"type", "message", …}, "node_errors": {…}}`."""
    said = reply.text("error", "message") or reply.text("error") or reply.said
    return ruled(RULINGS, reply.status, [reply.text("error", "type")], said, retry_after_s=reply.retry_after_s)
