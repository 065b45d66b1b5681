"""The samples of files as bands: their names, where nothing but the headers tells them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from rasteret_sql.errors import InterruptedReadError, UnknownBandError
from rasteret_sql.ingest.header_journal import HeaderJournal
from rasteret_sql.ingest.headers import Headers
from rasteret_sql.tiff.layout import Header

_AT_ONCE = 512
_MAX_NAME = 100
_N_SHOWN = 5

ReadHeaders = Callable[[Iterable[str]], Iterator[tuple[str, Header | None]]]
"""Reads headers side by side: each href and its header, None where it can't be read."""

KnownSamples = Mapping[str, Sequence[str | None]]
"""Files whose header is kept: their bands by number of the sample, None where one is no band."""


def header_reader(
    *,
    max_concurrent: int,
    stop: threading.Event,
    journal: HeaderJournal | None = None,
    headers: Headers | None = None,
) -> tuple[ReadHeaders, Callable[[], int]]:
    """A `ReadHeaders`, and how many requests it has made.

    Args:
        max_concurrent: Requests under way at once.
        stop: Ends the work with InterruptedReadError.
        journal: Gets the headers, so that they are not requested again.
        headers: Keeps them for the same reason, in memory; in place of the three above.
    """
    n_requests = 0
    work = headers or Headers(max_concurrent, stop, journal)

    def read(hrefs: Iterable[str]) -> Iterator[tuple[str, Header | None]]:
        nonlocal n_requests
        waiting = iter(dict.fromkeys(hrefs))
        while chunk := list(islice(waiting, _AT_ONCE)):
            work.start(chunk)
            work.wait(chunk)
            for href in chunk:
                try:
                    yield href, work.get(href).header
                except InterruptedReadError:
                    raise
                except Exception:  # noqa: BLE001 - enriching meets it again, and reports it
                    yield href, None
            n_requests += work.release(chunk)
        if journal is not None:
            journal.flush()

    return read, lambda: n_requests


def sample_names(header: Header) -> list[str]:
    """The bands of one file, one per sample: its descriptions, else ``b1``, ``b2`` and so on.

    The position in the list is the band's ``band_index``. A description that an earlier
    sample has, in whatever case, is not used again.
    """
    survey = SampleSurvey()
    survey.add("", header)
    return survey.names()


def data_samples(header: Header) -> int:
    """How many samples are data, not alpha."""
    return header.samples_per_pixel - sum(c == "alpha" for c in header.color_interpretation)


class SampleSurvey:
    """The samples of several files, and one name for each number of a sample.

    Sample n has the same name in all files: its description, if all files that describe
    it do so alike, else ``b{n}``, counted from 1.
    """

    def __init__(self) -> None:
        self._descriptions: list[set[str]] = []
        self._samples: dict[str, int] = {}

    def add(self, href: str, header: Header | None) -> None:
        """Take one more file into account; one that can't be read counts for one sample."""
        n_samples = 1 if header is None else header.samples_per_pixel
        self.add_names(href, () if header is None else header.descriptions, n_samples)

    def add_names(self, href: str, names: Sequence[str | None], n_samples: int) -> None:
        """Take a file into account of which the names of the samples are known."""
        self._samples[href] = n_samples
        while len(self._descriptions) < n_samples:
            self._descriptions.append(set())
        for number, text in enumerate(names):
            plain = " ".join((text or "").split())
            if plain and len(plain) <= _MAX_NAME:
                self._descriptions[number].add(plain)

    def descriptions(self) -> list[str]:
        """What all files call each sample, "" where they do not, or call an earlier one so."""
        found = [next(iter(texts)) if len(texts) == 1 else "" for texts in self._descriptions]
        folded = [text.casefold() for text in found]
        return ["" if folded[n] in folded[:n] else text for n, text in enumerate(found)]

    def names(self) -> list[str]:
        """The bands, by number of the sample."""
        names = self.descriptions()
        for number, text in enumerate(names):
            unique, n = text or f"b{number + 1}", 1
            while not text and unique.casefold() in {name.casefold() for name in names}:
                n += 1
                unique = f"b{number + 1}_{n}"
            names[number] = unique
        return names

    def notes(self) -> list[str]:
        """A line where files describe the same sample in different words."""
        lines = []
        for number, found in enumerate(self._descriptions, 1):
            if len(found) > 1:
                shown = ", ".join(sorted(found)[:_N_SHOWN])
                more = f" and {len(found) - _N_SHOWN} more" if len(found) > _N_SHOWN else ""
                lines.append(f"band b{number}: the files describe it as {shown}{more}")
        return lines

    def count(self, href: str) -> int:
        """How many samples a file has."""
        return self._samples.get(href, 1)

    def chosen(self, bands: Sequence[str] | None) -> dict[str, int]:
        """The bands that are asked for, and their samples.

        Names that no sample has rename the samples, in order, if there are as many. Where
        there is no file, any names do.

        Raises:
            UnknownBandError: a name that no sample has; the known ones are listed.
        """
        if not self._samples:
            return {name: number for number, name in enumerate(dict.fromkeys(bands or ["b1"]))}
        names = self.names()
        if bands is None:
            return {name: number for number, name in enumerate(names)}
        wanted = list(dict.fromkeys(bands))
        if len(wanted) == len(names) and not set(wanted) & set(names):
            return {name: number for number, name in enumerate(wanted)}
        for band in wanted:
            if band not in names:
                raise UnknownBandError.expected(
                    "bands",
                    f"samples of these files ({', '.join(names)}), or a name for each",
                    band,
                    "give band_index_map := MAP {band: sample from 0} for other names",
                )
        return {band: names.index(band) for band in wanted}
