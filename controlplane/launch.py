"""Builds the service of a process that owns an engine: the options it takes, and the backend they choose.

Rule: `up` and `engine` take the same options and come to the same service.
Must not know: HTTP, Redis, which of the two it is.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError

from controlplane import backends, data_dir, queries, stores, thresholds
from controlplane.service import Service
from optimizer import embedding, model_files
from optimizer.core.errors import ConfigurationError, ModelFileMissing
from optimizer.core.thresholds import ThresholdError, changed
from optimizer.machine import MachineModel
from optimizer.nodes import Site
from optimizer.ports import Backend, Embedder

OLLAMA_URL = "http://127.0.0.1:11434"
MOST_NODES = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What an engine can be told on the command line."""
    parser.add_argument(
        "--backend", choices=backends.NAMES, default="auto", help="what runs the models (default: %(default)s)"
    )
    parser.add_argument(
        "--ollama-url",
        action="append",
        metavar="URL",
        help=f"where Ollama is; once for each host (default: {', '.join(_default_urls())})",
    )
    parser.add_argument("--nodes", type=int, default=1, help="how many simulated cards there are (default: 1)")
    parser.add_argument(
        "--embedder",
        default=settings.EMBEDDER,
        metavar="NAME",
        help=f"what compares texts: {embedding.CHOICES} (default: %(default)s)",
    )
    parser.add_argument("--models-dir", metavar="DIR", help="model files of the embedded engine (default: models/)")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="how many times faster the simulated card runs (default: 1)"
    )
    data_dir.add_argument(parser)


def embedder(options: dict[str, Any]) -> Embedder:
    """The embedder that the options name. Raises ConfigurationError."""
    return embedding.for_serving(options["embedder"], ollama_url=_urls(options)[0])


def service(options: dict[str, Any], embed: Embedder, say: Callable[[str], None]) -> Service:
    """A service on the chosen nodes, not started; they are noted as the active ones (synchronous ORM).

    Raises ConfigurationError when the operator's choice cannot be had.
    """

    def pull(models_dir: Path) -> None:
        try:
            call_command("pull", models_dir=models_dir)
        except CommandError as error:
            raise ModelFileMissing(str(error)) from error

    if not 1 <= options["nodes"] <= MOST_NODES:
        raise ConfigurationError(f"--nodes must be between 1 and {MOST_NODES}")
    urls = _urls(options)
    found = backends.choose(
        options["backend"],
        ollama_urls=urls,
        models_dir=Path(options["models_dir"] or model_files.default_models_dir()),
        cards=_cards(options["nodes"]),
        speed=options["speed"],
        say=say,
        pull=pull,
        aside={embedding.model_on_ollama(options["embedder"])},
    )
    return Service(_noted(found, urls if found[0].name == "ollama" else [""] * len(found)), embed)


def _noted(found: Sequence[Backend], urls: Sequence[str]) -> list[Site]:
    """Note the nodes as started, the first one last: it is the active one.

    Those that an admin has switched off are left out; raises ConfigurationError when none remains.
    """
    sites: list[Site] = []
    refused: ConfigurationError | None = None
    for number, (backend, url) in reversed(list(enumerate(zip(found, urls, strict=True), start=1))):
        name = stores.node_name(backend.name, url, number)
        try:
            stores.node_started(backend.name, url, backends.threshold_defaults(backend), name)
            sites.insert(0, Site(name, backend))
        except ThresholdError:
            raise
        except ConfigurationError as error:
            refused = error
    if refused is not None and not sites:
        raise refused
    return sites


def _cards(count: int) -> list[MachineModel]:
    """The simulated cards, with the memory that their nodes have; none is smaller than the strategy's.

    On a smaller one a large model runs alone and partly outside VRAM, which the modelled card cannot do.
    """
    own, in_force, standard = queries.own_thresholds(), thresholds.current({}), MachineModel()
    names = [stores.node_name("simulated", "", number) for number in range(1, count + 1)]
    usable_mb = [changed(in_force, own.get(name, {})).usable_mb for name in names]
    return [replace(standard, usable_mb=max(standard.usable_mb, mb)) for mb in usable_mb]


def _default_urls() -> list[str]:
    return [url.strip() for url in os.environ.get("OLLAMA_URL", OLLAMA_URL).split(",") if url.strip()]


def _urls(options: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(options["ollama_url"] or _default_urls() or [OLLAMA_URL]))
