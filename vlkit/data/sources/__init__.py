"""Collections of samples: tables, shards, data sets, and how several become one."""
