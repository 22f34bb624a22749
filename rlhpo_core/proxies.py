"""Which proxy stands between this process and an address: what is not reached may be the proxy, so messages name it."""

from __future__ import annotations

import os
import urllib.request
from urllib.parse import urlsplit


def through(url: str) -> str:
    """Words that name the proxy through which an address is asked, and who says so; empty if it is asked directly.

    Short names of a cluster are the usual cause: ``NO_PROXY`` often has the whole ones alone (``.svc.cluster.local``).
    """
    parts, proxies = urlsplit(url), urllib.request.getproxies_environment()
    proxy = proxies.get(parts.scheme)
    if not proxy or not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return ""
    variable = f"{parts.scheme}_proxy"
    origin = variable if variable in os.environ else variable.upper()
    return (
        f" through the proxy {_without_login(proxy)} (from {origin}; if it is to be asked directly, add "
        f"{parts.hostname} to NO_PROXY, or give its whole name in the cluster)"
    )


def _without_login(proxy: str) -> str:
    login, at, rest = proxy.rpartition("@")
    scheme, separator, _ = login.partition("://")
    return f"{scheme}{separator}{rest}" if at else rest
