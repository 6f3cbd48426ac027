"""Speed and size as ratios: ours over a floor, measured in pairs in one run. ``python -m benchmarks --help``."""
