"""Models as packages: fetched in part, locked, released and put together."""
