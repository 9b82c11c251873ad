"""How each shipped revision is sampled: what the manifests say and the measurements use."""

from typing import NamedTuple


class Sampling(NamedTuple):
    """How many steps the sampler takes, and how far it is pushed from the empty prompt's answer (1.0: not at all)."""

    steps: int
    guidance_scale: float


SAMPLING = {"shapes-draft": Sampling(4, 1.0), "shapes-final": Sampling(8, 1.0)}
