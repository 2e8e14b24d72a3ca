"""What must stay the same from one run of a journal to the next."""

from __future__ import annotations

import json

from okanjo_conductor._plain import Frozen


class Fingerprint(Frozen):
    """The parts of a program that its outcomes depend on, as texts by name."""

    parts: dict[str, str]

    @property
    def text(self) -> str:
        """All of it, to be kept."""
        return json.dumps(self.parts)

    @classmethod
    def from_text(cls, text: str) -> Fingerprint:
        """Read it back."""
        return cls(json.loads(text))

    def differences(self, new: Fingerprint) -> str:
        """Say what is different in a new one, or ``""``."""
        names = [n for n in {**self.parts, **new.parts} if self.parts.get(n) != new.parts.get(n)]
        return "\n".join(names)
