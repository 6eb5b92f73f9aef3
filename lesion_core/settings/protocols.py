"""Protocols: which pixels and splits a method sees. What two of them ask for alike lies in the folder of the first."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lesion_core.settings.base import Dataset, Name, Strict
from lesion_core.settings.data import Harmonization, Parts, Rule, SplitRule, Splits

RULES: tuple[Rule, ...] = ("leak_free", "as_published")
Home = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+-]*/(leak_free|as_published)$")]


class Protocol(Strict):
    """Pixels and splits; ``as_published``: the paper's own split, ``leak_free`` where it is the leak-free one."""

    harmonization: Harmonization
    as_published: Literal["leak_free"] | Parts = Field(default_factory=dict)


class UnderProtocol(Strict):
    """What every method has: the nearest ``protocol`` that it extends (the loader fills it in), a split ``rule``."""

    protocol: Name
    rule: Rule = "leak_free"


class Material(Strict):
    """All that the pixels and splits in ``protocols/<protocol>/<rule>/`` depend on, beside images and code."""

    splits: SplitRule
    harmonization: Harmonization


class Homes:
    """Where each protocol's pixels and splits lie under each rule.

    Args:
        protocols: of params.yaml and all papers, in order; those that a profile does not run count too, so that the
            place of a protocol's pixels does not depend on the matrix.
        datasets: that take part.
        splits: seed and shares.
    """

    def __init__(self, protocols: dict[Name, Protocol], datasets: list[Dataset], splits: Splits) -> None:
        self._datasets, self._splits = sorted(datasets), splits
        self.materials = {
            f"{name}/{rule}": self._material(protocol, rule) for name, protocol in protocols.items() for rule in RULES
        }

    def pixels(self, protocol: str, rule: Rule) -> str:
        """The folder of a protocol's pixels: the first with the same splits and harmonization."""
        own = self.materials[f"{protocol}/{rule}"]
        return next(home for home, material in self.materials.items() if material == own)

    def splits(self, home: str) -> str:
        """The folder of the split tables of a folder of pixels: the first with the same splits."""
        own = self.materials[home].splits
        return next(other for other, material in self.materials.items() if material.splits == own)

    def _material(self, protocol: Protocol, rule: Rule) -> Material:
        parts, harmonization = protocol.as_published, protocol.harmonization
        shared = self._splits.model_dump(exclude={"scale_counts"})
        if rule == "leak_free" or parts == "leak_free":
            splits = SplitRule(**shared, rule="leak_free", datasets=self._datasets)
        else:
            splits = SplitRule(**shared, rule=rule, parts=parts, scale_counts=self._splits.scale_counts)
        makers = [name for name in sorted(harmonization.reference_from) if name in self._datasets] or self._datasets
        resolved = harmonization.model_copy(
            update={"reference_from": makers if harmonization.histogram == "specification" else []}
        )
        return Material(splits=splits, harmonization=resolved)
