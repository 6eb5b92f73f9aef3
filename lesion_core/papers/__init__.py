"""The papers that are checked."""
