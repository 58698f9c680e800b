"""Benchmarks: each beside a peer in the same run, reported as ratios, asserting nothing."""
