"""SAM: encoder, adapters, prompts, and the segmenter built of them."""
