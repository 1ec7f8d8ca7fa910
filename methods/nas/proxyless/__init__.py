"""ProxylessNAS: search over paths of which few are in memory at a time (Cai, Zhu and Han 2019)."""
