"""Where workers come from. A name is loaded when it is first used, and an engine when it is needed.

For who writes a cluster of their own: the contract is in `_base`.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from okanjo_conductor.clusters._base import Capabilities, Cluster, Crew, Launch, Program
    from okanjo_conductor.clusters.dask import DaskCluster
    from okanjo_conductor.clusters.inline import InlineCluster
    from okanjo_conductor.clusters.local import LocalCluster
    from okanjo_conductor.clusters.ray import RayCluster
    from okanjo_conductor.clusters.threads import ThreadCluster

_HOME_OF = {
    "Capabilities": "_base",
    "Cluster": "_base",
    "Crew": "_base",
    "Launch": "_base",
    "Program": "_base",
    "DaskCluster": "dask",
    "InlineCluster": "inline",
    "LocalCluster": "local",
    "RayCluster": "ray",
    "ThreadCluster": "threads",
}

__all__ = [
    # clusters
    "LocalCluster",
    "RayCluster",
    "DaskCluster",
    "ThreadCluster",
    "InlineCluster",
    # to make one
    "Cluster",
    "Launch",
    "Crew",
    "Capabilities",
    "Program",
]


def __getattr__(name: str) -> object:
    module = _HOME_OF.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    home = f"{__name__}.{module}"
    __import__(home)  # only what is used is loaded
    return getattr(sys.modules[home], name)


def __dir__() -> list[str]:
    return sorted(__all__)
