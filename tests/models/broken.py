"""Cannot be imported, because of what it does."""

raise ValueError("no weights found")
