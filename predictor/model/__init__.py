"""Any model: loads it, runs it, and writes what it returns. Knows no queue and no Redis."""
