"""Reference data that workers share. A name is loaded when it is first used."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from okanjo_conductor.lookups._kinds import ABSENT, Loading, Lookup
    from okanjo_conductor.lookups.table import LookupTable

_HOME_OF = {"ABSENT": "_kinds", "Loading": "_kinds", "Lookup": "_kinds", "LookupTable": "table"}

__all__ = ["ABSENT", "Loading", "Lookup", "LookupTable"]


def __getattr__(name: str) -> object:
    module = _HOME_OF.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    home = f"{__name__}.{module}"
    __import__(home)  # `importlib` takes half a millisecond to load, in every process
    return getattr(sys.modules[home], name)
