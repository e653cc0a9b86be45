"""What a fitted model finds of defects painted on good parts, and knobs chosen by it."""
