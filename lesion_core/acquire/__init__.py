"""What comes from outside: registry, download, unpack, readers of releases, synthetic images."""
