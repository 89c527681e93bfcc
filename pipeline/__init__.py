"""What every stage shares: records, settings, errors, shards, versions, resume, console."""
