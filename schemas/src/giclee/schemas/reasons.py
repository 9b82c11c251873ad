"""The words for why: every `code` that a Reason or a problem may carry, and what to do about it.

`giclee docs` prints this table; a test refuses a code that is not in it.
"""

from __future__ import annotations

# fmt: off
TABLE: dict[str, str] = {
    # the strict door
    "invalid_field": "A field has the wrong type or is out of range; the pointer names it.",
    "unknown_field": "The field is not part of the message; check its spelling.",
    "invalid_text": "Text contains NUL or a lone surrogate.",
    "duplicate_key": "A JSON object has the same key twice.",
    "not_finite": "A number is NaN or infinite.",
    "not_json": "The value is not JSON.",
    "not_utf8": "The value is not UTF-8.",
    "too_deep": "The value is nested deeper than 32 levels.",
    "too_large": "The value or a part of it is larger than allowed.",
    "empty_value": "The record has no value.",
    "formats_unsupported": "Several formats in one request come with a later release; send one request each.",
    "inputs_unsupported": "Input images come with a later release.",
    "webhook_unsupported": "Webhooks come with a later release; read image.closed.v1 or the events stream.",
    "parent_unsupported": "Retries and variations of an earlier request come with a later release.",
    "strict_unsupported": "Refusing every adjustment comes with a later release; adjustments are listed on the asset.",
    "batches_unsupported": "Cancelling a batch comes with a later release; cancel its requests one by one.",
    "request_id_conflict": "The id is known with other values; choose a new id.",
    "undecodable": "The record cannot be decoded as an event of its topic.",
    # policy
    "policy_rule": "A policy rule matched; `rule` names it.",
    "template_unknown": "There is no template of that id and version.",
    "template_slot": "A template's slots and the variables given do not match.",
    "asset_type_unknown": "There is no such asset type.",
    # router and workers
    "no_route": "No provider can make this image; the message says why each cannot.",
    "limit": "No provider's price fits the limit for one candidate.",
    "price_unknown": "Nobody knows what the model asks for such an image, or the price known is stale.",
    "provider_held": "The provider is held by a switch, or refused us for want of credit or a key.",
    "provider_failed": "Every provider of the chain failed for a reason that a replay cannot change.",
    "provider_transient": "Every provider of the chain failed for now; a replay may help.",
    "size_unsupported": "The model cannot make that size.",
    "param_unsupported": "The model does not take that parameter.",
    "ended": "The request had ended before this candidate was made.",
    # scorer
    "dimension_failed": "A dimension measured the image on the wrong side of its threshold.",
    "dimension_unsure": "A dimension could not tell; that never counts as a pass.",
    # publisher
    "near_duplicate": "The image is nearly the same as another of the order, or as one approved before.",
    "review_doubt": "The gate could not tell, and too few images pass without: a person decides.",
    "review_required": "The asset type wants a person to look at every image, or at this one, before its approval.",
    "review_sample": "The image was approved by the gate and drawn at random to be looked at by a person.",
    "review_override": "Somebody asked for an image that the gate failed; two people must pass it.",
    "review_failed": "A person looked at the image and did not pass it.",
    "review_withdrawn": "The request ended before a person's verdict took effect.",
    "cap_reached": "As many candidates were made as the request allows, and too few of them passed.",
    "budget_reached": "The budget does not hold another candidate, and too few have passed.",
    "closes_by_passed": "The closing time came first.",
    "cancelled": "Somebody cancelled the request.",
    "discarded": "An operator discarded the record that the request depended on.",
    "switch_refused": "A switch refuses this work; `message` has its reason.",
    # bus
    "poison": "The record can never succeed as it is.",
    "exhausted": "The record was tried as often as allowed.",
    "deadline": "The handler did not end in time.",
    "bug": "The handler failed in a way nobody foresaw.",
    "other": "A reason of a newer release.",
    # HTTP
    "unauthenticated": "The bearer key is missing or wrong.",
    "not_found": "There is no such thing for this key's tenant.",
    "request_ended": "The request has ended; nothing can change it.",
    "idempotency_mismatch": "The Idempotency-Key was used with another body.",
    "idempotency_in_flight": "A request with this Idempotency-Key is being answered; try again shortly.",
    "unsupported_query": "A query parameter is unknown or malformed.",
    "unsupported_media_type": "The body must be application/json, in UTF-8.",
    "invalid_header": "A header is malformed.",
    "unavailable": "A part that this needs is away; try again shortly.",
    "busy": "As many of these are being answered as may be at once; try again shortly.",
    "too_slow": "The body did not arrive in time.",
    "scorer_unavailable": "The scorer is away or took too long, so there is no verdict; try again shortly.",
    "blob_unusable": "The blob reference cannot be read: another tenant's or bucket's, gone, or with other bytes.",
    "url_unsupported": "Pictures are not fetched from addresses; send the file, or name a blob of this tenant.",
    "retry_unsupported": "Retrying a closed request comes with a later release.",
    "review_leased": "Another reviewer has the image at the moment.",
    "review_decided": "Somebody's verdict on the image is given.",
    "review_other_bytes": "The verdict names other bytes than those to be reviewed; look at the image again.",
    "review_not_undoable": "Only whoever gave a verdict can undo it, and only before it takes effect.",
    "review_second_reviewer": "Passing what the gate failed needs two different reviewers, both named.",
    "review_not_possible": "Only an image that was scored and is neither approved nor reviewed can be put to people.",
    "asset_revoked": "The asset was revoked; its bytes are given to nobody.",
    "method_not_allowed": "The path does not take this method.",
    "internal": "We failed; the log line with this request id says how.",
}
# fmt: on
