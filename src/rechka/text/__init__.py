"""Text after recognition, and text as it is compared."""
