"""Any model: loading it, running it, writing what it returns. Knows no id, no Redis, no HTTP."""
