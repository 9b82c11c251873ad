"""`python -m giclee.models train | measure | grid | manifest`: trains, measures, shows and seals the demo models."""

import argparse
from pathlib import Path

from giclee.models.manifest import write_all
from giclee.models.measure import measure
from giclee.models.sheet import draw_sheet
from giclee.models.train import train

SHIPPED = Path(__file__).resolve().parents[3]


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m giclee.models", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train", help="train everything from nothing, or go on where a run was stopped")
    training.add_argument("--out", type=Path, required=True, help="folder for the three models and the checkpoints")
    training.add_argument("--seed", type=int, default=0)
    measuring = verbs.add_parser("measure", help="print the figures of the model card")
    sheet = verbs.add_parser("grid", help="draw a labelled contact sheet")
    sheet.add_argument("png", type=Path)
    sealing = verbs.add_parser("manifest", help="write the manifests")
    for verb in (measuring, sheet, sealing):
        verb.add_argument("--models", type=Path, default=SHIPPED, help="folder that holds shapes-final and the others")
    run(parser.parse_args())


def run(asked: argparse.Namespace) -> None:
    """Do one verb."""
    match asked.verb:
        case "train":
            train(asked.out, asked.seed)
        case "measure":
            measure(asked.models)
        case "grid":
            draw_sheet(asked.models, asked.png)
        case "manifest":
            for name, revision in write_all(asked.models).items():
                print(revision, name)


if __name__ == "__main__":
    main()
