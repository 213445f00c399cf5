"""The worker: plan, shard and finalize, one step a Pod."""
