"""ipr run: a request on this machine, without a cluster."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

import click
from imageprocessing_contract import names, redact
from imageprocessing_contract.guard import NOT_PUBLIC
from imageprocessing_contract.reasons import ImageReason, Reason
from imageprocessing_contract.report import Report, failure_line
from imageprocessing_operator.conditions import Phase
from imageprocessing_operator.outcome import judge
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from imageprocessing_cli.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_PARTLY,
    HOW_TO_ALLOW,
    UsageError,
)
from imageprocessing_cli.local import Interrupted, LocalRun, StepFailedError
from imageprocessing_cli.local_progress import counted
from imageprocessing_cli.manifest_file import read_local_request
from imageprocessing_cli.options import allow_network
from imageprocessing_cli.printing import PLAIN

_WORDS = {
    "plan": "Processing",
    "shards": "Processing",
    "finalize": "Writing the results",
}


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the results. Running again with the same one goes on where it was.",
)
@click.option("--csv", type=click.Path(path_type=Path), help="Catalogue, instead of the source.")
@allow_network("Network that downloads may reach although it is not public. May be repeated.")
def run(file: Path, folder: Path, csv: Path | None, allowed: tuple[str, ...]) -> None:
    """Run the request in FILE on this machine, without a cluster.

    The same steps as in a cluster, as local processes: --output takes the place of
    spec.output, records.sqlite there that of Firestore. No webhook is sent.

    \b
    ipr run request.yaml --csv products.csv --output results

    Exit code: 0 all images done, 3 finished with failures, 1 failed, 2 usage or
    invalid manifest, 130 interrupted.
    """
    console = Console(stderr=True)
    request = read_local_request(file, csv)

    def again(failure: str, attempt: int, attempts: int) -> None:
        said = f"{failure}; trying again ({attempt} of {attempts})"
        console.print(said, **PLAIN)

    local = LocalRun(request, _writable(folder.resolve()), allowed, again)
    try:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as bar:
            shown = bar.add_task("Starting", total=None)

            def count(attempted: int, images: int) -> None:
                bar.update(shown, completed=attempted, total=images)

            # Nobody sees a bar that is off, and counting reads the checkpoints.
            with counted(folder, count) if console.is_terminal else nullcontext():
                report = local.run(lambda step: bar.update(shown, description=_WORDS[step]))
    except StepFailedError as error:
        failure = error.last.error if error.last else None
        if failure and failure.reason == Reason.REQUEST_ID_CONFLICT:
            message = "holds results of another catalogue or manifest; give another --output"
            raise UsageError(f"{folder.resolve()} {message}, or remove it") from error
        click.echo(f"Failed: {redact.printable(str(error))}", err=True)
        if failure and failure.reason == Reason.CATALOGUE_INVALID:
            _say_how_to_mend(failure.message, csv, allowed)
        sys.exit(EXIT_FAILED)
    except (Interrupted, KeyboardInterrupt):
        click.echo("Interrupted; run the same command again to go on.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    if report.done is None:
        click.echo("Failed: the last step said nothing of an outcome", err=True)
        sys.exit(EXIT_FAILED)
    outcome = judge(request.spec, report.done, report.catalogue)
    _say(report, outcome, folder, request.spec.request_id or request.name)
    if outcome.ready.status != "True":
        sys.exit(EXIT_FAILED)
    if outcome.ready.reason == Reason.PARTIALLY_SUCCEEDED:
        sys.exit(EXIT_PARTLY)


def _say_how_to_mend(message: str, csv: Path | None, allowed: tuple[str, ...]) -> None:
    if NOT_PUBLIC in message:
        click.echo(HOW_TO_ALLOW, err=True)
    if csv:
        options = [word for network in allowed for word in ("--allow-network", network)]
        command = shlex.join(["ipr", "validate", os.fspath(csv), *options])
        click.echo(f"Every error with its line: {command}", err=True)


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"--output {folder}: {error.strerror}"
        raise UsageError(message) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"--output {folder} is not writable"
        raise UsageError(message)
    return folder


def _say(report: Report, outcome: Phase, folder: Path, request_id: str) -> None:
    """What was done, and where it lies."""
    done, catalogue = report.done, report.catalogue
    if done is None or catalogue is None:
        return
    before, after = done.bytes.original, done.bytes.compressed
    saved = f" ({100 - 100 * after / before:.0f} % less)" if before else ""
    lines = [
        f"{outcome.ready.reason}: {outcome.ready.message}",
        f"  Rows     {catalogue.rows}",
        f"  Images   {done.images.succeeded} of {done.images.total}",
        f"  Bytes    {decimal(before)} before, {decimal(after)} after{saved}",
        f"  CSV      {folder / names.processed_csv(request_id)}",
        f"  Report   {folder / names.REPORT_HTML}",
    ]
    if done.images.failed:
        lines.append(f"  Failed   {folder / names.FAILED_CSV}")
        lines += [f"    {failure_line(failure)}" for failure in done.failures]
        if any(f.reason == ImageReason.ADDRESS_NOT_ALLOWED for f in done.failures):
            lines.append(f"  {HOW_TO_ALLOW}")
        lines.append("  To try the failures again: --csv with that file, and another --output.")
    click.echo("\n".join(lines))
