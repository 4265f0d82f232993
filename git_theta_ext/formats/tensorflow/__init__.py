"""TensorFlow's checkpoints and TFLite."""
