"""What `import git_theta_ext as theta` offers."""
