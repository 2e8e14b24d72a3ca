"""Reference data that workers share. A name is loaded when it is first used."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from okanjo_conductor.lookups.table import LookupTable

__all__ = ["LookupTable"]


def __getattr__(name: str) -> object:
    if name == "LookupTable":
        from okanjo_conductor.lookups.table import LookupTable

        return LookupTable
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
