"""What the agent costs, measured beside its peers: `python -m benchmarks.agent`, `pytest benchmarks --benchmark-only`."""
