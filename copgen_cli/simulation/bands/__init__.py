"""What stands in the columns of raw bands: spectra of the ground, and the GeoTIFFs that sensors make of a cell."""
