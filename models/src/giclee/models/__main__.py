"""`python -m giclee.models train | measure | grid | worst | manifest`: trains, measures, shows and seals the models."""

import argparse
from pathlib import Path

from giclee.models.manifest import write_all
from giclee.models.measure import measure
from giclee.models.sampling import SAMPLING
from giclee.models.sheet import draw_sheet, draw_worst
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
    measuring.add_argument("--judge", action="store_true", help="only the figures that a new judge changes")
    sheet = verbs.add_parser("grid", help="draw a labelled contact sheet")
    sheet.add_argument("png", type=Path)
    worst = verbs.add_parser("worst", help="draw the validation pictures that the judge ranks worst")
    worst.add_argument("png", type=Path)
    worst.add_argument("--of", choices=SAMPLING, default="shapes-final")
    sealing = verbs.add_parser("manifest", help="write the manifests")
    for verb in (measuring, sheet, worst, sealing):
        verb.add_argument("--models", type=Path, default=SHIPPED, help="folder that holds shapes-final and the others")
    run(parser.parse_args())


def run(asked: argparse.Namespace) -> None:
    """Do one verb."""
    match asked.verb:
        case "train":
            train(asked.out, asked.seed)
        case "measure":
            measure(asked.models, judge_only=asked.judge)
        case "grid":
            draw_sheet(asked.models, asked.png)
        case "worst":
            draw_worst(asked.models, asked.of, asked.png)
        case "manifest":
            for name, revision in write_all(asked.models).items():
                print(revision, name)


if __name__ == "__main__":
    main()
