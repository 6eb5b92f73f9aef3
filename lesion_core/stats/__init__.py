"""Pure statistics: paired tests, bootstrap, power."""
