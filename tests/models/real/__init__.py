"""Real models, as their users would write them: packages of others, that carry their weights."""
