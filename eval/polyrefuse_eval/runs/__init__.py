"""Run a grid of conditions: what is missing, its tasks, and the executors that compute them."""
