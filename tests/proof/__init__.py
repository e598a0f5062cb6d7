"""Long proofs that the agent keeps its promises; docs/reliability.md has their figures."""
