"""What Git starts: one module for each filter, driver and hook."""
