"""What the agent remembers: recent samples in memory, older ones in tiers on disk, asked through PromQL."""
