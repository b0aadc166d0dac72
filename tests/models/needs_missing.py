"""Cannot be imported, because of what it needs."""

import a_package_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401
