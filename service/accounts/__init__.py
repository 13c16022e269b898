"""Who may do what: accounts and keys."""
