"""Pictures and texts in one space: any open_clip model in a folder, its hashes checked, one caller at a time.

The only importer of torch and open_clip in this service. Used by dimensions and detectors through what it returns:
numpy. Who asks about a picture that another one asked about gets the same row: a picture is embedded once.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors import SafetensorError

from giclee.scorer.dimension import NotUsable
from giclee.scorer.remembered import Remembered

TEXTS_MAX = 4096
"""Encoded texts kept: prompts repeat over the candidates of a request, alternatives over everything."""
MANIFEST = "manifest.json"
_ERRORS = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, SafetensorError)


class Clip:
    """An open_clip model on the CPU; callers take turns. Errors: NotUsable."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        self.name = folder.name
        self.weights_sha256 = verified(folder)
        torch.set_num_threads(threads)
        try:
            name = f"local-dir:{folder}"
            self._model, self._preprocess = open_clip.create_model_from_pretrained(name)
            self._tokenize = open_clip.get_tokenizer(name)
        except _ERRORS as error:
            raise NotUsable(f"clip: {folder} does not load: {type(error).__name__}: {error}") from error
        self._model.eval()
        self._threads = threads
        self._turn = threading.Lock()
        self._texts: OrderedDict[str, np.ndarray] = OrderedDict()
        self._unread: dict[str, str | None] = {}
        self._seen: Remembered[np.ndarray] = Remembered()
        self.embedded = 0
        """Pictures that went through the model."""
        self.scale = float(self._model.logit_scale.detach().exp())

    def pictures(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """(n, embedding) of length 1, from (height, width, 3) uint8 each; remembered while the picture lives."""
        with self._turn:
            known = [self._seen.of(one) for one in pixels]
            new = [one for one, row in zip(pixels, known, strict=True) if row is None]
            fresh = iter(self._encoded(new)) if new else iter(())
            rows = [row if row is not None else next(fresh) for row in known]
            for one, row in zip(pixels, rows, strict=True):
                self._seen.keep(one, row)
        return np.stack(rows)

    def _encoded(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        torch.set_num_threads(self._threads)  # belongs to the calling thread
        batch = torch.stack([self._preprocess(Image.fromarray(one)) for one in pixels])  # (n, 3, size, size)
        self.embedded += len(pixels)
        with torch.inference_mode():
            found: np.ndarray = self._model.encode_image(batch, normalize=True).float().numpy()
        return found

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(n, embedding) of length 1; what was encoded before is remembered."""
        with self._turn:
            return self._texts_of(texts)

    def _texts_of(self, texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            with torch.inference_mode():
                encoded = self._model.encode_text(self._tokenize(new), normalize=True).float().numpy()
            self._texts.update(zip(new, encoded, strict=True))
            self._unread.update(zip(new, self._why_not(new), strict=True))
        found: np.ndarray = np.stack([self._texts[text] for text in texts])
        for text in texts:
            self._texts.move_to_end(text)
        while len(self._texts) > TEXTS_MAX:
            forgotten, _ = self._texts.popitem(last=False)
            self._unread.pop(forgotten, None)
        return found

    def reads(self, text: str) -> str | None:
        """None when the model can read all of a text, else why not: words it never saw, or too many."""
        return self._unread[text] if text in self._unread else self._why_not([text])[0]

    def _why_not(self, texts: Sequence[str]) -> list[str | None]:
        """For each text, all in one go: to call the tokenizer costs more than a caption."""
        inner: Any = getattr(self._tokenize, "tokenizer", None)
        limit = int(getattr(self._model, "context_length", 77))
        if not callable(inner) or not hasattr(inner, "unk_token_id"):  # byte pairs: every word, but not every length
            counts = [len(self._tokenize.encode(text)) + 2 for text in texts]  # the marks of start and end
            return [_too_long(count, limit) for count in counts]
        found = inner(list(texts), truncation=False, verbose=False).input_ids
        return [self._strange(inner, text, ids, limit) for text, ids in zip(texts, found, strict=True)]

    def _strange(self, inner: Any, text: str, ids: Sequence[int], limit: int) -> str | None:
        unknown = inner.unk_token_id
        if len(ids) > limit:
            return _too_long(len(ids), limit)
        if unknown is None or unknown == inner.eos_token_id or unknown not in ids:
            return None
        words = re.findall(r"\w+", text.lower())  # a mark that it does not know says nothing about the picture
        strange = [word for word in words if inner.convert_tokens_to_ids(word) == unknown]
        return f"it does not know {', '.join(strange[:5])}" if strange else None


def _too_long(count: int, limit: int) -> str | None:
    return None if count <= limit else f"it reads {limit} tokens, the text has {count}"


@cache
def loaded(folder: Path, threads: int) -> Clip:
    """The model of a folder, the same one for all who name it in this process. Errors: NotUsable."""
    return Clip(folder, threads=threads)


def verified(folder: Path) -> str:
    """SHA-256 of the weights, every file checked against the folder's manifest where it has one.

    Errors: NotUsable naming every file that is missing or is not what it was.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise NotUsable(f"clip: {folder} has no .safetensors file; `make models` makes it")
    manifest = folder / MANIFEST
    if manifest.exists():
        try:
            told: dict[str, str] = dict(json.loads(manifest.read_text())["files"])
        except _ERRORS as error:
            raise NotUsable(f"clip: {manifest} cannot be read: {error}") from error
        wrong = [why for name, digest in sorted(told.items()) if (why := _differs(folder / name, digest))]
        if wrong:
            raise NotUsable(f"clip: {'; '.join(wrong)}")
    return hashlib.sha256(b"".join(path.read_bytes() for path in weights)).hexdigest()


def _differs(path: Path, digest: str) -> str | None:
    if not path.is_file():
        return f"{path} is missing"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    return None if found == digest else f"{path} has sha256 {found}, {MANIFEST} says {digest}"
