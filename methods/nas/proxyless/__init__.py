"""ProxylessNAS: a search over paths with only a few paths in memory at a time (Cai, Zhu and Han 2019)."""
