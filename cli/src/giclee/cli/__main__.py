"""The entry point: which verbs there are, and how trouble is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from giclee.cli import (
    assets,
    config,
    db,
    demo,
    dev,
    dlq,
    doctor,
    environment,
    gate,
    lag,
    price,
    providers,
    requests,
    review,
    score,
    scorer,
    switch,
    topics,
)  # fmt: skip
from giclee.cli.output import BAD
from giclee.infra.trouble import Trouble

# name -> the typer app of the file beside this one
GROUPS: dict[str, typer.Typer] = {
    "requests": requests.app,
    "assets": assets.app,
    "review": review.app,
    "dlq": dlq.app,
    "dead": dlq.app,
    "switch": switch.app,
    "gate": gate.app,
    "price": price.app,
    "providers": providers.app,
    "config": config.app,
    "scorer": scorer.app,
    "dev": dev.app,
    "topics": topics.app,
    "db": db.app,
}

# name -> a command that has no verbs below it
COMMANDS: dict[str, Callable[..., None]] = {
    "request": requests.create,
    "score": score.score,
    "lag": lag.lag,
    "doctor": doctor.doctor,
}

# what a verb may raise when something expected is wrong; the message is the sentence that people read
EXPECTED: tuple[type[Exception], ...] = (Trouble,)

dev.app.command("demo")(demo.demo)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Image requests in, approved images out.",
)
for name, group in GROUPS.items():
    app.add_typer(group, name=name)
for name, command in COMMANDS.items():
    app.command(name)(command)


@app.callback()
def options(
    env_file: Annotated[Path | None, typer.Option(help="A dotenv file for variables that are not set.")] = None,
) -> None:
    """Image requests in, approved images out."""
    environment.load(env_file)


def main() -> None:
    """Run a verb; expected trouble becomes one sentence and exit code 1."""
    try:
        app()
    except EXPECTED as trouble:
        print(trouble, file=sys.stderr)
        sys.exit(BAD)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
