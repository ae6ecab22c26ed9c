"""From weights to graphs that ONNX Runtime runs. Needs ``rechka[export]``; recognition never imports this package."""
