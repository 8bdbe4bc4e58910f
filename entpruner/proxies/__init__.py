"""Proxies: numbers that predict, without training, how well a sub-network will train."""

from entpruner.proxies.ntk import NtkResult, ntk
from entpruner.proxies.zico import ZicoResult, zico

__all__ = ["NtkResult", "ZicoResult", "ntk", "zico"]
