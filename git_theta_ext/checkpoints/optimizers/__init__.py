"""What an optimizer's file knows of a model: Adam's second moments, by the model's names."""
