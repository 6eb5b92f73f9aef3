"""Tables, figures, ledger and page; reads results only."""
