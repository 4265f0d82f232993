"""The work on blocks done by the workers of a Dask cluster, which see the same files."""
