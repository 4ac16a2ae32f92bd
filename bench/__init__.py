"""Benchmarks: ``make bench BENCH=<name>``. Each prints a table and writes ``build/bench/<name>.json``.

A figure is a ratio to something measured in the same run where that is possible, because machines are shared and noisy.
"""
