"""Networks as torch modules: forward for training, step for streaming. Recognition never imports this package."""
