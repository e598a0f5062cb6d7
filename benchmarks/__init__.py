"""What the agent costs, beside its peers (`python -m benchmarks.agent`) and piece by piece (`pytest benchmarks`)."""
