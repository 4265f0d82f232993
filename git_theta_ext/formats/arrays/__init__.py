"""Arrays in many files: Zarr 2 and 3, N5, and TensorStore's OCDBT, which Orbax writes."""
