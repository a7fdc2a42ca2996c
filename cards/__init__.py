"""Templates of data set and result cards."""
