"""What every verb has in common: options, errors, pager, manual, completion."""
