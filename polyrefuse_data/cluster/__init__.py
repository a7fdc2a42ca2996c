"""Connect to Dask and Slurm, keep work in flight, and serve it on workers."""
