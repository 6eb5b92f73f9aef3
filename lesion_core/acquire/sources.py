"""Whether every file that a download needs can be had from somewhere, told at once and before the first byte."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from lesion_core.acquire.http import TRANSIENT, USER_AGENT, Patience
from lesion_core.acquire.mirror import Mirror
from lesion_core.acquire.ph2 import TOP
from lesion_core.acquire.registry import release
from lesion_core.acquire.unpacked import unpacked_members
from lesion_core.errors import DownloadError

MOST_SECONDS = 10.0  # to wait for a first byte


def require_sources(datasets: Mapping[str, Path], *, mirror: str | None, ph2: str | None, patience: Patience) -> None:
    """Look for every file of every dataset; nothing is fetched.

    Args:
        datasets: name -> the folder of its files; what lies there already is not looked for.
        mirror, ph2, patience: as of ``download.fetch_dataset``.

    Raises:
        DownloadError: naming all files that neither the mirror nor an official address has.
    """
    place = Mirror.of(mirror, patience)
    folder = None if place is None else place.folder
    asked = _Asked(min(patience.timeout, MOST_SECONDS))
    lacking = []
    for dataset, out in sorted(datasets.items()):
        known = release(dataset)
        unpacked = {} if folder is None else unpacked_members(known, folder)
        found = []
        for file in known.fetched():
            name = file.name if place is None else place.held_as(file.name, file.also)
            here = (out / file.name).is_file() or (folder is not None and (folder / name).is_file())
            remote = [] if place is None or folder is not None else [place.location(name)]
            found.append(here or file.name in unpacked or any(map(asked.gives, (*remote, *file.addresses))))
        if dataset == "ph2":  # one of its files is enough
            if ph2 is None and not any(found) and (folder is None or not (folder / TOP).is_dir()):
                lacking.append("PH2Dataset.rar, .zip or folder (data.ph2): it has no public address")
        else:
            lacking += [file.name for file, had in zip(known.fetched(), found, strict=True) if not had]
    if lacking:
        raise DownloadError(
            f"{len(lacking)} files can be had from nowhere, nothing was fetched:\n    " + "\n    ".join(lacking),
            file=None if mirror is None else mirror,
            remedy="put them into the mirror, connect to the network, or take their datasets out of data.datasets",
        )


class _Asked:
    """Answers of addresses; a host that does not answer is not asked again."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.dead: set[str] = set()

    def gives(self, url: str) -> bool:
        """Whether the address begins to answer; the connection is closed then. One too busy now may give it later."""
        host = urllib.parse.urlsplit(url).netloc
        request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT})
        if host in self.dead:
            return False
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                return bool(response.headers.get_content_type() != "text/html")
        except urllib.error.HTTPError as error:
            with error:
                return error.code in TRANSIENT
        except (OSError, http.client.HTTPException):
            self.dead.add(host)
            return False
