"""What a shipped folder holds: `manifest.json` with every file's SHA-256, and a revision that changes with any of them.

The worker compares the revision with the row that named the model, so a changed weight cannot pass as the old one.
"""

import hashlib
import json
from pathlib import Path

from giclee.models.sampling import SAMPLING
from giclee.models.world import WIDTH_PX

FILE = "manifest.json"
LICENCE = "Apache-2.0"


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in the folder but the manifest itself, by path relative to it, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def revision_of(files: dict[str, str]) -> str:
    """The first 40 hex digits of the SHA-256 over the lines `path sha256`, sorted, each ended by a newline."""
    lines = "".join(f"{path} {digest}\n" for path, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:40]


def write(folder: Path, **said: object) -> str:
    """Write the folder's manifest with what else is said about it, and return the revision."""
    files = hashes(folder)
    revision = revision_of(files)
    told = {"name": folder.name, "revision": revision, "licence": LICENCE, **said, "files": files}
    (folder / FILE).write_text(json.dumps(told, indent=2) + "\n")
    return revision


def write_all(out: Path) -> dict[str, str]:
    """Write the manifests of the three shipped folders; folder name to revision."""
    size = {"width": WIDTH_PX, "height": WIDTH_PX, "dtype": "float16"}
    written = {
        name: write(
            out / name, steps=sampling.steps, guidance_scale=sampling.guidance_scale, sampler="ddim-trailing", **size
        )
        for name, sampling in SAMPLING.items()
    }
    return {**written, "shapes-clip": write(out / "shapes-clip", **size)}


def differences(folder: Path) -> list[str]:
    """What does not agree with the folder's manifest; empty if all does."""
    told = json.loads((folder / FILE).read_text())
    found = hashes(folder)
    names = sorted({*told["files"], *found})
    wrong = [name for name in names if told["files"].get(name) != found.get(name)]
    return wrong if told["revision"] == revision_of(told["files"]) else [FILE, *wrong]
