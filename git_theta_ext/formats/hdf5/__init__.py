"""HDF5, read without h5py."""
