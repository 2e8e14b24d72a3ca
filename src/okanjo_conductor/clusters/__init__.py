"""Where workers come from. For who writes a cluster of their own: the contract is in `_base`."""

from okanjo_conductor.clusters._base import Capabilities, Cluster, Crew, Launch, Program

__all__ = ["Capabilities", "Cluster", "Crew", "Launch", "Program"]
