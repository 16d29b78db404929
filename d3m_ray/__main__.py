"""The command line: `python -m d3m_ray <command> STORE` reads what the sweeps have stored."""

import sys
from typing import Annotated

import tyro
from rich.console import Console

from d3m_ray.analysis.status import render_status
from d3m_ray.store import Store, StoreError

COMMANDS = tyro.extras.SubcommandApp()

StoreArgument = Annotated[
    str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE", help="folder or URI that a sweep was given as --store")
]


@COMMANDS.command
def status(store: StoreArgument) -> None:
    """Say what of each experiment is done, failed and missing."""
    Console().print(render_status(Store(store)))


def main() -> None:
    """Run one command; a store that cannot be used is said in one line, with exit code 2."""
    try:
        COMMANDS.cli(prog="python -m d3m_ray", description=__doc__)
    except StoreError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
