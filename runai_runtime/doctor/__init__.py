"""runai-ctl doctor: what would stop this host from working, or from holding a share, and how to mend it."""
