"""Benchmarks: side by side in one run, medians and ratios; nothing here is a test."""
