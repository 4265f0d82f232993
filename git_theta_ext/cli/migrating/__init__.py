"""The words of `git theta migrate`, `mirror`, `import-dvc` and `import-hf`."""
