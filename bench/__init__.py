"""Benchmarks: `python -m bench NAME`. Results and method are in bench/README.md."""
