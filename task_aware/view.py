"""`python -m task_aware.view`: shows the results of infer --html in a browser, to listen to and to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse.typing import NonNegativeInt

from task_aware.base import cli
from task_aware.base.errors import OutputError


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrites the page of a results folder, with true events if a table is given, and serves it if --port is given.

    The page can also be opened from disk. See docs/viewing.md.
    """
    parser = cli.Parser(prog="python -m task_aware.view", description=main.__doc__)
    parser.add_argument("results", type=Path, help="the folder that was the --out of `infer --html`")
    text = "table of true events to show as well (filename, onset, offset, event_label)"
    parser.add_argument("--events", type=Path | None, help=text)
    text = "serve the page on this port, to this machine only, until Ctrl-C; 0 chooses a free port"
    parser.add_argument("--port", type=NonNegativeInt | None, help=text)
    options = parser.parse_args(arguments)
    # not above: help and mistakes answer without torch
    from task_aware.data.desed import read_events
    from task_aware.viewing.page import write_page
    from task_aware.viewing.serving import make_server

    page = write_page(options.results, read_events(options.events) if options.events else None)
    if options.port is None:
        print(f"written to {page}; open it in a browser")
        return
    try:
        server = make_server(options.results, options.port)
    except (OSError, OverflowError) as error:
        raise OutputError(f"port {options.port} cannot be used ({error}); give another --port, or 0") from error
    with server:
        print(f"http://127.0.0.1:{server.server_port}/ shows {options.results}; Ctrl-C ends it", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    cli.run(main, stopped="stopped")
