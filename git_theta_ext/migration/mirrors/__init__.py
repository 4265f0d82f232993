"""A branch of git-lfs files beside one of manifests: `kept` here, and `sent` to a remote."""
