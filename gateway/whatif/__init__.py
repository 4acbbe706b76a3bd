"""What would have been: the requests of the ledger, decided and priced once more under other rules. Asks nobody."""
