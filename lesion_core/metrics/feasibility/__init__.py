"""Can published numbers be true together? Arithmetic alone decides; no data are needed."""
