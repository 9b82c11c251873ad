"""Tiny random models made at run time: a StableDiffusionPipeline folder and an open_clip folder, no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def tokenizer(length: int = 20) -> Any:
    """A word-level tokenizer that knows the shapes world's words, reading `length` tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from giclee.models import world

    known = ["a", "an", "on", "background", ",", "in", "with", "picture", "of", "the", "is", "and", "something"]
    known += [word for many in world.ALTERNATIVES.values() for word in many]
    vocabulary = {word: at for at, word in enumerate(["<start>", "<end>", "<unknown>", *dict.fromkeys(known)])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unknown>",
        pad_token="<end>",
        model_max_length=length,
    )


def pipeline_folder(folder: Path, seed: int = 0) -> Path:
    """A StableDiffusionPipeline of random weights that makes 64 x 64 in a fraction of a second."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    words = tokenizer()
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=20,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, timestep_spacing="trailing", steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def clip_folder(folder: Path, seed: int = 0) -> Path:
    """An open_clip folder of random weights that knows the shapes world's words, as `local-dir:` loads it."""
    words = tokenizer()
    text = {"context_length": 20, "vocab_size": len(words), "hf_tokenizer_name": "tokenizer-of-this-folder"}
    _clip_files(folder, seed, {**text, "pool_type": "last"})
    words.save_pretrained(folder)
    return folder


def byte_pair_clip_folder(folder: Path, seed: int = 0) -> Path:
    """An open_clip folder of random weights that reads as OpenAI's models do: every word, up to 77 tokens."""
    return _clip_files(folder, seed, {"context_length": 77, "vocab_size": 49408})


def _clip_files(folder: Path, seed: int, text: dict[str, Any]) -> Path:
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    vision = {"image_size": 64, "patch_size": 16, "layers": 1, "width": 32, "head_width": 16}
    model_cfg = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": {**text, "width": 32, "heads": 2, "layers": 1}}
    preprocess = {
        "size": [64, 64],
        "mode": "RGB",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    model = open_clip.model.CLIP(**model_cfg)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: one.contiguous() for name, one in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess}))
    return folder
