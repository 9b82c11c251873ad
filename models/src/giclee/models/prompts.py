"""The tokenizer and the text encoder that both revisions share.

The encoder is trained first and alone, to tell what a prompt asks, and is frozen afterwards: a denoiser that must also
learn to read spends most of its steps on that. It is a plain CLIPTextModel, as the pipeline expects.
"""

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from giclee.models import world
from giclee.models.training import Run, learning_rate

STEPS = 1200
BATCH = 64
PEAK_RATE = 2e-3
# The longest phrasing has 13 tokens; the rest is room for words the world does not know.
TOKENS = 20
HIDDEN = 128
START, END, UNKNOWN = "<start>", "<end>", "<unknown>"
# Share of training prompts that leave attributes open, and that hold unknown words.
PART_OPEN = 0.12
PART_STRANGE = 0.12


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Word level, lower case, every word of the phrasings. The end fills up, as CLIP's does."""
    spoken = " ".join([*world.PHRASINGS, world.phrase_part(world.Scene()), "a an"]).split()
    words = {word for word in spoken if "{" not in word}.union(*world.ALTERNATIVES.values())
    # The end must not be number 2, for which transformers keeps an old pooling rule.
    vocabulary = {word: number for number, word in enumerate([START, END, UNKNOWN, *sorted(words)])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, 0), (END, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        pad_token=END,
        model_max_length=TOKENS,
    )


def build_encoder(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """Untrained: 2 layers of 128."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=4 * HIDDEN,
            projection_dim=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tokens_of(tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> torch.Tensor:
    """(batch, TOKENS) ids, filled up as the pipeline does it."""
    return tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def training_prompt(seed: int, wording: int = 0) -> str:
    """A prompt for a training seed's render; some leave attributes open, some hold words the world does not know."""
    chance = np.random.default_rng([seed, 3, wording])
    prompt = world.phrase(world.scene_of(seed), int(chance.integers(len(world.PHRASINGS))))
    if chance.random() < PART_OPEN:
        kept = [value if chance.random() < 0.5 else None for value in world.scene_of(seed)]
        prompt = world.phrase_part(world.Scene(*kept))
    if chance.random() < PART_STRANGE:
        words = prompt.split()
        words.insert(int(chance.choice([0, len(words)])), " ".join([UNKNOWN] * int(chance.integers(1, 4))))
        prompt = " ".join(words)
    return prompt


def train(run: Run) -> tuple[PreTrainedTokenizerFast, CLIPTextModel]:
    """Train the encoder so that a linear layer over its later positions tells all that was asked, or left open."""
    tokenizer = build_tokenizer()
    encoder = build_encoder(tokenizer)
    readers = nn.ModuleDict({name: nn.Linear(HIDDEN, len(words) + 1) for name, words in world.ALTERNATIVES.items()})
    optimizer = torch.optim.AdamW([*encoder.parameters(), *readers.parameters()], PEAK_RATE, weight_decay=1e-3)
    for step in run.steps(STEPS, encoder=encoder, readers=readers, optimizer=optimizer):
        optimizer.param_groups[0]["lr"] = learning_rate(step, STEPS, PEAK_RATE)
        prompts = [training_prompt(seed) for seed in run.seeds(step, BATCH)]
        ids = tokens_of(tokenizer, prompts)
        hidden = encoder(ids).last_hidden_state  # (batch, TOKENS, HIDDEN)
        # Positions from the first end on have seen the whole prompt; attention is causal.
        ended = (ids == tokenizer.eos_token_id).float()[..., None]
        pooled = (hidden * ended).sum(1) / ended.sum(1)  # (batch, HIDDEN)
        pooled = pooled + 0.1 * torch.randn_like(pooled)
        loss = reading_loss(readers, pooled, prompts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.report(step, 100, loss=loss.item())
    return tokenizer, encoder.eval().requires_grad_(False)


def reading_loss(readers: nn.ModuleDict, features: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """How badly the readers tell each attribute's word from (batch, HIDDEN); one past the last is: left open."""
    asked = [world.parse(prompt)._asdict() for prompt in prompts]
    losses = []
    for name, words in world.ALTERNATIVES.items():
        answers = torch.tensor([words.index(each[name]) if each[name] else len(words) for each in asked])
        losses.append(functional.cross_entropy(readers[name](features), answers))
    return torch.stack(losses).sum()
