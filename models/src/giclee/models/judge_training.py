"""Trains the judge on what it will see: renders, round trips, and the generators' own pictures with mistakes.

The text half learns to read first and is then left alone, so that the captions of all 1,008 scenes are encoded once.
The picture half then learns exactly the scorer's question: which of an asked attribute's alternatives the picture
shows, when the other attributes of the caption may be wrong as well. The oracle says what a training picture shows.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from giclee.models import judge, oracle, prompts, world
from giclee.models.training import Run, learning_rate

READING_STEPS = 600
STEPS = 5000
BATCH = 96
PEAK_RATE = 2e-3
# Of each batch: fresh renders, and pictures of the pool (round trips and generated ones); of the latter wrong ones.
PART_FRESH = 0.2
PART_WRONG = 0.5
# Shapes come last to the generators, and are what they get wrong.
WEIGHTS = {"size": 1.0, "colour": 0.7, "shape": 2.0, "background": 0.5}
# Weight of telling the scene among all 1,008, which keeps the picture half honest about what no caption asks.
WHOLE_WEIGHT = 0.2

_SCENES = world.all_scenes()
_NUMBER = {scene: number for number, scene in enumerate(_SCENES)}


class Pool(NamedTuple):
    """Pictures that are not plain renders, what was asked of them, and what the oracle sees in them."""

    pictures: np.ndarray  # (n, 64, 64, 3) uint8
    asked: np.ndarray  # (n,) numbers of scenes
    seen: list[oracle.Seen]

    @classmethod
    def of(cls, pictures: np.ndarray, asked: list[world.Scene]) -> "Pool":
        """Look at every picture."""
        return cls(pictures, np.array([_NUMBER[scene] for scene in asked]), [oracle.look(each) for each in pictures])

    def wrong(self) -> np.ndarray:
        """(n,) bool: pictures that do not show what was asked."""
        pairs = zip(self.seen, self.asked, strict=True)
        return np.array([s.scene != _SCENES[a] or s.overlap < oracle.OVERLAP_MINIMUM for s, a in pairs])


class Question(NamedTuple):
    """For every scene those that differ in one attribute alone, (1008, alternatives), and which of them exist."""

    neighbours: torch.Tensor
    exists: torch.Tensor

    @classmethod
    def about(cls, name: str) -> "Question":
        """Alternatives in the order of world.ALTERNATIVES."""
        rows = [
            [_NUMBER.get(scene._replace(**{name: word}), -1) for word in world.ALTERNATIVES[name]] for scene in _SCENES
        ]
        table = torch.tensor(rows)
        return cls(table.clamp(min=0), table >= 0)


def target(name: str, seen: oracle.Seen, exists: torch.Tensor) -> torch.Tensor:
    """What the alternatives' probabilities should be, (alternatives,): all on the one seen, or even where none is.

    A shape below the oracle's overlap is none, so a blob leaves every shape unlikely.
    """
    word = getattr(seen.scene, name)
    words = world.ALTERNATIVES[name]
    blob = name == "shape" and seen.overlap < oracle.OVERLAP_MINIMUM
    if word is None or blob or not exists[words.index(word)]:
        return exists / exists.sum()
    return functional.one_hot(torch.tensor(words.index(word)), len(words)).float()


def train_reading(run: Run, model: nn.Module, tokenizer: PreTrainedTokenizerFast) -> None:
    """Teach the text half to tell what a prompt asks, as prompts.train does for the generators."""
    readers = nn.ModuleDict({name: nn.Linear(judge.EMBEDDING, len(ws) + 1) for name, ws in world.ALTERNATIVES.items()})
    text = [value for name, value in model.named_parameters() if not name.startswith(("visual", "logit"))]
    optimizer = torch.optim.AdamW([*text, *readers.parameters()], 2e-3, weight_decay=1e-3)
    for step in run.steps(READING_STEPS, model=model, readers=readers, optimizer=optimizer):
        optimizer.param_groups[0]["lr"] = learning_rate(step, READING_STEPS, 2e-3)
        asked = [prompts.training_prompt(seed) for seed in run.seeds(step, 64)]
        # Noise of about a tenth of the length keeps the attributes apart in direction, which is all a CLIP compares.
        told = model.encode_text(prompts.tokens_of(tokenizer, asked), normalize=True)
        told = (told + 0.02 * torch.randn_like(told)) * judge.EMBEDDING**0.5
        loss = prompts.reading_loss(readers, told, asked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.report(step, 100, loss=loss.item())


@torch.no_grad()
def encode_captions(model: nn.Module, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Every scene in every phrasing, (phrasings, 1008, EMBEDDING), of length 1."""
    return torch.stack(
        [
            model.encode_text(
                prompts.tokens_of(tokenizer, [world.phrase(scene, number) for scene in _SCENES]), normalize=True
            )
            for number in range(len(world.PHRASINGS))
        ]
    )


def train(run: Run, model: nn.Module, captions: torch.Tensor, pool: Pool) -> nn.Module:
    """Teach the picture half. `captions` come from encode_captions, `pool` must hold no evaluation seed."""
    questions = {name: Question.about(name) for name in world.ALTERNATIVES}
    wrong = pool.wrong()
    model.visual.to(memory_format=torch.channels_last)
    learning = [*model.visual.parameters(), model.logit_scale]
    optimizer = torch.optim.AdamW(learning, PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.02)
    for step in run.steps(STEPS, model=model, optimizer=optimizer):
        optimizer.param_groups[0]["lr"] = learning_rate(step, STEPS, PEAK_RATE)
        pictures, asked, seen = _batch(run, step, pool, wrong)
        with torch.autocast("cpu", torch.bfloat16):
            features = model.encode_image(judge.pixels_of(pictures).contiguous(memory_format=torch.channels_last))
        features = functional.normalize(features.float(), dim=-1)  # (batch, EMBEDDING)
        logits = model.logit_scale.exp() * features @ captions[step % len(captions)].T  # (batch, 1008)
        loss = _loss(logits, torch.from_numpy(asked), seen, questions)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        run.report(step, 50, loss=loss.item(), scale=model.logit_scale.exp().item())
    return model


def _loss(
    logits: torch.Tensor, asked: torch.Tensor, seen: list[oracle.Seen], questions: dict[str, Question]
) -> torch.Tensor:
    losses = []
    for name, question in questions.items():
        exists = question.exists[asked]  # (batch, alternatives)
        chosen = logits.gather(1, question.neighbours[asked]).masked_fill(~exists, -1e4)
        wanted = torch.stack([target(name, each, there) for each, there in zip(seen, exists, strict=True)])
        losses.append(WEIGHTS[name] * functional.cross_entropy(chosen, wanted))
    whole = torch.tensor([_whole(each) for each in seen])
    losses.append(WHOLE_WEIGHT * functional.cross_entropy(logits, whole, ignore_index=-1))
    return torch.stack(losses).sum()


def _whole(seen: oracle.Seen) -> int:
    return _NUMBER.get(seen.scene, -1) if seen.overlap >= oracle.OVERLAP_MINIMUM else -1


def _batch(run: Run, step: int, pool: Pool, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[oracle.Seen]]:
    """Pictures, what is asked of them, and what they show."""
    chance = np.random.default_rng([run.seed, step, 5])
    fresh = run.seeds(step, round(BATCH * PART_FRESH))
    shown = [world.scene_of(seed) for seed in fresh]
    asked = [_NUMBER[_near(scene, chance)] for scene in shown]
    drawn = BATCH - len(shown)
    from_wrong = round(drawn * PART_WRONG)
    picked = np.concatenate(
        [chance.choice(np.flatnonzero(wrong), from_wrong), chance.choice(np.flatnonzero(~wrong), drawn - from_wrong)]
    )
    pictures = np.concatenate(
        [np.stack([world.render(scene, seed) for scene, seed in zip(shown, fresh, strict=True)]), pool.pictures[picked]]
    )
    seen = [oracle.Seen(scene, 1.0) for scene in shown] + [pool.seen[number] for number in picked]
    return _moved(pictures, chance), np.concatenate([asked, pool.asked[picked]]), seen


def _moved(pictures: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Mirrored left to right for half of them and shifted by up to 2 px; the world looks alike either way."""
    padded = np.pad(pictures, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    width_px = pictures.shape[1]
    moved = [
        each[y : y + width_px, x : x + width_px]
        for each, (y, x) in zip(padded, chance.integers(0, 5, (len(padded), 2)), strict=True)
    ]
    return np.stack([each[:, ::-1] if chance.random() < 0.5 else each for each in moved])


def _near(scene: world.Scene, chance: np.random.Generator) -> world.Scene:
    """The scene itself, or half the time one that differs in one attribute, which is the shape half the time."""
    if chance.random() < 0.5:
        return scene
    name = str(chance.choice(["shape", "size", "colour", "background"], p=[0.5, 0.2, 0.15, 0.15]))
    taken = {scene.colour, scene.background, getattr(scene, name)}
    return scene._replace(**{name: str(chance.choice([w for w in world.ALTERNATIVES[name] if w not in taken]))})
