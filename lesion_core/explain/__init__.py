"""Where networks look: class activation maps, attention roll-out, and how well they point at the lesion."""
