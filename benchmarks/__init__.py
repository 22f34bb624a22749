"""Comparisons with peers and with the paper. Each script prints tables; docs/benchmarks.md has them."""
