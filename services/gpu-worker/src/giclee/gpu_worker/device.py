"""Where the models run, and why there. Torch is set up here, once."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Device:
    """A torch device and the reason it was chosen."""

    name: str
    reason: str

    def describe(self) -> str:
        """As it stands in logs and in `reproduction`: the name, and the kind of hardware that bits depend on."""
        if self.name.startswith("cuda"):
            return f"{self.name} ({torch.cuda.get_device_name(self.name)})"
        return f"{self.name} ({torch.backends.cpu.get_cpu_capability()})"


def choose(asked: str) -> Device:
    """The device for a setting of `auto`, `cpu`, `cuda` or `cuda:N`. Errors: ValueError for one that is not there."""
    if asked == "cpu":
        return Device("cpu", "asked for")
    if not torch.cuda.is_available():
        if asked == "auto":
            return Device("cpu", f"torch {torch.__version__} finds no CUDA device")
        raise ValueError(f"{asked} was asked for and torch {torch.__version__} finds no CUDA device")
    name = "cuda:0" if asked in ("auto", "cuda") else asked
    if int(name.partition(":")[2]) >= torch.cuda.device_count():
        raise ValueError(f"{asked} was asked for and there are {torch.cuda.device_count()} devices")
    return Device(name, "asked for" if asked != "auto" else "torch finds a CUDA device")


def prepare(threads: int) -> None:
    """Set torch up for serving, in the thread that computes: all three settings belong to their thread.

    A fixed number of threads, no gradients, denormals as zero (they cost up to ten times the time on CPUs).
    """
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    torch.set_flush_denormal(True)


def out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the machine, had no memory left."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def lost(error: BaseException) -> bool:
    """Whether an error leaves the CUDA context dead for this process."""
    text = str(error)
    return "CUDA error" in text and "out of memory" not in text


def release() -> None:
    """Give cached memory back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
