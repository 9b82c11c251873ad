"""The small CLIP: how likely a picture shows each attribute that its prompt asks for.

A picture is compared with the prompt and with the prompt in its alternatives, one attribute at a time; the softmax over
them is the attribute's probability, and the weakest attribute counts. The folder is an ordinary open_clip one, so
`open_clip.create_model_from_pretrained("local-dir:" + folder)` loads it as well; this is how the scorer would use it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from giclee.models import prompts, world

EMBEDDING = 128
# Pixels to about [-1, 1], as the generators have them.
PIXEL_MEAN = PIXEL_SPREAD = 0.5


def configuration(vocabulary: int) -> dict[str, Any]:
    """What open_clip_config.json holds. Text is pooled at the last position, which has seen every token before it."""
    return {
        "model_cfg": {
            "embed_dim": EMBEDDING,
            "vision_cfg": {
                # A list of layers is open_clip's ResNet: outlines need convolutions, patches of 8 px blur them.
                "image_size": world.WIDTH_PX,
                "layers": [2, 2, 2, 1],
                "width": 16,
                "head_width": 64,
            },
            "text_cfg": {
                "context_length": prompts.TOKENS,
                "vocab_size": vocabulary,
                "width": prompts.HIDDEN,
                "heads": 4,
                "layers": 2,
                "pool_type": "last",
                # Any name makes open_clip read the tokenizer from the folder itself.
                "hf_tokenizer_name": "tokenizer-of-this-folder",
            },
        },
        "preprocess_cfg": {
            "size": [world.WIDTH_PX, world.WIDTH_PX],
            "mode": "RGB",
            "mean": [PIXEL_MEAN] * 3,
            "std": [PIXEL_SPREAD] * 3,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


class Judge:
    """A CLIP and its tokenizer."""

    def __init__(self, model: torch.nn.Module, tokenize: Callable[[list[str]], torch.Tensor]) -> None:
        self.model, self.tokenize = model.eval(), tokenize

    @torch.no_grad()
    def attributes(self, pictures: np.ndarray, prompt: str) -> dict[str, np.ndarray]:
        """Per asked attribute its probability, (n,), in each of the (n, 64, 64, 3) uint8 pictures."""
        seen = self.model.encode_image(pixels_of(pictures), normalize=True)  # (n, EMBEDDING)
        found = {}
        for name, captions in world.alternatives_of(prompt).items():
            told = self.model.encode_text(self.tokenize(captions), normalize=True)  # (captions, EMBEDDING)
            likely = (self.model.logit_scale.exp() * seen @ told.T).softmax(dim=-1)  # (n, captions)
            found[name] = likely[:, 0].numpy()
        return found

    def weakest(self, pictures: np.ndarray, prompt: str) -> np.ndarray:
        """The probability of the least likely asked attribute, (n,); 1 where the prompt asks nothing of this world."""
        found = self.attributes(pictures, prompt)
        return np.min(list(found.values()), axis=0) if found else np.ones(len(pictures), dtype=np.float32)


def pixels_of(pictures: np.ndarray) -> torch.Tensor:
    """(n, 64, 64, 3) uint8 to the (n, 3, 64, 64) floats the model wants."""
    scaled = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    return (scaled - PIXEL_MEAN) / PIXEL_SPREAD


def build(vocabulary: int) -> torch.nn.Module:
    """Untrained: 1.9 M parameters."""
    return open_clip.model.CLIP(**configuration(vocabulary)["model_cfg"])


def save(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the folder that open_clip's `local-dir:` reads; weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = model.state_dict().items()
    weights = {name: (value.half() if value.is_floating_point() else value).contiguous() for name, value in kept}
    save_file(weights, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(configuration(len(tokenizer)), indent=2) + "\n")
    tokenizer.save_pretrained(folder)


def load(folder: Path) -> Judge:
    """The shipped judge, on the processor in float32. No network is used."""
    name = f"local-dir:{folder}"
    return Judge(open_clip.create_model(name), open_clip.get_tokenizer(name))
