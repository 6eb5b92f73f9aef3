"""The image table: inspection, duplicates, views, splits and their certificate."""
