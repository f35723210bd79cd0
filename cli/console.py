"""What all commands share when they talk: errors in one line, progress on stderr, results or JSON on stdout."""

from __future__ import annotations

import json
import logging
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from slicedet.texts import printable


@dataclass(frozen=True)
class Console:
    """Where and how much a command says."""

    quiet: bool
    verbose: bool
    as_json: bool

    def say(self, text: str) -> None:
        """A line of result on stdout, unless told to be quiet or to print JSON."""
        if not self.quiet and not self.as_json:
            click.echo(printable(text))

    def answer(self, content: dict[str, Any]) -> None:
        """The one JSON object on stdout, where asked for."""
        if self.as_json:
            click.echo(json.dumps(content, indent=2, default=str))

    def complain(self, error: Exception) -> None:
        """An error as one line on stderr, after its traceback if verbose."""
        if self.verbose:
            traceback.print_exception(error)
        click.echo(f"Error: {one_line(error)}", err=True)

    @contextmanager
    def progress(self, what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        """A bar with rate and time left on stderr; gives a function of (done, total). Silent where stderr is no
        terminal."""
        from tqdm import tqdm

        with tqdm(
            desc=printable(what),
            unit=unit,
            unit_scale=unit == "B",
            disable=True if self.quiet else None,
            file=sys.stderr,
            leave=False,
        ) as bar:

            def update(done: int, total: int) -> None:
                bar.total = total or None
                bar.update(done - bar.n)

            yield update


class Commands(click.Group):
    """A group whose commands end with one line on stderr and exit code 1 when something goes wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        from slicedet.errors import SlicedetError

        # Schedulers end jobs by SIGTERM: like Ctrl-C, it is to leave nothing half-written.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        # Paddle would have every package's log go to stderr. What GDAL has to say stands in slicedet's errors.
        if not logging.getLogger().handlers:
            logging.getLogger().addHandler(logging.NullHandler())
        try:
            with _plain_warnings():
                return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, click.UsageError, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            failure = click.ClickException("interrupted")
        except click.ClickException as error:
            failure = error
        except Exception as error:
            if ctx.meta.get(VERBOSE):
                traceback.print_exception(error)
            hint = (
                ""
                if isinstance(error, SlicedetError)
                else f"unexpected {type(error).__name__}, tell more with --verbose: "
            )
            failure = click.ClickException(hint + one_line(error))
        if ctx.meta.get(AS_JSON):
            click.echo(json.dumps({"error": failure.message}, indent=2))
        raise failure


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """slicedet's own warnings as one line each, without the place in the code."""
    from slicedet.errors import SlicedetWarning

    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if issubclass(category, SlicedetWarning):
                click.echo(f"Warning: {one_line(message)}", err=True)
            else:
                others(message, category, *rest)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


VERBOSE = "slicedet.verbose"
AS_JSON = "slicedet.json"
"""What a command was told, for the group it belongs to."""


def one_line(error: Exception | str) -> str:
    """An error's message without line breaks."""
    return printable(" ".join(str(error).split())) or type(error).__name__
